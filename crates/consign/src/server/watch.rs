//! Lets operators see how a process does: health and metrics, also on an address of their own.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Base, Error, listen};
use crate::files::Files;
use crate::runner::Runner;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

/// What operators see of a process.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) health: Health,
    pub(super) metrics: Arc<Metrics>,
    /// Where health and metrics are served alone.
    pub(super) address: Option<SocketAddr>,
    listener: Option<TcpListener>,
    /// The last to be served is who asks how the server does.
    pub(super) gone: CancellationToken,
}

impl Watch {
    /// Takes the address of the settings; nobody is served yet.
    pub(super) async fn open(base: &Base, files: Files) -> Result<Self, Error> {
        let listener = match base.config.metrics_listen {
            Some(address) => Some(listen::bind(address).await?),
            None => None,
        };
        let metrics = Arc::new(Metrics::new());
        let (store, clock, data_dir) = (Arc::clone(&base.store), base.clock.clone(), base.config.data_dir.clone());
        let health = Health::new(store, files, clock, Arc::clone(&metrics), data_dir);
        let address = listener.as_ref().and_then(|listener| listener.local_addr().ok());
        Ok(Self { health, metrics, address, listener, gone: CancellationToken::new() })
    }

    /// Begins to serve, and to look at the runner, too.
    pub(super) fn begin(&mut self, runner: Option<Runner>) {
        if let Some(runner) = runner {
            self.health.watch("runner", move || runner.trouble());
        }
        if let Some(listener) = self.listener.take() {
            let (router, open) = (crate::http::health::router(self.health.clone()), self.metrics.connections.clone());
            tokio::spawn(listen::serve(listener, None, router, open, self.gone.clone()));
        }
    }
}
