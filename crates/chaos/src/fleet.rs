//! The processes of a run, what they share, and the paths between them. How these break is in [`mod@crate::strike`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use testkit::proxy::Proxy;
use testkit::{Ceph, OwnPostgres};
use tokio::sync::Mutex;

use crate::Options;
use crate::destinations::Destinations;
use crate::disk::Disk;
use crate::gate::Gate;
use crate::history::History;
use crate::network::{NETWORK_CIDR, Network, Wire};
use crate::process::Process;
use crate::schedule::Targets;

/// Tasks of a process at once, and of the one user in all processes: fewer than there are places.
pub(crate) const TASKS_RUNNING: u64 = 6;
/// Where a process of a fleet does not run alone, fewer tasks of one user may run than there are places.
pub(crate) const TASKS_PER_USER: u64 = 12;
/// How long a process that is asked to stop still serves: the balancer looks ten times meanwhile.
const DRAIN_DELAY: &str = "1s";
/// The database of a fleet.
const DATABASE: &str = "app";

/// The processes of a run by their names, with their roles.
pub(crate) const FLEET: [(&str, &str); 5] =
    [("api-1", "api"), ("api-2", "api"), ("runner-1", "runner"), ("runner-2", "runner"), ("runner-3", "runner")];
/// The same where there is one.
pub(crate) const ONE: [(&str, &str); 1] = [("all", "all")];

/// All processes; they end when dropped.
pub(crate) struct Fleet {
    pub(crate) processes: Vec<Arc<Process>>,
    pub(crate) destinations: Arc<Destinations>,
    pub(crate) history: Arc<History>,
    pub(crate) network: Network,
    pub(crate) postgres: Option<Mutex<OwnPostgres>>,
    /// The file store fails on demand here, for all.
    pub(crate) files: Option<Gate>,
    /// The paths of each process, which fall silent where there are no wires to be cut.
    pub(crate) paths: BTreeMap<(String, Wire), Proxy>,
    pub(crate) no_disk: Option<String>,
    /// Held by the one fault that is on at a target where a second one would end the first.
    pub(crate) turns: BTreeMap<String, Mutex<()>>,
}

impl Fleet {
    /// Prepares the processes; none is started.
    pub(crate) async fn prepare(
        options: &Options,
        folder: &Path,
        bucket: &str,
        network: Network,
        destinations: Arc<Destinations>,
        history: Arc<History>,
    ) -> Result<Self> {
        let postgres = if options.fleet { Some(database().await?) } else { None };
        let has_store = options.fleet && options.shared_files;
        let no_disk = Disk::why_not().await;
        if let (Some(why), None) = (&no_disk, network.why_not()) {
            // Whoever may make namespaces of networks may make those of mounts.
            ensure!(!testkit::in_ci(), "{why}");
        }
        let server = destinations.ceph().addr();
        let files = if has_store { Some(Gate::start([127, 0, 0, 1].into(), server).await?) } else { None };
        let mut fleet = Self {
            processes: Vec::new(),
            destinations,
            history,
            network,
            postgres: postgres.map(Mutex::new),
            files,
            paths: BTreeMap::new(),
            no_disk,
            turns: ["destinations", "files"].map(|target| (target.to_owned(), Mutex::default())).into(),
        };
        for (name, role) in options.processes() {
            let mut settings = common(options, folder);
            if options.fleet {
                settings.extend(fleet.shared(name, bucket).await?);
            }
            let mut process = Process::new(name, role, &options.program, folder, &settings)?;
            if let Some(namespace) = fleet.network.namespace(name) {
                process.live_in(namespace, fleet.network.inside(name));
            }
            if fleet.no_disk.is_none() {
                process.mount().await?;
            }
            fleet.turns.insert((*name).to_owned(), Mutex::default());
            fleet.processes.push(Arc::new(process));
        }
        Ok(fleet)
    }

    /// The settings that make a fleet: the database and the file store, each reached by way of a path of its own.
    async fn shared(&mut self, name: &str, bucket: &str) -> Result<Vec<(String, String)>> {
        let server = self.postgres.as_ref().context("no database")?.lock().await.server().clone();
        let database = self.path(name, Wire::Database, ([127, 0, 0, 1], server.port).into()).await?;
        let url = server.url(DATABASE).replace(&format!("127.0.0.1:{}/", server.port), &format!("{database}/"));
        let mut settings = vec![setting("DATABASE_URL", url)];
        if let Some(gate) = self.files.as_ref().map(Gate::addr) {
            let files = self.path(name, Wire::Files, gate).await?;
            let Ceph { region, account, .. } = self.destinations.ceph();
            settings.push(setting("FILES_URL", format!("s3://{bucket}/files?endpoint=http://{files}&region={region}")));
            settings.push(setting("FILES__ACCESS_KEY_ID", account.access_key_id.clone()));
            settings.push(setting("FILES__SECRET_ACCESS_KEY", account.secret_access_key.clone()));
        }
        Ok(settings)
    }

    /// Opens a path to a server, and says where a process has to knock.
    async fn path(&mut self, name: &str, wire: Wire, server: SocketAddr) -> Result<SocketAddr> {
        let path = Proxy::start_on(self.network.outside(name, wire), server).await?;
        let addr = path.addr();
        self.paths.insert((name.to_owned(), wire), path);
        Ok(addr)
    }

    /// Where the database is for who looks at it from outside, by no path that is cut.
    pub(crate) async fn database_url(&self) -> Option<String> {
        Some(self.postgres.as_ref()?.lock().await.server().url(DATABASE))
    }

    /// Who can be struck.
    pub(crate) fn targets(&self) -> Targets {
        let names = |is: fn(&Process) -> bool| {
            self.processes.iter().filter(|process| is(process)).map(|process| process.name.clone()).collect()
        };
        Targets {
            apis: names(Process::is_api),
            runners: names(Process::is_runner),
            has_database: self.postgres.is_some(),
            has_file_store: self.files.is_some(),
        }
    }

    /// One sentence for people.
    pub(crate) fn describe(&self, options: &Options) -> String {
        let names: Vec<&str> = self.processes.iter().map(|process| process.name.as_str()).collect();
        let places: Vec<&str> = self.destinations.places().iter().map(|place| place.name()).collect();
        let store = match (options.fleet, options.shared_files) {
            (true, true) => "PostgreSQL, files in the object store",
            (true, false) => "PostgreSQL, files in a shared folder",
            (false, _) => "SQLite, files in a folder",
        };
        format!(
            "{} s of faults: {} on {store}; delivering to {}",
            options.length.as_secs(),
            names.join(", "),
            places.join(", ")
        )
    }

    /// How many tasks of one user may run at once.
    pub(crate) fn per_user_max(&self) -> u64 {
        let runners = self.processes.iter().filter(|process| process.is_runner()).count() as u64;
        TASKS_PER_USER.min(runners * TASKS_RUNNING)
    }

    /// Where a single process keeps its files, as seen from here.
    pub(crate) fn local_files(&self) -> Option<PathBuf> {
        let process = self.processes.iter().find(|process| process.role() == "all")?;
        let files = process.data_dir().join("files");
        Some(process.disk.as_ref().map_or(files.clone(), |disk| disk.seen_from_outside(&files)))
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.processes.iter().filter(|process| process.is_api()).map(|process| process.address).collect()
    }

    /// Starts all processes, several at once: they must agree on who makes the tables.
    pub(crate) async fn start(&self) -> Result<()> {
        let mut starting = tokio::task::JoinSet::new();
        for process in &self.processes {
            let process = Arc::clone(process);
            starting.spawn(async move { process.hold().await.start().await });
        }
        while let Some(started) = starting.join_next().await {
            started??;
        }
        Ok(())
    }
}

/// A PostgreSQL server that keeps what it has acknowledged, with an empty database.
async fn database() -> Result<OwnPostgres> {
    let postgres = testkit::own_postgres().await?;
    postgres.server().psql("postgres", &format!("CREATE DATABASE {DATABASE}")).await?;
    Ok(postgres)
}

fn setting(name: &str, value: impl Into<String>) -> (String, String) {
    (format!("CONSIGN_{name}"), value.into())
}

/// The settings of all processes.
fn common(options: &Options, folder: &Path) -> Vec<(String, String)> {
    let mut settings = vec![
        setting("SECRET_KEY", STANDARD.encode([7; 32])),
        setting("PUBLIC_URL", "http://consign.test"),
        setting("EGRESS__ALLOW", format!("127.0.0.0/8,{NETWORK_CIDR}")),
        setting("LOG__LEVEL", "info,consign=debug"),
        setting("LIMITS__TASKS_RUNNING_MAX", TASKS_RUNNING.to_string()),
        setting("LIMITS__TASKS_PER_USER_MAX", TASKS_PER_USER.to_string()),
        setting("LIMITS__CREATIONS_PER_MINUTE_MAX", "100000"),
        // However often it is struck, a task has to succeed in the end: then a failure is a fault of the program.
        setting("LIMITS__ATTEMPTS_MAX", "100"),
        setting("TRANSFER__PART_BYTES", "5MiB"),
        setting("TRANSFER__IDLE_TIMEOUT", "5s"),
        setting("TRANSFER__OVERLAP", options.overlap.to_string()),
        setting("SWIFT__SEGMENT_BYTES", "5MiB"),
    ];
    if options.fleet {
        settings.push(setting("LIMITS__DRAIN_DELAY", DRAIN_DELAY));
    }
    if options.fleet && !options.shared_files {
        settings.push(setting("FILES_URL", format!("file://{}", folder.join("files").display())));
    }
    settings
}
