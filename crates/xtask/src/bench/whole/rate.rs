//! Jobs per second through HTTP, with durability on.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use consign::clock::Clock;
use consign::store::{SqliteStore, Store as _};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::Place;
use super::report::{Bars, Section, median};
use super::served::{Served, Setup};

pub(super) const TITLE: &str = "Jobs per second";
/// How often to look whether all jobs have ended.
const LOOK: Duration = Duration::from_millis(10);

const BARS: Bars<'static> =
    Bars { file: "jobs-rate.svg", title: "Jobs a second", label: "more is better", series: &["made", "ended"] };

/// One kind of job made by so many clients at once.
struct Lane {
    name: &'static str,
    clients: u32,
    tasks: fn() -> Value,
}

/// What one round of a lane took.
struct Round {
    made_secs: f64,
    ended_secs: f64,
    /// Of the server, in seconds.
    cpu: f64,
}

fn upload() -> Value {
    json!({ "file": { "operation": "import/upload" } })
}

fn import() -> Value {
    json!({ "in": { "operation": "import/raw", "file": "hello", "filename": "a.txt" } })
}

fn chain() -> Value {
    json!({ "in": { "operation": "import/raw", "file": "hello", "filename": "a.txt" },
        "out": { "operation": "export/url", "input": "in" } })
}

const LANES: [Lane; 5] = [
    Lane { name: "made only (`import/upload`)", clients: 1, tasks: upload },
    Lane { name: "made only (`import/upload`)", clients: 32, tasks: upload },
    Lane { name: "`import/raw`", clients: 1, tasks: import },
    Lane { name: "`import/raw`", clients: 32, tasks: import },
    Lane { name: "`import/raw` → `export/url`", clients: 32, tasks: chain },
];

/// Runs all lanes in turns.
///
/// # Errors
/// When a job cannot be made.
pub(super) async fn measure(place: &Place<'_>) -> Result<Section> {
    let (jobs, rounds): (u32, u32) = (if place.small { 5 } else { 1000 }, place.rounds(3));
    let server = Arc::new(Served::start(&Setup::new(&place.program, &place.folder)).await?);
    let store = SqliteStore::open_shared(server.database()).await?;
    let mut all: Vec<Vec<Round>> = LANES.iter().map(|_| Vec::new()).collect();
    for number in 0..=rounds {
        for (lane, seen) in LANES.iter().zip(&mut all) {
            // One client alone is slow: fewer will do.
            let jobs = if lane.clients == 1 { jobs / 4 + 1 } else { jobs };
            let round = run(&server, &store, lane, jobs).await?;
            place.say(&format!(
                "{TITLE}: round {number} of {rounds}, {}, {} clients: {:.0} made, {:.0} ended a second",
                lane.name,
                lane.clients,
                f64::from(jobs) / round.made_secs,
                f64::from(jobs) / round.ended_secs
            ));
            // The first fills caches.
            if number > 0 {
                let share = 1.0 / f64::from(jobs);
                let Round { made_secs, ended_secs, cpu } = round;
                let each = Round { made_secs: made_secs * share, ended_secs: ended_secs * share, cpu: cpu * share };
                seen.push(each);
            }
        }
    }
    store.close().await;
    Ok(Section { title: TITLE, text: told(jobs, rounds, &all), plots: vec![BARS.plot(&groups(&all))] })
}

async fn run(server: &Arc<Served>, store: &SqliteStore, lane: &Lane, jobs: u32) -> Result<Round> {
    let body = Arc::new(json!({ "tasks": (lane.tasks)() }));
    let left = Arc::new(AtomicU32::new(jobs));
    let (cpu, began) = (server.cpu_secs()?, Instant::now());
    let mut clients = JoinSet::new();
    for _ in 0..lane.clients {
        let (server, left, body) = (Arc::clone(server), Arc::clone(&left), Arc::clone(&body));
        clients.spawn(async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                server.call("POST", "/v2/jobs", Some(&body)).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    let made_secs = began.elapsed().as_secs_f64();
    loop {
        let counts = store.counts(Clock::system().now()).await?;
        let waiting = if ends(lane) { counts.delayed } else { 0 };
        if counts.queued + counts.running + waiting == 0 {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(Round { made_secs, ended_secs: began.elapsed().as_secs_f64(), cpu: server.cpu_secs()? - cpu })
}

/// Whether its jobs end: uploads wait for a file that nobody sends.
fn ends(lane: &Lane) -> bool {
    !lane.name.contains("upload")
}

fn groups(all: &[Vec<Round>]) -> Vec<(String, Vec<Option<f64>>)> {
    let group = |(lane, rounds): (&Lane, &Vec<Round>)| {
        let speed = |figure: fn(&Round) -> f64| 1.0 / median(&rounds.iter().map(figure).collect::<Vec<_>>());
        let ended = ends(lane).then(|| speed(|round| round.ended_secs));
        let who = if lane.clients == 1 { "1 client" } else { "32 clients" };
        (format!("{}, {who}", lane.name.replace('`', "")), vec![Some(speed(|round| round.made_secs)), ended])
    };
    LANES.iter().zip(all).map(group).collect()
}

fn told(jobs: u32, rounds: u32, all: &[Vec<Round>]) -> String {
    let mut text = format!(
        "Medians of {rounds} rounds of {jobs} jobs (a quarter of it for one client), all lanes in turns. Each creation is a \
         commit that has reached the disk before it is answered (SQLite, `synchronous=FULL`; those that come together share one), \
         and each file is synced, with the folders that name it, before its task ends. CPU is the server's; clients and \
         server share the machine.\n\n\
         | job | clients | made a second | ended a second | server's CPU ms a job |\n|---|---|---|---|---|\n"
    );
    for (lane, rounds) in LANES.iter().zip(all) {
        let of = |figure: fn(&Round) -> f64| median(&rounds.iter().map(figure).collect::<Vec<_>>());
        let ended =
            if ends(lane) { format!("**{:.0}**", 1.0 / of(|round| round.ended_secs)) } else { "–".to_owned() };
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {ended} | {:.2} |",
            lane.name,
            lane.clients,
            1.0 / of(|round| round.made_secs),
            of(|round| round.cpu) * 1e3,
        );
    }
    text.push_str(&BARS.line());
    text
}
