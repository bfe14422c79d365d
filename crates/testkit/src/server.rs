//! Starts a server once and shares it among all test processes of a run.
//!
//! Tests run each in a process of its own. The first that needs a server starts it under a file lock; the others find its
//! `state.json`. Every user holds a shared lock on the server's `in-use` file until its process ends, however it ends:
//! the server's watchdog stops it when nobody has held the lock for two minutes. `scripts/test` stops all at its end.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;

use crate::{Missing, place};

/// How often a start is tried: a port may be taken between choosing and listening.
const START_TRIES: u32 = 2;
/// After a failed start, how long the other tests fail at once instead of trying again.
const FAILURE_KEPT: Duration = Duration::from_mins(2);

/// Held until the process ends.
static IN_USE: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// Makes sure that the server `name` runs (starting it with `NAME-up.sh`) and reads what a client needs to know.
/// `program` is what must have been installed for it.
pub(crate) async fn shared<T>(name: &'static str, program: &'static str) -> Result<T>
where
    T: DeserializeOwned + Send + 'static,
{
    tokio::task::spawn_blocking(move || shared_blocking(name, program)).await?
}

fn shared_blocking<T: DeserializeOwned>(name: &str, program: &str) -> Result<T> {
    if !place::cache().join("stamp").exists() || !place::cache().join("bin").join(program).exists() {
        let missing = Missing::new(name, "run scripts/testbed/setup.sh");
        return Err(if place::in_ci() { anyhow::anyhow!("{missing}") } else { missing.into() });
    }
    let run = place::run();
    fs::create_dir_all(&run)?;
    let lock = open(&run.join(format!("{name}.lock")))?;
    lock.lock()?;
    let dir = run.join(name);
    if !running(&dir) {
        start(name, &run)?;
    }
    let state = fs::read(dir.join("state.json"))?;
    let in_use = open(&dir.join("in-use"))?;
    in_use.lock_shared()?;
    in_use.set_modified(now())?;
    IN_USE.lock().expect("nothing panics while holding it").push(in_use);
    serde_json::from_slice(&state).with_context(|| format!("state.json of {name}"))
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).with_context(|| path.display().to_string())
}

#[expect(clippy::disallowed_methods, reason = "the time of a file's last use, compared by another process")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// Whether the server came up and all its processes are still there: `NAME.pid` holds the number and the start (in ticks
/// since boot), because numbers are used again.
fn running(dir: &Path) -> bool {
    let alive = |pid_file: &Path| {
        let noted = fs::read_to_string(pid_file).unwrap_or_default();
        let (pid, began) = noted.trim().split_once(' ')?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // After the name, which may contain anything: state, parent, … the 20th is the start.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        (fields.next()? != "Z" && fields.nth(18)? == began).then_some(())
    };
    // A dead watchdog is no reason to take the server away from those who use it.
    let of_server = |path: &PathBuf| path.extension().is_some_and(|e| e == "pid") && !path.ends_with("watchdog.pid");
    let mut pid_files = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).filter(of_server);
    dir.join("state.json").exists() && pid_files.all(|path| alive(&path).is_some())
}

fn start(name: &str, run: &Path) -> Result<()> {
    let failed = run.join(format!("{name}.failed"));
    let recent = fs::metadata(&failed)
        .and_then(|meta| meta.modified())
        .is_ok_and(|at| now().duration_since(at).is_ok_and(|age| age < FAILURE_KEPT));
    ensure!(!recent, "{name} could not be started a moment ago: {}", fs::read_to_string(&failed).unwrap_or_default());
    let mut log = String::new();
    for _ in 0..START_TRIES {
        let output = up(name, run)?;
        if output.status.success() {
            fs::remove_file(&failed).ok();
            return Ok(());
        }
        log = String::from_utf8_lossy(&output.stderr).into_owned();
    }
    fs::write(&failed, &log)?;
    anyhow::bail!("{name} cannot be started:\n{log}")
}

#[expect(clippy::disallowed_methods, reason = "starting programs is what this crate is for")]
fn up(name: &str, run: &Path) -> Result<std::process::Output> {
    let script = place::scripts().join(format!("{name}-up.sh"));
    // The servers themselves write to log files and inherit nothing of ours.
    Command::new("bash")
        .arg(&script)
        .env("CONSIGN_TEST_CACHE", place::cache())
        .env("CONSIGN_TEST_RUN", run)
        .stdin(Stdio::null())
        .output()
        .with_context(|| script.display().to_string())
}
