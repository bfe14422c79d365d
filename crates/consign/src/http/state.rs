//! What every handler can reach.

use std::sync::{Arc, OnceLock};

use axum::extract::FromRef;
use tokio_util::sync::CancellationToken;

use super::body::View;
use super::event::Teller;
use super::limits::Limiter;
use super::live::Live;
use crate::clock::Clock;
use crate::config::Config;
use crate::files::Files;
use crate::operations::trial::Trials;
use crate::secret::Vault;
use crate::store::Store;
use crate::telemetry::health::Health;
use crate::telemetry::metrics::Metrics;

/// What every handler can reach. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AppState {
    /// Jobs, tasks, users.
    pub store: Arc<dyn Store>,
    /// The bytes of files.
    pub files: Files,
    /// Seals arguments and answers, signs forms and links.
    pub vault: Arc<Vault>,
    /// The time.
    pub clock: Clock,
    /// All settings.
    pub config: Arc<Config>,
    /// How clients reach the server, without a slash at the end; all links in answers start with it.
    pub public_url: Arc<str>,
    /// Counters of this process.
    pub metrics: Arc<Metrics>,
    /// Whether this process can work.
    pub health: Health,
    /// Bounds creations by key.
    pub limiter: Arc<Limiter>,
    /// Tries destinations.
    pub trials: Trials,
    /// Bounds live connections.
    pub live: Live,
    /// The server is about to stop: whoever waits should be answered.
    pub stopping: CancellationToken,
    /// What describes this server: costly to make, the same for everybody, and asked for without a key.
    pub manual: Arc<Manual>,
}

/// The descriptions of this server, each made when it is first asked for.
#[derive(Debug, Default)]
pub struct Manual {
    /// The OpenAPI document.
    pub document: OnceLock<Vec<u8>>,
    /// The same as a page.
    pub page: OnceLock<String>,
}

impl AppState {
    /// Puts the parts together.
    #[expect(clippy::too_many_arguments, reason = "each is a part of its own")]
    pub fn new(
        store: Arc<dyn Store>,
        files: Files,
        vault: Arc<Vault>,
        clock: Clock,
        config: Arc<Config>,
        public_url: &str,
        metrics: Arc<Metrics>,
        trials: Trials,
    ) -> Self {
        let limiter = Arc::new(Limiter::new(config.limits.creations_per_minute_max));
        let data_dir = config.data_dir.clone();
        let health = Health::new(Arc::clone(&store), files.clone(), clock.clone(), Arc::clone(&metrics), data_dir);
        let live = Live::counted(&metrics);
        let public_url = Arc::from(public_url.trim_end_matches('/'));
        Self {
            store,
            files,
            vault,
            clock,
            config,
            public_url,
            metrics,
            health,
            limiter,
            trials,
            live,
            stopping: CancellationToken::new(),
            manual: Arc::default(),
        }
    }

    /// Makes deliveries of what the outbox has to tell.
    pub fn teller(&self) -> Teller {
        let (store, vault) = (Arc::clone(&self.store), Arc::clone(&self.vault));
        Teller { store, view: self.view(), vault, clock: self.clock.clone() }
    }

    /// How answers are written to a client that is not known to need anything special.
    pub fn view(&self) -> View {
        View::new(Arc::clone(&self.public_url), Arc::clone(&self.vault))
    }
}

impl FromRef<AppState> for Health {
    fn from_ref(state: &AppState) -> Self {
        state.health.clone()
    }
}
