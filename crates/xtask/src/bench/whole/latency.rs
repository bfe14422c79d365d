//! How long a task waits from its creation to its start: on an idle server, and behind somebody else's backlog.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use consign::id::TaskId;
use consign::store::{Jobs as _, SqliteStore, Store as _};
use serde_json::{Map, json};

use super::Place;
use super::origin::Origin;
use super::report::{Bars, Section, median, quantile};
use super::served::{Served, Setup};

pub(super) const TITLE: &str = "From created to started";
/// Tasks of a job of the backlog: the most that a job may have by default.
const TASKS_PER_JOB: u32 = 1000;
/// Between the end of a job and the next.
const PAUSE: Duration = Duration::from_millis(5);
/// Until what just happened has come to rest.
const REST: Duration = Duration::from_secs(1);

const BARS: Bars<'static> = Bars {
    file: "jobs-latency.svg",
    title: "Milliseconds from created to started",
    label: "less is better",
    series: &["median", "p99"],
};

/// What was seen of some jobs, in milliseconds.
struct Seen {
    name: &'static str,
    /// From the row's `created_at` to its `started_at`.
    started: Vec<f64>,
    /// From the request that makes the job to the request for its file at the source.
    fetched: Vec<f64>,
    /// From that request to the answer that the job has finished.
    finished: Vec<f64>,
    queued_after: u64,
}

/// Measures on an idle server, then behind a backlog that stands still, then behind one that is worked on.
///
/// # Errors
/// When a job does not finish.
pub(super) async fn measure(place: &Place<'_>) -> Result<Section> {
    let (jobs, backlog) = if place.small { (5, 2) } else { (500, 100) };
    // A host of its own for the backlog: transfers of one host wait for each other.
    let (origin, other) = (Origin::start("127.0.0.1").await?, Origin::start("127.0.0.2").await?);
    let server = Served::start(&Setup::new(&place.program, &place.folder)).await?;
    let store = SqliteStore::open_shared(server.database()).await?;
    let owner = server.new_key("backlog").await?;
    let mut all = Vec::new();
    all.push(sample(place, &server, &store, &origin, "idle", jobs).await?);

    let began = Instant::now();
    let held = queue(place, &server, &owner, &other.url("hold"), backlog).await?;
    let built_secs = began.elapsed().as_secs_f64();
    tokio::time::sleep(REST).await;
    all.push(sample(place, &server, &store, &origin, "behind a backlog that stands still", jobs).await?);
    for job in &held {
        server.call_as(&owner, "DELETE", &format!("/v2/jobs/{job}"), None).await?;
    }
    queue(place, &server, &owner, &other.url("bytes/1"), backlog).await?;
    all.push(sample(place, &server, &store, &origin, "behind a backlog that is worked on", jobs).await?);
    store.close().await;
    server.stop().await?;
    let figures = |seen: &Seen| vec![Some(median(&seen.started)), Some(quantile(&seen.started, 0.99))];
    let groups: Vec<_> = all.iter().map(|seen| (seen.name.to_owned(), figures(seen))).collect();
    Ok(Section { title: TITLE, text: told(jobs, backlog, built_secs, &all), plots: vec![BARS.plot(&groups)] })
}

/// Fills the queue of a user through the API, with tasks that import from `url`.
async fn queue(place: &Place<'_>, server: &Served, key: &str, url: &str, jobs: u32) -> Result<Vec<String>> {
    let mut made = Vec::new();
    for number in 1..=jobs {
        let tasks: Map<_, _> = (0..TASKS_PER_JOB)
            .map(|task| (format!("t{task}"), json!({ "operation": "import/url", "url": url })))
            .collect();
        let job = server.call_as(key, "POST", "/v2/jobs", Some(&json!({ "tasks": tasks }))).await?;
        made.push(job["data"]["id"].as_str().context("a job without id")?.to_owned());
        if number % 20 == 0 {
            place.say(&format!("{TITLE}: {} tasks queued", number * TASKS_PER_JOB));
        }
    }
    Ok(made)
}

async fn sample(
    place: &Place<'_>,
    server: &Served,
    store: &SqliteStore,
    origin: &Origin,
    name: &'static str,
    jobs: u32,
) -> Result<Seen> {
    let mut seen = Seen { name, started: Vec::new(), fetched: Vec::new(), finished: Vec::new(), queued_after: 0 };
    for number in 0..jobs {
        let mark = format!("{}-{number}", name.replace(' ', "-"));
        let began = Instant::now();
        let url = origin.url(&format!("seen/{mark}"));
        let job = server.run(json!({ "in": { "operation": "import/url", "url": url } })).await?;
        seen.finished.push(began.elapsed().as_secs_f64() * 1e3);
        let asked = origin.seen(&mark).context("nobody asked for the file")?;
        seen.fetched.push((asked - began).as_secs_f64() * 1e3);
        let id: TaskId = job["tasks"][0]["id"].as_str().context("a task without id")?.parse()?;
        let task = store.task_of_link(id).await?.context("the task is gone")?;
        let started = task.started_at.context("it never started")?;
        seen.started.push(started.since(task.created_at).as_secs_f64() * 1e3);
        tokio::time::sleep(PAUSE).await;
    }
    seen.queued_after = store.counts(consign::clock::Clock::system().now()).await?.queued;
    ensure!(seen.started.len() == jobs as usize, "not all jobs were seen");
    place.say(&format!("{TITLE}, {name}: median {:.2} ms", median(&seen.started)));
    Ok(seen)
}

fn told(jobs: u32, backlog: u32, built_secs: f64, all: &[Seen]) -> String {
    let tasks = backlog * TASKS_PER_JOB;
    let mut text = format!(
        "{jobs} jobs of one `import/url` each, one after the other, in milliseconds. *Created → started* is the difference of \
         the two moments in the task's row; *sent → asked for* is seen from outside, from the request that makes the job to the \
         request for the file at its source. The backlog is another user's, {tasks} tasks made through the API ({backlog} jobs \
         of {TASKS_PER_JOB}, {built_secs:.0} s); the one that stands still imports from a source that never ends, so that its \
         owner's 16 running tasks stay, the other is worked on meanwhile. Settings as shipped (SQLite, `synchronous=FULL`) on \
         disk.\n\n\
         | server | created → started: median | p99 | max | sent → asked for: median | p99 | sent → finished: median | p99 | \
         queued at the end |\n|---|---|---|---|---|---|---|---|---|\n"
    );
    for seen in all {
        let _ = writeln!(
            text,
            "| {} | **{:.2}** | **{:.2}** | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} | {} |",
            seen.name,
            median(&seen.started),
            quantile(&seen.started, 0.99),
            quantile(&seen.started, 1.0),
            median(&seen.fetched),
            quantile(&seen.fetched, 0.99),
            median(&seen.finished),
            quantile(&seen.finished, 0.99),
            seen.queued_after,
        );
    }
    text.push_str(&BARS.line());
    text
}
