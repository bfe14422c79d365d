//! Whole jobs: `import/url` → `export/s3` of one large file, beside rclone doing the same in one go.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::origin::Origin;
use super::report::{Section, median, ratio};
use super::served::{Served, Setup};
use super::{Place, peer};
use crate::bench::cost::Cost;
use crate::bench::transfers::null_sink::NullSink;

pub(super) const TITLE: &str = "A whole job: import/url → export/s3";
/// As large and as many at once as Consign's defaults, and no MD5 of the whole file before it is sent.
const TUNED: [&str; 5] = ["--s3-chunk-size", "8M", "--s3-upload-concurrency", "4", "--s3-disable-checksum"];
const MIB: f64 = 1024.0 * 1024.0;

/// One round: all four, right after each other.
struct Round {
    memory: Cost,
    disk: Cost,
    shipped: Cost,
    tuned: Cost,
}

/// Runs the pairs.
///
/// # Errors
/// When something cannot be started, or does not deliver the file.
pub(super) async fn measure(place: &Place<'_>) -> Result<Section> {
    let (mebibytes, rounds) = (place.mebibytes(), place.rounds(3));
    let size = mebibytes * 1024 * 1024;
    let memory = place.in_memory()?;
    let sink = NullSink::start(&place.folder).await?;
    let origin = Origin::start("127.0.0.1").await?;
    let url = origin.url(&format!("bytes/{size}"));
    let setup = |folder| Setup { ca_file: Some(sink.ca_file()), ..Setup::new(&place.program, folder) };
    let in_memory = Served::start(&setup(memory.path())).await?;
    let on_disk = Served::start(&setup(&place.folder)).await?;
    let mut all = Vec::new();
    for number in 0..=rounds {
        let round = Round {
            memory: ours(&in_memory, &url, &sink, size).await?,
            disk: ours(&on_disk, &url, &sink, size).await?,
            shipped: theirs(&url, &sink, &[]).await?,
            tuned: theirs(&url, &sink, &TUNED).await?,
        };
        place.say(&format!(
            "{TITLE}: round {number} of {rounds}: {:.2} s in memory, {:.2} s on disk, rclone {:.2} s, tuned {:.2} s",
            round.memory.wall_secs, round.disk.wall_secs, round.shipped.wall_secs, round.tuned.wall_secs
        ));
        // The first opens connections and fills caches.
        if number > 0 {
            all.push(round);
        }
    }
    in_memory.stop().await?;
    on_disk.stop().await?;
    let text = format!("{}\n{}.\n", told(mebibytes, &all), peer::version("rclone", "version").await);
    Ok(Section { title: TITLE, text, plots: Vec::new() })
}

/// What one side took in a round.
type Side = fn(&Round) -> Cost;

async fn ours(server: &Served, url: &str, sink: &NullSink, size: u64) -> Result<Cost> {
    let tasks = json!({
        "in": { "operation": "import/url", "url": url },
        "out": { "operation": "export/s3", "input": "in", "bucket": "bench", "region": "default", "key": "ours.bin",
            "endpoint": sink.endpoint(), "access_key_id": "bench", "secret_access_key": "bench" },
    });
    server.reset_peak()?;
    let (cpu, began) = (server.cpu_secs()?, std::time::Instant::now());
    let job = server.run(tasks).await?;
    let (wall_secs, cpu_secs) = (began.elapsed().as_secs_f64(), server.cpu_secs()? - cpu);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size in bytes")]
    let peak_bytes = server.peak_bytes()? as u64;
    let sent: Vec<&Value> =
        job["tasks"].as_array().into_iter().flatten().map(|task| &task["result"]["files"]).collect();
    ensure!(sent.iter().all(|files| files[0]["size"] == size), "not the whole file was delivered: {sent:?}");
    server.remove(&job).await?;
    Ok(Cost { wall_secs, cpu_secs, peak_bytes })
}

async fn theirs(url: &str, sink: &NullSink, options: &[&str]) -> Result<Cost> {
    let mut arguments: Vec<String> =
        ["--config", "/dev/null", "copyurl", url, "X:bench/theirs.bin"].map(str::to_owned).into();
    arguments.extend(["--ca-cert".to_owned(), path(sink.ca_file())]);
    arguments.extend(options.iter().map(|&option| option.to_owned()));
    let remote = [
        ("TYPE", "s3".to_owned()),
        ("PROVIDER", "Ceph".to_owned()),
        ("ENDPOINT", sink.endpoint()),
        ("REGION", "default".to_owned()),
        ("ACCESS_KEY_ID", "bench".to_owned()),
        ("SECRET_ACCESS_KEY", "bench".to_owned()),
        ("NO_CHECK_BUCKET", "true".to_owned()),
        // The sink keeps nothing, and so has no MD5 to show of a whole object.
        ("USE_MULTIPART_ETAG", "false".to_owned()),
    ];
    peer::run("rclone", &arguments, |command| {
        command.envs(remote.map(|(name, value)| (format!("RCLONE_CONFIG_X_{name}"), value)));
    })
    .await
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn told(mebibytes: u64, rounds: &[Round]) -> String {
    let size = mebibytes as f64;
    let mut text = format!(
        "{mebibytes} MiB from a server inside the benchmark (plain HTTP) to a server that swallows it (TLS), {} rounds of all \
         four in turns; the clock of Consign runs from the request that makes the job to the answer that it has finished, that of \
         `rclone copyurl` from its start to its end. Both have the destination check CRC-32C (Consign) or MD5 (rclone) of every \
         part. rclone keeps nothing; Consign has stored, hashed (MD5, SHA-256, CRC-32C) and synced the file before it sends it. \
         *Tuned* is `{}`.\n\n\
         | | s | MiB/s | CPU-s/GiB | peak MiB | rclone as shipped / it | rclone tuned / it |\n|---|---|---|---|---|---|---|\n",
        rounds.len(),
        TUNED.join(" "),
    );
    let lanes: [(&str, Side); 4] = [
        ("Consign, files in memory", |round| round.memory),
        ("Consign, files on disk", |round| round.disk),
        ("rclone copyurl, as shipped", |round| round.shipped),
        ("rclone copyurl, tuned", |round| round.tuned),
    ];
    for (name, lane) in lanes {
        let of = |figure: fn(Cost) -> f64| median(&rounds.iter().map(|round| figure(lane(round))).collect::<Vec<_>>());
        let against = |theirs: fn(&Round) -> Cost| {
            ratio(&rounds.iter().map(|round| theirs(round).wall_secs / lane(round).wall_secs).collect::<Vec<_>>())
        };
        let wall = of(|cost| cost.wall_secs);
        let (shipped, tuned) = if name.starts_with("Consign") {
            (against(|round| round.shipped), against(|round| round.tuned))
        } else {
            ("–".to_owned(), "–".to_owned())
        };
        let _ = writeln!(
            text,
            "| {name} | {wall:.2} | {:.0} | {:.2} | {:.0} | {shipped} | {tuned} |",
            size / wall,
            of(|cost| cost.cpu_secs) / (size / 1024.0),
            of(|cost| cost.peak_bytes as f64) / MIB,
        );
    }
    text
}
