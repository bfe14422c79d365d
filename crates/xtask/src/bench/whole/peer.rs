//! A program by other hands, from its start to its end.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::process::Command;

use crate::bench::cost::Cost;

/// Runs the program that its arguments name, and prints what it cost.
const STOPWATCH: &str = "
import json, resource, subprocess, sys, time
began = time.monotonic()
done = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=sys.stderr)
wall = time.monotonic() - began
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({'wall': wall, 'cpu': used.ru_utime + used.ru_stime, 'peak_kib': used.ru_maxrss}))
sys.exit(done.returncode)
";

/// Runs a program of the test bed; `prepare` adds what stands around its arguments.
///
/// # Errors
/// When it is missing or fails; the error shows what it wrote.
pub(super) async fn run(name: &str, arguments: &[String], prepare: impl FnOnce(&mut Command)) -> Result<Cost> {
    let mut command = testkit::tool::command("python")?;
    command.arg("-c").arg(STOPWATCH).arg(testkit::tool::find(name)?).args(arguments);
    // rclone refuses to start when it is set.
    command.env_remove("AWS_CA_BUNDLE");
    prepare(&mut command);
    let output = command.output().await?;
    ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout)?;
    let figure = |figure: &str| told[figure].as_f64().with_context(|| figure.to_owned());
    Ok(Cost {
        wall_secs: figure("wall")?,
        cpu_secs: figure("cpu")?,
        peak_bytes: told["peak_kib"].as_u64().context("peak_kib")? * 1024,
    })
}

/// What a program says of its version, in its own words: the first line.
pub(super) async fn version(name: &str, argument: &str) -> String {
    let told = async { anyhow::Ok(testkit::tool::command(name)?.arg(argument).output().await?) };
    let Ok(output) = told.await else { return format!("no {name}") };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or(name).to_owned()
}
