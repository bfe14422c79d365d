//! The processes of a run, what they share, and the paths between them that break on demand.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use testkit::proxy::Proxy;
use testkit::{Ceph, OwnPostgres};
use tokio::sync::Mutex;
use tokio::time::sleep;

use crate::client::Client;
use crate::history::{Event, History};
use crate::process::Process;
use crate::schedule::{Fault, Kind, Targets};
use crate::{Options, destinations::Destinations};

/// Tasks of a process at once, and of the one user in all processes: fewer than there are places.
const TASKS_RUNNING: u64 = 6;
/// Where a process of a fleet does not run alone, fewer tasks of one user may run than there are places.
pub(crate) const TASKS_PER_USER: u64 = 12;
/// How long a process that is asked to stop still serves: the balancer looks ten times meanwhile.
const DRAIN_DELAY: &str = "1s";
/// After a process of the API said that it is ready, before the next one is restarted.
const ROLLING_PAUSE: Duration = Duration::from_millis(500);

/// The database of a fleet.
const DATABASE: &str = "app";
/// Ends about half of all its sessions.
const END_BACKENDS: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
     WHERE datname = 'app' AND pid <> pg_backend_pid() AND random() < 0.5";

/// All processes; they end when dropped.
pub(crate) struct Fleet {
    pub(crate) processes: Vec<Arc<Process>>,
    pub(crate) destinations: Arc<Destinations>,
    history: Arc<History>,
    postgres: Option<Mutex<OwnPostgres>>,
    /// The paths of each runner to the database and to the file store.
    database_paths: BTreeMap<String, Proxy>,
    files_paths: BTreeMap<String, Proxy>,
    no_disk: Option<String>,
}

impl Fleet {
    /// Prepares the processes; none is started.
    pub(crate) async fn prepare(
        options: &Options,
        folder: &Path,
        bucket: &str,
        destinations: Arc<Destinations>,
        history: Arc<History>,
    ) -> Result<Self> {
        let postgres = if options.fleet { Some(database().await?) } else { None };
        let mut fleet = Self {
            processes: Vec::new(),
            destinations,
            history,
            postgres: postgres.map(Mutex::new),
            database_paths: BTreeMap::new(),
            files_paths: BTreeMap::new(),
            no_disk: None,
        };
        let names: &[(&str, &'static str)] = if options.fleet {
            &[
                ("api-1", "api"),
                ("api-2", "api"),
                ("runner-1", "runner"),
                ("runner-2", "runner"),
                ("runner-3", "runner"),
            ]
        } else {
            &[("all", "all")]
        };
        for (name, role) in names {
            let mut settings = common(options, folder);
            if options.fleet {
                settings.extend(fleet.shared(name, bucket, options.shared_files).await?);
            }
            let mut process = Process::new(name, role, &options.program, folder, &settings)?;
            if process.is_runner()
                && let Err(why) = process.mount().await
            {
                fleet.no_disk = Some(format!("{why:#}"));
            }
            fleet.processes.push(Arc::new(process));
        }
        Ok(fleet)
    }

    /// The settings that make a fleet: the database and the file store, each reached by way of a path of its own.
    async fn shared(&mut self, name: &str, bucket: &str, is_store: bool) -> Result<Vec<(String, String)>> {
        let server = self.postgres.as_ref().context("no database")?.lock().await.server().clone();
        let database = Proxy::start(SocketAddr::from(([127, 0, 0, 1], server.port))).await?;
        let url = server.url(DATABASE).replace(&format!(":{}/", server.port), &format!(":{}/", database.addr().port()));
        let mut settings = vec![setting("DATABASE_URL", url)];
        self.database_paths.insert(name.to_owned(), database);
        if is_store {
            let Ceph { region, account, .. } = self.destinations.ceph();
            let path = Proxy::start(self.destinations.ceph().addr()).await?;
            let endpoint = format!("http://{}", path.addr());
            settings.push(setting("FILES_URL", format!("s3://{bucket}/files?endpoint={endpoint}&region={region}")));
            settings.push(setting("FILES__ACCESS_KEY_ID", account.access_key_id.clone()));
            settings.push(setting("FILES__SECRET_ACCESS_KEY", account.secret_access_key.clone()));
            self.files_paths.insert(name.to_owned(), path);
        }
        Ok(settings)
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
            has_file_store: !self.files_paths.is_empty(),
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
    pub(crate) fn running_max(&self) -> u64 {
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

    /// Carries a fault out, from its beginning to its end, and writes both down.
    pub(crate) async fn strike(&self, number: usize, fault: &Fault, client: &Client) -> Result<()> {
        if let (Kind::DiskFull, Some(why)) = (fault.kind, &self.no_disk) {
            self.history.note(Event::Skipped { kind: fault.kind, why: why.clone() });
            return Ok(());
        }
        let blow = Blow { fleet: self, number, fault, client };
        match fault.kind {
            Kind::Kill | Kind::Freeze => blow.at_process().await?,
            Kind::Restart => blow.restart().await?,
            Kind::DatabaseCrash | Kind::BackendsEnded => blow.at_database().await?,
            Kind::DatabaseCut => blow.at_path(&self.database_paths).await?,
            Kind::FilesCut => blow.at_path(&self.files_paths).await?,
            Kind::DestinationErrors => blow.at_destinations(Destinations::answer_errors).await,
            Kind::DestinationAnswersLost => blow.at_destinations(Destinations::lose_answers).await,
            Kind::DestinationCut => blow.at_destinations(Destinations::cut).await,
            Kind::DiskFull => blow.at_disk().await?,
        }
        self.history.note(Event::Healed { number });
        Ok(())
    }
}

/// A fault that is being carried out.
struct Blow<'a> {
    fleet: &'a Fleet,
    number: usize,
    fault: &'a Fault,
    client: &'a Client,
}

impl Blow<'_> {
    fn begin(&self) {
        let Fault { kind, target, .. } = self.fault;
        self.fleet.history.note(Event::Fault { number: self.number, kind: *kind, target: target.clone() });
    }

    fn process(&self) -> Result<&Process> {
        let named = self.fleet.processes.iter().find(|process| process.name == self.fault.target);
        named.map(Arc::as_ref).context("no such process")
    }

    async fn at_process(&self) -> Result<()> {
        let process = self.process()?;
        let mut held = process.hold().await;
        self.begin();
        if self.fault.kind == Kind::Freeze {
            held.freeze(self.fault.lasts).await?;
        } else {
            held.kill().await?;
            sleep(self.fault.lasts).await;
            held.start().await?;
        }
        drop(held);
        self.is_ready(process).await;
        Ok(())
    }

    /// One after the other.
    async fn restart(&self) -> Result<()> {
        let is_meant = |process: &&Arc<Process>| match process.role() {
            "api" => self.fault.target == "api",
            _ => process.name == self.fault.target,
        };
        self.begin();
        for process in self.fleet.processes.iter().filter(is_meant) {
            let mut held = process.hold().await;
            held.stop().await?;
            held.start().await?;
            drop(held);
            self.is_ready(process).await;
            sleep(ROLLING_PAUSE).await;
        }
        Ok(())
    }

    async fn at_database(&self) -> Result<()> {
        let mut postgres = self.fleet.postgres.as_ref().context("no database")?.lock().await;
        self.begin();
        if self.fault.kind == Kind::DatabaseCrash {
            postgres.restart().await?;
        } else {
            postgres.server().psql("postgres", END_BACKENDS).await?;
        }
        drop(postgres);
        for process in self.fleet.processes.iter().filter(|process| process.is_api()) {
            self.is_ready(process).await;
        }
        Ok(())
    }

    async fn at_path(&self, paths: &BTreeMap<String, Proxy>) -> Result<()> {
        let path = paths.get(&self.fault.target).context("no such path")?;
        self.begin();
        path.stall_after(0);
        sleep(self.fault.lasts).await;
        path.cut();
        path.heal();
        Ok(())
    }

    async fn at_destinations(&self, strike: fn(&Destinations)) {
        self.begin();
        strike(&self.fleet.destinations);
        sleep(self.fault.lasts).await;
        self.fleet.destinations.heal();
    }

    async fn at_disk(&self) -> Result<()> {
        let disk = self.process()?.disk.as_ref().context("no disk")?;
        self.begin();
        disk.fill().await?;
        sleep(self.fault.lasts).await;
        disk.empty().await
    }

    /// Waits until a process of the API says that it can work; one that has no API said so when it started.
    async fn is_ready(&self, process: &Process) {
        while process.is_api() && !self.client.is_ready(process.address).await {
            sleep(Duration::from_millis(20)).await;
        }
        self.fleet.history.note(Event::Ready { number: self.number });
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
        setting("EGRESS__ALLOW", "127.0.0.0/8"),
        setting("LOG__LEVEL", "info,consign=debug"),
        setting("LIMITS__TASKS_RUNNING_MAX", TASKS_RUNNING.to_string()),
        setting("LIMITS__TASKS_PER_USER_MAX", TASKS_PER_USER.to_string()),
        setting("LIMITS__CREATIONS_PER_MINUTE_MAX", "100000"),
        // However often it is struck, a task has to succeed in the end: then a failure is a fault of the program.
        setting("LIMITS__ATTEMPTS_MAX", "100"),
        setting("TRANSFER__PART_BYTES", "5MiB"),
        setting("TRANSFER__IDLE_TIMEOUT", "5s"),
        // Every other seed tries what is sent ahead.
        setting("TRANSFER__OVERLAP", (options.seed % 2 == 1).to_string()),
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
