//! PgBouncer in front of a PostgreSQL server, set up as a file that ships with the program says.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Child;
use tokio::time::{Instant, sleep};

use crate::{Postgres, tool};

/// The first version that knows prepared statements where it shares connections: `POOLER_MIN` of scripts/testbed/setup.sh.
const VERSION_MIN: [u32; 2] = [1, 21];
/// How long it may take to start.
const START_MAX: Duration = Duration::from_secs(30);
/// Connections to the server for each database: fewer than those who want one.
pub const CONNECTIONS: u32 = 4;
/// After this time without use a connection to the server is closed, in seconds: each test has many databases, and all of them
/// share the connections that the server has.
const IDLE_SECS: u32 = 1;

/// A pooler that runs until it is dropped.
#[derive(Debug)]
pub struct Pooler {
    address: SocketAddr,
    user: String,
    _child: Child,
    _folder: TempDir,
}

/// Starts one in front of a server, for all its databases, with the settings of this file but for addresses, users and numbers.
///
/// # Errors
/// [`crate::Missing`] when it is not installed, or too old; when it cannot be started, or the file is not as it was.
pub async fn pooler(server: &Postgres, shipped: &Path) -> Result<Pooler> {
    let said = tool::run("pgbouncer", &["--version"]).await?;
    if version(&String::from_utf8_lossy(&said)).is_none_or(|version| version < VERSION_MIN) {
        return Err(tool::missing("a newer pgbouncer"));
    }
    let mut command = tool::command("pgbouncer")?;
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let folder = tempfile::Builder::new().prefix("consign-pooler-").tempdir()?;
    let users = folder.path().join("users");
    std::fs::write(&users, format!("\"{}\" \"\"\n", server.user))?;
    let mut text = std::fs::read_to_string(shipped)?;
    for (theirs, own) in [
        ("consign = host=db.internal port=5432 dbname=consign", format!("* = host=127.0.0.1 port={}", server.port)),
        ("listen_addr = 0.0.0.0", "listen_addr = 127.0.0.1".to_owned()),
        (
            "listen_port = 6432",
            format!("listen_port = {}\nunix_socket_dir =\nserver_idle_timeout = {IDLE_SECS}", address.port()),
        ),
        ("auth_type = scram-sha-256", "auth_type = trust".to_owned()),
        ("auth_file = /etc/pgbouncer/userlist.txt", format!("auth_file = {}", users.display())),
        ("default_pool_size = 32", format!("default_pool_size = {CONNECTIONS}")),
    ] {
        ensure!(text.contains(theirs), "{} has no line {theirs}", shipped.display());
        text = text.replace(theirs, &own);
    }
    let settings = folder.path().join("pgbouncer.ini");
    std::fs::write(&settings, text)?;
    if std::fs::metadata("/proc/self")?.uid() == 0 {
        // It refuses to run as root, and may read its files again.
        set_readable(folder.path())?;
        command.args(["-u", "nobody"]);
    }
    let log = std::fs::File::create(folder.path().join("log"))?;
    let mut child = command.arg(&settings).stderr(log).spawn()?;
    let end = Instant::now() + START_MAX;
    while connect(address).await.is_err() {
        let said = || std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        let ended = child.try_wait()?;
        ensure!(ended.is_none() && Instant::now() < end, "pgbouncer does not start ({ended:?}): {}", said());
        sleep(Duration::from_millis(20)).await;
    }
    Ok(Pooler { address, user: server.user.clone(), _child: child, _folder: folder })
}

/// The first two numbers of the version that it says.
fn version(said: &str) -> Option<[u32; 2]> {
    let mut numbers = said.strip_prefix("PgBouncer ")?.split(['.', '\n']).map(|number| number.trim().parse().ok());
    Some([numbers.next()??, numbers.next()??])
}

fn set_readable(folder: &Path) -> Result<()> {
    let all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder, all).context("the folder of the pooler")
}

#[expect(clippy::disallowed_methods, reason = "loopback only, and no part of the program")]
async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect(address).await
}

impl Pooler {
    /// The address of a database by way of it; `direct` is that of the server itself.
    ///
    /// # Errors
    /// When that is no address of a database.
    pub fn url(&self, direct: &str) -> Result<String> {
        let database = direct.rsplit('/').next().context("an address with a database")?;
        Ok(format!("postgres://{}@{}/{database}", self.user, self.address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("PgBouncer 1.24.1\nlibevent 2.1.12-stable\n"), Some([1, 24]));
        assert_eq!(version("PgBouncer 1.9\n"), Some([1, 9]));
        assert!(version("PgBouncer 1.9.0") < Some(VERSION_MIN));
        assert_eq!(version("no such thing"), None);
    }
}
