//! What happens to a process as a whole: its start, its heartbeats, its end, and what it does for others that are dead.

use std::time::Duration;

use consign::clock::{Clock, Timestamp};
use http::{Method, StatusCode};
use serde_json::json;
use testkit::bytes;
use tokio::time::sleep;

use super::super::harness::{Signal, eventually, id, task};
use super::super::places::Source;
use super::life::{Life, link};

/// Points that a server passes before it works.
pub(super) const AT_START: [&str; 3] = ["sessions.ended", "session.opened", "webhook.released"];
/// Points that tests here name themselves.
pub(super) const NAMED: [&str; 6] =
    ["session.beat", "session.renewed", "session.closed", "recover.released", "recover.uploads_ended", "sweep.expired"];
/// So long takes the file that a server is at.
const SIZE: usize = 1 << 20;

/// A job whose import has begun and does not end before it is told to.
async fn at_work(life: &mut Life, source: &Source) -> serde_json::Value {
    source.pause(Duration::from_millis(500));
    let import = json!({"operation": "import/url", "url": source.url("a.bin")});
    let job = life.job(&json!({"in": import, "out": link()})).await;
    eventually("some bytes", async || (source.sent_bytes() > 0).then_some(())).await;
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_after_a_death_at_work() {
    let mut life = Life::new(&[]).await;
    life.again().await;
    for (seed, point) in (1..).zip(AT_START) {
        let source = Source::start(seed, SIZE).await;
        let job = at_work(&mut life, &source).await;
        life.dies_at_start(point).await;
        source.pause(Duration::ZERO);
        let ended = life.ends_well(&job).await;
        assert_eq!(life.fetched(&ended, "out").await, bytes::pattern(seed, SIZE), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats() {
    let mut life = Life::new(&[]).await;
    for (seed, point) in [(1, "session.beat:2"), (2, "session.renewed")] {
        life.doomed(point).await;
        let source = Source::start(seed, SIZE).await;
        let job = at_work(&mut life, &source).await;
        if point == "session.renewed" {
            // Another process takes it for dead.
            let store = life.store().await;
            let now = Clock::system().now();
            assert_eq!(store.expire_sessions(Timestamp(i64::MAX), 5, now).await.unwrap().tasks, 1);
            store.close().await;
        }
        life.dies().await;
        source.pause(Duration::ZERO);
        let ended = life.ends_well(&job).await;
        assert_eq!(life.fetched(&ended, "out").await, bytes::pattern(seed, SIZE), "{point}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_closed() {
    let mut life = Life::new(&[]).await;
    life.doomed("session.closed").await;
    let job = life.job(&json!({"in": {"operation": "import/upload"}, "out": link()})).await;
    life.program.signal(Signal::TERM);
    life.dies().await;
    let content = bytes::pattern(1, SIZE);
    life.program.upload(task(&job, "in"), "a.bin", &content).await;
    let ended = life.ends_well(&job).await;
    assert_eq!(life.fetched(&ended, "out").await, content);
}

/// What is due is done by the first look of a server, and by nobody before.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_due() {
    let mut life = Life::new(&[("TRANSFER__TRIES", "1"), ("LIMITS__ATTEMPTS_MAX", "2")]).await;
    life.program.set("LIMITS__UPLOAD_LIFETIME", "3s");
    life.again().await;
    let export = json!({"operation": "export/upload", "input": "in", "url": "http://127.0.0.1:1/"});
    let raw = json!({"operation": "import/raw", "file": "hello", "filename": "a.txt"});
    let put_off = life.job(&json!({"in": raw, "out": export})).await;
    let waiting = life.job(&json!({"in": {"operation": "import/upload"}, "out": link()})).await;
    let out = id(task(&put_off, "out")).parse().unwrap();
    eventually("an export that is put off", async || {
        let store = life.store().await;
        let task = store.task_of_link(out).await.unwrap().unwrap();
        store.close().await;
        (task.state == consign::model::State::Delayed).then_some(())
    })
    .await;
    life.kill();
    // The first pause is 2 s at the most.
    sleep(Duration::from_secs(4)).await;
    life.dies_at_start("recover.released").await;
    let ended = life.program.follow(&put_off).await;
    assert_eq!(task(&ended, "out")["code"], "REMOTE_UNREACHABLE", "{ended:#}");
    life.is_told(&put_off, "job.failed").await;
    // The same server has ended the upload, too.
    let ended = life.program.follow(&waiting).await;
    assert_eq!(task(&ended, "in")["code"], "TIMEOUT", "{ended:#}");
    life.is_told(&waiting, "job.failed").await;

    let late = life.job(&json!({"in": {"operation": "import/upload"}, "out": link()})).await;
    life.kill();
    sleep(Duration::from_secs(4)).await;
    life.dies_at_start("recover.uploads_ended").await;
    let ended = life.program.follow(&late).await;
    assert_eq!(task(&ended, "in")["code"], "TIMEOUT", "{ended:#}");
    life.is_told(&late, "job.failed").await;
    life.keeps_what_is_named().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_no_longer() {
    let mut life = Life::new(&[]).await;
    life.again().await;
    let raw = json!({"operation": "import/raw", "file": "hello", "filename": "a.txt"});
    let job = life.job(&json!({"in": raw, "out": link()})).await;
    life.ends_well(&job).await;
    life.program.set("RETENTION", "1s");
    sleep(Duration::from_secs(1)).await;
    life.dies_at_start("sweep.expired").await;
    let (status, _) = life.program.call(Method::GET, &format!("/v2/jobs/{}", id(&job)), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    life.keeps_what_is_named().await;
    assert_eq!(life.names().await, [].into(), "its files are gone with it");
}
