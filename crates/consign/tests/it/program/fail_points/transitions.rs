//! Behind every call that changes a task, a delivery or what is open at a destination stands a point of its own: the list comes
//! from the store's traits, and the calls from the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The traits of the store that have such methods.
const TRAITS: [&str; 5] = ["transitions", "ledger", "jobs", "signed_urls", "webhooks"];

/// Method, the file that calls it, and the point behind each of the calls there, in their order.
const CHANGES: [(&str, &str, &[&str]); 36] = [
    ("open_session", "runner/lease.rs", &["session.opened"]),
    ("heartbeat", "runner/lease.rs", &["session.beat"]),
    ("close_session", "runner/mod.rs", &["session.closed"]),
    ("expire_sessions", "runner/mod.rs", &["sessions.ended"]),
    ("expire_sessions", "runner/recover.rs", &["recover.expired"]),
    ("claim", "runner/claim.rs", &["runner.claimed"]),
    ("finish", "runner/step.rs", &["runner.finished"]),
    ("fail", "runner/step.rs", &["runner.failed"]),
    ("delay", "runner/step.rs", &["runner.delayed"]),
    ("give_back", "runner/step.rs", &["runner.given_back"]),
    ("give_back", "runner/recover.rs", &["recover.given_back"]),
    ("release_due", "runner/recover.rs", &["recover.released"]),
    ("finish_upload", "http/upload.rs", &["upload.finished"]),
    ("expire_uploads", "runner/recover.rs", &["recover.uploads_ended"]),
    ("cancel", "http/v2/tasks/cancel.rs", &["task.cancelled"]),
    ("delete_task", "http/v2/tasks/delete.rs", &["task.deleted"]),
    ("delete_job", "http/v2/jobs/delete.rs", &["job.deleted"]),
    ("expire", "runner/sweep.rs", &["sweep.expired"]),
    ("ledger_open", "runner/journal.rs", &["ledger.opened"]),
    ("ledger_seal", "runner/ahead/mod.rs", &["ahead.sealed"]),
    ("ledger_part", "runner/journal.rs", &["ledger.part"]),
    ("ledger_close", "runner/journal.rs", &["ledger.closed"]),
    ("ledger_close", "runner/ahead/mod.rs", &["ahead.cleared"]),
    ("ledger_aborted", "runner/abort.rs", &["abort.closed", "abort.given_up"]),
    ("ledger_abort_failed", "runner/abort.rs", &["abort.put_off"]),
    ("create_job", "http/v2/jobs/create.rs", &["job.created"]),
    ("create_job", "http/signed.rs", &["signed.created"]),
    ("create_signed_job", "http/signed.rs", &["signed.created"]),
    ("create_task", "http/v2/tasks/create.rs", &["task.created"]),
    ("create_task", "http/v2/tasks/retry.rs", &["task.retried"]),
    ("trash_emptied", "runner/sweep.rs", &["sweep.emptied"]),
    ("tell", "http/event.rs", &["webhook.told"]),
    ("claim_deliveries", "webhooks/mod.rs", &["webhook.claimed"]),
    ("release_deliveries", "webhooks/mod.rs", &["webhook.released"]),
    ("end_attempt", "webhooks/send.rs", &["webhook.recorded"]),
    ("redeliver", "http/v2/deliveries/redeliver.rs", &["webhook.due_again"]),
];

/// Methods of these traits that change nothing.
const READS: [&str; 23] = [
    "session_time",
    "holds",
    "leases",
    "follower",
    "ledger_orphans",
    "replay",
    "job",
    "jobs",
    "list_jobs",
    "task",
    "task_of_link",
    "linked_file",
    "tasks",
    "list_tasks",
    "retries",
    "payload",
    "trash",
    "blobs",
    "signed_url",
    "list_signed_urls",
    "signed_result",
    "webhooks",
    "outbox",
];
/// The same, of what is told.
const READS_OF_WEBHOOKS: [&str; 3] = ["outbox_of", "next_delivery", "deliveries"];
/// Methods that take something for a short while only: whoever dies with it puts off what others do with it.
const LEASES: [&str; 3] = ["ledger_claim_abort", "take_trash", "take_outbox"];
/// Methods that change what a user has set up, or forget what was told long ago: no work is lost with them.
const SETTINGS: [&str; 7] = [
    "create_signed_url",
    "revoke_signed_url",
    "create_webhook",
    "delete_webhook",
    "webhook_secret",
    "rotate_webhook_secret",
    "expire_deliveries",
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The methods of the traits, as the code has them.
fn methods() -> BTreeSet<String> {
    let texts = TRAITS.map(|name| fs::read_to_string(source().join(format!("store/{name}.rs"))).unwrap());
    let names = texts.iter().flat_map(|text| text.lines());
    let names = names.filter_map(|line| line.trim().strip_prefix("async fn ")?.split_once('('));
    names.map(|(name, _)| name.to_owned()).collect()
}

/// The code of the program but for the store itself, by path below `src`: no comments, no tests, one line a file.
fn code() -> BTreeMap<String, String> {
    let (root, mut found) = (source(), BTreeMap::new());
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let inner = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            if path.file_stem().is_some_and(|stem| stem == "tests") {
                continue;
            }
            if path.is_dir() && inner != "store" {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.insert(inner, one_line(&fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found
}

fn one_line(text: &str) -> String {
    let production = text.split("\n#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines = production.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    lines.collect::<Vec<_>>().join(" ").replace(" .", ".")
}

/// What stands behind each call of this method on a store, up to the end of the function.
fn behind<'a>(code: &'a str, method: &str) -> Vec<&'a str> {
    let call = format!("store.{method}(");
    let rests = code.match_indices(&call).map(|(at, _)| &code[at + call.len()..]);
    rests.map(|rest| rest.split_once(" fn ").map_or(rest, |(here, _)| here)).collect()
}

/// What is wrong with the code, by the table.
fn faults(code: &BTreeMap<String, String>) -> Vec<String> {
    let changes: BTreeSet<&str> = CHANGES.iter().map(|(method, ..)| *method).collect();
    let mut faults = Vec::new();
    for (file, text) in code {
        for method in &changes {
            let rows = CHANGES.iter().find(|(named, there, _)| named == method && *there == file.as_str());
            let points: &[&str] = rows.map(|(.., points)| *points).unwrap_or_default();
            let calls = behind(text, method);
            if calls.len() != points.len() {
                faults.push(format!("{file} calls {method} {} times, and the table has {}", calls.len(), points.len()));
            }
            for (call, point) in calls.iter().zip(points) {
                if !call.contains(&format!("fail_point!(\"{point}\")")) {
                    faults.push(format!("{file}: {point} does not stand behind {method}"));
                }
            }
        }
    }
    faults
}

#[test]
fn every_method_that_changes_something_is_known() {
    let changes = CHANGES.iter().map(|(method, ..)| *method);
    let known = changes.chain(READS).chain(READS_OF_WEBHOOKS).chain(LEASES).chain(SETTINGS).map(str::to_owned);
    assert_eq!(
        known.collect::<BTreeSet<_>>(),
        methods(),
        "a method that is new must be here, with its points if it changes something"
    );
}

#[test]
fn every_change_has_its_point() {
    let mut code = code();
    assert_eq!(faults(&code), Vec::<String>::new());
    for (method, file, _) in CHANGES {
        assert!(code.get(file).is_some_and(|text| !behind(text, method).is_empty()), "{file} does not call {method}");
    }
    // A point that is gone and a call that is new are seen.
    let claim = code.get_mut("runner/claim.rs").unwrap();
    *claim = claim.replace("connectors::fail_point!(\"runner.claimed\")", "");
    code.insert("runner/new.rs".to_owned(), one_line("fn f() {\n    tools\n        .store\n        .claim(&x)\n}"));
    let faults = faults(&code);
    assert!(faults.len() == 2 && faults.iter().all(|fault| fault.contains("claim")), "{faults:?}");
}
