//! Statements that remove jobs and tasks, and that count.

use sqlx::Row as _;
use uuid::Uuid;

use super::dialect::{self, among, for_update, listed, skip_locked};
use super::rows::{bigint, moment_if_any, number, user_id};
use super::transitions::{cancel, cancel_job};
use super::webhooks::{is_untold, lag};
use super::{Conn, Tx, jobs::IDEMPOTENCY_KEPT, rows::chosen, signed_urls::RESULTS_KEPT};
use crate::clock::Timestamp;
use crate::id::{JobId, TaskId, UserId};
use crate::store::{Cancellation, Counts, Deletion, Load};

/// Idempotency keys, and results of signed URLs, that one call removes at the most.
const LINES_PER_SWEEP: i64 = 10_000;

pub(crate) async fn delete_task(tx: &mut Tx, user: UserId, id: TaskId, now: Timestamp) -> sqlx::Result<bool> {
    if cancel(tx, user, id, now).await? == Cancellation::NotFound {
        return Ok(false);
    }
    remove_task(tx, id.0, now).await
}

pub(crate) async fn delete_job(tx: &mut Tx, user: UserId, id: JobId, now: Timestamp) -> sqlx::Result<Deletion> {
    let row = sqlx::query(concat!("SELECT 1 FROM jobs WHERE id = $1 AND user_id = $2", for_update!()))
        .bind(id.0)
        .bind(i64::from(user.0))
        .fetch_optional(&mut *tx.conn)
        .await?;
    if row.is_none() {
        return Ok(Deletion::NotFound);
    }
    cancel_job(tx, id, now).await?;
    if is_untold(tx, id).await? {
        return Ok(Deletion::Untold);
    }
    remove_job(tx, id.0, now).await?;
    Ok(Deletion::Done)
}

pub(crate) async fn expire(
    tx: &mut Tx,
    ended_before: Timestamp,
    limit: u32,
    tasks_max: u32,
    now: Timestamp,
) -> sqlx::Result<u64> {
    let jobs = sqlx::query(concat!(
        "SELECT id FROM jobs WHERE ended_at IS NOT NULL AND ended_at < $1 \
             AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.job_id = jobs.id) \
         ORDER BY ended_at LIMIT $2",
        skip_locked!()
    ))
    .bind(ended_before.0)
    .bind(i64::from(limit))
    .fetch_all(&mut *tx.conn)
    .await?;
    let (mut removed, mut tasks_removed) = (0_i64, 0_u64);
    for row in &jobs {
        if tasks_removed >= u64::from(tasks_max) {
            break;
        }
        tasks_removed += remove_job(tx, row.try_get("id")?, now).await?;
        removed += 1;
    }
    let room = bigint(u64::from(tasks_max).saturating_sub(tasks_removed)).min(i64::from(limit) - removed);
    let tasks = sqlx::query(concat!(
        "SELECT id FROM tasks WHERE job_id IS NULL AND ended_at IS NOT NULL AND ended_at < $1 \
         ORDER BY ended_at LIMIT $2",
        skip_locked!()
    ))
    .bind(ended_before.0)
    .bind(room)
    .fetch_all(&mut *tx.conn)
    .await?;
    for row in &tasks {
        remove_task(tx, row.try_get("id")?, now).await?;
    }
    expire_lines(tx, now).await?;
    Ok((removed + bigint(tasks.len())).unsigned_abs())
}

async fn expire_lines(tx: &mut Tx, now: Timestamp) -> sqlx::Result<()> {
    sqlx::query(
        "DELETE FROM idempotency WHERE (user_id, key) IN \
             (SELECT user_id, key FROM idempotency WHERE created_at <= $1 ORDER BY created_at LIMIT $2)",
    )
    .bind(now.minus(IDEMPOTENCY_KEPT).0)
    .bind(LINES_PER_SWEEP)
    .execute(&mut *tx.conn)
    .await?;
    sqlx::query(
        "DELETE FROM signed_results WHERE (signed_url_id, cache_key) IN \
             (SELECT signed_url_id, cache_key FROM signed_results WHERE created_at <= $1 ORDER BY created_at LIMIT $2)",
    )
    .bind(now.minus(RESULTS_KEPT).0)
    .bind(LINES_PER_SWEEP)
    .execute(&mut *tx.conn)
    .await?;
    Ok(())
}

/// Removes an ended job; the rows of its tasks go with it. Returns how many tasks it had.
async fn remove_job(tx: &mut Tx, id: Uuid, now: Timestamp) -> sqlx::Result<u64> {
    sqlx::query(
        "INSERT INTO trash (task_id, created_at) SELECT id, $2 FROM tasks WHERE job_id = $1 ON CONFLICT DO NOTHING",
    )
    .bind(id)
    .bind(now.0)
    .execute(&mut *tx.conn)
    .await?;
    let tasks = sqlx::query("DELETE FROM tasks WHERE job_id = $1").bind(id).execute(&mut *tx.conn).await?;
    sqlx::query("DELETE FROM jobs WHERE id = $1").bind(id).execute(&mut *tx.conn).await?;
    tx.changed.ids.insert(id);
    tx.changed.sweep = true;
    Ok(tasks.rows_affected())
}

/// Removes an ended task; `false` when somebody else has.
async fn remove_task(tx: &mut Tx, id: Uuid, now: Timestamp) -> sqlx::Result<bool> {
    sqlx::query("INSERT INTO trash (task_id, created_at) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(id)
        .bind(now.0)
        .execute(&mut *tx.conn)
        .await?;
    let row =
        sqlx::query("DELETE FROM tasks WHERE id = $1 RETURNING job_id").bind(id).fetch_optional(&mut *tx.conn).await?;
    tx.changed.ids.insert(id);
    tx.changed.sweep = true;
    let Some(row) = row else { return Ok(false) };
    tx.changed.ids.extend(row.try_get::<Option<Uuid>, _>("job_id")?);
    Ok(true)
}

pub(crate) async fn trash(conn: &mut Conn, limit: u32) -> sqlx::Result<Vec<TaskId>> {
    let rows = sqlx::query("SELECT task_id FROM trash ORDER BY created_at LIMIT $1")
        .bind(i64::from(limit))
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| row.try_get("task_id").map(TaskId)).collect()
}

/// Takes lines of the trash. In the order of one index, so that a server reads no more of them than it must.
pub(crate) const TAKE_TRASH_SQL: &str = concat!(
    "UPDATE trash SET taken_until = $3 WHERE task_id ",
    among!("SELECT task_id FROM trash WHERE taken_until IS NULL OR taken_until <= $2 ORDER BY created_at LIMIT $1"),
    " RETURNING task_id"
);

pub(crate) async fn take_trash(tx: &mut Tx, limit: u32, now: Timestamp, until: Timestamp) -> sqlx::Result<Vec<TaskId>> {
    let rows =
        sqlx::query(TAKE_TRASH_SQL).bind(i64::from(limit)).bind(now.0).bind(until.0).fetch_all(&mut *tx.conn).await?;
    rows.iter().map(|row| row.try_get("task_id").map(TaskId)).collect()
}

pub(crate) async fn trash_emptied(tx: &mut Tx, ids: &[TaskId]) -> sqlx::Result<()> {
    const SQL: &str = concat!("DELETE FROM trash WHERE task_id ", listed!("$1"));
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    chosen(&mut tx.conn, SQL, &ids).await.map(drop)
}

pub(crate) async fn ping(tx: &mut Tx) -> sqlx::Result<Option<Timestamp>> {
    dialect::ping(&mut tx.conn).await
}

pub(crate) async fn agree_on(tx: &mut Tx, name: &str, value: i64) -> sqlx::Result<i64> {
    sqlx::query("INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING")
        .bind(name)
        .bind(value)
        .execute(&mut *tx.conn)
        .await?;
    let row = sqlx::query("SELECT value FROM meta WHERE name = $1").bind(name).fetch_one(&mut *tx.conn).await?;
    row.try_get("value")
}

pub(crate) async fn take_turn(tx: &mut Tx, name: &str, now: Timestamp, until: Timestamp) -> sqlx::Result<bool> {
    let taken = sqlx::query(
        "INSERT INTO meta (name, value) VALUES ($1, $3) \
         ON CONFLICT (name) DO UPDATE SET value = excluded.value WHERE meta.value <= $2 OR meta.value > $3",
    )
    .bind(name)
    .bind(now.0)
    .bind(until.0)
    .execute(&mut *tx.conn)
    .await?;
    Ok(taken.rows_affected() > 0)
}

/// Since when the task has been queued that has been so for the longest: looked up, so that it is known when the queue is long.
pub(crate) const OLDEST_SQL: &str = "SELECT MIN(ready_at) AS oldest FROM tasks WHERE state = 'queued'";

pub(crate) async fn counts(conn: &mut Conn, now: Timestamp) -> sqlx::Result<Counts> {
    let mut counts = Counts::default();
    let rows = sqlx::query("SELECT state, COUNT(*) AS tasks FROM tasks WHERE ended_at IS NULL GROUP BY state")
        .fetch_all(&mut *conn)
        .await?;
    for row in &rows {
        let tasks: u64 = number(row, "tasks")?;
        match super::rows::state(row)? {
            crate::model::State::Blocked | crate::model::State::Uploading => counts.waiting += tasks,
            crate::model::State::Queued => counts.queued = tasks,
            crate::model::State::Delayed => counts.delayed = tasks,
            crate::model::State::Running => counts.running = tasks,
            crate::model::State::Finished | crate::model::State::Error => {}
        }
    }
    let row = sqlx::query(OLDEST_SQL).fetch_one(&mut *conn).await?;
    counts.oldest_queued_secs = moment_if_any(&row, "oldest")?.map_or(0, |oldest| now.since(oldest).as_secs());
    let row = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM ledger) AS open_uploads, \
                (SELECT COUNT(*) FROM users) AS users, \
                (SELECT COUNT(*) FROM keys WHERE revoked_at IS NULL) AS keys",
    )
    .fetch_one(&mut *conn)
    .await?;
    counts.open_uploads = number(&row, "open_uploads")?;
    counts.users = number(&row, "users")?;
    counts.keys = number(&row, "keys")?;
    counts.oldest_event_secs = lag(conn, now).await?;
    counts.oldest_snapshot_secs = dialect::oldest_snapshot_secs(conn).await?;
    (counts.deliveries, counts.oldest_delivery_secs) = super::deliveries::backlog(conn, now).await?;
    Ok(counts)
}

pub(crate) async fn loads(conn: &mut Conn, limit: u32) -> sqlx::Result<Vec<Load>> {
    let rows = sqlx::query(
        "SELECT user_id, COUNT(CASE WHEN state = 'queued' THEN 1 END) AS queued, \
                COUNT(CASE WHEN state = 'running' THEN 1 END) AS running \
         FROM tasks WHERE ended_at IS NULL AND state IN ('queued', 'running') \
         GROUP BY user_id ORDER BY 2 DESC, 3 DESC, 1 LIMIT $1",
    )
    .bind(i64::from(limit))
    .fetch_all(conn)
    .await?;
    let load = |row| Ok(Load { user: user_id(row)?, queued: number(row, "queued")?, running: number(row, "running")? });
    rows.iter().map(load).collect()
}
