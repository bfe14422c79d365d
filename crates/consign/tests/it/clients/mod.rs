//! Programs written for the hosted service, run against Consign with their client libraries as they are.

mod npm_and_pypi;
mod replay;
mod rust;
mod schemathesis;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;
use testkit::clients::{Cell, Client, FLOWS};

use super::program::{Heard, Program, Receiver, eventually};

/// A server, and what clients are told of it.
struct Server {
    program: Program,
    /// The address and the secret of a signed URL, as the command prints them.
    signed: (String, String),
    /// What signs the deliveries of a job's own address.
    webhook_secret: String,
}

/// The file that clients upload, and its length in bytes.
const FILE: (&str, usize) = ("input.pdf", 300_000);

impl Server {
    async fn started() -> Self {
        let program = Program::started(&[]).await;
        let base = format!("{}/s", program.base());
        Self::of(program, &base)
    }

    /// A server whose signed URLs are below `base`.
    fn of(program: Program, base: &str) -> Self {
        let printed = |arguments: &[&str]| {
            let made = program.run(arguments);
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            String::from_utf8(made.stdout).unwrap()
        };
        let webhook_secret = printed(&["webhook-secret"]).trim().to_owned();
        let made = printed(&["signed-url", "create", "clients"]);
        let (address, secret) = made.trim().split_once('\n').unwrap();
        let (_, id) = address.rsplit_once('/').unwrap();
        Self { signed: (format!("{base}/{id}"), secret.to_owned()), webhook_secret, program }
    }

    /// The file that clients upload.
    fn file(&self) -> PathBuf {
        let path = self.program.folder().join(FILE.0);
        std::fs::write(&path, testkit::bytes::pattern(4, FILE.1)).unwrap();
        path
    }
}

/// What a receiver heard of this event of this job.
async fn delivery(hook: &Receiver, event: &str, job: &str) -> Heard {
    let is_it = |heard: &Heard| heard.event() == event && heard.json()["job"]["id"] == job;
    eventually(event, async || hook.heard("/ok").into_iter().find(is_it)).await
}

/// Writes down how each flow ended (nothing, where `CONSIGN_TEST_CASE` names one flow to try). Every client must say something of every flow, and none may have failed.
fn conclude(client: &Client, ends: BTreeMap<String, Result<Cell, String>>, server: &Server) {
    let failed: Vec<_> =
        ends.iter().filter_map(|(flow, end)| Some(format!("{flow}: {}", end.as_ref().err()?))).collect();
    assert!(failed.is_empty(), "{client:?}\n{}\n{}", failed.join("\n"), server.program.log_tail());
    if std::env::var_os("CONSIGN_TEST_CASE").is_some() {
        return;
    }
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
