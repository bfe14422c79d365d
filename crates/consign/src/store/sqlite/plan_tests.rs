//! The hot statements stay on their indexes, and cost the same with a hundred thousand tasks as with few.

use sqlx::{Executor as _, QueryBuilder, Row as _};
use tempfile::TempDir;

use super::queries::{Changed, Tx, claim, deliveries, sweep, transitions};
use super::schema::migrate;
use super::{Db, connect, sets};
use crate::clock::Timestamp;
use crate::id::{SessionId, TaskId, Token, UserId};
use crate::store::{Applied, ClaimRequest};

/// A database with ended and queued tasks of one user, and a session.
async fn filled(folder: &TempDir, ended: u32, queued: u32) -> (Tx, SessionId) {
    let mut conn = connect(&folder.path().join("plan.db")).await.unwrap();
    migrate(&mut conn).await.unwrap();
    let session = SessionId::new(Timestamp(0));
    sqlx::query("INSERT INTO sessions VALUES ($1, 'h', 0, 0)").bind(session.0).execute(&mut conn).await.unwrap();
    conn.execute("INSERT INTO users VALUES (1, 'ada', 0, 0)").await.unwrap();
    conn.execute("BEGIN").await.unwrap();
    for (state, count, ended_at) in [("finished", ended, Some(1_i64)), ("queued", queued, None)] {
        let rows: Vec<u32> = (0..count).collect();
        for chunk in rows.chunks(500) {
            let ids: Vec<TaskId> = chunk.iter().map(|_| TaskId::new(Timestamp(0))).collect();
            let mut jobs = QueryBuilder::<Db>::new(
                "INSERT INTO jobs (id, user_id, status, open_tasks, failed_tasks, created_at, ended_at) ",
            );
            jobs.push_values(&ids, |mut row, id| {
                let status = if ended_at.is_some() { "finished" } else { "waiting" };
                let open = i64::from(ended_at.is_none());
                row.push_bind(id.0).push_bind(1_i64).push_bind(status).push_bind(open);
                row.push_bind(0_i64).push_bind(0_i64).push_bind(ended_at);
            });
            jobs.build().execute(&mut conn).await.unwrap();
            let mut tasks = QueryBuilder::<Db>::new(
                "INSERT INTO tasks (id, job_id, user_id, position, operation, state, ignore_error, forgiven, priority, \
                 vt, open_inputs, usable_inputs, attempt, percent, created_at, ended_at) ",
            );
            tasks.push_values(ids.iter().zip(chunk), |mut row, (id, turn)| {
                row.push_bind(id.0).push_bind(id.0).push_bind(1_i64).push_bind(0_i64).push_bind("x");
                row.push_bind(state).push_bind(false).push_bind(false).push_bind(0_i64).push_bind(i64::from(*turn));
                row.push_bind(0_i64).push_bind(0_i64).push_bind(0_i64).push_bind(0_i64).push_bind(0_i64);
                row.push_bind(ended_at);
            });
            tasks.build().execute(&mut conn).await.unwrap();
            let mut docs = QueryBuilder::<Db>::new("INSERT INTO task_docs (task_id, payload) ");
            docs.push_values(&ids, |mut row, id| {
                row.push_bind(id.0).push_bind(vec![0_u8; 16]);
            });
            docs.build().execute(&mut conn).await.unwrap();
        }
    }
    conn.execute("COMMIT").await.unwrap();
    (Tx { conn: Box::new(conn), changed: Changed::default() }, session)
}

/// Steps of SQLite's machine that each part took: it calls back once in so many steps.
async fn steps(folder: &TempDir, ended: u32, queued: u32) -> [u64; 4] {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    const EVERY: i32 = 10;

    let (mut tx, session) = filled(folder, ended, queued).await;
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&calls);
    tx.conn.lock_handle().await.unwrap().set_progress_handler(EVERY, move || {
        counted.fetch_add(1, Ordering::Relaxed);
        true
    });
    let taken = || calls.swap(0, Ordering::Relaxed);
    tx.conn.execute("BEGIN").await.unwrap();
    taken();

    let request = ClaimRequest { session, tasks_max: 4, per_user_max: 4, now: Timestamp(2) };
    let claims = claim::claim(&mut tx, &request).await.unwrap();
    assert_eq!(claims.len(), 4);
    let claimed = taken();
    assert!(claim::claim(&mut tx, &request).await.unwrap().is_empty(), "the limit is reached");
    let refused = taken();
    for claim in &claims {
        let applied = transitions::finish(&mut tx, claim.task.id, claim.token, &[], Timestamp(3)).await.unwrap();
        assert_eq!(applied, Applied::Done);
    }
    let stale = transitions::finish(&mut tx, claims[0].task.id, Token(1), &[], Timestamp(3)).await.unwrap();
    assert_eq!(stale, Applied::Stale);
    transitions::cancel(&mut tx, UserId(1), claims[0].task.id, Timestamp(3)).await.unwrap();
    transitions::release_due(&mut tx, Timestamp(3)).await.unwrap();
    transitions::expire_uploads(&mut tx, Timestamp(3)).await.unwrap();
    let finished = taken();
    assert_eq!(sweep::expire(&mut tx, Timestamp(2), 10, 1000, Timestamp(4)).await.unwrap(), 10);
    let expired = taken();
    [claimed, refused, finished, expired]
}

#[tokio::test]
async fn cost_does_not_grow_with_the_number_of_tasks() {
    let (few, many) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let few = steps(&few, 1_000, 1_000).await;
    let many = steps(&many, 50_000, 50_000).await;
    for ((what, few), many) in ["claim", "a refused claim", "finish", "expire"].iter().zip(few).zip(many) {
        assert!(few > 10, "{what} was counted");
        assert!(many <= few * 5 / 4 + 10, "{what}: {few} steps with few tasks, {many} with many");
    }
}

#[tokio::test]
async fn a_list_of_few_does_not_read_the_many() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::queries::lists;
    use crate::model::{Page, WireStatus};
    use crate::store::{JobFilter, TaskFilter};

    let page = Page { number: 1, size: 10 };
    let jobs = |status| JobFilter { user_id: UserId(1), status, tag: None, key_id: None, with_tasks: false };
    let tasks = |status, operation: Option<&str>| TaskFilter {
        user_id: UserId(1),
        job_id: None,
        status,
        operation: operation.map(str::to_owned),
    };
    let mut all = Vec::new();
    for ended in [1_000, 20_000] {
        let folder = TempDir::new().unwrap();
        let (mut tx, _) = filled(&folder, ended, 3).await;
        let calls = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&calls);
        tx.conn.lock_handle().await.unwrap().set_progress_handler(10, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            true
        });
        let mut steps = Vec::new();
        for (status, found) in [
            (None, 10),
            (Some(WireStatus::Finished), 10),
            (Some(WireStatus::Waiting), 3),
            (Some(WireStatus::Processing), 0),
            (Some(WireStatus::Error), 0),
        ] {
            assert_eq!(lists::list_jobs(&mut tx.conn, &jobs(status), page).await.unwrap().0.len(), found, "{status:?}");
            steps.push(calls.swap(0, Ordering::Relaxed));
            let listed = lists::list_tasks(&mut tx.conn, &tasks(status, None), page).await.unwrap().0;
            assert_eq!(listed.len(), found, "{status:?}");
            steps.push(calls.swap(0, Ordering::Relaxed));
        }
        let listed = lists::list_tasks(&mut tx.conn, &tasks(None, Some("y")), page).await.unwrap().0;
        assert!(listed.is_empty());
        steps.push(calls.swap(0, Ordering::Relaxed));
        all.push(steps);
    }
    for (at, (few, many)) in all[0].iter().zip(&all[1]).enumerate() {
        assert!(*many <= few * 5 / 4 + 10, "list {at}: {few} steps with few, {many} with many");
    }
}

#[tokio::test]
async fn the_claim_uses_its_indexes() {
    let folder = TempDir::new().unwrap();
    let (mut tx, _) = filled(&folder, 10, 10).await;
    for (sql, index) in [
        (claim::WINDOW_SQL, "tasks_open"),
        (sets::USER_SQL, "tasks_queued"),
        (sets::OWNERS_SQL, "tasks_queued"),
        (sweep::OLDEST_SQL, "tasks_ready"),
    ] {
        let text = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
        let rows = sqlx::query(text).fetch_all(&mut *tx.conn).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        let plan = plan.join("; ");
        assert!(plan.contains(&format!("INDEX {index}")), "{plan}");
        assert!(!plan.contains("TEMP B-TREE"), "sorted by hand: {plan}");
        assert!(!plan.contains("SCAN tasks"), "reads all: {plan}");
    }
}

/// A database with deliveries of one receiver that is far behind, one of another, and ended ones.
async fn with_deliveries(folder: &TempDir, backlog: u32) -> Tx {
    let mut conn = connect(&folder.path().join("plan.db")).await.unwrap();
    migrate(&mut conn).await.unwrap();
    conn.execute("INSERT INTO users VALUES (1, 'ada', 0, 0)").await.unwrap();
    conn.execute("BEGIN").await.unwrap();
    for (receiver, state, count) in [(-1_i64, "pending", backlog), (-2, "pending", 1), (-3, "delivered", backlog)] {
        let rows: Vec<u32> = (0..count).collect();
        for chunk in rows.chunks(500) {
            let mut insert = QueryBuilder::<Db>::new(
                "INSERT INTO deliveries (id, user_id, job_id, kind, url, receiver, body, state, sending, attempts, tries, \
                 due_at, created_at, ended_at) ",
            );
            insert.push_values(chunk, |mut row, _| {
                let ended_at = (state != "pending").then_some(1_i64);
                row.push_bind(TaskId::new(Timestamp(0)).0).push_bind(1_i64).push_bind(TaskId::new(Timestamp(0)).0);
                row.push_bind("job.finished").push_bind(vec![0_u8]).push_bind(receiver).push_bind(vec![0_u8]);
                row.push_bind(state).push_bind(false).push_bind(0_i64).push_bind(0_i64).push_bind(0_i64);
                row.push_bind(0_i64).push_bind(ended_at);
            });
            insert.build().execute(&mut conn).await.unwrap();
        }
    }
    conn.execute("COMMIT").await.unwrap();
    Tx { conn: Box::new(conn), changed: Changed::default() }
}

#[tokio::test]
async fn a_claim_of_deliveries_hops_over_a_backlog() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    let mut steps = Vec::new();
    for backlog in [100, 20_000] {
        let folder = TempDir::new().unwrap();
        let mut tx = with_deliveries(&folder, backlog).await;
        let calls = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&calls);
        tx.conn.lock_handle().await.unwrap().set_progress_handler(10, move || {
            counted.fetch_add(1, Ordering::Relaxed);
            true
        });
        let claim = crate::store::DeliveryClaim {
            max: 10,
            per_receiver_max: 4,
            per_user_max: 10,
            sending: Vec::new(),
            lease_until: Timestamp(100),
            now: Timestamp(1),
        };
        assert_eq!(deliveries::claim(&mut tx, &claim).await.unwrap().len(), 5, "four and one");
        steps.push(calls.load(Ordering::Relaxed));
        for (sql, index) in [
            (deliveries::NEXT_SQL, "deliveries_due"),
            (deliveries::RECEIVERS_SQL, "deliveries_receiver"),
            (deliveries::CLAIM_SQL, "deliveries_receiver"),
        ] {
            let text = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"));
            let rows = sqlx::query(text).fetch_all(&mut *tx.conn).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
            let plan = plan.join("; ");
            assert!(plan.contains(&format!("INDEX {index}")), "{sql}: {plan}");
            assert!(!plan.contains("SCAN deliveries"), "reads all: {plan}");
        }
    }
    assert!(steps[0] > 10 && steps[1] <= steps[0] * 5 / 4 + 10, "{steps:?} steps");
}

#[tokio::test]
async fn what_is_answered_is_on_the_disk() {
    const FULL: i64 = 2;
    let folder = TempDir::new().unwrap();
    let mut conn = connect(&folder.path().join("plan.db")).await.unwrap();
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut conn).await.unwrap();
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut conn).await.unwrap();
    assert_eq!((mode.as_str(), synchronous), ("wal", FULL));
}
