//! Puts the parts together: settings in, a serving process out.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use connectors::http::Client;
use connectors::{Budget, Network, Secret};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::Config;
use crate::files::Files;
use crate::http::AppState;
use crate::http::body::View;
use crate::http::event::Teller;
use crate::operations::trial::Trials;
use crate::runner::{Runner, Tools};
use crate::secret::Vault;
use crate::store::Store;
use crate::webhooks::{self, Dispatcher};

pub mod database;
pub mod file_store;
mod first_key;
mod key_file;
mod listen;
pub mod network;
pub mod tls;
mod watch;

pub use crate::runner::ownership;
use database::Place;
pub use first_key::FirstKey;
use watch::Watch;

/// Which parts of the server a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    All,
    /// The API only.
    Api,
    /// The runner only.
    Runner,
}

/// Why the server cannot start; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder or file cannot be used.
    #[error("{action} {path}: {source}", path = path.display())]
    Disk {
        /// What was tried, as in "cannot create".
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another address with `listen`")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A setting cannot be used.
    #[error("{0}")]
    Setting(String),
    /// The database cannot be used.
    #[error("the database cannot be used: {0}")]
    Store(#[from] crate::store::Error),
    /// The database cannot be opened.
    #[error("{0}")]
    Open(#[from] crate::store::sqlite::OpenError),
    /// The database server cannot be used.
    #[error("{0}")]
    Connect(#[from] crate::store::postgres::OpenError),
    /// The file store cannot be used.
    #[error("the file store cannot be used: {0}")]
    Files(#[from] crate::files::Error),
}

/// What both the server and the command line need of a data directory.
#[derive(Clone, Debug)]
pub struct Base {
    /// The settings.
    pub config: Arc<Config>,
    /// The time.
    pub clock: Clock,
    /// The store.
    pub store: Arc<dyn Store>,
    /// Encrypts and signs.
    pub vault: Arc<Vault>,
    /// Memory for the parts of all transfers.
    pub memory: Budget,
    /// Other processes may use the database at the same time.
    pub is_shared: bool,
}

impl Base {
    /// Opens the data directory of the settings, which is made if need be.
    ///
    /// `exclusive` takes the lock that only one server may hold.
    ///
    /// # Errors
    /// What cannot be used, and what to do.
    pub async fn open(config: Config, exclusive: bool) -> Result<Self, Error> {
        let clock = Clock::system();
        make_private_folder(&config.data_dir)?;
        let vault = Arc::new(key_file::vault(&config)?);
        let place = Place::of(&config)?;
        let store = place.open(&config, exclusive).await?;
        place.check_key(store.as_ref(), &vault).await?;
        let memory = Budget::new(config.transfer.memory_bytes.as_u64());
        Ok(Self { config: Arc::new(config), memory, clock, store, vault, is_shared: place.is_shared() })
    }

    /// How clients reach the server: as the settings say, as the server said that ran here last, or as it would by its
    /// settings.
    pub fn public_url(&self) -> String {
        let told = || std::fs::read_to_string(self.config.data_dir.join(PUBLIC_URL)).ok();
        let told = if self.config.public_url.is_none() { told() } else { None };
        told.unwrap_or_else(|| self.config.public_url_at(self.config.listen))
    }

    /// Opens the file store of the settings.
    ///
    /// # Errors
    /// [`Error::Files`], [`Error::Setting`].
    pub async fn files(&self) -> Result<Files, Error> {
        file_store::open(&self.config, &self.memory).await
    }
}

/// File in the data directory that tells commands where the server listens: its port may be a free one, or a flag's.
const PUBLIC_URL: &str = "public-url";

/// Makes a folder, and what it lies in, that only this user can use; one that is there stays as it is.
pub(crate) fn make_private_folder(path: &std::path::Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|source| Error::Disk {
        action: "cannot create the data directory",
        path: path.to_owned(),
        source,
    })
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    base: Base,
    runner: Option<Runner>,
    dispatcher: Option<Dispatcher>,
    address: Option<SocketAddr>,
    sync_address: Option<SocketAddr>,
    public_url: String,
    key: first_key::Found,
    watch: Watch,
    trials: Trials,
    stop: CancellationToken,
    connections: TaskTracker,
}

/// Where clients come in: bound, but nobody is served yet.
struct Doors {
    tls: Option<Arc<tls::Certificate>>,
    listener: TcpListener,
    address: SocketAddr,
    sync_listener: Option<TcpListener>,
}

impl Doors {
    async fn open(config: &Config) -> Result<Self, Error> {
        let tls = tls::Certificate::open(&config.tls)?.map(Arc::new);
        let listener = listen::bind(config.listen).await?;
        let address = listener.local_addr().map_err(|source| Error::Listen { address: config.listen, source })?;
        let sync_listener = match config.sync_listen {
            Some(address) => Some(listen::bind(address).await?),
            None => None,
        };
        Ok(Self { tls, listener, address, sync_listener })
    }
}

impl Server {
    /// Starts a server and returns once it accepts connections.
    ///
    /// All that can fail is done before the first key is made and before the runner takes a task: a start that fails
    /// must neither lose the only sight of the key nor cost a task an attempt.
    ///
    /// # Errors
    /// What cannot be used, and what to do.
    pub async fn start(config: Config, role: Role) -> Result<Self, Error> {
        listen::raise_open_files();
        if role == Role::Runner && config.public_url.is_none() {
            tracing::warn!(
                "public_url is not set: links in what webhooks are told lead to this process, which serves nobody"
            );
        }
        Place::of(&config)?.check_role(role)?;
        let base = Base::open(config, true).await?;
        let files = base.files().await?;
        file_store::claim(base.store.as_ref(), &files).await?;
        let config = Arc::clone(&base.config);
        let network = Network { memory: base.memory.clone(), ..network::open(&config)? };
        let doors = match role {
            Role::Runner => None,
            Role::All | Role::Api => Some(Doors::open(&config).await?),
        };
        let mut watch = Watch::open(&base, files.clone()).await?;
        watch.metrics.watch_memory(base.memory.clone());
        let key = first_key::make_if_none(&base).await?;
        let trials = Trials::new(network.clone());
        let client = network.http.clone();
        let runner = match role {
            Role::Api => None,
            Role::All | Role::Runner => Some(
                Runner::start(Tools {
                    store: Arc::clone(&base.store),
                    files: files.clone(),
                    network,
                    vault: Arc::clone(&base.vault),
                    clock: base.clock.clone(),
                    config: Arc::clone(&config),
                    metrics: Arc::clone(&watch.metrics),
                    host_name: host_name(),
                    exclusive: !base.is_shared,
                })
                .await?,
            ),
        };
        watch.begin(runner.clone());
        let mut server = Self {
            base,
            runner,
            dispatcher: None,
            address: None,
            sync_address: None,
            public_url: config.public_url_at(config.listen),
            key,
            watch,
            trials,
            stop: CancellationToken::new(),
            connections: TaskTracker::new(),
        };
        if let Some(doors) = doors {
            server.serve(doors, files);
        }
        if role != Role::Api {
            server.dispatch(client).await?;
        }
        Ok(server)
    }

    /// Starts to tell webhooks. Needs the public address, which may only be known once the server listens.
    async fn dispatch(&mut self, client: Client) -> Result<(), Error> {
        let Base { config, clock, store, vault, is_shared, .. } = self.base.clone();
        let view = View::new(self.public_url.as_str().into(), Arc::clone(&vault));
        let teller = Teller { store: Arc::clone(&store), view, vault: Arc::clone(&vault), clock: clock.clone() };
        let (metrics, retention) = (Arc::clone(&self.watch.metrics), config.retention.0);
        let tools = webhooks::Tools { store, client, vault, clock, metrics, teller, retention, exclusive: !is_shared };
        let dispatcher = Dispatcher::start(tools).await?;
        let watched = dispatcher.clone();
        self.watch.health.watch("webhooks", move || watched.trouble());
        self.dispatcher = Some(dispatcher);
        Ok(())
    }

    fn serve(&mut self, doors: Doors, files: Files) {
        let config = Arc::clone(&self.base.config);
        self.public_url = config.public_url_at(doors.address);
        self.address = Some(doors.address);
        if let Err(error) = std::fs::write(config.data_dir.join(PUBLIC_URL), &self.public_url) {
            tracing::warn!(error = &error as &dyn std::error::Error, "commands cannot tell where the server listens");
        }
        let mut state = AppState::new(
            Arc::clone(&self.base.store),
            files,
            Arc::clone(&self.base.vault),
            self.base.clock.clone(),
            Arc::clone(&config),
            &self.public_url,
            Arc::clone(&self.watch.metrics),
            self.trials.clone(),
        );
        state.stopping = self.stop.clone();
        state.health = self.watch.health.clone();
        let open = self.watch.metrics.connections.clone();
        let serve = |listener, always_waits| {
            let router = crate::http::router(state.clone(), always_waits);
            self.connections.spawn(listen::serve(listener, doors.tls.clone(), router, open.clone(), self.stop.clone()));
        };
        serve(doors.listener, false);
        if let Some(listener) = doors.sync_listener {
            self.sync_address = listener.local_addr().ok();
            serve(listener, true);
        }
    }

    /// The address of the API.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// The address on which everything waits.
    pub fn sync_address(&self) -> Option<SocketAddr> {
        self.sync_address
    }

    /// The address of health and metrics alone.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.watch.address
    }

    /// What all links begin with, without a slash at the end.
    pub fn public_url(&self) -> &str {
        &self.public_url
    }

    /// The key that was made because there was none.
    pub fn first_key(&self) -> Option<&FirstKey> {
        match &self.key {
            first_key::Found::Made(key) => Some(key),
            first_key::Found::Some | first_key::Found::None => None,
        }
    }

    /// Whether there is no API key, so that nobody can use the API before one is made by hand.
    pub fn lacks_key(&self) -> bool {
        matches!(self.key, first_key::Found::None)
    }

    /// The store and what belongs to it.
    pub fn base(&self) -> &Base {
        &self.base
    }

    /// Stops: not ready any more, after `limits.drain_delay` no new connection, no new task; uploads, downloads and tasks under
    /// way get the grace time of the settings.
    pub async fn stop(self) {
        let grace = self.base.config.limits.stop_grace.0;
        self.watch.health.drain();
        self.connections.close();
        let requests = async {
            // Balancers are told first, and noticed by, before the first connection is refused.
            tokio::time::sleep(self.base.config.limits.drain_delay.0).await;
            self.stop.cancel();
            // Requests that only wait for a task are told to ask again, see `http::wait`, and idle connections are closed at
            // once: what is left moves bytes.
            if tokio::time::timeout(grace, self.connections.wait()).await.is_err() {
                tracing::info!("closing connections that are still open");
            }
            self.trials.settle().await;
        };
        let tasks = async {
            if let Some(runner) = &self.runner {
                runner.stop(grace).await;
            }
        };
        tokio::join!(requests, tasks);
        // Last, so that the ends of the last tasks have a chance to be told.
        if let Some(dispatcher) = &self.dispatcher {
            dispatcher.stop(grace.min(Duration::from_secs(5))).await;
        }
        self.watch.gone.cancel();
        self.base.store.close().await;
    }
}

/// The name of this machine.
pub fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Wraps a text that must not be shown by accident.
fn secret(text: impl Into<String>) -> Secret {
    Secret::new(text)
}
