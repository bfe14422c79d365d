//! Commands that share a transaction on PostgreSQL: each hears what became of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use connectors::Secret;
use consign::id::Token;
use consign::model::EventKind;
use consign::store::contract::{Scene, file};
use consign::store::postgres::Options;
use consign::store::{Applied, Claim, Creation, NewWebhook, PostgresStore, Store};
use futures_util::future::join_all;
use sqlx::Connection as _;
use testkit::Postgres;
use tokio::time::timeout;

/// Longer than a group waits for a row, shorter than a command of its own does.
const SOON: Duration = Duration::from_secs(6);

async fn open(url: &str) -> Arc<dyn Store> {
    let options = Options { connections_max: 8, listen: true };
    Arc::new(PostgresStore::open(&Secret::new(url), options).await.unwrap())
}

/// A job of so many tasks that wait for nothing, as text.
fn side_by_side(tasks: usize) -> String {
    (0..tasks).map(|n| format!("t{n}")).collect::<Vec<_>>().join("; ")
}

/// Ends tasks at the same time, on these stores in turn; every `n`th with a token that is not its own.
async fn finish_all(scene: &Scene, stores: &[Arc<dyn Store>], claims: &[Claim], stale_each: usize) -> Vec<Applied> {
    let finishing = claims.iter().zip(stores.iter().cycle()).enumerate().map(|(number, (claim, store))| async move {
        let token = if number.is_multiple_of(stale_each) { Token::random() } else { claim.token };
        store.finish(claim.task.id, token, &[file(claim.task.id, token)], scene.now()).await.unwrap()
    });
    join_all(finishing).await
}

async fn number(server: &Postgres, url: &str, sql: &str) -> usize {
    server.psql(url.rsplit('/').next().unwrap(), sql).await.unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_at_once_share_transactions_and_a_stale_one_hears_so() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    let scene = Scene::new(open(&url).await).await;
    let stores = [Arc::clone(&scene.store), open(&url).await];
    let made = scene.job(&format!("{}; last: t1 t2 t4", side_by_side(100))).await;
    let claims = scene.claim(1000).await;
    assert_eq!(claims.len(), 100);
    let applied = finish_all(&scene, &stores, &claims, 3).await;
    for (number, (applied, claim)) in applied.iter().zip(&claims).enumerate() {
        let wanted = if number.is_multiple_of(3) { Applied::Stale } else { Applied::Done };
        let task = scene.task(claim.task.id).await;
        assert_eq!((*applied, task.files.len()), (wanted, usize::from(wanted == Applied::Done)), "{number}");
    }
    // Who writes a row is in the row.
    let transactions = "SELECT COUNT(DISTINCT xmin::text) FROM tasks WHERE state = 'finished'";
    let transactions = number(&server, &url, transactions).await;
    assert!(transactions < 40, "66 tasks ended in {transactions} transactions");
    let last = scene.claim_one().await;
    assert_eq!(last.task.id, made.task("last"));
    for claim in claims.iter().step_by(3).chain([&last]) {
        scene.finish(claim).await;
    }
    let job = scene.read(&made).await;
    assert_eq!((job.status.wire(), job.ended_at.is_some()), ("finished", true));
    // A session reports what it has counted a second later, at the latest.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(number(&server, &url, deadlocks).await, 0, "they wait for each other in a circle");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_end_that_the_server_refuses_spoils_no_other() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let scene = Scene::new(open(&server.database().await.unwrap()).await).await;
    let made = scene.job(&side_by_side(10)).await;
    let claims = scene.claim(10).await;
    let finishing = claims.iter().enumerate().map(|(number, claim)| {
        let mut file = file(claim.task.id, claim.token);
        if number == 4 {
            // PostgreSQL has no text with this character.
            file.name.push('\0');
        }
        let scene = &scene;
        async move { scene.store.finish(claim.task.id, claim.token, &[file], scene.now()).await }
    });
    for (number, applied) in join_all(finishing).await.into_iter().enumerate() {
        assert_eq!(applied.is_err(), number == 4, "{number}: {applied:?}");
    }
    assert!(scene.states(&made).await.starts_with("processing:"), "one is still at work");
    scene.finish(&claims[4]).await;
    assert!(scene.states(&made).await.starts_with("finished:"));
}

#[tokio::test(flavor = "multi_thread")]
async fn creations_at_once_share_transactions_and_one_that_is_refused_spoils_no_other() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    let scene = Scene::new(open(&url).await).await;
    let listened = NewWebhook {
        user_id: scene.user,
        url: b"sealed".to_vec(),
        events: vec![EventKind::JobCreated],
        secret: b"sealed".to_vec(),
    };
    scene.store.create_webhook(listened, 1, scene.now()).await.unwrap().unwrap();
    let (scene, stored) = (&scene, &scene.new_job(scene.user, "a"));
    assert_eq!(scene.store.create_job(stored.clone()).await.unwrap(), Creation::Created);
    let create = |refused: Option<usize>| {
        let creating = (0..100).map(move |number| {
            // Of one the answer was lost; it is asked for again.
            let mut new = if number == 7 { stored.clone() } else { scene.new_job(scene.user, "a; b: a; c^") };
            if refused == Some(number) {
                // PostgreSQL has no text with this character.
                new.job.tag = Some("\0".to_owned());
            }
            scene.store.create_job(new)
        });
        join_all(creating)
    };
    assert!(create(None).await.into_iter().all(|made| made.unwrap() == Creation::Created));
    let transactions = number(&server, &url, "SELECT COUNT(DISTINCT xmin::text) FROM jobs").await;
    assert!(transactions < 50, "100 jobs were made in {transactions} transactions");
    for (number, made) in create(Some(13)).await.into_iter().enumerate() {
        assert_eq!(made.ok(), (number != 13).then_some(Creation::Created), "{number}");
    }
    for (sql, wanted) in [
        ("SELECT COUNT(*) FROM jobs WHERE open_tasks = 3", 197),
        ("SELECT COUNT(*) FROM tasks", 197 * 3 + 1),
        ("SELECT COUNT(*) FROM dependencies", 197),
        ("SELECT COUNT(*) FROM outbox WHERE kind = 'job.created'", 198),
        ("SELECT COUNT(*) FROM tasks WHERE state = 'queued'", 198),
        ("SELECT COUNT(*) FROM tasks WHERE state = 'uploading' AND upload_expires_at IS NOT NULL", 197),
    ] {
        assert_eq!(number(&server, &url, sql).await, wanted, "{sql}");
    }
    let claims = scene.claim(1000).await;
    let payloads = claims.iter().filter(|claim| claim.payload == format!("sealed {}", claim.task.id).into_bytes());
    assert_eq!((claims.len(), payloads.count()), (198, 198));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_somebody_holds_holds_up_its_own_task_only() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    let scene = Scene::new(open(&url).await).await;
    for _ in 0..12 {
        scene.job("a").await;
    }
    let claims = scene.claim(12).await;
    let held = claims[5].task.job_id.unwrap();
    let mut other = sqlx::PgConnection::connect(&url).await.unwrap();
    let hold = format!("BEGIN; SELECT 1 FROM jobs WHERE id = '{held}' FOR UPDATE");
    sqlx::raw_sql(sqlx::AssertSqlSafe(hold)).execute(&mut other).await.unwrap();
    let finish = |claim: &Claim| {
        let (store, id, token, now) = (Arc::clone(&scene.store), claim.task.id, claim.token, scene.now());
        tokio::spawn(async move { store.finish(id, token, &[file(id, token)], now).await.unwrap() })
    };
    let (of_held, others): (Vec<_>, Vec<_>) =
        claims.iter().map(|claim| (claim.task.job_id == Some(held), finish(claim))).partition(|(is_held, _)| *is_held);
    for (_, other) in others {
        let applied = timeout(SOON, other).await.expect("nobody holds its job");
        assert_eq!(applied.unwrap(), Applied::Done);
    }
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    for (_, waiting) in of_held {
        assert_eq!(waiting.await.unwrap(), Applied::Done);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_would_find_nothing_waits_for_no_other() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    let scene = Scene::new(open(&url).await).await;
    assert!(scene.claim(1).await.is_empty());
    let mut other = sqlx::PgConnection::connect(&url).await.unwrap();
    let hold = "BEGIN; SELECT 1 FROM meta WHERE name = 'virtual_time' FOR UPDATE";
    sqlx::raw_sql(hold).execute(&mut other).await.unwrap();
    let claims = timeout(SOON, scene.claim(1)).await.expect("another claim is under way");
    assert!(claims.is_empty());
    scene.job("a").await;
    let claiming = scene.claim(1);
    tokio::pin!(claiming);
    assert!(timeout(Duration::from_millis(500), &mut claiming).await.is_err(), "one claim at a time");
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    let ids: BTreeSet<_> = claiming.await.iter().map(|claim| claim.task.id).collect();
    assert_eq!(ids.len(), 1);
}
