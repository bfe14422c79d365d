//! One process of a fleet: PostgreSQL instead of SQLite, a bucket instead of a folder, and nobody who may think that it is alone.
//! What a dead process held is taken back by the next one when its lease is over, after 10 s.

use consign::clock::Clock;
use consign::store::ClaimRequest;
use serde_json::{Value, json};
use testkit::{bytes, or_skip};

use super::super::harness::{eventually, id, task};
use super::super::places::{Bucket, Source};
use super::life::{Fleet, LARGE, Life, SMALL, link};

/// Points of files in a bucket.
pub(super) const FILES: [&str; 2] = ["bucket.published", "bucket.linked"];
/// Points that tests here name themselves.
pub(super) const NAMED: [&str; 2] = ["recover.expired", "recover.given_back"];

const NAME: &str = "out.bin";

/// A process on a database and a bucket of its own.
async fn life(bucket: &str, settings: &[(&str, &str)]) -> Option<Life> {
    let postgres = or_skip(testkit::postgres().await)?;
    let ceph = Bucket::empty(bucket).await?.ceph;
    let database = postgres.database().await.unwrap();
    Some(Life::of_fleet(Fleet { postgres, database, ceph, bucket: bucket.to_owned() }, settings).await)
}

/// Delivers to S3, and dies at each of these points.
async fn delivers(name: &str, points: &[(usize, &str)]) {
    let Some(destination) = Bucket::empty(&format!("{name}-out")).await else { return };
    let Some(mut life) = life(name, &[]).await else { return };
    let export = destination.task(destination.ceph.addr(), NAME, "in");
    for (seed, &(size, point)) in (1..).zip(points) {
        let content = bytes::pattern(seed, size);
        life.doomed(point).await;
        let job = life.job(&json!({"in": {"operation": "import/upload"}, "out": export, "link": link()})).await;
        life.upload_that_kills(&job, &content).await;
        if ["upload.kept", "bucket.published"].contains(&point) {
            // The file that nobody will name is found when its task has ended: by the next hourly search, or start.
            life.program.finished(&job).await;
            life.again().await;
        }
        let ended = life.ends_well(&job).await;
        let digest = bytes::digest(&content).sha256;
        assert_eq!(destination.objects().await, json!({NAME: digest}), "{point}: these bytes and nothing else");
        assert_eq!(life.fetched(&ended, "link").await, content, "{point}");
        destination.is_tidied().await;
        life.nothing_is_open().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_uploads() {
    let points = [
        (SMALL, "upload.kept"),
        (LARGE, "bucket.published"),
        (SMALL, "bucket.linked"),
        (SMALL, "upload.finished"),
        (SMALL, "webhook.told"),
        (SMALL, "webhook.recorded"),
    ];
    delivers("fail-points-files", &points).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries() {
    // The file store is an S3 store as well: the first upload of each process goes there.
    let points = [
        (LARGE, "s3.created:2"),
        (LARGE, "ledger.part:2"),
        (LARGE, "s3.completed:2"),
        (SMALL, "runner.claimed"),
        (SMALL, "runner.worked"),
        (SMALL, "runner.finished"),
    ];
    delivers("fail-points-deliveries", &points).await;
}

/// A job whose import has begun and does not end before it is told to.
async fn at_work(life: &mut Life, source: &Source) -> Value {
    source.pause(std::time::Duration::from_millis(500));
    let import = json!({"operation": "import/url", "url": source.url("a.bin")});
    let job = life.job(&json!({"in": import, "out": link()})).await;
    eventually("some bytes", async || (source.sent_bytes() > 0).then_some(())).await;
    job
}

/// The tasks of a dead process are taken back, by one that dies at that.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_process_held() {
    let Some(mut life) = life("fail-points-expired", &[]).await else { return };
    let source = Source::start(1, SMALL * SMALL).await;
    life.again().await;
    let job = at_work(&mut life, &source).await;
    life.doomed("recover.expired").await;
    source.pause(std::time::Duration::ZERO);
    life.dies().await;
    let ended = life.ends_well(&job).await;
    assert_eq!(life.fetched(&ended, "out").await, bytes::pattern(1, SMALL * SMALL));
}

/// A lease of its own that a process does not know of, because the answer to its claim was lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_does_not_know_of() {
    let Some(mut life) = life("fail-points-stray", &[("LIMITS__TASKS_RUNNING_MAX", "1")]).await else { return };
    let source = Source::start(1, SMALL * SMALL).await;
    life.doomed("recover.given_back").await;
    let first = at_work(&mut life, &source).await;
    let raw = json!({"operation": "import/raw", "file": "hello", "filename": "a.txt"});
    let second = life.job(&json!({"in": raw, "out": link()})).await;
    let Fleet { postgres, database, .. } = life.fleet();
    let database = database.rsplit('/').next().unwrap();
    let session = postgres.psql(database, "SELECT id FROM sessions").await.unwrap().parse().unwrap();
    let store = life.store().await;
    let request = ClaimRequest { session, tasks_max: 1, per_user_max: 9, now: Clock::system().now() };
    let claimed = store.claim(&request).await.unwrap();
    assert_eq!(claimed.iter().map(|claim| claim.task.id.to_string()).collect::<Vec<_>>(), [id(task(&second, "in"))]);
    store.close().await;
    life.dies().await;
    source.pause(std::time::Duration::ZERO);
    for (job, content) in [(&first, bytes::pattern(1, SMALL * SMALL)), (&second, b"hello".to_vec())] {
        let ended = life.ends_well(job).await;
        assert_eq!(life.fetched(&ended, "out").await, content);
    }
}
