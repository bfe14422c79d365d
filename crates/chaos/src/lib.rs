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
mod destinations;
mod dice;
mod disk;
mod fleet;
mod history;
mod jobs;
mod outside;
mod process;
mod schedule;
mod summary;
mod workload;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

pub use check::{Violation, check};
pub use history::{Entry, Event, History, Status, read};
pub use jobs::{Change, Follow, Import, Place, Spec};
pub use schedule::Kind;
pub use summary::summary;

use client::Client;
use destinations::Destinations;
use dice::Dice;
use fleet::Fleet;
use outside::Outside;
use workload::Clients;

/// Jobs under way at once.
const JOBS_AT_ONCE: usize = 24;
/// How long jobs may take to end when all is calm: 15 s until the last lease is over, the longest pause between two
/// attempts, and their work.
const SETTLE_TIMEOUT: Duration = Duration::from_mins(3);
/// Between two looks at how many tasks run.
const SAMPLE_EVERY: Duration = Duration::from_millis(200);

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
    /// Where the history is written to.
    pub history: PathBuf,
    /// A new job so often.
    pub job_every: Duration,
    /// Only faults whose name contains this text, and far enough apart that each is over before the next.
    pub faults: String,
}

/// What a run showed.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// A text for people.
    pub summary: String,
    /// Broken promises.
    pub violations: BTreeSet<Violation>,
}

/// Runs it.
///
/// # Errors
/// [`testkit::Missing`] when the machine lacks a server; when the harness itself fails.
pub async fn run(options: &Options) -> Result<Outcome> {
    let folder = tempfile::Builder::new().prefix("consign-chaos-").tempdir()?;
    let history = Arc::new(History::begin(&options.history)?);
    let bucket = format!("chaos-{:x}-{}", options.seed, std::process::id());
    let destinations = Arc::new(Destinations::start(&bucket, options.all_destinations).await?);
    let files = format!("{bucket}-files");
    destinations.ceph().create_bucket(&files).await?;
    let fleet = Fleet::prepare(options, folder.path(), &files, Arc::clone(&destinations), Arc::clone(&history));
    let fleet = Arc::new(fleet.await?);
    let outside = Arc::new(Outside::start(Arc::clone(&history)).await?);
    let any = fleet.processes.first().context("a process")?;
    let key = any.run(&["key", "create", "chaos", "--user", "chaos"]).await?;
    outside.expect_secret(&any.run(&["webhook-secret", "--user", "chaos"]).await?);
    fleet.start().await?;
    let client = Client::new(fleet.addresses(), &key, Arc::clone(&history))?;
    let clients = Arc::new(Clients {
        client,
        history: Arc::clone(&history),
        destinations,
        outside,
        local_files: fleet.local_files(),
    });
    history.note(Event::Began { seed: options.seed, fleet: fleet.describe(options), running_max: fleet.running_max() });
    storm(options, &fleet, &clients).await?;
    aftermath::look(options, folder.path(), &files, &clients).await?;
    let entries = history.entries();
    let violations = check(&entries);
    let mut summary = summary(&entries, &violations);
    if !violations.is_empty() {
        for process in &fleet.processes {
            let _ = write!(summary, "\n== the last lines of {}\n{}\n", process.name, process.log_tail(12));
        }
    }
    Ok(Outcome { summary, violations })
}

/// Lets jobs and faults meet, and returns when both are over.
async fn storm(options: &Options, fleet: &Arc<Fleet>, clients: &Arc<Clients>) -> Result<()> {
    let history = Arc::clone(&clients.history);
    let died = Arc::clone(&history);
    let mut beside = JoinSet::new();
    beside.spawn(process::supervise(fleet.processes.clone(), move |process, how| {
        died.note(Event::Died { process: process.to_owned(), how });
    }));
    beside.spawn(clients.client.clone().probe());
    beside.spawn(sample(Arc::clone(clients)));
    let (faults, jobs) = tokio::join!(strike(options, fleet, clients), make_jobs(options, clients));
    faults?;
    // What could not be finished is seen by the checker: as a job that has not ended, or is not there.
    if timeout(SETTLE_TIMEOUT, settled(jobs)).await.is_err() {
        history.note(Event::Skipped { kind: Kind::Kill, why: "jobs have not ended in time".to_owned() });
    }
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
            let struck = fleet.strike(number, &fault, &client).await;
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

async fn settled(mut jobs: JoinSet<Result<()>>) {
    // A client that gave up has told so in the history: the job is not accepted, or has not ended.
    while jobs.join_next().await.is_some() {}
}

/// Notes how many tasks run.
async fn sample(clients: Arc<Clients>) {
    loop {
        if let Some(count) = aftermath::metric(&clients.client, "consign_tasks_running").await {
            clients.history.note(Event::Running { count });
        }
        sleep(SAMPLE_EVERY).await;
    }
}
