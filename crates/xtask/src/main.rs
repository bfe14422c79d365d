//! The project's own chores: `cargo xtask generate [--check]`, `cargo xtask conformance FILE [--check]`, `cargo xtask clients
//! FILE [--check]`, `cargo xtask bench`, `cargo xtask chaos`.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod chaos;
mod clients;
mod conformance;
mod generate;
mod record;

/// The project's own chores.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Write what is printed from the code: docs/generated/ and config.default.toml.
    Generate {
        /// Write nothing; fail when something is stale.
        #[arg(long)]
        check: bool,
    },
    /// Write docs/generated/conformance.md from what a whole run of the tests recorded.
    Conformance {
        /// The record: conformance.jsonl in the folder of the run.
        record: PathBuf,
        /// Write nothing; fail when it is stale. Versions of servers and clients are not compared.
        #[arg(long)]
        check: bool,
    },
    /// Write docs/generated/clients.md from what a whole run of the tests recorded.
    Clients {
        /// The record: clients.jsonl in the folder of the run.
        record: PathBuf,
        /// Write nothing; fail when it is stale. Versions of clients are not compared.
        #[arg(long)]
        check: bool,
    },
    /// Measure Consign beside other programs, in alternating runs on the same servers, with a release build.
    Bench(bench::Bench),
    /// Kill, freeze and cut off real processes under load, and check that nothing was lost.
    Chaos(chaos::Chaos),
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().chore {
        Chore::Generate { check } => generate::run(&root(), check),
        Chore::Conformance { record, check } => conformance::run(&root(), &record, check),
        Chore::Clients { record, check } => clients::run(&root(), &record, check),
        Chore::Bench(bench) => bench::run(&root(), &bench),
        Chore::Chaos(chaos) => chaos::run(&root(), &chaos),
    }
}

/// The folder of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
