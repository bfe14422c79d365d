//! Opens the database that the settings name.

use std::path::PathBuf;
use std::sync::Arc;

use connectors::Secret;

use super::{Error, Role};
use crate::config::Config;
use crate::secret::Vault;
use crate::store::postgres::Options;
use crate::store::{PostgresStore, SqliteStore, Store};

/// Which database the settings name.
#[derive(Debug)]
pub enum Place {
    /// A file, which one server at a time can use.
    File(PathBuf),
    /// A PostgreSQL server, which any number of processes can share.
    Server(Secret),
}

impl Place {
    /// Reads the settings.
    ///
    /// # Errors
    /// [`Error::Setting`] when they name something else.
    pub fn of(config: &Config) -> Result<Self, Error> {
        let Some(url) = &config.database_url else { return Ok(Self::File(config.data_dir.join("consign.db"))) };
        let text = url.expose();
        if let Some(path) = text.strip_prefix("sqlite://") {
            return Ok(Self::File(PathBuf::from(path)));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Server(url.clone()));
        }
        let message = "database_url: use `sqlite://PATH` or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`";
        Err(Error::Setting(message.to_owned()))
    }

    /// Whether other processes may use it while this one does.
    pub fn is_shared(&self) -> bool {
        match self {
            Self::File(_) => false,
            Self::Server(_) => true,
        }
    }

    /// Refuses a role that could do nothing here: with one process at a time on the database, nobody would run the jobs of an
    /// API alone, and nobody could give any to a runner alone.
    pub(super) fn check_role(&self, role: Role) -> Result<(), Error> {
        let name = match role {
            Role::All => return Ok(()),
            Role::Api => "api",
            Role::Runner => "runner",
        };
        if self.is_shared() {
            return Ok(());
        }
        let message = format!(
            "--role {name} needs a database that processes share, and only one process at a time can use SQLite: set \
             database_url to PostgreSQL (`postgres://…`), or leave --role out"
        );
        Err(Error::Setting(message))
    }

    /// Opens it. `exclusive` takes the lock that only one server may hold, where the database has one.
    pub(super) async fn open(&self, config: &Config, exclusive: bool) -> Result<Arc<dyn Store>, Error> {
        Ok(match self {
            Self::File(path) if exclusive => Arc::new(SqliteStore::open(path).await?),
            Self::File(path) => Arc::new(SqliteStore::open_shared(path).await?),
            Self::Server(url) => {
                let settings = &config.database;
                let options = Options { connections_max: settings.connections_max, listen: settings.listen };
                Arc::new(PostgresStore::open(url, options).await?)
            }
        })
    }

    /// Makes sure that the processes of a fleet have the same secret key: with different ones they could neither read each
    /// other's tasks nor follow each other's links.
    pub(super) async fn check_key(&self, store: &dyn Store, vault: &Vault) -> Result<(), Error> {
        let own = vault.fingerprint();
        if store.agree_on("secret_key", own).await? == own {
            return Ok(());
        }
        if self.is_shared() {
            let message = "secret_key is not the one that this database is used with; give every process the same \
                           `secret_key` or `secret_key_file`. If the old one is lost, and with it all stored arguments and links: \
                           DELETE FROM meta WHERE name = 'secret_key'";
            return Err(Error::Setting(message.to_owned()));
        }
        tracing::warn!("the secret key has changed: what was stored before cannot be read");
        Ok(())
    }
}
