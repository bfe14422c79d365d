//! `cargo xtask bench`: Consign beside rclone, in alternating pairs on the same servers, in one run.
//!
//! What is measured is the product: a server process that runs one task on a file it already has, from the request that
//! makes the task to the answer that it ended, against one rclone process from its start to its end. CPU is that of
//! the client side only (user and system), peak memory its largest resident set. Ratios are made inside a pair, because
//! the same command varies more between minutes than the two differ.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

mod consign;
mod lanes;
mod null_sink;
mod rclone;
mod table;

/// Options of the benchmark.
#[derive(Clone, Debug, Args)]
pub(crate) struct Bench {
    /// Size of the file in MiB
    #[arg(long, default_value_t = 1024)]
    mebibytes: u64,
    /// Pairs of runs for each lane
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// Only lanes whose name contains this text, such as `s3` or `download`
    #[arg(long, default_value = "")]
    only: String,
    /// Folder for files and the database; in memory if the machine has room there, so that the disk is not measured
    #[arg(long)]
    folder: Option<PathBuf>,
    /// The servers are prepared and the programs built: measure
    #[arg(long, hide = true)]
    prepared: bool,
}

/// Where files are in memory on Linux.
const SHARED_MEMORY: &str = "/dev/shm";
/// A server that no process uses for so many seconds ends by itself. While it is measured, one does.
const IDLE_SECS: &str = "120";
/// Room that a run needs, in sizes of its file: the original, the server's copy, an import of each side, and spare.
const SIZES_NEEDED: u64 = 6;

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// From start to end, in seconds.
    pub(crate) wall_secs: f64,
    /// User and system time of the client side, in seconds.
    pub(crate) cpu_secs: f64,
    /// Largest resident set of the client side, in bytes.
    pub(crate) peak_bytes: u64,
}

/// Prepares everything with a release build, then measures in a process of that build.
///
/// # Errors
/// When something cannot be built, started, or does not deliver the right bytes.
pub(crate) fn run(root: &Path, bench: &Bench) -> Result<ExitCode> {
    if bench.prepared {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        return runtime.block_on(measure(root, bench));
    }
    command(root, "scripts/testbed/setup.sh", &[])?;
    command(root, "cargo", &["build", "--locked", "--release", "-p", "consign", "-p", "xtask"])?;
    let servers = tempfile::Builder::new().prefix("consign-bench-").tempdir()?;
    let bench_folder = tempfile::Builder::new().prefix("consign-bench-").tempdir_in(folder(bench))?;
    let built = release(root).join("xtask");
    let mebibytes = bench.mebibytes.to_string();
    let pairs = bench.pairs.to_string();
    let mut measuring = process(&built);
    measuring
        .args(["bench", "--prepared", "--mebibytes", &mebibytes, "--pairs", &pairs, "--only", &bench.only, "--folder"])
        .arg(bench_folder.path())
        .env("CONSIGN_TEST_RUN", servers.path())
        // Should this process be killed, the servers end by themselves.
        .env("CONSIGN_TEST_IDLE_SECS", IDLE_SECS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(ended(measuring)).with_context(|| built.display().to_string());
    let stopped = process(&root.join("scripts/testbed/all-down.sh")).env("CONSIGN_TEST_RUN", servers.path()).status();
    ensure!(stopped?.success(), "the servers could not be stopped");
    if !status?.success() {
        bail!("the benchmark failed");
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs a process to its end. Told to stop, it ends the process first, so that its servers can be stopped as ever.
async fn ended(process: std::process::Command) -> Result<ExitStatus> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut process = tokio::process::Command::from(process).spawn()?;
    tokio::select! {
        status = process.wait() => return Ok(status?),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    process.kill().await?;
    bail!("it was told to stop");
}

/// The folder with the programs of a release build.
fn release(root: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join("release")
}

fn folder(bench: &Bench) -> PathBuf {
    if let Some(folder) = &bench.folder {
        return folder.clone();
    }
    let memory = Path::new(SHARED_MEMORY);
    let needed = bench.mebibytes * 1024 * 1024 * SIZES_NEEDED;
    let free = rustix::fs::statvfs(memory).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    if free >= needed { memory.to_owned() } else { std::env::temp_dir() }
}

#[expect(clippy::disallowed_methods, reason = "a chore runs programs")]
fn process(program: &Path) -> std::process::Command {
    std::process::Command::new(program)
}

fn command(root: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    let path = root.join(program);
    let found = if path.is_file() { path } else { PathBuf::from(program) };
    let status = process(&found).args(arguments).current_dir(root).status().with_context(|| program.to_owned())?;
    ensure!(status.success(), "{program} failed");
    Ok(())
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "it speaks to whoever measures")]
async fn measure(root: &Path, bench: &Bench) -> Result<ExitCode> {
    let folder = bench.folder.clone().context("--folder is missing")?;
    let original = folder.join("original.bin");
    eprintln!("writing {} MiB of data that does not compress", bench.mebibytes);
    let size = bench.mebibytes * 1024 * 1024;
    let digests = testkit::bytes::write_file(&original, 1, size)?;

    let sink = null_sink::NullSink::start(&folder).await?;
    let (ceph, sshd) = (testkit::ceph().await?, testkit::sshd().await?);
    ceph.create_bucket(lanes::BUCKET).await?;
    let server = consign::Server::start(&release(root).join("consign"), &folder, sink.ca_file()).await?;
    let source = server.upload(&original).await?;
    let lanes = lanes::all(&ceph, &sshd, &sink, &original)?;

    let mut rows = Vec::new();
    for lane in lanes.iter().filter(|lane| lane.name.contains(&bench.only)) {
        let mut pairs = Vec::with_capacity(bench.pairs);
        // The first pair opens connections and fills caches; it is not counted.
        for number in 0..=bench.pairs {
            let ours = server.run(&lane.task(&source)).await.with_context(|| lane.name)?;
            let shipped = rclone::run(&lane.rclone(&folder, false)).await.with_context(|| lane.name)?;
            let tuned = rclone::run(&lane.rclone(&folder, true)).await.with_context(|| lane.name)?;
            eprintln!(
                "{}: pair {number} of {}: {:.2} s, rclone {:.2} s, tuned {:.2} s",
                lane.name, bench.pairs, ours.wall_secs, shipped.wall_secs, tuned.wall_secs
            );
            if number > 0 {
                pairs.push(table::Pair { ours, shipped, tuned });
            }
        }
        let back = folder.join("back.bin");
        if let Some(copy) = lane.back(&back) {
            rclone::run(&copy).await?;
            ensure!(testkit::bytes::digest_file(&back)? == digests, "{}: other bytes arrived", lane.name);
            std::fs::remove_file(&back)?;
        }
        rows.push(table::Row { lane: lane.name, pairs });
    }
    println!("{}", table::markdown(size, &rows));
    server.stop().await?;
    Ok(ExitCode::SUCCESS)
}
