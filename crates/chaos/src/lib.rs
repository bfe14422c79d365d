//! Kills, freezes, cuts off and fills up real processes of the program under load, and checks that nothing was lost.
//!
//! Start here: [`run`] starts a [`fleet`], lets [`workload`] make the jobs of [`jobs`] while the faults of [`schedule`] strike, and
//! writes everything down in a [`history`]. When all is calm, [`aftermath`] reads back what is there, [`check()`] says which
//! promises were broken and [`summary()`] what it took. Jobs and faults follow from the seed; how they meet does not: the
//! same seed may find a fault once and not again.

#![forbid(unsafe_code)]

mod aftermath;
mod check;
mod client;
mod count;
mod destinations;
mod dice;
mod disk;
mod fleet;
mod gate;
mod history;
mod jobs;
mod machine;
mod network;
mod outside;
mod process;
mod receiver;
mod recovery;
mod report;
mod schedule;
mod strike;
mod summary;
mod workload;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub use check::{Violation, check};
pub use history::{Entry, Event, History, Setup, Status, Whose, read};
pub use jobs::{Change, Follow, Import, Place, Spec};
pub use report::report;
pub use schedule::{Kind, long_enough};
pub use summary::summary;

use client::Client;
use count::Counts;
use destinations::Destinations;
use dice::Dice;
use fleet::Fleet;
use network::Network;
use outside::Outside;
use workload::Clients;

/// Jobs under way at once.
const JOBS_AT_ONCE: usize = 24;
/// How long jobs may take to end when all is calm: 15 s until the last lease is over, the longest pause between two
/// attempts, and their work.
const SETTLE_TIMEOUT: Duration = Duration::from_mins(3);
/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The program.
    pub program: PathBuf,
    /// Repeats jobs and faults.
    pub seed: u64,
    /// How long faults strike.
    pub length: Duration,
    /// Two processes of the API, three runners and PostgreSQL; else one process on SQLite.
    pub fleet: bool,
    /// A fleet's files are in the object store; else in a folder that all share.
    pub shared_files: bool,
    /// Deliver also to what is slow to start: Azurite, the stand-in for Google's storage, Swift.
    pub all_destinations: bool,
    /// Exports may begin while their import still arrives.
    pub overlap: bool,
    /// Where the history is written to.
    pub history: PathBuf,
    /// A new job so often.
    pub job_every: Duration,
    /// Only faults whose name contains this text, and far enough apart that each is over before the next.
    pub faults: String,
    /// What repeats the run, for whoever reads its history.
    pub command: String,
}

impl Options {
    /// The processes of the run, by name and role.
    fn processes(&self) -> &'static [(&'static str, &'static str)] {
        if self.fleet { &fleet::FLEET } else { &fleet::ONE }
    }
}

/// What a run showed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// A text for people.
    pub summary: String,
    /// Broken promises.
    pub violations: BTreeSet<Violation>,
    /// Kinds of faults that should have struck and never did: the run was too short.
    pub missed: BTreeSet<Kind>,
}

/// Runs it.
///
/// # Errors
/// [`testkit::Missing`] when the machine lacks a server; when the harness itself fails.
pub async fn run(options: &Options) -> Result<Outcome> {
    let folder = tempfile::Builder::new().prefix("consign-chaos-").tempdir()?;
    let history = Arc::new(History::begin(&options.history)?);
    let bucket = format!("chaos-{:x}-{}", options.seed, std::process::id());
    let names: Vec<&str> = options.processes().iter().map(|(name, _)| *name).collect();
    let network = Network::prepare(&names).await.context("the network")?;
    let world = network.world();
    let destinations = Arc::new(Destinations::start(world, &bucket, options.all_destinations).await?);
    let files = format!("{bucket}-files");
    destinations.ceph().create_bucket(&files).await?;
    let fleet =
        Fleet::prepare(options, folder.path(), &files, network, Arc::clone(&destinations), Arc::clone(&history));
    let fleet = Arc::new(fleet.await?);
    let outside = Arc::new(Outside::start(world, Arc::clone(&history)).await?);
    let any = fleet.processes.first().context("a process")?;
    let key = any.run(&["key", "create", "chaos", "--user", "chaos"]).await?;
    outside.expect_secret(&any.run(&["webhook-secret", "--user", "chaos"]).await?);
    history.note(Event::Began(setup(options, &fleet).await?));
    fleet.start().await?;
    let client = Client::new(fleet.addresses(), &key, Arc::clone(&history))?;
    let local_files = fleet.local_files();
    let clients = Clients { client, history: Arc::clone(&history), destinations, outside, local_files };
    let clients = Arc::new(clients);
    storm(options, &fleet, &clients).await?;
    aftermath::look(options, folder.path(), &files, &fleet, &clients).await?;
    tell_skipped(&history);
    let entries = history.entries();
    let violations = check(&entries);
    let mut summary = summary(&entries, &violations);
    let mut due = fleet.targets().kinds();
    due.retain(|kind| kind.name().contains(&options.faults));
    let missed = summary::missed(&due, &entries);
    for kind in &missed {
        let _ = writeln!(summary, "{:<40} NEVER STRUCK: the run is too short", kind.name());
    }
    if !violations.is_empty() {
        for process in &fleet.processes {
            let _ = write!(summary, "\n== the last lines of {}\n{}\n", process.name, process.log_tail(12));
        }
    }
    Ok(Outcome { summary, violations, missed })
}

async fn setup(options: &Options, fleet: &Fleet) -> Result<Setup> {
    let version = fleet.processes.first().context("a process")?.run(&["--version"]).await?;
    let profile = options.program.parent().and_then(|folder| folder.file_name()).unwrap_or_default();
    Ok(Setup {
        seed: options.seed,
        command: options.command.clone(),
        program: format!("{version} ({} build)", profile.display()),
        machine: machine::describe(),
        fleet: fleet.describe(options),
        network: fleet.network.describe(),
        overlap: options.overlap,
        per_user_max: fleet.per_user_max(),
        per_process_max: fleet::TASKS_RUNNING,
    })
}

/// What this machine does not allow is told with the tests that it skips.
fn tell_skipped(history: &History) {
    history.look(|entries| {
        for Entry { event, .. } in entries {
            if let Event::Skipped { kind, why } = event {
                testkit::note_skipped(&format!("skipped: chaos does not try \"{}\": {why}", kind.name()));
            } else if let Event::Began(setup) = event
                && !setup.network.starts_with("namespaces")
            {
                testkit::note_skipped(&format!("skipped: chaos cuts networks by {}", setup.network));
            }
        }
    });
}

/// Lets jobs and faults meet, and returns when both are over.
async fn storm(options: &Options, fleet: &Arc<Fleet>, clients: &Arc<Clients>) -> Result<()> {
    let history = Arc::clone(&clients.history);
    let mut beside = JoinSet::new();
    for process in &fleet.processes {
        beside.spawn(process::supervise(Arc::clone(process), Arc::clone(&history)));
    }
    beside.spawn(clients.client.clone().probe());
    let (counts, counting) = (Arc::new(Counts::new(Arc::clone(&history))), clients.client.clone());
    let (counter, database) = (Arc::clone(&counts), fleet.database_url().await);
    beside.spawn(async move {
        match database {
            Some(url) => counter.watch_rows(&url).await,
            None => counter.watch_metrics(&counting).await,
        }
    });
    let (faults, jobs) = tokio::join!(strike(options, fleet, clients), make_jobs(options, clients));
    faults?;
    if timeout(SETTLE_TIMEOUT, settled(jobs, &history)).await.is_err() {
        history.note(Event::GaveUp { why: format!("jobs have not ended within {} s", SETTLE_TIMEOUT.as_secs()) });
    }
    counts.conclude();
    history.note(Event::Settled);
    Ok(())
}

/// Carries the schedule out. A fault that lasts does not hold up the next.
async fn strike(options: &Options, fleet: &Arc<Fleet>, clients: &Arc<Clients>) -> Result<()> {
    let began = Instant::now();
    let mut striking = JoinSet::new();
    for (number, fault) in
        schedule::plan(options.seed, options.length, &fleet.targets(), &options.faults).into_iter().enumerate()
    {
        sleep_until(began + fault.at).await;
        let (fleet, client) = (Arc::clone(fleet), clients.client.clone());
        striking.spawn(async move {
            let struck = strike::strike(&fleet, number, &fault, &client).await;
            struck.with_context(|| format!("{} of {}", fault.kind.name(), fault.target))
        });
    }
    while let Some(struck) = striking.join_next().await {
        struck??;
    }
    clients.history.note(Event::Calm);
    Ok(())
}

/// Makes jobs for as long as faults strike; they are still under way when it returns.
async fn make_jobs(options: &Options, clients: &Arc<Clients>) -> JoinSet<Result<()>> {
    let (began, places) = (Instant::now(), clients.destinations.places());
    let seats = Arc::new(Semaphore::new(JOBS_AT_ONCE));
    let (mut dice, mut jobs) = (Dice::new(options.seed), JoinSet::new());
    for number in 0.. {
        let spec = Spec::draw(&mut dice, options.seed, number, &places);
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { break };
        if began.elapsed() >= options.length {
            break;
        }
        let clients = Arc::clone(clients);
        jobs.spawn(async move {
            let _seat = seat;
            clients.perform(&spec).await
        });
        sleep(options.job_every).await;
    }
    jobs
}

/// Waits for all clients, and writes down what went wrong with them.
async fn settled(mut jobs: JoinSet<Result<()>>, history: &History) {
    while let Some(ended) = jobs.join_next().await {
        if let Some(why) = gave_up(ended) {
            history.note(Event::GaveUp { why });
        }
    }
}

/// Why a client did not do what it is there for, if so.
fn gave_up(ended: Result<Result<()>, JoinError>) -> Option<String> {
    match ended {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(panic) => Some(format!("a client {panic}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_fails_or_panics_is_written_down() {
        let folder = tempfile::tempdir().unwrap();
        let history = History::begin(&folder.path().join("history")).unwrap();
        let mut jobs = JoinSet::new();
        jobs.spawn(async { Ok(()) });
        settled(jobs, &history).await;
        assert_eq!(history.entries(), []);
        for panics in [false, true] {
            let mut jobs = JoinSet::new();
            jobs.spawn(async move { if panics { panic!("a fault") } else { anyhow::bail!("refused") } });
            settled(jobs, &history).await;
        }
        let entries = history.entries();
        let why = |at: usize| if let Event::GaveUp { why } = &entries[at].event { why.as_str() } else { "" };
        assert!(why(0) == "refused" && why(1).contains("a fault"), "{entries:?}");
    }
}
