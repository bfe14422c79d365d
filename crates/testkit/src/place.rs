//! Where things are: the cache folder with what was installed, the folder of this run, the scripts.
//!
//! Read from the environment here and nowhere else; the names are those of `scripts/testbed/lib.sh`.

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

fn folder(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// What `setup.sh` installed.
pub(crate) fn cache() -> PathBuf {
    folder("CONSIGN_TEST_CACHE")
        .unwrap_or_else(|| folder("HOME").unwrap_or_else(|| "/root".into()).join(".cache/consign-test"))
}

/// One folder for each running server.
pub(crate) fn run() -> PathBuf {
    folder("CONSIGN_TEST_RUN").unwrap_or_else(|| cache().join("run"))
}

/// The folder of this run, if it was named: then somebody reads what the tests write there.
pub(crate) fn given_run() -> Option<PathBuf> {
    folder("CONSIGN_TEST_RUN")
}

/// The scripts that start and stop servers.
pub(crate) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/testbed")
}

/// Whether a missing server is a failure.
pub fn in_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// Notes a skipped test, or a part of one, for the summary of `scripts/test`, when that runs.
pub fn note_skipped(line: &str) {
    if let Some(run) = given_run()
        && let Ok(mut file) = OpenOptions::new().create(true).append(true).open(run.join("skipped"))
    {
        // Best effort: the line was printed already.
        writeln!(file, "{line}").ok();
    }
}
