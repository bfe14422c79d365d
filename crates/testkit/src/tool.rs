//! Client programs by other hands, which the tests use as independent witnesses.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use crate::{Missing, place};

/// How long a program may take.
pub const TIMEOUT: Duration = Duration::from_mins(3);

/// Finds a program: `rclone`, `7z`, `bsdtar` or `python` (with boto3) of the test bed, else one of the machine.
///
/// # Errors
/// [`Missing`] when there is none; in CI a plain error.
pub fn find(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(place::cache().join("bin")).chain(std::env::split_paths(&path));
    if let Some(program) = folders.map(|folder| folder.join(name)).find(|program| program.is_file()) {
        return Ok(program);
    }
    Err(missing(name))
}

/// That a program is not there: [`Missing`]; in CI a plain error.
pub(crate) fn missing(name: &str) -> anyhow::Error {
    let missing = Missing::new(name, "run scripts/testbed/setup.sh, or install it");
    if place::in_ci() { anyhow::anyhow!("{missing}") } else { missing.into() }
}

/// A program that is found by [`find`], ready for arguments; it has no standard input and dies with the test.
///
/// # Errors
/// Those of [`find`].
#[expect(clippy::disallowed_methods, reason = "starting programs is what this crate is for")]
pub fn command(name: &str) -> Result<Command> {
    let mut command = Command::new(find(name)?);
    command.stdin(Stdio::null()).kill_on_drop(true);
    Ok(command)
}

/// Runs a program to its end and gives its standard output.
///
/// # Errors
/// Those of [`find`]; when it ends with a failure (the error shows what it wrote) or not within [`TIMEOUT`].
pub async fn run<A: AsRef<OsStr> + Sync>(name: &str, arguments: &[A]) -> Result<Vec<u8>> {
    let mut command = command(name)?;
    command.args(arguments);
    output(name, command).await
}

/// Runs a command to its end and gives its standard output; `name` is for the error.
pub(crate) async fn output(name: &str, mut command: Command) -> Result<Vec<u8>> {
    let ended = tokio::time::timeout(TIMEOUT, command.output()).await;
    let Output { status, stdout, stderr } = ended.with_context(|| format!("{name}: no end after {TIMEOUT:?}"))??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(status.success(), "{name}: {status}\n{}{}", text(&stdout), text(&stderr));
    Ok(stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn archives_are_read_by_others() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.txt");
        std::fs::write(&file, b"hello").unwrap();
        let archive = dir.path().join("a.zip");
        let arguments = ["a".as_ref(), archive.as_os_str(), file.as_os_str()];
        if crate::or_skip(run("7z", &arguments).await).is_none() {
            return;
        }
        let listed = run("bsdtar", &["-tf".as_ref(), archive.as_os_str()]).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&listed).trim(), "a.txt");
        assert!(run("bsdtar", &["-tf", "/no/such/file"]).await.is_err());
    }

    #[test]
    fn an_unknown_program_is_missing() {
        let error = find("no-such-program-anywhere").unwrap_err();
        assert_eq!(error.is::<Missing>(), !place::in_ci());
        assert!(error.to_string().contains("setup.sh"));
    }
}
