//! Writes down what was shown of which server, for the conformance matrix that `cargo xtask conformance` prints.
//!
//! A line of JSON for each cell goes to `conformance.jsonl` in the folder of the run, when `CONSIGN_TEST_RUN` is set.
//! Only what was shown is written: a test that fails writes nothing.

use serde::{Deserialize, Serialize};

use crate::record;
pub use crate::record::Cell;

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
    record::append(FILE, &Line { server: server.clone(), row, cell });
}

/// Writes down that an argument was read back from the server, for one form of write.
pub fn argument(server: &Server, name: &str, form: Form, cell: Cell) {
    record(server, Row::Argument { name: name.to_owned(), form }, cell);
}
