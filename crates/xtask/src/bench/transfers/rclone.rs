//! rclone, from its start to its end.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::Value;

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

/// One copy: arguments, and the remote `X:` as environment.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    pub(super) remote: Vec<(&'static str, String)>,
    pub(super) arguments: Vec<String>,
    /// A local file that the copy makes, removed afterwards.
    pub(super) makes: Option<PathBuf>,
}

/// Runs a copy.
///
/// # Errors
/// When rclone fails; the error shows what it wrote.
pub(super) async fn run(copy: &Copy) -> Result<Cost> {
    let mut command = testkit::tool::command("python")?;
    command.arg("-c").arg(STOPWATCH).arg(testkit::tool::find("rclone")?);
    command.args(["--config", "/dev/null", "copyto"]).args(&copy.arguments);
    for (name, value) in &copy.remote {
        command.env(format!("RCLONE_CONFIG_X_{name}"), value);
    }
    // rclone refuses to start when it is set, and ours does not read it.
    command.env_remove("AWS_CA_BUNDLE");
    let output = command.output().await?;
    anyhow::ensure!(output.status.success(), "rclone: {}", String::from_utf8_lossy(&output.stderr));
    if let Some(file) = &copy.makes {
        std::fs::remove_file(file).with_context(|| file.display().to_string())?;
    }
    let told: Value = serde_json::from_slice(&output.stdout)?;
    let figure = |name: &str| told[name].as_f64().with_context(|| name.to_owned());
    Ok(Cost {
        wall_secs: figure("wall")?,
        cpu_secs: figure("cpu")?,
        peak_bytes: told["peak_kib"].as_u64().context("peak_kib")? * 1024,
    })
}
