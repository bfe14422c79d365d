//! Killed with SIGKILL in the middle of work, and started again on the same data directory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use testkit::bytes;
use testkit::http_faults::{Action, HttpFaults, Request};
use testkit::proxy::Proxy;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::harness::{Dice, FORM_TYPE, MIB, Program, eventually, form, id, task};
use super::places::{Bucket, Folder, Source};

const SIZE: usize = 48 * MIB;
/// Two parts of 5 MiB on their way at once.
const PARTS: [(&str, &str); 2] = [("TRANSFER__PART_BYTES", "5MiB"), ("TRANSFER__PARTS_IN_FLIGHT", "2")];
const S3_IN_FLIGHT: u64 = 2 * 5 * MIB as u64;
/// What an SFTP session has on its way, and the part that is not complete.
const SFTP_IN_FLIGHT: u64 = (16 + 5) * MIB as u64;
/// Heads, signatures, listings, handshakes.
const BESIDE_BYTES: u64 = MIB as u64;

/// Makes some jobs and tasks beside the one that is watched; they must not be lost either.
async fn bystanders(program: &Program) {
    for _ in 0..5 {
        let tasks = json!({
            "in": {"operation": "import/raw", "file": "hello", "filename": "hello.txt"},
            "out": {"operation": "export/url", "input": "in"},
        });
        program.job(tasks).await;
        let raw = json!({"file": "hello", "filename": "hello.txt"});
        let (status, answer) = program.call(Method::POST, "/v2/import/raw", Some(&raw)).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
    }
}

/// Kills the server whenever the proxy has let another of `offsets` through, and starts it again.
async fn kill_at(program: &mut Program, proxy: &Proxy, offsets: &[u64]) {
    let mut target = 0;
    for (index, &offset) in offsets.iter().enumerate() {
        target += offset;
        if index > 0 {
            proxy.stall_after(offset);
            program.start().await;
        }
        eventually("the byte to be killed at", async || (proxy.sent_bytes() >= target).then_some(())).await;
        program.kill();
        // What is still in the pockets of the system belongs to the dead.
        proxy.cut();
        sleep(Duration::from_millis(100)).await;
        proxy.heal();
        assert_eq!(proxy.sent_bytes(), target);
    }
    program.start().await;
}

/// What goes over the wire in all attempts together at the most: an attempt repeats what was on its way.
fn sent_at_most(offsets: &[u64], in_flight: u64) -> u64 {
    SIZE as u64 + BESIDE_BYTES + offsets.iter().map(|offset| (*offset).min(in_flight)).sum::<u64>()
}

async fn export_from_upload(program: &Program, export: Value, seed: u64) -> Value {
    let job = program.job(json!({"in": {"operation": "import/upload"}, "save": export})).await;
    program.upload(task(&job, "in"), "big.bin", &bytes::pattern(seed, SIZE)).await;
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_goes_on_after_a_kill_at_any_byte() {
    let Some(bucket) = Bucket::empty("program-crash-bytes").await else { return };
    let mut dice = Dice::new();
    let offsets = [dice.bytes(14 * MIB..20 * MIB), dice.bytes(14 * MIB..20 * MIB), dice.bytes(1..7 * MIB)];
    println!("killed after {offsets:?} bytes");
    let proxy = Proxy::start(bucket.ceph.addr()).await.unwrap();
    let mut program = Program::started(&PARTS).await;
    bystanders(&program).await;
    proxy.stall_after(offsets[0]);
    let job = export_from_upload(&program, bucket.task(proxy.addr(), "a/b.bin", "in"), 1).await;
    kill_at(&mut program, &proxy, &offsets).await;
    program.finished(&job).await;
    let (sent, most) = (proxy.sent_bytes(), sent_at_most(&offsets, S3_IN_FLIGHT));
    println!("{sent} bytes sent, {most} allowed");
    assert!(sent <= most, "{sent} bytes were sent, more than {most}");
    let wanted = bytes::digest_pattern(1, SIZE as u64).sha256;
    assert_eq!(bucket.objects().await, json!({"a/b.bin": wanted}));
    bucket.is_tidied().await;
    program.nothing_is_lost().await;
}

fn is_creation(request: &Request) -> bool {
    request.method == "POST" && request.path.contains("uploads")
}

fn is_part(request: &Request) -> bool {
    request.path.contains("partNumber=2")
}

fn is_completion(request: &Request) -> bool {
    request.method == "POST" && request.path.contains("uploadId=")
}

/// The gateway hears the request, but the process that sent it is gone before the answer.
async fn s3_killed_before_the_answer_to(step: fn(&Request) -> bool, name: &str) {
    let Some(bucket) = Bucket::empty(name).await else { return };
    let faults = HttpFaults::start(bucket.ceph.addr()).await.unwrap();
    let mut program = Program::started(&PARTS).await;
    let (pid, done) = (program.pid(), std::sync::Arc::new(AtomicBool::new(false)));
    let is_done = std::sync::Arc::clone(&done);
    faults.rule(move |request| {
        if step(request) && !is_done.swap(true, Ordering::Relaxed) {
            kill_process(pid, Signal::KILL).unwrap();
        }
        Action::Pass
    });
    let job = export_from_upload(&program, bucket.task(faults.addr(), "a", "in"), 2).await;
    eventually("the request to be killed at", async || done.load(Ordering::Relaxed).then_some(())).await;
    program.kill();
    // The gateway has the request, and needs a moment for it.
    sleep(Duration::from_secs(1)).await;
    program.start().await;
    program.finished(&job).await;
    let wanted = bytes::digest_pattern(2, SIZE as u64).sha256;
    assert_eq!(bucket.objects().await, json!({"a": wanted}));
    bucket.is_tidied().await;
    program.nothing_is_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_leaves_no_upload_that_was_just_opened() {
    s3_killed_before_the_answer_to(is_creation, "program-crash-creation").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_goes_on_after_a_kill_at_a_part() {
    s3_killed_before_the_answer_to(is_part, "program-crash-part").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_goes_on_after_a_kill_at_completion() {
    s3_killed_before_the_answer_to(is_completion, "program-crash-completion").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_goes_on_after_a_kill_at_any_byte() {
    let Some(folder) = Folder::empty("program-crash").await else { return };
    let mut dice = Dice::new();
    let offsets = [dice.bytes(1..4 * MIB), dice.bytes(27 * MIB..38 * MIB)];
    println!("killed after {offsets:?} bytes");
    let proxy = Proxy::start(folder.sshd.addr()).await.unwrap();
    let mut program = Program::started(&PARTS).await;
    bystanders(&program).await;
    proxy.stall_after(offsets[0]);
    let job = export_from_upload(&program, folder.task(proxy.addr(), "in"), 3).await;
    kill_at(&mut program, &proxy, &offsets).await;
    program.finished(&job).await;
    let (sent, most) = (proxy.sent_bytes(), sent_at_most(&offsets, SFTP_IN_FLIGHT));
    println!("{sent} bytes sent, {most} allowed");
    assert!(sent <= most, "{sent} bytes were sent, more than {most}");
    assert_eq!(folder.names(), ["big.bin".to_owned()].into());
    let (found, wanted) = (bytes::digest_file(&folder.path.join("big.bin")), bytes::digest_pattern(3, SIZE as u64));
    assert_eq!(found.unwrap(), wanted);
    program.nothing_is_lost().await;
}

/// The links of a finished `export/url` task.
async fn fetched(program: &Program, job: &Value, name: &str) -> Vec<u8> {
    let task = task(job, name);
    let (status, bytes) = program.fetch(task["result"]["files"][0]["url"].as_str().unwrap()).await;
    assert_eq!(status, StatusCode::OK);
    bytes.to_vec()
}

/// Posts half of a file and keeps the connection open.
#[expect(clippy::disallowed_methods, reason = "loopback only, and no part of the program")]
async fn half_an_upload(program: &Program, task: &Value) -> TcpStream {
    let url = url::Url::parse(&program.form_url(task)).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", url.port().unwrap())).await.unwrap();
    let (head, _) = form(task, "half.bin");
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {FORM_TYPE}\r\nContent-Length: {}\r\n\r\n{head}",
        url.path(),
        head.len() + 16 * MIB,
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.write_all(&bytes::pattern(4, 8 * MIB)).await.unwrap();
    eventually("a half-written file", async || program.is_writing(task).then_some(())).await;
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn half_an_upload_is_none() {
    let mut program = Program::started(&[]).await;
    let tasks = json!({"in": {"operation": "import/upload"}, "out": {"operation": "export/url", "input": "in"}});
    let job = program.job(tasks).await;
    let waiting = task(&job, "in");
    let stream = half_an_upload(&program, waiting).await;
    drop(stream);
    eventually("an empty file store", async || program.files().is_empty().then_some(())).await;
    let stream = half_an_upload(&program, waiting).await;
    program.restart_after_kill().await;
    drop(stream);
    assert_eq!(program.files(), [].into(), "half a file stays");
    let shown = program.show(&format!("/v2/tasks/{}", id(waiting))).await;
    assert_eq!((&shown["status"], &shown["result"]["files"]), (&json!("waiting"), &Value::Null), "{shown}");
    program.upload(waiting, "whole.bin", &bytes::pattern(5, 3 * MIB)).await;
    let ended = program.finished(&job).await;
    assert_eq!(fetched(&program, &ended, "out").await, bytes::pattern(5, 3 * MIB));
    assert_eq!(program.files().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_from_the_web_starts_again() {
    let mut dice = Dice::new();
    let source = Source::start(6, 16 * MIB).await;
    source.pause(Duration::from_millis(10));
    let mut program = Program::started(&[]).await;
    let job = program
        .job(json!({
            "in": {"operation": "import/url", "url": source.url("a.bin")},
            "out": {"operation": "export/url", "input": "in"},
        }))
        .await;
    for _ in 0..2 {
        let target = source.sent_bytes() + dice.bytes(MIB..8 * MIB);
        eventually("the byte to be killed at", async || (source.sent_bytes() >= target).then_some(())).await;
        program.restart_after_kill().await;
    }
    source.pause(Duration::ZERO);
    let ended = program.finished(&job).await;
    assert_eq!(bytes::digest(&fetched(&program, &ended, "out").await), bytes::digest_pattern(6, 16 * MIB as u64));
    let files = program.files();
    assert_eq!(files.len(), 2, "one file a task: {files:?}");
    program.nothing_is_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_is_made_again() {
    let source = Source::start(7, 16 * MIB).await;
    let mut program = Program::started(&[]).await;
    let import = |name: &str| json!({"operation": "import/url", "url": source.url(name)});
    let job = program
        .job(json!({
            "a": import("a.txt"), "b": import("b.txt"), "c": import("c.txt"),
            "zip": {"operation": "export/url", "input": ["a", "b", "c"], "archive_multiple_files": true},
        }))
        .await;
    eventually("half an archive", async || program.is_writing(task(&job, "zip")).then_some(())).await;
    program.restart_after_kill().await;
    let ended = program.finished(&job).await;
    let archive = fetched(&program, &ended, "zip").await;
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(archive)).unwrap();
    assert_eq!(archive.len(), 3);
    for index in 0..3 {
        let mut content = Vec::new();
        std::io::copy(&mut archive.by_index(index).unwrap(), &mut content).unwrap();
        assert_eq!(bytes::digest(&content), bytes::digest_pattern(7, 16 * MIB as u64));
    }
    let files = program.files();
    assert_eq!(files.len(), 4, "one file a task: {files:?}");
}

/// A task that takes the server down each time is given up, so that the server can live.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_kills_the_server_is_given_up() {
    let source = Source::start(8, 16 * MIB).await;
    source.pause(Duration::from_millis(20));
    let mut program = Program::started(&[("LIMITS__ATTEMPTS_MAX", "2")]).await;
    let job = program.job(json!({"in": {"operation": "import/url", "url": source.url("a.bin")}})).await;
    for _ in 0..2 {
        let target = source.sent_bytes() + MIB as u64;
        eventually("the byte to be killed at", async || (source.sent_bytes() >= target).then_some(())).await;
        program.restart_after_kill().await;
    }
    let ended = program.follow(&job).await;
    assert_eq!(task(&ended, "in")["code"], "WORKER_LOST", "{ended:#}");
}
