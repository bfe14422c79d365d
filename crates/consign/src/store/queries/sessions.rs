//! Statements about process sessions and the leases they hold.

use sqlx::Row as _;
use uuid::Uuid;

use super::dialect::{self, among, claimer, for_update, in_state, listed, skip_locked};
use super::rows::{bigint, chosen, moment_if_any, number};
use super::settle::{Ended, ended_columns, settle};
use super::transitions::note;
use super::{Conn, Row, Tx};
use crate::clock::Timestamp;
use crate::error::Code;
use crate::id::{SessionId, TaskId, Token};
use crate::store::{Expired, Heartbeat, TaskProgress};

/// What a task says that took down too many processes.
const WORKER_LOST_MESSAGE: &str = "The server was interrupted each time it worked on this task.";

/// The time that sessions live by.
pub(crate) async fn time(conn: &mut Conn, own: Timestamp) -> sqlx::Result<Timestamp> {
    dialect::time(conn, own).await
}

pub(crate) async fn open(
    tx: &mut Tx,
    id: SessionId,
    host_name: &str,
    exclusive: bool,
    now: Timestamp,
) -> sqlx::Result<()> {
    if exclusive {
        let rows = sqlx::query("SELECT id FROM sessions").fetch_all(&mut *tx.conn).await?;
        end(tx, &ids(&rows)?, i64::MAX, now).await?;
    }
    sqlx::query(
        "INSERT INTO sessions (id, host_name, started_at, last_seen) VALUES ($1, $2, $3, $3) ON CONFLICT DO NOTHING",
    )
    .bind(id.0)
    .bind(host_name)
    .bind(now.0)
    .execute(&mut *tx.conn)
    .await?;
    Ok(())
}

pub(crate) async fn heartbeat(
    tx: &mut Tx,
    id: SessionId,
    progress: &[TaskProgress],
    now: Timestamp,
) -> sqlx::Result<Heartbeat> {
    // A heartbeat that had to wait does not undo a later one.
    let alive = sqlx::query(
        "UPDATE sessions SET last_seen = CASE WHEN last_seen > $2 THEN last_seen ELSE $2 END WHERE id = $1",
    )
    .bind(id.0)
    .bind(now.0)
    .execute(&mut *tx.conn)
    .await?;
    if alive.rows_affected() == 0 {
        return Ok(Heartbeat::Expired);
    }
    for task in progress {
        let row = sqlx::query(concat!(
            "UPDATE tasks SET percent = $3 WHERE id ",
            among!(concat!(
                "SELECT id FROM tasks WHERE id = $1 AND lease = $2 AND percent <> $3 AND ",
                in_state!("running")
            )),
            " RETURNING id, job_id"
        ))
        .bind(task.id.0)
        .bind(task.token.0)
        .bind(i64::from(task.percent.min(99)))
        .fetch_optional(&mut *tx.conn)
        .await?;
        if let Some(row) = row {
            note(tx, &row)?;
        }
    }
    Ok(Heartbeat::Alive)
}

pub(crate) async fn close(tx: &mut Tx, id: SessionId, now: Timestamp) -> sqlx::Result<()> {
    // A claim that is under way comes first, or its tasks would have an owner that is gone.
    sqlx::query(concat!("SELECT 1 FROM sessions WHERE id = $1", for_update!()))
        .bind(id.0)
        .execute(&mut *tx.conn)
        .await?;
    end(tx, &[id.0], i64::MAX, now).await.map(drop)
}

pub(crate) async fn expire(
    tx: &mut Tx,
    seen_before: Timestamp,
    attempts_max: u32,
    now: Timestamp,
) -> sqlx::Result<Expired> {
    let rows = sqlx::query(concat!("SELECT id FROM sessions WHERE last_seen < $1", skip_locked!()))
        .bind(seen_before.0)
        .fetch_all(&mut *tx.conn)
        .await?;
    let tasks = end(tx, &ids(&rows)?, bigint(attempts_max), now).await?;
    let left = sqlx::query("SELECT MIN(last_seen) AS oldest FROM sessions").fetch_one(&mut *tx.conn).await?;
    Ok(Expired { tasks, oldest: moment_if_any(&left, "oldest")? })
}

fn ids(rows: &[Row]) -> sqlx::Result<Vec<Uuid>> {
    rows.iter().map(|row| row.try_get("id")).collect()
}

/// Ends sessions; their tasks are queued again with the turn they had, or end if they were claimed too often.
async fn end(tx: &mut Tx, sessions: &[Uuid], attempts_max: i64, now: Timestamp) -> sqlx::Result<u64> {
    if sessions.is_empty() {
        return Ok(0);
    }
    // Jobs before tasks, as everybody does who ends tasks.
    let lost = sqlx::query(concat!(
        "SELECT id FROM tasks WHERE state = 'running' AND attempt >= $2 AND session_id ",
        listed!("$1")
    ))
    .bind(dialect::list(sessions))
    .bind(attempts_max)
    .fetch_all(&mut *tx.conn)
    .await?;
    let lost = lose(tx, sessions, &ids(&lost)?, now).await?;
    let again = sqlx::query(concat!(
        "UPDATE tasks SET state = 'queued', ready_at = $2, lease = NULL, session_id = NULL \
         WHERE state = 'running' AND session_id ",
        listed!("$1"),
        " RETURNING id, job_id"
    ))
    .bind(dialect::list(sessions))
    .bind(now.0)
    .fetch_all(&mut *tx.conn)
    .await?;
    for row in &again {
        note(tx, row)?;
    }
    tx.changed.ready |= !again.is_empty();
    let count = bigint(lost.len() + again.len());
    settle(tx, lost, now).await?;
    chosen(&mut tx.conn, concat!("DELETE FROM sessions WHERE id ", listed!("$1")), sessions).await?;
    Ok(count.unsigned_abs())
}

/// Ends tasks that were claimed too often, if these sessions still hold them.
async fn lose(tx: &mut Tx, sessions: &[Uuid], tasks: &[Uuid], now: Timestamp) -> sqlx::Result<Vec<Ended>> {
    if tasks.is_empty() {
        return Ok(Vec::new());
    }
    dialect::lock_jobs_of(&mut tx.conn, tasks).await?;
    let rows = sqlx::query(concat!(
        "UPDATE tasks SET state = 'error', code = $3, message = $4, forgiven = ignore_error, ended_at = $5, \
                          lease = NULL, session_id = NULL \
         WHERE ",
        in_state!("running"),
        " AND id ",
        listed!("$1"),
        " AND session_id ",
        listed!("$2"),
        " RETURNING ",
        ended_columns!()
    ))
    .bind(dialect::list(tasks))
    .bind(dialect::list(sessions))
    .bind(Code::WorkerLost.wire())
    .bind(WORKER_LOST_MESSAGE)
    .bind(now.0)
    .fetch_all(&mut *tx.conn)
    .await?;
    rows.iter().map(Ended::from_row).collect()
}

/// The leases that a session holds.
pub(crate) async fn leases(conn: &mut Conn, id: SessionId) -> sqlx::Result<Vec<(TaskId, Token)>> {
    let rows = sqlx::query("SELECT id, lease FROM tasks WHERE state = 'running' AND session_id = $1")
        .bind(id.0)
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| Ok((TaskId(row.try_get("id")?), Token(row.try_get("lease")?)))).collect()
}

/// Whose claim this is: the host name of a session, if it lives.
pub(crate) const CLAIMER_SQL: &str = claimer!();

/// Begins a claim, for a session that lives; returns its host name.
pub(super) async fn claimer(tx: &mut Tx, id: SessionId) -> sqlx::Result<Option<String>> {
    let row = sqlx::query(CLAIMER_SQL).bind(id.0).fetch_optional(&mut *tx.conn).await?;
    row.map(|row| row.try_get("host_name")).transpose()
}

/// How many tasks of each user are running.
pub(crate) const RUNNING_SQL: &str =
    "SELECT user_id, COUNT(*) AS tasks FROM tasks WHERE state = 'running' GROUP BY user_id";

/// How many tasks of each user are running, by user.
pub(super) async fn running(tx: &mut Tx) -> sqlx::Result<std::collections::BTreeMap<i64, u32>> {
    let rows = sqlx::query(RUNNING_SQL).fetch_all(&mut *tx.conn).await?;
    rows.iter().map(|row| Ok((row.try_get("user_id")?, number(row, "tasks")?))).collect()
}
