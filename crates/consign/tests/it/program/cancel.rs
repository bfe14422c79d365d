//! Cancelling and deleting in the middle of a transfer: answered at once, stopped soon, tidied up.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use testkit::bytes;
use testkit::http_faults::{Action, HttpFaults};
use testkit::proxy::Proxy;
use tokio::time::sleep;

use super::harness::{MIB, Program, eventually, id, task};
use super::places::{Bucket, Folder};

/// How long a request may take that only says that something is to stop.
const AT_ONCE: Duration = Duration::from_secs(10);
const SIZE: usize = 48 * MIB;
const PARTS: [(&str, &str); 2] = [("TRANSFER__PART_BYTES", "5MiB"), ("TRANSFER__PARTS_IN_FLIGHT", "2")];

/// A slow export that is under way, with a task that waits for it.
async fn under_way(program: &Program, proxy: &Proxy, export: Value) -> Value {
    proxy.delay(Duration::from_millis(20));
    let tasks = json!({
        "in": {"operation": "import/upload"}, "save": export,
        "after": {"operation": "export/url", "input": "save"},
    });
    let job = program.job(tasks).await;
    program.upload(task(&job, "in"), "big.bin", &bytes::pattern(1, SIZE)).await;
    eventually("bytes on their way", async || (proxy.sent_bytes() > MIB as u64).then_some(())).await;
    job
}

async fn at_once(program: &Program, method: Method, path: &str) -> Value {
    let began = Instant::now();
    let (status, answer) = program.call(method, path, None).await;
    assert!(status.is_success() && began.elapsed() < AT_ONCE, "{status} after {:?}: {answer}", began.elapsed());
    answer
}

/// Far from all bytes of the file go out, although nothing slows them down any more.
async fn falls_silent(proxy: &Proxy) {
    proxy.heal();
    sleep(Duration::from_secs(2)).await;
    let sent = proxy.sent_bytes();
    sleep(Duration::from_secs(2)).await;
    let since = proxy.sent_bytes() - sent;
    assert!(since < 64 * 1024, "{since} bytes were sent after the end");
    assert!(sent < SIZE as u64 * 3 / 4, "{sent} bytes were sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_upload_is_aborted_when_cancelled() {
    let Some(bucket) = Bucket::empty("program-cancel").await else { return };
    let proxy = Proxy::start(bucket.ceph.addr()).await.unwrap();
    let program = Program::started(&PARTS).await;
    let job = under_way(&program, &proxy, bucket.task(proxy.addr(), "a", "in")).await;
    bucket.has_open_upload().await;
    let cancelled = at_once(&program, Method::POST, &format!("/v2/tasks/{}/cancel", id(task(&job, "save")))).await;
    assert_eq!(cancelled["data"]["code"], "CANCELLED", "{cancelled}");
    let ended = program.show(&format!("/v2/jobs/{}", id(&job))).await;
    assert_eq!(ended["status"], "error");
    assert_eq!(task(&ended, "after")["code"], "INPUT_TASK_FAILED", "{ended:#}");
    falls_silent(&proxy).await;
    bucket.is_tidied().await;
    assert_eq!(bucket.objects().await, json!({}));
}

/// Cancelled when the gateway has opened the upload and nobody here has heard of it.
#[tokio::test(flavor = "multi_thread")]
async fn s3_upload_is_aborted_when_cancelled_while_it_is_opened() {
    let Some(bucket) = Bucket::empty("program-cancel-early").await else { return };
    let faults = HttpFaults::start(bucket.ceph.addr()).await.unwrap();
    faults.rule(|request| {
        let opens = request.method == "POST" && request.path.contains("uploads");
        if opens { Action::DropAnswer } else { Action::Pass }
    });
    let program = Program::started(&PARTS).await;
    let job = program.job(json!({"in": {"operation": "import/upload"}, "save": bucket.task(faults.addr(), "a", "in")}));
    let job = job.await;
    program.upload(task(&job, "in"), "big.bin", &bytes::pattern(1, SIZE)).await;
    bucket.has_open_upload().await;
    at_once(&program, Method::POST, &format!("/v2/tasks/{}/cancel", id(task(&job, "save")))).await;
    bucket.is_tidied().await;
    assert_eq!(bucket.objects().await, json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_temporary_file_goes_when_the_job_is_deleted() {
    let Some(folder) = Folder::empty("program-cancel").await else { return };
    let proxy = Proxy::start(folder.sshd.addr()).await.unwrap();
    let program = Program::started(&PARTS).await;
    let job = under_way(&program, &proxy, folder.task(proxy.addr(), "in")).await;
    assert_eq!(folder.names().len(), 1, "{:?}", folder.names());
    let path = format!("/v2/jobs/{}", id(&job));
    at_once(&program, Method::DELETE, &path).await;
    let (status, _) = program.call(Method::GET, &path, None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    falls_silent(&proxy).await;
    eventually("an empty folder", async || folder.names().is_empty().then_some(())).await;
    eventually("an empty file store", async || program.files().is_empty().then_some(())).await;
}

/// The bytes that an export has begun to read are its own.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_outlives_the_task_that_it_reads() {
    let Some(folder) = Folder::empty("program-input-deleted").await else { return };
    let proxy = Proxy::start(folder.sshd.addr()).await.unwrap();
    let program = Program::started(&PARTS).await;
    let job = under_way(&program, &proxy, folder.task(proxy.addr(), "in")).await;
    at_once(&program, Method::DELETE, &format!("/v2/tasks/{}", id(task(&job, "in")))).await;
    let input = id(task(&job, "in"));
    eventually("the files of the input gone", async || {
        program.files().iter().all(|file| !file.to_string_lossy().contains(&input)).then_some(())
    })
    .await;
    proxy.heal();
    let ended = program.follow(&job).await;
    assert_eq!(task(&ended, "save")["status"], "finished", "{ended:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_dies_with_its_job() {
    let program = Program::started(&[]).await;
    let raw = json!({"operation": "import/raw", "file": "hello", "filename": "hello.txt"});
    let job = program.job(json!({"in": raw, "out": {"operation": "export/url", "input": "in"}})).await;
    let ended = program.finished(&job).await;
    let link = task(&ended, "out")["result"]["files"][0]["url"].as_str().unwrap();
    assert_eq!(program.fetch(link).await, (StatusCode::OK, "hello".into()));
    at_once(&program, Method::DELETE, &format!("/v2/jobs/{}", id(&job))).await;
    assert_eq!(program.fetch(link).await.0, StatusCode::NOT_FOUND);
    eventually("an empty file store", async || program.files().is_empty().then_some(())).await;
}
