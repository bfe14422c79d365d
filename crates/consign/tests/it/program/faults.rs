//! Destinations that fail for a while, or for good.

use std::time::Duration;

use serde_json::json;
use testkit::bytes;
use testkit::http_faults::{Action, HttpFaults};
use testkit::proxy::Proxy;
use tokio::time::sleep;

use super::harness::{MIB, Program, task};
use super::places::Bucket;

const PARTS: [(&str, &str); 2] = [("TRANSFER__PART_BYTES", "5MiB"), ("TRANSFER__PARTS_IN_FLIGHT", "2")];

#[tokio::test(flavor = "multi_thread")]
async fn s3_that_refuses_every_fifth_request_gets_its_file() {
    let Some(bucket) = Bucket::empty("program-fifth").await else { return };
    let faults = HttpFaults::start(bucket.ceph.addr()).await.unwrap();
    faults.answer_every(5, 503, None);
    let program = Program::started(&PARTS).await;
    let tasks = json!({
        "in": {"operation": "import/upload"},
        "large": bucket.task(faults.addr(), "large", "in"),
        "again": bucket.task(faults.addr(), "again", "in"),
    });
    let job = program.job(tasks).await;
    program.upload(task(&job, "in"), "big.bin", &bytes::pattern(1, 24 * MIB)).await;
    program.finished(&job).await;
    assert!(faults.requests().iter().any(|request| request.status == Some(503)));
    let wanted = bytes::digest_pattern(1, 24 * MIB as u64).sha256;
    assert_eq!(bucket.objects().await, json!({"again": wanted, "large": wanted}));
    bucket.is_tidied().await;
}

/// With one try a request, the task itself is tried again; it stays `processing` all the while.
#[tokio::test(flavor = "multi_thread")]
async fn s3_that_is_down_at_first_gets_its_file() {
    let Some(bucket) = Bucket::empty("program-down").await else { return };
    let proxy = Proxy::start(bucket.ceph.addr()).await.unwrap();
    proxy.refuse().await.unwrap();
    let program = Program::started(&[("TRANSFER__TRIES", "1")]).await;
    let job = program.job(json!({"in": {"operation": "import/upload"}, "save": bucket.task(proxy.addr(), "a", "in")}));
    let job = job.await;
    program.upload(task(&job, "in"), "a.bin", &bytes::pattern(2, MIB)).await;
    let follow = async {
        sleep(Duration::from_secs(4)).await;
        proxy.accept().await.unwrap();
    };
    tokio::join!(program.finished(&job), follow);
    assert!(program.log().contains("attempt failed"), "it was never tried while the gateway was down");
    assert_eq!(bucket.objects().await, json!({"a": bytes::digest_pattern(2, MIB as u64).sha256}));
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_that_never_works_ends_the_task_after_its_attempts() {
    let Some(bucket) = Bucket::empty("program-broken").await else { return };
    let faults = HttpFaults::start(bucket.ceph.addr()).await.unwrap();
    faults.rule(|_| Action::Answer { status: 503, retry_after_secs: None });
    let program = Program::started(&[("TRANSFER__TRIES", "2"), ("LIMITS__ATTEMPTS_MAX", "3")]).await;
    let job = program.job(json!({"in": {"operation": "import/upload"}, "save": bucket.task(faults.addr(), "a", "in")}));
    let job = job.await;
    program.upload(task(&job, "in"), "a.bin", &bytes::pattern(3, MIB)).await;
    let ended = program.follow(&job).await;
    assert_eq!(task(&ended, "save")["code"], "REMOTE_THROTTLED", "{ended:#}");
    assert_eq!(faults.requests().len(), 6, "2 tries in each of 3 attempts");
}
