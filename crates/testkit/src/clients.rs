//! Programs written for the hosted service: how they are started, what they must do, and the record of what they did, for
//! the table that `cargo xtask clients` prints.

use std::path::Path;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

pub use crate::record::Cell;
use crate::{Missing, place, record, tool};

/// The file in the folder of a run.
pub const FILE: &str = "clients.jsonl";

/// What every client is asked to do, and what is looked at: the rows of the table.
pub const FLOWS: [(&str, &str); 21] = [
    ("user", "show the user"),
    ("create", "create a job and a task of its own; order of tasks, names, tag"),
    ("upload", "upload files: streams, names with blanks and accents, unknown length"),
    ("wait", "wait for a job and for a task"),
    ("show", "show a job and a task, with what is included"),
    ("list", "list jobs and tasks: filters, empty filters, pages"),
    ("cancel", "cancel a task, once"),
    ("retry", "retry a task"),
    ("delete", "delete a job and a task"),
    ("download", "download by the link, byte for byte"),
    ("redirect", "create and wait with a redirect to the file"),
    ("failed", "a job that fails: codes of the cause and of what depends on it"),
    ("unauthenticated", "a wrong key: 401"),
    ("not-found", "an unknown id: 404"),
    ("invalid", "a job without tasks: 422, reasons by field"),
    ("webhooks", "create, list and delete a webhook"),
    ("signature", "verify `CloudConvert-Signature` of what was really sent"),
    ("standard-signature", "verify the Standard Webhooks headers of what was really sent"),
    ("signed-url", "sign a URL and fetch it, twice with one cache key, and with a wrong secret"),
    ("live", "events of jobs, tasks and users over Socket.IO"),
    ("live-late", "subscribe when the job has ended already"),
];

/// A client: a column of the table.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Client {
    /// What it is for, and where it comes from: `Node (npm cloudconvert)`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// How it was run.
    pub via: Via,
}

/// How a client was run.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// As it is, over plain HTTP to an address of the server.
    Http,
    /// As it is, by the service's own host names, which lead to the server, over TLS with a private authority.
    Tls,
    /// Not run: its requests are sent byte for byte, and the answers read as strictly as it reads them.
    Replay,
}

/// One cell of the table.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Line {
    /// The column.
    pub client: Client,
    /// The row, by its name in [`FLOWS`].
    pub flow: String,
    /// What stands there.
    pub cell: Cell,
}

/// Writes down a cell.
///
/// # Panics
/// When there is no such flow, or the line cannot be written.
pub fn record(client: &Client, flow: &str, cell: Cell) {
    assert!(FLOWS.iter().any(|(name, _)| *name == flow), "there is no flow {flow}");
    record::append(FILE, &Line { client: client.clone(), flow: flow.to_owned(), cell });
}

/// Node on a script, which finds the clients that were installed.
///
/// # Errors
/// [`Missing`] when they are not; in CI a plain error.
pub fn node(script: &Path) -> Result<Command> {
    let modules = place::cache().join("clients/node_modules");
    if !modules.is_dir() {
        let missing = Missing::new("the clients for Node", "run scripts/testbed/setup.sh");
        ensure!(!place::in_ci(), "{missing}");
        return Err(missing.into());
    }
    let mut command = tool::command("node")?;
    command.env("NODE_PATH", modules).arg(script);
    Ok(command)
}

/// The Python that has the clients.
///
/// # Errors
/// [`Missing`] when it is not installed; in CI a plain error.
pub fn python() -> Result<Command> {
    tool::command("python-clients")
}
