//! Programs written for the hosted service, run against Consign with their client libraries as they are.

mod npm_and_pypi;
mod receiver;
mod rust;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use testkit::clients::{Cell, Client, FLOWS};

use super::program::Program;

/// A server, and what clients are told of it.
struct Server {
    program: Program,
    /// The address and the secret of a signed URL, as the command prints them.
    signed: (String, String),
}

/// The file that clients upload, and its length in bytes.
const FILE: (&str, usize) = ("input.pdf", 300_000);

impl Server {
    async fn started(settings: &[(&str, &str)]) -> Self {
        Self::of(Program::started(settings).await)
    }

    fn of(program: Program) -> Self {
        let made = program.run(&["signed-url", "create", "clients"]);
        let made = String::from_utf8(made.stdout).unwrap();
        let mut words = made.split_whitespace();
        let base = words.find(|word| word.contains("/s/")).unwrap_or_default().to_owned();
        let secret = words.next().unwrap_or_default().to_owned();
        Self { program, signed: (base, secret) }
    }

    /// The file that clients upload.
    fn file(&self) -> PathBuf {
        let path = self.program.folder().join(FILE.0);
        std::fs::write(&path, testkit::bytes::pattern(4, FILE.1)).unwrap();
        path
    }
}

/// Writes down how each flow ended. Every client must say something of every flow, and none may have failed.
fn conclude(client: &Client, ends: BTreeMap<String, Result<Cell, String>>, server: &Server) {
    let failed: Vec<_> =
        ends.iter().filter_map(|(flow, end)| Some(format!("{flow}: {}", end.as_ref().err()?))).collect();
    assert!(failed.is_empty(), "{client:?}\n{}\n{}", failed.join("\n"), server.program.log_tail());
    let silent: Vec<_> = FLOWS.iter().filter(|(flow, _)| !ends.contains_key(*flow)).collect();
    assert!(silent.is_empty(), "{client:?} says nothing of {silent:?}");
    for (flow, end) in ends {
        testkit::clients::record(client, &flow, end.expect("none failed"));
    }
}

/// What a program tells, one line of JSON for each flow.
fn told(line: &str) -> (String, Result<Cell, String>) {
    let mut line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let flow = line["flow"].as_str().expect("a flow").to_owned();
    match line["failed"].as_str() {
        Some(failed) => (flow, Err(failed.to_owned())),
        None => (flow, Ok(serde_json::from_value(line["cell"].take()).expect("a cell"))),
    }
}
