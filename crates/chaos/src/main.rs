//! `cargo xtask chaos` builds the program and runs this: it breaks everything for as long as one likes, and says what was lost.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use chaos::{Entry, Options};
use clap::Parser;

/// Milliseconds from one job to the next, if nothing else is said.
const JOB_EVERY_MS: u64 = 400;

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
    /// Deliver to S3, SFTP and web addresses only: the other servers take a while to start.
    #[arg(long)]
    few_destinations: bool,
    /// Let exports begin while their import still arrives.
    #[arg(long)]
    overlap: bool,
    /// Milliseconds from one job to the next.
    #[arg(long, default_value_t = JOB_EVERY_MS)]
    job_every_ms: u64,
    /// Only faults whose name contains this text, such as `kill -9`, 20 s apart: how long does each take to get over?
    #[arg(long, default_value = "")]
    faults: String,
    /// Where to write the history.
    #[arg(long, default_value = "target/chaos.jsonl")]
    history: PathBuf,
    /// Run nothing: check histories that were written before.
    #[arg(long, value_name = "HISTORY", num_args = 1..)]
    check: Vec<PathBuf>,
    /// Write a page about the run, or about the histories that are checked, such as docs/generated/chaos.md.
    #[arg(long, value_name = "PAGE")]
    report: Option<PathBuf>,
    /// The program; by default the one beside this.
    #[arg(long)]
    program: Option<PathBuf>,
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "it speaks to whoever runs it")]
async fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let (mut runs, mut is_clean): (Vec<Vec<Entry>>, bool) = (Vec::new(), true);
    for history in &cli.check {
        let entries = chaos::read(history).with_context(|| history.display().to_string())?;
        let violations = chaos::check(&entries);
        println!("{}", chaos::summary(&entries, &violations));
        is_clean &= violations.is_empty();
        runs.push(entries);
    }
    if cli.check.is_empty() {
        let options = cli.options()?;
        println!("{}", options.command);
        let outcome = chaos::run(&options).await?;
        println!("{}", outcome.summary);
        is_clean = outcome.violations.is_empty();
        runs.push(chaos::read(&options.history)?);
    }
    if let Some(page) = &cli.report {
        std::fs::write(page, chaos::report(&runs).0).with_context(|| page.display().to_string())?;
    }
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Cli {
    fn options(&self) -> Result<Options> {
        let seed = self.seed.unwrap_or_else(|| u64::from(std::process::id()));
        if let Some(folder) = self.history.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let beside = std::env::current_exe()?.with_file_name("consign");
        let program = std::path::absolute(self.program.as_ref().unwrap_or(&beside)).context("the program")?;
        let is_release = self.program.is_none() && beside.parent().is_some_and(|folder| folder.ends_with("release"));
        Ok(Options {
            program,
            seed,
            length: Duration::from_secs(self.seconds),
            fleet: self.fleet,
            shared_files: !self.local_files,
            all_destinations: !self.few_destinations,
            overlap: self.overlap,
            history: self.history.clone(),
            job_every: Duration::from_millis(self.job_every_ms),
            faults: self.faults.clone(),
            command: self.command(seed, is_release),
        })
    }

    /// What does the same again.
    fn command(&self, seed: u64, is_release: bool) -> String {
        let mut words = vec!["cargo xtask chaos".to_owned()];
        words.extend(is_release.then(|| "--release".to_owned()));
        words.extend([format!("--seed {seed}"), format!("--seconds {}", self.seconds)]);
        let flags = [
            (self.fleet, "--fleet"),
            (self.local_files, "--local-files"),
            (self.few_destinations, "--few-destinations"),
            (self.overlap, "--overlap"),
        ];
        words.extend(flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag.to_owned()));
        if self.job_every_ms != JOB_EVERY_MS {
            words.push(format!("--job-every-ms {}", self.job_every_ms));
        }
        if !self.faults.is_empty() {
            words.push(format!("--faults '{}'", self.faults));
        }
        words.extend(self.program.iter().map(|program| format!("--program {}", program.display())));
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_repeats_all_that_was_said() {
        let typed = "chaos --fleet --local-files --few-destinations --overlap --seed 7 --seconds 5 --job-every-ms 90 --program x";
        let cli = Cli::parse_from(typed.split(' ').chain(["--faults", "kill -9"]));
        let expected = "cargo xtask chaos --seed 7 --seconds 5 --fleet --local-files --few-destinations --overlap \
                        --job-every-ms 90 --faults 'kill -9' --program x";
        assert_eq!(cli.command(7, false), expected);
        // Whatever can be said is in it, but for where something is read or written.
        let command = <Cli as clap::CommandFactory>::command();
        for argument in command.get_arguments().filter_map(|argument| argument.get_long()) {
            let is_place = ["history", "check", "report"].contains(&argument);
            assert!(is_place || expected.contains(&format!("--{argument}")), "{argument}");
        }
        assert_eq!(Cli::parse_from(["chaos"]).command(1, true), "cargo xtask chaos --release --seed 1 --seconds 60");
    }
}
