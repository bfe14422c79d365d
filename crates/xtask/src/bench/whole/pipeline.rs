//! Whole jobs: `import/url` → `export/s3` of one large file, beside rclone doing the same in one go.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::origin::Origin;
use super::report::{Bars, Section, median, ratio};
use super::served::{Served, Setup};
use super::{Place, peer};
use crate::bench::content;
use crate::bench::cost::Cost;
use crate::bench::ground;
use crate::bench::transfers::null_sink::NullSink;

pub(super) const TITLE: &str = "A whole job: import/url → export/s3";
/// As large and as many at once as Consign's defaults, and no MD5 of the whole file before it is sent.
const TUNED: [&str; 5] = ["--s3-chunk-size", "8M", "--s3-upload-concurrency", "4", "--s3-disable-checksum"];
/// Where the sink keeps what is sent.
const STORED: &str = "/bench/sent.bin";
const MIB: f64 = 1024.0 * 1024.0;
const BARS: Bars<'static> = Bars {
    file: "jobs-pipeline.svg",
    title: "MiB a second of a whole job",
    label: "more is better",
    series: &["MiB/s"],
};

/// Who runs the job.
#[derive(Clone, Copy)]
enum Side {
    /// A server of ours: whether its files are in memory, and `transfer.overlap`.
    Ours { in_memory: bool, overlap: bool },
    /// rclone, with these options.
    Rclone(&'static [&'static str]),
}

/// All, in the order of the table. Ratios are against the last two.
const SIDES: [(&str, Side); 6] = [
    ("Consign, files in memory", Side::Ours { in_memory: true, overlap: false }),
    ("Consign, files in memory, overlap", Side::Ours { in_memory: true, overlap: true }),
    ("Consign, files on disk", Side::Ours { in_memory: false, overlap: false }),
    ("Consign, files on disk, overlap", Side::Ours { in_memory: false, overlap: true }),
    ("rclone copyurl, as shipped", Side::Rclone(&[])),
    ("rclone copyurl, tuned", Side::Rclone(&TUNED)),
];
const SHIPPED: usize = 4;
const TUNED_AT: usize = 5;

/// One round: all of them, right after each other.
type Round = [Cost; SIDES.len()];

/// Runs the rounds.
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
    let sent = content::sha256(content::repeated(0, size));
    let mut servers = Vec::new();
    for (number, (_, side)) in SIDES.iter().enumerate() {
        servers.push(match *side {
            Side::Ours { in_memory, overlap } => {
                let folder = if in_memory { memory.path() } else { &place.folder };
                let folder = folder.join(number.to_string());
                std::fs::create_dir(&folder)?;
                let more = [("CONSIGN_TRANSFER__OVERLAP", if overlap { "true" } else { "false" })];
                let setup = Setup { ca_file: Some(sink.ca_file()), more: &more, ..Setup::new(&place.program, &folder) };
                Some(Served::start(&setup).await?)
            }
            Side::Rclone(_) => None,
        });
    }
    let mut all: Vec<Round> = Vec::new();
    for number in 0..=rounds {
        let none = Cost { wall_secs: 0.0, cpu_secs: 0.0, peak_bytes: 0 };
        let mut round: Round = [none; SIDES.len()];
        // The order changes from round to round.
        let first = usize::try_from(number)? % SIDES.len();
        for at in (0..SIDES.len()).map(|turn| (first + turn) % SIDES.len()) {
            round[at] = match (SIDES[at].1, &servers[at]) {
                (Side::Rclone(options), _) => theirs(&url, &sink, options).await?,
                (Side::Ours { .. }, Some(server)) => ours(server, &url, &sink, size).await?,
                (Side::Ours { .. }, None) => anyhow::bail!("a server was not started"),
            };
            let found = sink.take(STORED);
            ensure!(found.values().eq([&sent]), "{}: other bytes arrived: {found:?}", SIDES[at].0);
        }
        let told: Vec<String> = round.iter().map(|cost| format!("{:.2} s", cost.wall_secs)).collect();
        place.say(&format!("{TITLE}: round {number} of {rounds}: {}", told.join(", ")));
        // The first opens connections and fills caches.
        if number > 0 {
            all.push(round);
        }
    }
    for server in servers.into_iter().flatten() {
        server.stop().await?;
    }
    let folders =
        format!("*In memory* is {}, *on disk* {}.", ground::folder(memory.path()), ground::folder(&place.folder));
    let text = format!("{}\n{folders}\n{}.\n", told(mebibytes, &all), peer::version("rclone", "version").await);
    Ok(Section { title: TITLE, text, plots: vec![BARS.plot(&groups(mebibytes, &all))] })
}

async fn ours(server: &Served, url: &str, sink: &NullSink, size: u64) -> Result<Cost> {
    let tasks = json!({
        "in": { "operation": "import/url", "url": url },
        "out": { "operation": "export/s3", "input": "in", "bucket": "bench", "region": "default", "key": "sent.bin",
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
        ["--config", "/dev/null", "copyurl", url, "X:bench/sent.bin"].map(str::to_owned).into();
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
        // The sink computes no MD5 of a whole object that it could show.
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

/// The median of a figure of a side.
fn of(rounds: &[Round], at: usize, figure: fn(&Cost) -> f64) -> f64 {
    median(&rounds.iter().map(|round| figure(&round[at])).collect::<Vec<_>>())
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn groups(mebibytes: u64, rounds: &[Round]) -> Vec<(String, Vec<Option<f64>>)> {
    let speed = |at| mebibytes as f64 / of(rounds, at, |cost| cost.wall_secs);
    SIDES.iter().enumerate().map(|(at, (name, _))| ((*name).to_owned(), vec![Some(speed(at))])).collect()
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn told(mebibytes: u64, rounds: &[Round]) -> String {
    let size = mebibytes as f64;
    let mut text = format!(
        "{mebibytes} MiB from a server inside the benchmark (plain HTTP, at full speed) to an S3 server inside it (TLS), {} rounds of \
         all six, whose order changes from round to round; the clock of Consign runs from the request that makes the job to the \
         answer that it has finished, that of `rclone copyurl` from its start to its end. After every run the SHA-256 of what the sink \
         has was compared. Consign computes CRC-32C of every part and rclone MD5; the sink does not look at either. rclone keeps \
         nothing; Consign has stored, hashed (SHA-256, CRC-32C) and synced the file before the export ends. *Overlap* is \
         `transfer.overlap`: parts are sent while the file still comes. *Tuned* is `{}`.\n\n\
         | | s | MiB/s | CPU-s/GiB | peak MiB | rclone as shipped / it | rclone tuned / it |\n|---|---|---|---|---|---|---|\n",
        rounds.len(),
        TUNED.join(" "),
    );
    for (at, (name, side)) in SIDES.iter().enumerate() {
        let against = |theirs: usize| match side {
            Side::Ours { .. } => {
                ratio(&rounds.iter().map(|round| round[theirs].wall_secs / round[at].wall_secs).collect::<Vec<_>>())
            }
            Side::Rclone(_) => "–".to_owned(),
        };
        let wall = of(rounds, at, |cost| cost.wall_secs);
        let _ = writeln!(
            text,
            "| {name} | {wall:.2} | {:.0} | {:.2} | {:.0} | {} | {} |",
            size / wall,
            of(rounds, at, |cost| cost.cpu_secs) / (size / 1024.0),
            of(rounds, at, |cost| cost.peak_bytes as f64) / MIB,
            against(SHIPPED),
            against(TUNED_AT),
        );
    }
    text.push_str(&BARS.line());
    text
}
