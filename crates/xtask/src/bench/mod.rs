//! `cargo xtask bench`: Consign measured beside other programs, in one run on one machine.
//!
//! One module a benchmark (`transfers` …); what they share is here: options, the release build and the servers that are
//! made ready before anything is measured, the server of ours (`consign`), what a run cost (`cost`), what is sent and how
//! it is known again (`content`), the build and the file systems (`ground`), medians and the machine (`figures`), plots (`plot`). A new benchmark is a variant of [`What`] and a function that takes a [`Bed`].

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

mod consign;
mod content;
mod cost;
mod figures;
mod ground;
mod overlap;
#[cfg_attr(not(test), expect(dead_code, reason = "linear axes are for benches/store"))]
mod plot;
mod transfers;
mod whole;

/// Where files are in memory on Linux.
const SHARED_MEMORY: &str = "/dev/shm";
/// A server that no process uses for so many seconds ends by itself. While it is measured, one does.
const IDLE_SECS: &str = "120";
/// Room that a run needs, in sizes of its file: the original, the server's copy, what each side brings, and spare.
const SIZES_NEEDED: u64 = 12;
/// Pages and plots, from the folder of the workspace.
const PAGES: &str = "docs/generated/bench";

/// What `cargo xtask bench --help` ends with.
const MANUAL: &str = "\
It installs what is missing below ~/.cache/consign-test, builds a release, starts the servers of other hands that are \
needed, measures, stops them, and writes a page with plots into docs/generated/bench. Leave the machine alone meanwhile: \
all sides share it, and although ratios are made inside a round, a build beside it widens them.

Every round prints how it stands. The runs are kept beside the page (transfers.json), so that one lane can be measured again:

  cargo xtask bench --mebibytes 512 --pairs 5                       everything: about thirty-five minutes
  cargo xtask bench transfers --mebibytes 512 --pairs 5             exports and imports: about fifteen of them
  cargo xtask bench jobs --mebibytes 512                            whole jobs, on disk: about five
  cargo xtask bench growth                                          files, tasks and rows: about seven
  cargo xtask bench memory                                          transfers of up to 20 GiB, on disk: about six
  cargo xtask bench transfers --only \"sftp upload\"                  one lane; the others stay as they were
  cargo xtask bench transfers --small                               a minute: does it still work?
  cargo xtask bench jobs --only Created                     one section of jobs.md; the others stay as they were
  cargo xtask bench growth --only Rows                              the same of growth.md
  cargo xtask bench transfers --program ./consign --out /tmp/x      another build of the server, into another folder (--commit says which)

To see where the time goes, give --program and let `perf record -g -p PID` look at the server while a lane runs.";

/// Which benchmark, and how. Without a name all of them run, one after the other.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = MANUAL)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    options: Options,
}

/// The benchmarks.
#[derive(Clone, Copy, Debug, Subcommand)]
enum What {
    /// Exports and imports of one file and of many, beside rclone, OpenSSH `sftp` and `aws s3 cp`
    Transfers,
    /// A job that imports and exports one file, with and without `transfer.overlap`
    Overlap,
    /// Whole jobs: a URL into a bucket, created to started, jobs a second, downloads, an archive, idle clients
    Jobs,
    /// Cost against number: files in a task, tasks in a job, rows in the database
    Growth,
    /// Memory of transfers: one of up to 20 GiB, and a hundred at once
    Memory,
}

impl What {
    const ALL: [Self; 5] = [Self::Transfers, Self::Overlap, Self::Jobs, Self::Growth, Self::Memory];
}

/// What all benchmarks can be told.
#[derive(Clone, Debug, Args)]
struct Options {
    /// Only as much as shows that it works, with a build that is not optimised: prints, and writes no page
    #[arg(long, global = true)]
    small: bool,
    /// Size of a large file in MiB [default: 1024; with --small 9]
    #[arg(long, global = true)]
    mebibytes: Option<u64>,
    /// Rounds in which all sides run, one after the other [default: 5; with --small 1]
    #[arg(long, global = true)]
    pairs: Option<usize>,
    /// Only lanes whose name contains this text, such as `s3` or `download`; may be given several times
    #[arg(long, global = true)]
    only: Vec<String>,
    /// Folder for files and databases; in memory if the machine has room there, so that the disk is not measured
    #[arg(long, global = true)]
    folder: Option<PathBuf>,
    /// Folder for the page and the plots [default: docs/generated/bench; with --small none]
    #[arg(long, global = true)]
    out: Option<PathBuf>,
    /// Measure this program as it is. Nothing is installed or built, and the practice servers are those of `CONSIGN_TEST_RUN`
    #[arg(long, global = true, overrides_with = "program")]
    program: Option<PathBuf>,
    /// What the given program was built from, for the page [default: not told; of a program that is built here, the commit]
    #[arg(long, global = true, overrides_with = "commit")]
    commit: Option<String>,
}

/// What is ready when a benchmark begins.
#[derive(Debug)]
struct Bed {
    /// The folder of the workspace.
    root: PathBuf,
    options: Options,
    /// The program `consign`.
    program: PathBuf,
    /// Its version, and what it was built from.
    build: String,
    /// An empty folder; it is removed afterwards.
    folder: PathBuf,
}

impl Bed {
    fn size_bytes(&self) -> u64 {
        let default = if self.options.small { 9 } else { 1024 };
        self.options.mebibytes.unwrap_or(default) * 1024 * 1024
    }

    /// Rounds that count.
    fn pairs(&self) -> usize {
        self.options.pairs.unwrap_or(if self.options.small { 1 } else { 5 }).max(1)
    }

    fn is_small(&self) -> bool {
        self.options.small
    }

    /// Numbers of the rounds; the first, 0, opens connections and fills caches, and does not count.
    fn rounds(&self) -> std::ops::RangeInclusive<usize> {
        usize::from(self.is_small())..=self.pairs()
    }

    /// Whether `--only` leaves this lane in.
    fn wants(&self, lane: &str) -> bool {
        self.options.only.is_empty() || self.options.only.iter().any(|part| lane.contains(part))
    }

    /// The command that does this again.
    fn command(&self, what: &str) -> String {
        let Options { small, mebibytes, pairs, only, folder, .. } = &self.options;
        let mut words = vec![format!("cargo xtask bench {what}")];
        words.extend(small.then(|| "--small".to_owned()));
        words.extend(mebibytes.map(|mebibytes| format!("--mebibytes {mebibytes}")));
        words.extend(pairs.map(|pairs| format!("--pairs {pairs}")));
        words.extend(only.iter().map(|part| format!("--only \"{part}\"")));
        words.extend(folder.iter().map(|folder| format!("--folder {}", folder.display())));
        words.join(" ")
    }

    /// Where files are, with the file system.
    fn files_on(&self) -> String {
        ground::folder(self.folder.parent().unwrap_or(&self.folder))
    }

    /// A line for whoever watches.
    #[expect(
        clippy::print_stderr,
        clippy::unused_self,
        reason = "it speaks to whoever measures, who stands at the bed"
    )]
    fn say(&self, line: &str) {
        eprintln!("{line}");
    }

    /// The folder of pages and plots, if they are to be written.
    fn out(&self) -> Option<PathBuf> {
        let default = (!self.options.small).then(|| self.root.join(PAGES));
        self.options.out.clone().or(default)
    }

    /// Prints a page, and writes it and its plots (by file name) where pages go.
    #[expect(clippy::print_stdout, reason = "it speaks to whoever measures")]
    fn publish(&self, name: &str, page: &str, plots: &[(String, String)]) -> Result<()> {
        println!("{page}");
        let Some(out) = self.out() else { return Ok(()) };
        std::fs::create_dir_all(&out)?;
        for (name, text) in plots.iter().map(|(name, text)| (name.as_str(), text.as_str())).chain([(name, page)]) {
            std::fs::write(out.join(name), text).with_context(|| out.join(name).display().to_string())?;
        }
        Ok(())
    }
}

/// Makes everything ready with a release build, then measures in a process of that build.
///
/// # Errors
/// When something cannot be built, started, or does not deliver the right bytes.
#[expect(clippy::print_stderr, reason = "it speaks to whoever measures")]
pub(crate) fn run(root: &Path, bench: &Bench) -> Result<ExitCode> {
    let options = &bench.options;
    if let Some(program) = &options.program {
        let commit = options.commit.as_deref().unwrap_or("a commit that was not told");
        let build = ground::build(program, commit)?;
        let work = tempfile::Builder::new().prefix("consign-bench-").tempdir_in(folder(options))?;
        let bed = Bed {
            root: root.to_owned(),
            options: options.clone(),
            program: program.clone(),
            build,
            folder: work.path().to_owned(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(measure(bench.what, &bed))?;
        return Ok(ExitCode::SUCCESS);
    }
    command(root, "scripts/testbed/setup.sh", &[])?;
    if command(root, "scripts/testbed/setup.sh", &["bench"]).is_err() {
        eprintln!("not every peer can be had here: those that are missing are not measured");
    }
    let profile: &[&str] = if options.small { &[] } else { &["--release"] };
    command(root, "cargo", &[&["build", "--locked", "-p", "consign", "-p", "xtask"], profile].concat())?;
    let commit = ground::commit(root);
    let built = built(root, options.small);
    // In memory, too: the servers of other hands write what they are sent.
    let servers = tempfile::Builder::new().prefix("consign-bench-").tempdir_in(folder(options))?;
    let mut measuring = process(&built.join("xtask"));
    measuring
        .args(std::env::args_os().skip(1))
        .args([OsString::from("--program"), built.join("consign").into()])
        .args(["--commit", &commit])
        .env("CONSIGN_TEST_RUN", servers.path())
        // Should this process be killed, the servers end by themselves.
        .env("CONSIGN_TEST_IDLE_SECS", IDLE_SECS);
    if is_for_all(&folder(options)) {
        measuring.env("SSHD_FILES", folder(options));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(ended(measuring)).with_context(|| built.display().to_string());
    let stopped = process(&root.join("scripts/testbed/all-down.sh")).env("CONSIGN_TEST_RUN", servers.path()).status();
    ensure!(stopped?.success(), "the servers could not be stopped");
    ensure!(status?.success(), "the benchmark failed");
    Ok(ExitCode::SUCCESS)
}

async fn measure(what: Option<What>, bed: &Bed) -> Result<()> {
    let chosen = what.map_or_else(|| What::ALL.to_vec(), |what| vec![what]);
    for what in chosen {
        match what {
            What::Transfers => Box::pin(transfers::run(bed)).await?,
            What::Overlap => Box::pin(overlap::run(bed)).await?,
            What::Jobs => Box::pin(whole::jobs(bed)).await?,
            What::Growth => Box::pin(whole::growth(bed)).await?,
            What::Memory => Box::pin(whole::memory(bed)).await?,
        }
    }
    Ok(())
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

/// The folder with the programs.
fn built(root: &Path, small: bool) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join(if small { "debug" } else { "release" })
}

fn folder(options: &Options) -> PathBuf {
    if let Some(folder) = &options.folder {
        return folder.clone();
    }
    let memory = Path::new(SHARED_MEMORY);
    let needed = options.mebibytes.unwrap_or(1024) * 1024 * 1024 * SIZES_NEEDED;
    let free = rustix::fs::statvfs(memory).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    if free >= needed { memory.to_owned() } else { std::env::temp_dir() }
}

/// Whether every user may enter a folder, such as the one that the SSH server serves.
fn is_for_all(folder: &Path) -> bool {
    let may_enter = |folder: &Path| std::fs::metadata(folder).is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0);
    folder.canonicalize().is_ok_and(|folder| folder.ancestors().all(may_enter))
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
