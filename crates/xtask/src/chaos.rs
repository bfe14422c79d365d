//! `cargo xtask chaos`: builds the program and lets the harness of `crates/chaos` break it.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};
use clap::Args;

/// Handed on as it is: `cargo xtask chaos -- --help` shows what there is.
#[derive(Debug, Args)]
pub(crate) struct Chaos {
    /// With a release build.
    #[arg(long)]
    release: bool,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(root: &Path, chaos: &Chaos) -> Result<ExitCode> {
    let profile: &[&str] = if chaos.release { &["--release"] } else { &[] };
    let built = cargo(root).args(["build", "--locked", "-p", "consign", "-p", "chaos"]).args(profile).status()?;
    ensure!(built.success(), "the program cannot be built");
    let mut run = cargo(root);
    run.args(["run", "--quiet", "--locked", "-p", "chaos"]).args(profile).arg("--").args(&chaos.arguments);
    let ended = run.status()?;
    Ok(if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::disallowed_methods, reason = "xtask starts outside programs")]
fn cargo(root: &Path) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root);
    command
}
