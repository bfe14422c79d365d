//! The project's own chores: `cargo xtask generate`, `cargo xtask generate --check`, `cargo xtask bench`.

#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod generate;

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
    /// Measure Consign beside rclone: S3 and SFTP, both ways, with a release build.
    Bench(bench::Bench),
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().chore {
        Chore::Generate { check } => generate::run(&root(), check),
        Chore::Bench(bench) => bench::run(&root(), &bench),
    }
}

/// The folder of the workspace.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
