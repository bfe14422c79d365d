//! What transfers hold in memory: one of any size, and a hundred at once.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use consign::config::Transfer;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Place;
use super::origin::Origin;
use super::report::{Growing, Section, median};
use super::served::{Served, Setup};
use crate::bench::transfers::null_sink::NullSink;

pub(super) const ONE: &str = "One transfer, whatever its size";
pub(super) const MANY: &str = "A hundred transfers at once";
/// What one transfer may hold, the program included.
const ONE_BUDGET_MIB: f64 = 128.0;
/// What each of many holds beside the parts, which share a budget: batches on their way to the disk, connections.
const EACH_BUDGET_MIB: f64 = 4.0;
const MIB: f64 = 1024.0 * 1024.0;

/// A server that holds files on disk, and what it speaks to.
struct Scene {
    server: Served,
    sink: NullSink,
    origin: Origin,
}

impl Scene {
    async fn start(place: &Place<'_>, more: &[(&str, &str)]) -> Result<Self> {
        let sink = NullSink::swallowing(&place.folder).await?;
        let origin = Origin::start("127.0.0.1").await?;
        let setup = Setup { ca_file: Some(sink.ca_file()), more, ..Setup::new(&place.program, &place.folder) };
        Ok(Self { server: Served::start(&setup).await?, sink, origin })
    }

    fn bucket(&self, operation: &str, key: &str) -> Value {
        json!({ "operation": operation, "bucket": "bench", "region": "default", "key": key, "endpoint": self.sink.endpoint(),
            "access_key_id": "bench", "secret_access_key": "bench" })
    }

    /// Runs a job, and looks at what it took.
    async fn run(&self, tasks: Value, size: u64) -> Result<(Value, Held)> {
        self.server.reset_peak()?;
        let began = Instant::now();
        let job = self.server.run(tasks).await?;
        let held = Held { peak_mib: self.server.peak_bytes()? / MIB, secs: began.elapsed().as_secs_f64() };
        let files = job["tasks"].as_array().into_iter().flatten().map(|task| &task["result"]["files"][0]["size"]);
        ensure!(files.clone().all(|moved| *moved == size), "not every file is whole: {:?}", files.collect::<Vec<_>>());
        Ok((job, held))
    }

    /// SHA-256 of what a task holds, as its receipt in another task tells it: an import tells none.
    async fn sha256(&self, task: &Value) -> Result<Value> {
        let job = self.server.run(json!({ "out": { "operation": "export/url", "input": [task["id"]] } })).await?;
        Ok(job["tasks"][0]["result"]["files"][0]["sha256"].clone())
    }
}

/// What a transfer took.
#[derive(Clone, Copy, Debug)]
struct Held {
    peak_mib: f64,
    secs: f64,
}

/// One file there and back, in growing sizes.
///
/// # Errors
/// When something does not run or is not whole.
pub(super) async fn one(place: &Place<'_>) -> Result<Section> {
    let sizes: &[u64] = if place.small { &[9, 20] } else { &[1 << 10, 5 << 10, 20 << 10] };
    let mut rows = Vec::new();
    for &mebibytes in sizes {
        let size = mebibytes << 20;
        // A server for each size, so that none has the memory of the one before.
        let folder = tempfile::tempdir_in(&place.folder)?;
        let place = Place { folder: folder.path().to_owned(), program: place.program.clone(), ..*place };
        let scene = Scene::start(&place, &[("CONSIGN_LIMITS__FILE_BYTES_MAX", "100GiB")]).await?;
        let url = scene.origin.url(&format!("bytes/{size}"));
        let (job, fetched) = scene.run(json!({ "in": { "operation": "import/url", "url": url } }), size).await?;
        let mut export = scene.bucket("export/s3", "one.bin");
        export["input"] = json!([job["tasks"][0]["id"]]);
        let (exported, sent) = scene.run(json!({ "out": export }), size).await?;
        // Room for what comes back.
        scene.server.remove(&job).await?;
        let (back, read) = scene.run(json!({ "in": scene.bucket("import/s3", "one.bin") }), size).await?;
        let (there, here) =
            (&exported["tasks"][0]["result"]["files"][0]["sha256"], scene.sha256(&back["tasks"][0]).await?);
        ensure!(there.is_string() && *there == here, "other bytes came back than were sent: {there}, {here}");
        scene.server.stop().await?;
        place.say(&format!(
            "{ONE}: {mebibytes} MiB: import/url {:.0} MiB, export/s3 {:.0} MiB, import/s3 {:.0} MiB",
            fetched.peak_mib, sent.peak_mib, read.peak_mib
        ));
        rows.push((mebibytes, [fetched, sent, read]));
    }
    let line = |at: usize| rows.iter().map(|(size, held)| (gibibytes(*size), held[at].peak_mib)).collect();
    let lines = vec![("import/url", line(0)), ("export/s3", line(1)), ("import/s3", line(2))];
    let plot = Growing { title: "Memory of one transfer", across: "GiB", up: "peak MiB" }.plot(lines);
    let name = "memory-one.svg";
    let text = format!("{}\n![peak of the resident set]({name})\n", told_one(&rows));
    Ok(Section { title: ONE, text, plots: vec![(name.to_owned(), plot)] })
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn gibibytes(mebibytes: u64) -> f64 {
    mebibytes as f64 / 1024.0
}

fn told_one(rows: &[(u64, [Held; 3])]) -> String {
    let mut text = format!(
        "One file from a web server inside the benchmark, then to an S3 server over TLS that swallows it, then back from there in \
         ranges; a server of ours for each size, files on disk, settings as shipped. The S3 server compares every byte with what the \
         web server gave, and the SHA-256 of what comes back is compared with that of what was sent. The figure is the largest resident set of the \
         whole process meanwhile. **Goal: {ONE_BUDGET_MIB:.0} MiB, the same at every size.**\n\n\
         | GiB | import/url: peak MiB | MiB/s | export/s3: peak MiB | MiB/s | import/s3: peak MiB | MiB/s |\n\
         |---|---|---|---|---|---|---|\n"
    );
    for (mebibytes, helds) in rows {
        let _ = write!(text, "| {:.2} |", gibibytes(*mebibytes));
        for held in helds {
            let _ = write!(text, " **{:.0}** | {:.0} |", held.peak_mib, gibibytes(*mebibytes) * 1024.0 / held.secs);
        }
        text.push('\n');
    }
    let largest = rows.iter().flat_map(|(_, helds)| helds).map(|held| held.peak_mib).fold(0.0, f64::max);
    let verdict = if largest <= ONE_BUDGET_MIB { "kept" } else { "**missed**" };
    let _ = writeln!(text, "\nThe largest is {largest:.0} MiB: the goal is {verdict}.");
    text
}

/// So many imports at once, then so many exports at once.
///
/// # Errors
/// When something does not run or is not whole.
pub(super) async fn many(place: &Place<'_>) -> Result<Section> {
    let (count, mebibytes) = if place.small { (3_usize, 9_u64) } else { (100, 64) };
    let size = mebibytes << 20;
    let at_once = (count + 1).to_string();
    let names = ["TASKS_RUNNING_MAX", "TASKS_PER_USER_MAX", "TRANSFERS_PER_HOST_MAX"];
    let names = names.map(|name| format!("CONSIGN_LIMITS__{name}"));
    let more: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), at_once.as_str())).collect();
    let scene = Scene::start(place, &more).await?;
    // What the imports read.
    let url = scene.origin.url(&format!("bytes/{size}"));
    let (seed, _) = scene.run(json!({ "in": { "operation": "import/url", "url": url } }), size).await?;
    let mut export = scene.bucket("export/s3", "many.bin");
    export["input"] = json!([seed["tasks"][0]["id"]]);
    let (sown, _) = scene.run(json!({ "out": export }), size).await?;
    let idle_mib = scene.server.resident_bytes()? / MIB;
    let (imported, read) = scene.run(side_by_side(count, |_| scene.bucket("import/s3", "many.bin")), size).await?;
    let ids: Vec<&Value> = imported["tasks"].as_array().context("tasks")?.iter().map(|task| &task["id"]).collect();
    let exports = side_by_side(count, |number| {
        let mut export = scene.bucket("export/s3", &format!("many-{number}.bin"));
        export["input"] = json!([ids[number]]);
        export
    });
    let (exported, sent) = scene.run(exports, size).await?;
    let all = || exported["tasks"].as_array().into_iter().flatten().map(|task| &task["result"]["files"][0]["sha256"]);
    let sha256 = &sown["tasks"][0]["result"]["files"][0]["sha256"];
    ensure!(sha256.is_string() && all().all(|sent| sent == sha256), "other bytes came than were sent");
    scene.server.stop().await?;
    place.say(&format!("{MANY}: imports {:.0} MiB, exports {:.0} MiB", read.peak_mib, sent.peak_mib));
    let rows = [("import/s3", read, Turns::of(&imported)?), ("export/s3", sent, Turns::of(&exported)?)];
    Ok(Section { title: MANY, text: told_many(count, mebibytes, idle_mib, &rows), plots: Vec::new() })
}

/// A job of so many tasks that have nothing to do with each other.
fn side_by_side(count: usize, task: impl Fn(usize) -> Value) -> Value {
    Value::Object((0..count).map(|number| (format!("t{number}"), task(number))).collect::<Map<_, _>>())
}

/// When the tasks of a job ran.
struct Turns {
    /// Seconds, each from its start: the median, the quickest, the slowest.
    took_secs: [f64; 3],
    /// The most that ran at the same moment.
    at_once: usize,
}

impl Turns {
    fn of(job: &Value) -> Result<Self> {
        let (mut took, mut moments) = (Vec::new(), Vec::new());
        for task in job["tasks"].as_array().context("tasks")? {
            let moment = |name: &str| -> Result<OffsetDateTime> {
                let text = task[name].as_str().with_context(|| format!("{name}: {}", task[name]))?;
                Ok(OffsetDateTime::parse(text, &Rfc3339)?)
            };
            let (started, ended) = (moment("started_at")?, moment("ended_at")?);
            took.push((ended - started).as_seconds_f64());
            moments.extend([(started, 1), (ended, -1)]);
        }
        // Of what happens at the same moment, ends come first.
        moments.sort_unstable();
        let mut running = 0_isize;
        let at_once = moments.iter().map(|(_, change)| {
            running += change;
            running
        });
        let at_once = at_once.max().unwrap_or(0).unsigned_abs();
        let low = took.iter().copied().fold(f64::INFINITY, f64::min);
        let high = took.iter().copied().fold(0.0, f64::max);
        Ok(Self { took_secs: [median(&took), low, high], at_once })
    }
}

fn told_many(count: usize, mebibytes: u64, idle_mib: f64, rows: &[(&str, Held, Turns)]) -> String {
    #[expect(clippy::cast_precision_loss, reason = "some hundred")]
    let (transfers, total_mib) = (count as f64, (count as u64 * mebibytes) as f64);
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let parts_mib = Transfer::default().memory_bytes.as_u64() as f64 / MIB;
    let budget = idle_mib + parts_mib + EACH_BUDGET_MIB * transfers;
    let mut text = format!(
        "{count} tasks of one job, of {mebibytes} MiB each, which may all run at once (`limits.tasks_running_max` and its like are raised \
         to {at_once}), against an S3 server over TLS inside the benchmark, which compares every byte; files on disk. Without a common budget the parts alone \
         could take {count} × 32 MiB. **Budget: what the process holds idle ({idle_mib:.0} MiB), `transfer.memory_bytes` as shipped \
         ({parts_mib:.0} MiB), and {EACH_BUDGET_MIB:.0} MiB for each transfer: {budget:.0} MiB.** Fair means that nobody waits \
         while others go on: all begin together, so that the quickest should take about as long as the slowest.\n\n\
         | | peak MiB | MiB/s in all | most at the same moment | seconds a task: median | quickest | slowest |\n|---|---|---|---|---|---|---|\n",
        at_once = count + 1,
    );
    for (name, held, Turns { took_secs: [middle, quickest, slowest], at_once }) in rows {
        let _ = writeln!(
            text,
            "| {count} × `{name}` | **{:.0}** | {:.0} | {at_once} | {middle:.1} | {quickest:.1} | {slowest:.1} |",
            held.peak_mib,
            total_mib / held.secs,
        );
    }
    let largest = rows.iter().map(|(_, held, _)| held.peak_mib).fold(0.0, f64::max);
    let _ = writeln!(text, "\nThe budget is {}.", if largest <= budget { "kept" } else { "**missed**" });
    text
}
