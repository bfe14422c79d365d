//! Arguments as clients send them, and a delivery to a real server.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use connectors::memory::{MemoryJournal, MemorySource};
use connectors::{Digests, Kind, OpenUpload, Source as _};
use serde_json::{Value, json};
use testkit::{Key, Sshd, or_skip};

use super::*;
use crate::clock::Clock;
use crate::error::Code;
use crate::files::Files;
use crate::id::{TaskId, Token};
use crate::model::File;
use crate::operations::context::{Bounds, NoMeter};
use crate::operations::storage::Export;
use crate::operations::testing::network;
use crate::operations::{Arguments as _, Context, InputFile, Operation as _};

fn args(args: Value) -> Args {
    Args::take(args).unwrap()
}

fn faults(given: Value) -> Vec<String> {
    let mut faults = Faults::default();
    ExportSftp::check(&args(given), &mut faults);
    faults.0.into_keys().collect()
}

#[test]
fn creation_asks_for_presence_and_not_for_form() {
    let account = json!({ "host": "some-host", "username": "some-username", "file": "some-file" });
    let with = |more: Value| {
        let mut all = account.clone();
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    assert_eq!(faults(with(json!({ "password": "some-password" }))), Vec::<String>::new());
    assert_eq!(faults(with(json!({ "private_key": "some-private-key", "port": null }))), Vec::<String>::new());
    assert_eq!(faults(with(json!({ "password": "", "private_key": null }))), ["password"]);
    assert_eq!(faults(with(json!({ "path": "dir" }))), ["password", "path"]);
    assert_eq!(faults(with(json!({ "path": "", "password": "p" }))), Vec::<String>::new());
    assert_eq!(args(with(json!({ "password": "p" }))).out_of_bounds(), []);
}

#[test]
fn the_schema_marks_what_is_secret() {
    let schema = Args::schema();
    for secret in ["password", "private_key"] {
        assert_eq!(schema.as_value()["properties"][secret]["writeOnly"], true, "{secret}");
    }
    assert_eq!(schema.as_value()["required"], json!(["host", "username"]));
    assert_eq!(schema.as_value()["properties"]["port"]["default"], 22);
}

fn input(name: &str, bytes: &[u8]) -> InputFile {
    let source = MemorySource::new(bytes.to_vec());
    let file = File {
        name: name.to_owned(),
        size: source.size(),
        digests: Digests::of(bytes),
        content_type: "text/plain".to_owned(),
        blob: None,
        download: None,
        receipt: None,
    };
    InputFile { file, source: Arc::new(source) }
}

struct Task {
    context: Context,
    percents: Arc<Mutex<Vec<u8>>>,
}

async fn task(inputs: Vec<InputFile>, open: Vec<OpenUpload>) -> Task {
    let percents = Arc::new(Mutex::new(Vec::new()));
    let reported = Arc::clone(&percents);
    let clock = Clock::system();
    let context = Context {
        task_id: TaskId::new(clock.now()),
        token: Token(1),
        inputs,
        files: Files::open(&std::env::temp_dir()).await.unwrap(),
        network: network(),
        journal: Arc::new(MemoryJournal::default()),
        open,
        ahead: None,
        head_start: None,
        meter: Arc::new(NoMeter),
        report: Arc::new(move |percent| reported.lock().unwrap().push(percent)),
        clock,
        bounds: Bounds { file_bytes_max: 1, files_max: 10, files_at_once: 4, link_lifetime: Duration::from_secs(1) },
    };
    Task { context, percents }
}

fn account(sshd: &Sshd, more: &Value) -> Args {
    let mut all = json!({
        "host": sshd.addr().ip().to_string(),
        "port": sshd.addr().port().to_string(),
        "username": sshd.user(),
        "private_key": sshd.key(Key::Ed25519).unwrap().replace('\n', "\r\n"),
        "host_key": sshd.fingerprints()[0],
    });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    args(all)
}

#[tokio::test]
async fn files_arrive_with_receipts_and_progress() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let folder = sshd.folder("export").unwrap();
    let path = folder.join("new/dir").display().to_string();
    let inputs = || vec![input("a b.txt", b"one"), input("ü.txt", b"two and more"), input("a b.txt", b"three")];
    // Twice: a task that is run again leaves the same files.
    for _ in 0..2 {
        let Task { context, percents } = task(inputs(), Vec::new()).await;
        let outcome = Export::<ExportSftp>::run(account(&sshd, &json!({ "path": path })), context).await.unwrap();
        let names: Vec<&str> = outcome.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["a b.txt", "ü.txt", "a b-2.txt"]);
        let receipt = outcome.files[2].receipt.as_ref().unwrap();
        assert_eq!(receipt.location, format!("sftp://{}{path}/a b-2.txt", sshd.addr()));
        assert_eq!(receipt.host_key.as_ref(), Some(&sshd.fingerprints()[0]));
        assert!(receipt.note.as_ref().is_some_and(|note| note.contains("a b.txt")), "{receipt:?}");
        assert_eq!(percents.lock().unwrap().iter().max(), Some(&99), "100 is for the end of the task");
        let mut found: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        found.sort();
        assert_eq!(found, ["a b-2.txt", "a b.txt", "ü.txt"]);
        assert_eq!(fs::read(folder.join("new/dir/a b-2.txt")).unwrap(), b"three");
    }
}

#[tokio::test]
async fn an_exact_name_for_several_files_is_refused_before_a_byte_is_sent() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let folder = sshd.folder("export-exact").unwrap();
    let inputs = || vec![input("a", b"one"), input("b", b"two")];
    let run = async |file: &str| {
        let file = folder.join(file).display().to_string();
        Export::<ExportSftp>::run(account(&sshd, &json!({ "file": file })), task(inputs(), Vec::new()).await.context)
            .await
    };
    assert_eq!(run("x").await.unwrap_err().code, Code::NameConflict);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    run("x-%02d").await.unwrap();
    assert_eq!(fs::read(folder.join("x-02")).unwrap(), b"two");
}

#[tokio::test]
async fn what_a_failed_attempt_left_is_resumed_or_cleared_away() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let folder = sshd.folder("export-open").unwrap();
    let target = folder.join("file").display().to_string();
    let handle = folder.join(".file.consign-0123abcd.part").display().to_string();
    let open = OpenUpload {
        target: target.clone(),
        handle: handle.clone(),
        sha256: hex::encode(Digests::of(b"content").sha256),
        part_bytes: 8,
        parts: std::collections::BTreeMap::new(),
    };
    let args = || account(&sshd, &json!({ "file": target }));
    let Task { context, .. } = task(vec![input("a", b"content")], vec![open.clone()]).await;
    context.journal.opened(&open).await.unwrap();
    let network = context.network.clone();
    let leave = || {
        fs::write(&handle, "half").unwrap();
        fs::set_permissions(&handle, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    };
    leave();
    Export::<ExportSftp>::run(args(), context).await.unwrap();
    assert_eq!((fs::read(&target).unwrap(), fs::exists(&handle).unwrap()), (b"content".to_vec(), false));
    leave();
    for _ in 0..2 {
        Export::<ExportSftp>::abort(args(), open.clone(), network.clone()).await.unwrap();
        assert!(!fs::exists(&handle).unwrap());
    }
    assert_eq!(fs::read(&target).unwrap(), b"content");
}

#[tokio::test]
async fn a_key_that_cannot_be_read_fails_the_task() {
    let Task { context, .. } = task(vec![input("a", b"one")], Vec::new()).await;
    let account = args(json!({ "host": "some-host", "username": "u", "private_key": "some-private-key" }));
    let error = Export::<ExportSftp>::run(account, context).await.unwrap_err();
    assert_eq!(error.code, Code::from(Kind::InvalidCredentials));
    assert!(error.message.contains("private_key"), "{error}");
}
