//! Programs by other hands, from their start to their end.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use testkit::tool;

use super::lanes::{Lane, Side, Way};
use super::place::{Environment, Place};
use crate::bench::cost::Cost;

/// Runs the program that its arguments name, and prints what it and its children cost. The largest resident set is that of
/// the largest of them.
const STOPWATCH: &str = "
import json, resource, subprocess, sys, time
began = time.monotonic()
done = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=sys.stderr)
wall = time.monotonic() - began
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({'wall': wall, 'cpu': used.ru_utime + used.ru_stime, 'peak_kib': used.ru_maxrss}))
sys.exit(done.returncode)
";

/// A command of a peer.
#[derive(Debug)]
struct Invocation {
    program: PathBuf,
    arguments: Vec<String>,
    environment: Environment,
}

/// Sends `from` (a file, or a folder of many) to `name`, or gets `name` into `into`.
///
/// # Errors
/// When the program is missing or fails; the error shows what it wrote.
pub(super) async fn run(side: Side, lane: &Lane, place: &Place, local: &Path, name: &str) -> Result<Cost> {
    let is_up = lane.way != Way::Down;
    let tuned: &[&str] = if side == Side::Tuned { lane.tuned } else { &[] };
    let invocation = match side {
        Side::Ours => anyhow::bail!("Consign is not a peer"),
        Side::Shipped | Side::Tuned => {
            let remote = format!("{}{name}", place.rclone_root);
            let (from, to) = ends(is_up, local, remote);
            let verb = if lane.way == Way::Many { "copy" } else { "copyto" };
            rclone(place, &[verb, &from, &to], tuned)?
        }
        Side::OpenSsh => sftp(place, is_up, local, name)?,
        Side::Aws => {
            let (options, environment) = place.aws.clone().context("not an S3 server")?;
            let (from, to) = ends(is_up, local, format!("s3://bench/{name}"));
            let mut arguments = vec!["s3".to_owned(), "cp".to_owned(), "--only-show-errors".to_owned(), from, to];
            if lane.way == Way::Many {
                arguments.push("--recursive".to_owned());
            }
            arguments.extend(options);
            Invocation { program: tool::find("aws")?, arguments, environment }
        }
    };
    timed(&invocation).await.with_context(|| side.name())
}

fn ends(is_up: bool, local: &Path, remote: String) -> (String, String) {
    let local = local.display().to_string();
    if is_up { (local, remote) } else { (remote, local) }
}

fn rclone(place: &Place, arguments: &[&str], more: &[&str]) -> Result<Invocation> {
    let arguments = ["--config", "/dev/null"].iter().chain(arguments).chain(more);
    Ok(Invocation {
        program: tool::find("rclone")?,
        arguments: arguments.map(|argument| (*argument).to_owned()).collect(),
        environment: place.rclone.clone(),
    })
}

/// OpenSSH's client reads what to do from a file, which lies beside the local one. It flushes what it puts, as Consign does.
fn sftp(place: &Place, is_up: bool, local: &Path, name: &str) -> Result<Invocation> {
    let remote = format!("{}{name}", place.root);
    let local_name = local.display();
    let batch = if is_up { format!("put -f {local_name} {remote}\n") } else { format!("get {remote} {local_name}\n") };
    let batch_file = local.with_extension("batch");
    std::fs::write(&batch_file, batch)?;
    let mut arguments = vec!["-b".to_owned(), batch_file.display().to_string()];
    arguments.extend(place.openssh.clone().context("not an SFTP server")?);
    Ok(Invocation { program: tool::find("sftp")?, arguments, environment: Vec::new() })
}

/// Gets back what is stored, for a look at it: not measured.
///
/// # Errors
/// When rclone fails.
pub(super) async fn fetch(place: &Place, way: Way, name: &str, into: &Path) -> Result<()> {
    let remote = format!("{}{name}", place.rclone_root);
    let verb = if way == Way::Many { "copy" } else { "copyto" };
    let into = into.display().to_string();
    // The bytes are compared by us: rclone need not read them once more.
    let options = ["--transfers", "8", "--ignore-checksum"];
    timed(&rclone(place, &[verb, &remote, &into], &options)?).await.map(drop).context("fetching back")
}

/// Stores a file or a folder by rclone: not measured.
///
/// # Errors
/// When rclone fails.
pub(super) async fn store(place: &Place, way: Way, from: &Path, name: &str) -> Result<()> {
    let remote = format!("{}{name}", place.rclone_root);
    let verb = if way == Way::Many { "copy" } else { "copyto" };
    let from = from.display().to_string();
    timed(&rclone(place, &[verb, &from, &remote], &["--transfers", "8"])?).await.map(drop).context("storing")
}

/// Removes what is stored, so that no run finds what another one sent.
///
/// # Errors
/// When rclone fails.
pub(super) async fn remove(place: &Place, way: Way, name: &str) -> Result<()> {
    let remote = format!("{}{name}", place.rclone_root);
    let verb = if way == Way::Many { "purge" } else { "deletefile" };
    timed(&rclone(place, &[verb, &remote], &[])?).await.map(drop).context("removing")
}

async fn timed(invocation: &Invocation) -> Result<Cost> {
    let mut command = tool::command("python")?;
    command.arg("-c").arg(STOPWATCH).arg(&invocation.program).args(&invocation.arguments);
    command.envs(invocation.environment.iter().map(|(name, value)| (name, value)));
    // rclone refuses to start when it is set, and nobody else needs it.
    command.env_remove("AWS_CA_BUNDLE");
    let output = command.output().await?;
    let program = invocation.program.display();
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout)?;
    let figure = |name: &str| told[name].as_f64().with_context(|| name.to_owned());
    Ok(Cost {
        wall_secs: figure("wall")?,
        cpu_secs: figure("cpu")?,
        peak_bytes: told["peak_kib"].as_u64().context("peak_kib")? * 1024,
    })
}

/// What a side says of its version, or nothing where it is not installed.
pub(super) async fn version(side: Side) -> Option<String> {
    let (program, argument) = match side {
        Side::Ours => return None,
        Side::Shipped | Side::Tuned => ("rclone", "version"),
        Side::OpenSsh => ("ssh", "-V"),
        Side::Aws => ("aws", "--version"),
    };
    if side == Side::OpenSsh {
        tool::find("sftp").ok()?;
    }
    first_line(&tool::find(program).ok()?, argument).await.ok()
}

/// The first line that a program prints for an argument such as `--version`.
///
/// # Errors
/// When it cannot be started, or fails.
pub(super) async fn first_line(program: &Path, argument: &str) -> Result<String> {
    let output = tool::command(&program.to_string_lossy())?.arg(argument).output().await?;
    ensure!(output.status.success(), "{} {argument} failed", program.display());
    let told = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&told).lines().next().unwrap_or_default().trim().to_owned())
}
