//! `cargo xtask chaos`: kills and breaks everything for as long as one likes, and says what was lost.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Chaos {
    /// Repeats jobs and faults (not how they meet); by default another one each time.
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults strike, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Two processes of the API, three runners, PostgreSQL and the object store, instead of one process on SQLite.
    #[arg(long)]
    fleet: bool,
    /// Keep the files of a fleet in a folder that all share.
    #[arg(long)]
    local_files: bool,
    /// Deliver to S3 and SFTP only: the other servers take a while to start.
    #[arg(long)]
    few_destinations: bool,
    /// Milliseconds from one job to the next.
    #[arg(long, default_value_t = 400)]
    job_every_ms: u64,
    /// Where to write the history.
    #[arg(long, default_value = "target/chaos.jsonl")]
    history: PathBuf,
    /// Run nothing: check a history that was written before.
    #[arg(long, value_name = "HISTORY", conflicts_with_all = ["seed", "fleet"])]
    check: Option<PathBuf>,
}

#[expect(clippy::print_stdout, reason = "a chore speaks to whoever runs it")]
pub(crate) fn run(root: &Path, chaos: &Chaos) -> Result<ExitCode> {
    let (summary, is_well) = if let Some(history) = &chaos.check {
        let entries = chaos::read(history)?;
        let violations = chaos::check(&entries);
        (chaos::summary(&entries, &violations), violations.is_empty())
    } else {
        let seed = chaos.seed.unwrap_or_else(|| u64::from(std::process::id()));
        println!("cargo xtask chaos --seed {seed} --seconds {}", chaos.seconds);
        let outcome = storm(root, chaos, seed)?;
        (outcome.summary, outcome.violations.is_empty())
    };
    println!("{summary}");
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn storm(root: &Path, chaos: &Chaos, seed: u64) -> Result<chaos::Outcome> {
    let options = chaos::Options {
        program: program(root)?,
        seed,
        length: Duration::from_secs(chaos.seconds),
        fleet: chaos.fleet,
        shared_files: !chaos.local_files,
        all_destinations: !chaos.few_destinations,
        history: chaos.history.clone(),
        job_every: Duration::from_millis(chaos.job_every_ms),
    };
    if let Some(folder) = chaos.history.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(chaos::run(&options))
}

/// Builds the program; it lies beside this one.
#[expect(clippy::disallowed_methods, reason = "xtask starts outside programs")]
fn program(root: &Path) -> Result<PathBuf> {
    let built = Command::new("cargo").args(["build", "--locked", "-p", "consign"]).current_dir(root).status()?;
    ensure!(built.success(), "the program cannot be built");
    Ok(std::env::current_exe()?.with_file_name("consign"))
}
