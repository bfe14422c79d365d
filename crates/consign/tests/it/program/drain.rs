//! SIGTERM: what runs may end, what does not end in time is given back, nothing new is begun.

use std::time::{Duration, Instant};

use consign::model::State;
use consign::store::Jobs as _;
use serde_json::{Value, json};
use testkit::bytes;
use testkit::proxy::Proxy;

use super::harness::{MIB, Program, Signal, eventually, id, task};
use super::places::Bucket;

const PARTS: [(&str, &str); 2] = [("TRANSFER__PART_BYTES", "5MiB"), ("TRANSFER__PARTS_IN_FLIGHT", "2")];

/// A job whose export runs slowly, and one that waits behind it because only one task may run.
async fn two_jobs(program: &Program, bucket: &Bucket, proxy: &Proxy, size: usize) -> [Value; 2] {
    let tasks = |key| json!({"in": {"operation": "import/upload"}, "save": bucket.task(proxy.addr(), key, "in")});
    let (first, second) = (program.job(tasks("first")).await, program.job(tasks("second")).await);
    program.upload(task(&first, "in"), "a.bin", &bytes::pattern(1, size)).await;
    eventually("bytes on their way", async || (proxy.sent_bytes() > 0).then_some(())).await;
    program.upload(task(&second, "in"), "a.bin", &bytes::pattern(1, MIB)).await;
    [first, second]
}

/// State and number of attempts of the job's export, read behind the server's back.
async fn export_of(program: &Program, job: &Value) -> (State, u32) {
    let store = program.store().await;
    let row = store.task_of_link(id(task(job, "save")).parse().unwrap()).await.unwrap().unwrap();
    (row.state, row.attempt)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_export_ends_and_no_other_begins() {
    let Some(bucket) = Bucket::empty("program-drain").await else { return };
    let proxy = Proxy::start(bucket.ceph.addr()).await.unwrap();
    proxy.delay(Duration::from_millis(10));
    let mut program = Program::started(&[("LIMITS__TASKS_RUNNING_MAX", "1"), ("LIMITS__STOP_GRACE", "60s")]).await;
    let [first, second] = two_jobs(&program, &bucket, &proxy, 3 * MIB).await;
    program.signal(Signal::TERM);
    let status = program.exit(Duration::from_secs(70)).await;
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(export_of(&program, &first).await, (State::Finished, 1));
    assert_eq!(export_of(&program, &second).await, (State::Queued, 0), "a task was begun while stopping");
    let wanted = bytes::digest_pattern(1, 3 * MIB as u64).sha256;
    assert_eq!(bucket.objects().await, json!({"first": wanted}));
    proxy.heal();
    program.start().await;
    program.finished(&second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_in_time_is_given_back() {
    let Some(bucket) = Bucket::empty("program-drain-short").await else { return };
    let proxy = Proxy::start(bucket.ceph.addr()).await.unwrap();
    proxy.delay(Duration::from_millis(20));
    let mut settings = PARTS.to_vec();
    settings.extend([("LIMITS__TASKS_RUNNING_MAX", "1"), ("LIMITS__STOP_GRACE", "500ms")]);
    let mut program = Program::started(&settings).await;
    let [first, second] = two_jobs(&program, &bucket, &proxy, 24 * MIB).await;
    let began = Instant::now();
    program.signal(Signal::TERM);
    let status = program.exit(Duration::from_secs(15)).await;
    println!("stopped in {:?}", began.elapsed());
    assert_eq!(status.code(), Some(0), "{status}");
    assert_eq!(export_of(&program, &first).await, (State::Queued, 0), "the attempt is not counted");
    assert_eq!(export_of(&program, &second).await, (State::Queued, 0));
    program.start().await;
    let shown = program.show(&format!("/v2/tasks/{}", id(task(&first, "save")))).await;
    assert_eq!(shown["status"], "processing", "what has started does not wait again");
    proxy.heal();
    program.finished(&first).await;
    program.finished(&second).await;
    assert_eq!(export_of(&program, &first).await, (State::Finished, 1));
    bucket.is_tidied().await;
}
