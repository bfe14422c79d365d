//! `cargo xtask chaos` builds the program and runs this: it breaks everything for as long as one likes, and says what was lost.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use chaos::{Options, Outcome};
use clap::Parser;

/// Kill, freeze and cut off real processes under load, and check that nothing was lost.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask chaos")]
struct Cli {
    /// Repeats jobs and faults, not how they meet; by default another one each time.
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
    /// Only faults whose name contains this text, such as `kill -9`, 20 s apart: how long does each take to get over?
    #[arg(long, default_value = "")]
    faults: String,
    /// Where to write the history.
    #[arg(long, default_value = "target/chaos.jsonl")]
    history: PathBuf,
    /// Run nothing: check a history that was written before.
    #[arg(long, value_name = "HISTORY")]
    check: Option<PathBuf>,
    /// The program; by default the one beside this.
    #[arg(long)]
    program: Option<PathBuf>,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "it speaks to whoever runs it")]
async fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let outcome = match &cli.check {
        Some(history) => {
            let entries = chaos::read(history)?;
            let violations = chaos::check(&entries);
            Outcome { summary: chaos::summary(&entries, &violations), violations }
        }
        None => storm(&cli).await?,
    };
    println!("{}", outcome.summary);
    Ok(if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "a failed run is repeated with its seed")]
async fn storm(cli: &Cli) -> Result<Outcome> {
    let seed = cli.seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("cargo xtask chaos --seed {seed} --seconds {}{}", cli.seconds, if cli.fleet { " --fleet" } else { "" });
    if let Some(folder) = cli.history.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let beside = std::env::current_exe()?.with_file_name("consign");
    let options = Options {
        program: std::path::absolute(cli.program.clone().unwrap_or(beside)).context("the program")?,
        seed,
        length: Duration::from_secs(cli.seconds),
        fleet: cli.fleet,
        shared_files: !cli.local_files,
        all_destinations: !cli.few_destinations,
        history: cli.history.clone(),
        job_every: Duration::from_millis(cli.job_every_ms),
        faults: cli.faults.clone(),
    };
    chaos::run(&options).await
}
