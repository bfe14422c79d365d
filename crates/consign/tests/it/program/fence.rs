//! A process that stands still past its lease, and a database that does: nobody's work is recorded twice or forgotten.

use std::time::Duration;

use connectors::{Digests, Receipt};
use consign::clock::Clock;
use consign::id::{SessionId, TaskId};
use consign::model::{File, State};
use consign::runner::SESSION_DEAD_AFTER;
use consign::store::{Applied, Claim, ClaimRequest, Heartbeat, Jobs as _, SqliteStore, Transitions as _};
use serde_json::json;
use sqlx::{ConnectOptions as _, Executor as _};
use testkit::bytes;
use testkit::proxy::Proxy;
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::harness::{MIB, Program, Signal, eventually, id, task};
use super::places::Bucket;

const SIZE: usize = 24 * MIB;
/// Pause before every 16 KiB of a connection, so that a transfer of two connections takes some ten seconds.
const SLOWLY: Duration = Duration::from_millis(20);
const PARTS: [(&str, &str); 2] = [("TRANSFER__PART_BYTES", "5MiB"), ("TRANSFER__PARTS_IN_FLIGHT", "2")];

/// What the process that takes over says it delivered.
fn delivered_by_another() -> File {
    File {
        name: "theirs.bin".to_owned(),
        size: 7,
        digests: Digests { md5: None, sha256: [0; 32], crc32c: 0 },
        content_type: "application/octet-stream".to_owned(),
        blob: None,
        download: None,
        receipt: Some(Receipt { location: "s3://elsewhere/theirs.bin".to_owned(), ..Receipt::default() }),
    }
}

/// Does what another process does: declares the session dead and takes the task on.
async fn take_over(store: &SqliteStore, id: TaskId) -> (SessionId, Claim) {
    let clock = Clock::system();
    let lost = store.expire_sessions(clock.now().minus(SESSION_DEAD_AFTER), 5, clock.now()).await.unwrap();
    assert_eq!(lost.tasks, 1, "the task of the dead process is free");
    let session = SessionId::new(clock.now());
    store.open_session(session, "another", false, clock.now()).await.unwrap();
    let request = ClaimRequest { session, tasks_max: 8, per_user_max: 8, now: clock.now() };
    let claims = store.claim(&request).await.unwrap();
    let claim = claims.into_iter().find(|claim| claim.task.id == id).expect("it can be claimed");
    assert_eq!(claim.open.len(), 1, "the ledger tells what is open");
    (session, claim)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stood_still_drops_its_work() {
    let Some(bucket) = Bucket::empty("program-fence").await else { return };
    let proxy = Proxy::start(bucket.ceph.addr()).await.unwrap();
    let program = Program::started(&PARTS).await;
    proxy.delay(SLOWLY);
    let job = program.job(json!({"in": {"operation": "import/upload"}, "save": bucket.task(proxy.addr(), "a", "in")}));
    let job = job.await;
    program.upload(task(&job, "in"), "ours.bin", &bytes::pattern(1, SIZE)).await;
    bucket.has_open_upload().await;
    eventually("bytes on their way", async || (proxy.sent_bytes() > MIB as u64).then_some(())).await;

    program.signal(Signal::STOP);
    sleep(SESSION_DEAD_AFTER + Duration::from_millis(1500)).await;
    let export = id(task(&job, "save"));
    let store = program.store().await;
    let (session, claim) = take_over(&store, export.parse().unwrap()).await;
    program.signal(Signal::CONT);

    eventually("its notice", async || program.log().contains("was declared dead").then_some(())).await;
    for _ in 0..4 {
        let alive = store.heartbeat(session, &[], Clock::system().now()).await.unwrap();
        assert_eq!(alive, Heartbeat::Alive);
        sleep(Duration::from_secs(1)).await;
    }
    assert!(store.holds(claim.task.id, claim.token).await.unwrap(), "the stopped process took the task back");
    let done = store.finish(claim.task.id, claim.token, &[delivered_by_another()], Clock::system().now()).await;
    assert_eq!(done.unwrap(), Applied::Done);
    store.close_session(session, Clock::system().now()).await.unwrap();
    let sent = proxy.sent_bytes();
    bucket.is_tidied().await;
    sleep(Duration::from_secs(3)).await;
    let since = proxy.sent_bytes() - sent;
    assert!(since < 64 * 1024, "{since} bytes were sent for a task that another process finished");
    let after = program.show(&format!("/v2/tasks/{export}")).await;
    assert_eq!(after["status"], "finished");
    assert_eq!(after["result"]["files"][0]["filename"], "theirs.bin", "the recorded end changed: {after:#}");
    assert_eq!(bucket.objects().await, json!({}), "the stopped process completed its upload");

    proxy.heal();
    let next = program.job(json!({"in": {"operation": "import/upload"}, "save": bucket.task(proxy.addr(), "b", "in")}));
    let next = next.await;
    program.upload(task(&next, "in"), "next.bin", &bytes::pattern(2, MIB)).await;
    program.finished(&next).await;
}

/// Another program holds the database's lock for longer than leases last. Work is stopped, then taken up again.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stood_still_loses_nothing() {
    let Some(bucket) = Bucket::empty("program-fence-database").await else { return };
    let proxy = Proxy::start(bucket.ceph.addr()).await.unwrap();
    let program = Program::started(&PARTS).await;
    proxy.delay(SLOWLY);
    let job = program.job(json!({"in": {"operation": "import/upload"}, "save": bucket.task(proxy.addr(), "a", "in")}));
    let job = job.await;
    program.upload(task(&job, "in"), "ours.bin", &bytes::pattern(3, SIZE)).await;
    bucket.has_open_upload().await;

    let path = program.data_dir().join("consign.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).busy_timeout(Duration::from_secs(5));
    let mut other = options.connect().await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    eventually("its notice", async || program.log().contains("all work is stopped").then_some(())).await;
    proxy.heal();
    sleep(Duration::from_secs(3)).await;
    other.execute("ROLLBACK").await.unwrap();

    program.finished(&job).await;
    let wanted = bytes::digest_pattern(3, SIZE as u64).sha256;
    assert_eq!(bucket.objects().await, json!({"a": wanted}));
    bucket.is_tidied().await;
    let row = program.store().await.task_of_link(id(task(&job, "save")).parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(row.state, State::Finished);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_its_process_does_not_know_of_is_given_back() {
    let program = Program::started(&[("LIMITS__TASKS_RUNNING_MAX", "1")]).await;
    // Whoever listens and never accepts keeps the task running.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x", silent.local_addr().unwrap());
    let hanging = program.job(json!({"in": {"operation": "import/url", "url": url}})).await;
    let shown = format!("/v2/tasks/{}", id(task(&hanging, "in")));
    eventually("the only slot to be taken", async || {
        (program.show(&shown).await["status"] == "processing").then_some(())
    })
    .await;
    let next = program.job(json!({"in": {"operation": "import/raw", "file": "a", "filename": "a"}})).await;
    let next_task: TaskId = id(task(&next, "in")).parse().unwrap();

    // A claim whose answer never came.
    let database = format!("sqlite://{}", program.data_dir().join("consign.db").display());
    let mut conn = database.parse::<sqlx::sqlite::SqliteConnectOptions>().unwrap().connect().await.unwrap();
    let session: Vec<u8> = sqlx::query_scalar("SELECT id FROM sessions").fetch_one(&mut conn).await.unwrap();
    let session = SessionId(uuid::Uuid::from_slice(&session).unwrap());
    let store = program.store().await;
    let request = ClaimRequest { session, tasks_max: 8, per_user_max: 8, now: Clock::system().now() };
    assert_eq!(store.claim(&request).await.unwrap().len(), 1);
    let state = async || store.task_of_link(next_task).await.unwrap().unwrap().state;
    assert_eq!(state().await, State::Running);
    eventually("it to be given back", async || (state().await == State::Queued).then_some(())).await;
    program.call(http::Method::POST, &format!("{shown}/cancel"), None).await;
    program.finished(&next).await;
}
