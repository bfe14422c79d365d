//! Writes down what tests showed, a line of JSON for each cell of a table that `cargo xtask` prints.

use std::fs::OpenOptions;
use std::io::Write as _;

use serde::{Deserialize, Serialize};

use crate::place;

/// How it ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cell {
    /// Shown, without reservation.
    Shown,
    /// Shown in another way, as the note says.
    Otherwise(String),
    /// It cannot be asked, for the reason given.
    Excluded(String),
}

/// Adds a line to a file in the folder of the run, when `CONSIGN_TEST_RUN` names one.
///
/// # Panics
/// When the line cannot be written.
pub(crate) fn append(file: &str, line: &impl Serialize) {
    let Some(run) = place::given_run() else { return };
    let line = serde_json::to_string(line).expect("plain data becomes JSON");
    std::fs::create_dir_all(&run).expect("the folder of the run can be made");
    let mut file = OpenOptions::new().create(true).append(true).open(run.join(file)).expect("the folder is writable");
    // In one go: tests of other processes write lines of their own.
    file.write_all(format!("{line}\n").as_bytes()).expect("the line can be written");
}
