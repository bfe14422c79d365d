//! A server of the command's own, on a free port and in a folder that goes when the command ends.

use std::net::SocketAddr;

use tempfile::TempDir;

use super::Failure;
use super::api::Api;
use crate::config::Config;
use crate::server::{Role, Server};

/// The server and its folder.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) server: Server,
    pub(super) api: Api,
    /// Removed when dropped.
    folder: TempDir,
}

impl Local {
    /// Starts a server with these settings, but on a free port of this machine and in a folder of its own.
    pub(super) async fn start(config: Config) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("consign-").tempdir()?;
        let config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            sync_listen: None,
            metrics_listen: None,
            public_url: None,
            data_dir: folder.path().join("data"),
            database_url: None,
            files_url: None,
            files: crate::config::FileStore::default(),
            secret_key: None,
            secret_key_file: None,
            tls: crate::config::Tls::default(),
            ..config
        };
        let server = Server::start(config, Role::All).await?;
        let key = server.first_key().map(|first| first.key.clone()).unwrap_or_default();
        let api = Api::new(server.public_url(), key)?;
        Ok(Self { server, api, folder })
    }

    /// Stops the server and removes its folder.
    pub(super) async fn stop(self) -> Result<(), Failure> {
        self.server.stop().await;
        self.folder.close()?;
        Ok(())
    }
}
