//! A server dies at every fail point, is started again, and the result is the same as if it had not died: the job ends, the
//! destination holds these bytes and nothing else, the receiver is told, and no file is kept that no row names.

use std::collections::BTreeSet;
use std::path::Path;

use consign::operations;
use serde_json::json;
use testkit::bytes;

use self::life::{Life, SMALL, link};
use super::harness::{Signal, eventually, id, task};
use super::places::Source;
use super::receiver::Receiver;

mod fleet;
mod life;
mod requests;
mod sessions;
mod storages;
mod transitions;

/// Whether a file goes in one piece.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    Small,
    Large,
}

/// An operation and the points at which it is to die.
struct Drive {
    exports: &'static str,
    imports: Option<&'static str>,
    points: &'static [(Size, &'static str)],
}

const STORAGES: [Drive; 5] = [storages::S3, storages::AZURE, storages::GCS, storages::SWIFT, storages::SFTP];

/// Points of an upload to the server and of what follows.
const UPLOADS: [&str; 6] =
    ["upload.kept", "upload.finished", "files.written", "files.published", "files.linked", "runner.finished"];
/// Points of a webhook.
const WEBHOOKS: [&str; 4] = ["webhook.told", "webhook.claimed", "webhook.sent", "webhook.recorded"];
/// Imports of bytes that stand in the task, or at a web server.
const IMPORTS: [&str; 3] = ["import/raw", "import/base64", "import/url"];
/// What clients take back.
const TAKEN_BACK: [&str; 4] = ["job.deleted", "sweep.removed", "sweep.emptied", "task.cancelled"];
/// Points of an end that is not good.
const FAILED: [&str; 2] = ["runner.delayed", "runner.failed"];
/// Points that tests name themselves.
const NAMED: [&str; 3] = ["job.created", "runner.given_back", "web.sent"];

fn name_of(point: &str) -> &str {
    point.split_once(':').map_or(point, |(name, _)| name)
}

#[test]
fn every_point_is_driven() {
    let storages = STORAGES.iter().flat_map(|drive| drive.points).map(|(_, point)| *point);
    let storages = storages.chain(storages::AHEAD).chain(storages::NAMED).chain(storages::ABORTED);
    let here = UPLOADS.into_iter().chain(WEBHOOKS).chain(TAKEN_BACK).chain(FAILED).chain(NAMED);
    let others = sessions::AT_START.into_iter().chain(sessions::NAMED).chain(requests::NAMED);
    let others = others.chain(fleet::FILES).chain(fleet::NAMED);
    let driven: BTreeSet<&str> = storages.chain(here).chain(others).map(name_of).collect();
    let declared: BTreeSet<&str> = connectors::fail_point::ALL.iter().map(|(name, _)| *name).collect();
    assert_eq!(driven, declared);
}

#[test]
fn every_operation_is_driven() {
    let storages = STORAGES.iter().flat_map(|drive| [Some(drive.exports), drive.imports]).flatten();
    let driven: BTreeSet<&str> =
        storages.chain(IMPORTS).chain(["import/upload", "export/url", "export/upload"]).collect();
    let registered: BTreeSet<&str> = operations::all().map(|entry| entry.name).collect();
    assert_eq!(driven, registered, "an operation that is new must be driven here");
}

#[test]
fn every_point_stands_in_the_code_once() {
    let mut found = Vec::new();
    for folder in ["../connectors/src", "src"] {
        let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let uses = text.split("fail_point!(\"").skip(1);
                found.extend(uses.map(|rest| rest.split_once('"').unwrap().0.to_owned()));
            }
        }
    }
    found.sort_unstable();
    let mut declared: Vec<&str> = connectors::fail_point::ALL.iter().map(|(name, _)| *name).collect();
    declared.sort_unstable();
    assert_eq!(found, declared);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload() {
    let mut life = Life::new(&[]).await;
    let content = bytes::pattern(1, SMALL);
    for point in UPLOADS.into_iter().chain(WEBHOOKS) {
        life.doomed(point).await;
        let job = life.job(&json!({"in": {"operation": "import/upload"}, "out": link()})).await;
        life.upload_that_kills(&job, &content).await;
        if ["upload.kept", "files.published"].contains(&point) {
            // The file that nobody will name is found when its task has ended: by the next hourly search, or start.
            life.program.finished(&job).await;
            life.again().await;
        }
        let ended = life.ends_well(&job).await;
        assert_eq!(life.fetched(&ended, "out").await, content, "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn imports() {
    let source = Source::start(2, SMALL).await;
    let mut life = Life::new(&[]).await;
    for operation in IMPORTS {
        for point in ["job.created", "files.published"] {
            let import = match operation {
                "import/raw" => json!({"operation": operation, "file": "hello", "filename": "a.txt"}),
                "import/base64" => json!({"operation": operation, "file": "aGVsbG8=", "filename": "a.txt"}),
                _ => json!({"operation": operation, "url": source.url("a.bin")}),
            };
            life.doomed(point).await;
            let job = life.job_that_kills(&json!({"in": import, "out": link()})).await;
            let ended = life.ends_well(&job).await;
            let content = if operation == "import/url" { bytes::pattern(2, SMALL) } else { b"hello".to_vec() };
            assert_eq!(life.fetched(&ended, "out").await, content, "{operation} {point}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_sent_to_a_web_server() {
    let server = Receiver::start().await;
    let mut life = Life::new(&[]).await;
    life.doomed("web.sent").await;
    let export = json!({"operation": "export/upload", "input": "in", "url": server.url("/put")});
    let job = life.job(&json!({"in": {"operation": "import/upload"}, "out": export})).await;
    let content = bytes::pattern(3, SMALL);
    life.upload_that_kills(&job, &content).await;
    life.ends_well(&job).await;
    let heard = server.heard("/put");
    assert_eq!(heard.len(), 2, "once before the death and once after");
    assert!(heard.iter().all(|heard| *heard.body == *content), "the same bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_not_good() {
    let mut life = Life::new(&[("TRANSFER__TRIES", "1"), ("LIMITS__ATTEMPTS_MAX", "2")]).await;
    for point in FAILED {
        life.doomed(point).await;
        let export = json!({"operation": "export/upload", "input": "in", "url": "http://127.0.0.1:1/"});
        let job = life.job(&json!({"in": {"operation": "import/upload"}, "out": export})).await;
        life.upload_that_kills(&job, b"hello").await;
        let ended = life.program.follow(&job).await;
        let failed = task(&ended, "out");
        assert_eq!(failed["status"], "error", "{point}: {failed}");
        life.is_told(&job, "job.failed").await;
        life.keeps_what_is_named().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_is_given_back() {
    let source = Source::start(4, 1 << 20).await;
    source.pause(std::time::Duration::from_millis(500));
    let mut life = Life::new(&[("LIMITS__STOP_GRACE", "100ms")]).await;
    life.doomed("runner.given_back").await;
    let import = json!({"operation": "import/url", "url": source.url("a.bin")});
    let job = life.job(&json!({"in": import, "out": link()})).await;
    eventually("some bytes", async || (source.sent_bytes() > 0).then_some(())).await;
    life.program.signal(Signal::TERM);
    life.dies().await;
    source.pause(std::time::Duration::ZERO);
    let ended = life.ends_well(&job).await;
    assert_eq!(life.fetched(&ended, "out").await, bytes::pattern(4, 1 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_take_back() {
    let mut life = Life::new(&[]).await;
    for point in TAKEN_BACK {
        life.doomed(point).await;
        let raw = json!({"operation": "import/raw", "file": "hello", "filename": "a.txt"});
        let job = life.job(&json!({"kept": raw, "in": {"operation": "import/upload"}})).await;
        if point == "task.cancelled" {
            life.ask_without_answer("POST", &format!("/v2/tasks/{}/cancel", id(task(&job, "in")))).await;
            life.dies().await;
            let ended = life.program.follow(&job).await;
            assert_eq!(task(&ended, "in")["code"], "CANCELLED", "{ended}");
            life.is_told(&job, "job.failed").await;
        } else {
            life.ask_without_answer("DELETE", &format!("/v2/jobs/{}", id(&job))).await;
            life.dies().await;
            let (status, _) = life.program.call(http::Method::GET, &format!("/v2/jobs/{}", id(&job)), None).await;
            assert_eq!(status, http::StatusCode::NOT_FOUND, "{point}");
        }
        life.keeps_what_is_named().await;
    }
}
