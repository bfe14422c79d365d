//! How time and memory grow with the number of tasks in a job.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value, json};

use super::Place;
use super::report::{Growing, Section, is_enough_cpu, told_cpu};
use super::served::{Served, Setup};

pub(super) const TITLE: &str = "Tasks in a job";
const MIB: f64 = 1024.0 * 1024.0;

/// Tasks of the largest job.
const TASKS_MAX: u32 = 10_000;
/// Of a chain, whose tasks run one after the other: ten thousand would take a minute and a half.
const CHAIN_MAX: u32 = 3_000;

/// How the tasks of a job hang together.
struct Shape {
    name: &'static str,
    tasks: fn(u32) -> Map<String, Value>,
    /// Most tasks that are worth their time.
    tasks_max: u32,
}

const SHAPES: [Shape; 4] = [
    Shape { name: "side by side", tasks: wide, tasks_max: TASKS_MAX },
    Shape { name: "a chain", tasks: chain, tasks_max: CHAIN_MAX },
    Shape { name: "all into one", tasks: into_one, tasks_max: TASKS_MAX },
    Shape { name: "one into all", tasks: from_one, tasks_max: TASKS_MAX },
];

/// What a job took.
struct Sample {
    tasks: u32,
    /// Seconds until it is accepted.
    create_secs: f64,
    /// Seconds from there until it has finished, while somebody waits for it and somebody follows its events.
    run_secs: f64,
    cpu_secs: f64,
    read_secs: f64,
    delete_secs: f64,
    peak_bytes: f64,
}

fn import() -> Value {
    json!({ "operation": "import/raw", "file": "x", "filename": "a.txt" })
}

fn export(input: &Value) -> Value {
    json!({ "operation": "export/url", "input": input })
}

fn wide(count: u32) -> Map<String, Value> {
    (0..count).map(|number| (format!("t{number}"), import())).collect()
}

fn chain(count: u32) -> Map<String, Value> {
    let task = |number: u32| match number.checked_sub(1) {
        None => import(),
        Some(before) => export(&json!(format!("t{before}"))),
    };
    (0..count).map(|number| (format!("t{number}"), task(number))).collect()
}

fn into_one(count: u32) -> Map<String, Value> {
    let mut tasks = wide(count.saturating_sub(1).max(1));
    let inputs: Vec<String> = tasks.keys().cloned().collect();
    tasks.insert("last".to_owned(), export(&json!(inputs)));
    tasks
}

fn from_one(count: u32) -> Map<String, Value> {
    let mut tasks = Map::from_iter([("first".to_owned(), import())]);
    tasks.extend((1..count).map(|number| (format!("t{number}"), export(&json!("first")))));
    tasks
}

/// Runs jobs of every shape and size on one server.
///
/// # Errors
/// When a job does not finish.
pub(super) async fn measure(place: &Place<'_>) -> Result<Section> {
    let steps: &[u32] = if place.small { &[1, 5] } else { &[1, 10, 100, 1_000, CHAIN_MAX, TASKS_MAX] };
    let more = [("CONSIGN_LIMITS__TASKS_PER_JOB_MAX", "10000")];
    let server = Served::start(&Setup { more: &more, ..Setup::new(&place.program, &place.folder) }).await?;
    sample(&server, wide(1)).await?;
    let mut all: Vec<(&'static str, Vec<Sample>)> = SHAPES.iter().map(|shape| (shape.name, Vec::new())).collect();
    let mut left_out = Vec::new();
    let began = Instant::now();
    for &tasks in steps {
        for (shape, (_, samples)) in SHAPES.iter().zip(&mut all) {
            if tasks > shape.tasks_max || place.is_late(began) {
                left_out.push(format!("{} of {}", shape.name, crate::bench::figures::thousands(tasks.into())));
                continue;
            }
            let sample = sample(&server, (shape.tasks)(tasks)).await?;
            place.say(&format!(
                "{TITLE}: {tasks} {}: made in {:.2} s, run in {:.2} s, CPU {:.2} s",
                shape.name, sample.create_secs, sample.run_secs, sample.cpu_secs
            ));
            samples.push(sample);
        }
    }
    server.stop().await?;
    Ok(Section { title: TITLE, text: told(&all, &left_out), plots: plots(&all) })
}

async fn sample(server: &Served, tasks: Map<String, Value>) -> Result<Sample> {
    let count = u32::try_from(tasks.len())?;
    server.reset_peak()?;
    let (cpu, began) = (server.cpu_secs()?, Instant::now());
    let made = server.call("POST", "/v2/jobs", Some(&json!({ "tasks": tasks }))).await?;
    let create_secs = began.elapsed().as_secs_f64();
    let id = made["data"]["id"].as_str().context("a job without id")?.to_owned();
    let began = Instant::now();
    let (wait, events) = (format!("/v2/jobs/{id}/wait"), format!("/v2/jobs/{id}/events"));
    let (job, told) = tokio::join!(server.call("GET", &wait, None), server.bytes(&events));
    let (run_secs, cpu_secs) = (began.elapsed().as_secs_f64(), server.cpu_secs()? - cpu);
    let peak_bytes = server.peak_bytes()?;
    let job = job?["data"].take();
    ensure!(job["status"] == "finished", "a job of {count} tasks ended as {}", job["status"]);
    let finished = String::from_utf8_lossy(&told?).matches("event: task.finished").count();
    ensure!(finished == count as usize, "{finished} of {count} ends were told");
    let began = Instant::now();
    server.bytes(&format!("/v2/jobs/{id}")).await?;
    let read_secs = began.elapsed().as_secs_f64();
    let began = Instant::now();
    server.remove(&job).await?;
    let delete_secs = began.elapsed().as_secs_f64();
    Ok(Sample { tasks: count, create_secs, run_secs, cpu_secs, read_secs, delete_secs, peak_bytes })
}

fn told(all: &[(&'static str, Vec<Sample>)], left_out: &[String]) -> String {
    let mut text = String::from(
        "Tasks of `import/raw` (one byte) and `export/url`; one client waits for the job, another follows its server-sent \
         events to the end. The default allows 1,000 tasks in a job (`limits.tasks_per_job_max`, raised here to 10,000); a \
         request may have 16 MiB. *One into all* and *all into one* have one task that is the input of all others, or has all as \
         its input.\n\n| shape | tasks | accepted ms/task | run ms/task | CPU ms/task | read ms | delete ms | peak MiB |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for (shape, samples) in all {
        for sample in samples {
            let each = |secs: f64| secs * 1e3 / f64::from(sample.tasks);
            let _ = writeln!(
                text,
                "| {shape} | {} | {:.3} | **{:.2}** | **{}** | {:.1} | {:.1} | {:.0} |",
                crate::bench::figures::thousands(sample.tasks.into()),
                each(sample.create_secs),
                each(sample.run_secs),
                told_cpu(sample.cpu_secs, |secs| format!("{:.2}", each(secs))),
                sample.read_secs * 1e3,
                sample.delete_secs * 1e3,
                sample.peak_bytes / MIB,
            );
        }
    }
    if !left_out.is_empty() {
        let _ = writeln!(text, "\nNot measured, as it would take too long: {}.", left_out.join(", "));
    }
    text.push_str("\n![milliseconds a task](growth-tasks.svg)\n\n![CPU a task](growth-tasks-cpu.svg)\n");
    text
}

fn plots(all: &[(&'static str, Vec<Sample>)]) -> Vec<(String, String)> {
    let lines = |figure: fn(&Sample) -> Option<f64>| {
        let point = |sample: &Sample| Some((sample.tasks.into(), figure(sample)? * 1e3 / f64::from(sample.tasks)));
        all.iter().map(|(name, samples)| (*name, samples.iter().filter_map(point).collect())).collect()
    };
    let time =
        Growing { title: "Milliseconds a task, from accepted to finished", across: "tasks in the job", up: "ms" };
    let cpu = Growing { title: "The server's CPU a task, all in all", across: "tasks in the job", up: "ms" };
    vec![
        ("growth-tasks.svg".to_owned(), time.plot(lines(|sample| Some(sample.run_secs)))),
        (
            "growth-tasks-cpu.svg".to_owned(),
            cpu.plot(lines(|sample| Some(sample.cpu_secs).filter(|secs| is_enough_cpu(*secs)))),
        ),
    ]
}
