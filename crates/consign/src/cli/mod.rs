//! The command line: one file a command.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::config::{BadConfig, Config};
use crate::server;

mod api;
#[cfg(feature = "practice")]
mod demo;
mod destination;
mod doctor;
pub mod hosts;
mod interrupt;
mod key;
mod local;
#[cfg(feature = "practice")]
mod practice;
mod print;
mod progress;
mod run;
mod serve;
mod signed_url;
mod state;
mod webhook_secret;

/// Exit code of a command that did what it should, but the outcome is bad: the job failed, a check did not pass.
const EXIT_FAILED: u8 = 1;
/// Exit code of bad usage: a wrong flag, a wrong setting, a job that cannot be read.
const EXIT_USAGE: u8 = 2;

/// Takes files in, works on them and delivers them where they belong.
///
/// Consign is a server that speaks the CloudConvert API v2: a job is a graph of named tasks, such as
/// `import/upload` → `export/s3`. It needs no other service: jobs are kept in SQLite, files in a folder.
#[derive(Debug, Parser)]
#[command(
    name = "consign",
    version,
    after_help = "First steps:\n  consign demo             see a file delivered three ways, offline, in a minute\n  consign serve            start a server here; it prints its first API key\n  consign practice         two storages on this machine to try deliveries with\n\nEvery command explains itself: consign help COMMAND"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    #[cfg(feature = "practice")]
    Demo(demo::Demo),
    Run(run::Run),
    #[command(subcommand)]
    Key(key::Key),
    WebhookSecret(webhook_secret::WebhookSecret),
    #[command(subcommand)]
    SignedUrl(signed_url::SignedUrlCommand),
    ExportState(state::ExportState),
    ImportState(state::ImportState),
    Doctor(doctor::Doctor),
    Hosts(hosts::Hosts),
    #[cfg(feature = "practice")]
    Practice(practice::PracticeCommand),
}

/// Where the settings come from.
#[derive(Debug, Args)]
struct Settings {
    /// Settings file in TOML. Environment variables (`CONSIGN_LISTEN`, `CONSIGN_EGRESS__ALLOW` …) win over it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Settings {
    fn load(&self) -> Result<Config, Failure> {
        Ok(Config::load(self.config.as_deref())?)
    }
}

/// How a command fails: what to print, and the exit code.
#[derive(Debug)]
struct Failure {
    code: u8,
    error: anyhow::Error,
}

impl Failure {
    /// Bad usage.
    fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { code: EXIT_USAGE, error: error.into() }
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let is_setting = matches!(error.downcast_ref::<server::Error>(), Some(server::Error::Setting(_)));
        let code = if is_setting || error.is::<BadConfig>() { EXIT_USAGE } else { EXIT_FAILED };
        Self { code, error }
    }
}

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::from(error)),
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Serve(command) => command.run().await,
            #[cfg(feature = "practice")]
            Command::Demo(command) => Box::pin(command.run()).await,
            Command::Run(command) => command.run().await,
            Command::Key(command) => command.run().await,
            Command::WebhookSecret(command) => command.run().await,
            Command::SignedUrl(command) => command.run().await,
            Command::ExportState(command) => command.run().await,
            Command::ImportState(command) => command.run().await,
            Command::Doctor(command) => command.run().await,
            Command::Hosts(command) => command.run(),
            #[cfg(feature = "practice")]
            Command::Practice(command) => command.run().await,
        }
    });
    // Blocking work that is still under way, such as a read from a slow disk, must not hold up the exit.
    runtime.shutdown_background();
    match outcome {
        Ok(code) => code,
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    print::error(&failure.error);
    ExitCode::from(failure.code)
}

/// The help of every command as one text, for the manual.
pub fn reference() -> String {
    let mut text = String::from("# Commands\n");
    describe(&mut Cli::command(), &mut Vec::new(), &mut text);
    text
}

fn describe(command: &mut clap::Command, path: &mut Vec<String>, text: &mut String) {
    path.push(command.get_name().to_owned());
    let help = command.clone().bin_name(path.join(" ")).term_width(100).render_long_help();
    let _ = write!(text, "\n## `{}`\n\n```text\n{}\n```\n", path.join(" "), help.to_string().trim_end());
    for subcommand in command.get_subcommands_mut().filter(|subcommand| subcommand.get_name() != "help") {
        describe(subcommand, path, text);
    }
    path.pop();
}
