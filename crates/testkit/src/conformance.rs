//! Writes down what was shown of which server, for the conformance matrix that `cargo xtask conformance` prints.
//!
//! A line of JSON for each cell goes to `conformance.jsonl` in the folder of the run, when `CONSIGN_TEST_RUN` is set.
//! Only what was shown is written: a test that fails writes nothing.

use std::fs::OpenOptions;
use std::io::Write as _;

use serde::{Deserialize, Serialize};

use crate::place;

/// The file in the folder of a run.
pub const FILE: &str = "conformance.jsonl";

/// A server that a connector was shown with: a column of the matrix.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Server {
    /// What operations call the system: `s3`, `azure/blob`, `google-cloud-storage`, `openstack`, `sftp`.
    pub system: String,
    /// What the server is: `Ceph Object Gateway`.
    pub name: String,
    /// Its version, as it says itself.
    pub version: String,
    /// What it is worth as a proof.
    pub standing: Standing,
    /// The client by another hand that read the objects back, with its version. The test of the contract names it; others
    /// may leave it empty.
    pub witness: String,
}

/// What a server is worth as a proof.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// By other hands: its cells count.
    Real,
    /// An emulator, or a part of ours, stands in for something that cannot be had.
    StandIn,
    /// Our own practice server: its cells do not count.
    Practice,
}

/// What was asked: a row of the matrix.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Row {
    /// A case of the contract, by its name.
    Case(String),
    /// An argument of the export, and the form of write that carried it.
    Argument {
        /// Its name: `acl`.
        name: String,
        /// How the object was written.
        form: Form,
    },
}

/// How an object is written.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// In one request, or one stream.
    Single,
    /// In parts: multipart, blocks, a session, segments.
    Parts,
}

/// How it ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cell {
    /// Shown: the server held it, the witness read it back.
    Shown,
    /// Shown in another way, as the note says.
    Otherwise(String),
    /// It cannot be asked, for the reason given.
    Excluded(String),
}

/// One cell of the matrix.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Line {
    /// The column.
    pub server: Server,
    /// The row.
    pub row: Row,
    /// What stands there.
    pub cell: Cell,
}

/// Writes down a cell.
///
/// # Panics
/// When the line cannot be written.
pub fn record(server: &Server, row: Row, cell: Cell) {
    let Some(run) = place::given_run() else { return };
    let line = serde_json::to_string(&Line { server: server.clone(), row, cell }).expect("plain data becomes JSON");
    std::fs::create_dir_all(&run).expect("the folder of the run can be made");
    let mut file = OpenOptions::new().create(true).append(true).open(run.join(FILE)).expect("the folder is writable");
    // In one go: tests of other processes write lines of their own.
    file.write_all(format!("{line}\n").as_bytes()).expect("the line can be written");
}

/// Writes down that an argument was read back from the server, for one form of write.
pub fn argument(server: &Server, name: &str, form: Form, cell: Cell) {
    record(server, Row::Argument { name: name.to_owned(), form }, cell);
}
