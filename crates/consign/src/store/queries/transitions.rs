//! Statements that change one task's state, each guarded by its old state, and by the lease where there is one.

use std::collections::BTreeSet;

use sqlx::Row as _;
use uuid::Uuid;

use super::dialect::{self, among, in_state, listed};
use super::rows::moment_if_any;
use super::settle::{Ended, ended_columns, settle, start_jobs};
use super::{Conn, Row, Tx, sets};
use crate::clock::Timestamp;
use crate::error::Code;
use crate::id::{JobId, TaskId, Token, UserId};
use crate::model::File;
use crate::store::transitions::DUE_MAX;
use crate::store::{Applied, Cancellation};

/// What a cancelled task says.
pub(super) const CANCELLED_MESSAGE: &str = "The task was cancelled.";
/// What an `import/upload` task says whose file did not come.
const UPLOAD_EXPIRED_MESSAGE: &str = "The file was not uploaded in time; create the task again.";

/// Whether a lease holds.
pub(crate) const HOLDS_SQL: &str =
    concat!("SELECT 1 FROM tasks WHERE id = $1 AND lease = $2 AND ", in_state!("running"));

pub(crate) async fn holds(conn: &mut Conn, id: TaskId, token: Token) -> sqlx::Result<bool> {
    let row = sqlx::query(HOLDS_SQL).bind(id.0).bind(token.0).fetch_optional(conn).await?;
    Ok(row.is_some())
}

pub(crate) async fn finish(
    tx: &mut Tx,
    id: TaskId,
    token: Token,
    files: &[File],
    now: Timestamp,
) -> sqlx::Result<Applied> {
    dialect::lock_jobs_of(&mut tx.conn, &[id.0]).await?;
    let row = sqlx::query(concat!(
        "UPDATE tasks SET state = 'finished', percent = 100, ended_at = $3, lease = NULL, session_id = NULL \
         WHERE id = $1 AND lease = $2 AND ",
        in_state!("running"),
        " RETURNING ",
        ended_columns!()
    ))
    .bind(id.0)
    .bind(token.0)
    .bind(now.0)
    .fetch_optional(&mut *tx.conn)
    .await?;
    if row.is_some() {
        sets::insert_files(&mut tx.conn, &[(id.0, files)]).await?;
    }
    applied(tx, row, now).await
}

pub(crate) async fn fail(
    tx: &mut Tx,
    id: TaskId,
    token: Token,
    code: &str,
    message: &str,
    now: Timestamp,
) -> sqlx::Result<Applied> {
    dialect::lock_jobs_of(&mut tx.conn, &[id.0]).await?;
    let row = sqlx::query(concat!(
        "UPDATE tasks SET state = 'error', code = $3, message = $4, forgiven = ignore_error, ended_at = $5, \
                          lease = NULL, session_id = NULL \
         WHERE id = $1 AND lease = $2 AND ",
        in_state!("running"),
        " RETURNING ",
        ended_columns!()
    ))
    .bind(id.0)
    .bind(token.0)
    .bind(code)
    .bind(message)
    .bind(now.0)
    .fetch_optional(&mut *tx.conn)
    .await?;
    applied(tx, row, now).await
}

async fn applied(tx: &mut Tx, row: Option<Row>, now: Timestamp) -> sqlx::Result<Applied> {
    let Some(row) = row else { return Ok(Applied::Stale) };
    settle(tx, vec![Ended::from_row(&row)?], now).await?;
    Ok(Applied::Done)
}

pub(crate) async fn delay(tx: &mut Tx, id: TaskId, token: Token, until: Timestamp) -> sqlx::Result<Applied> {
    let row = sqlx::query(concat!(
        "UPDATE tasks SET state = 'delayed', not_before = $3, lease = NULL, session_id = NULL \
         WHERE id = $1 AND lease = $2 AND ",
        in_state!("running"),
        " RETURNING id, job_id"
    ))
    .bind(id.0)
    .bind(token.0)
    .bind(until.0)
    .fetch_optional(&mut *tx.conn)
    .await?;
    moved(tx, row)
}

pub(crate) async fn give_back(tx: &mut Tx, id: TaskId, token: Token, now: Timestamp) -> sqlx::Result<Applied> {
    let row = sqlx::query(concat!(
        "UPDATE tasks SET state = 'queued', ready_at = $3, attempt = attempt - 1, lease = NULL, session_id = NULL \
         WHERE id = $1 AND lease = $2 AND ",
        in_state!("running"),
        " RETURNING id, job_id"
    ))
    .bind(id.0)
    .bind(token.0)
    .bind(now.0)
    .fetch_optional(&mut *tx.conn)
    .await?;
    tx.changed.ready |= row.is_some();
    moved(tx, row)
}

fn moved(tx: &mut Tx, row: Option<Row>) -> sqlx::Result<Applied> {
    let Some(row) = row else { return Ok(Applied::Stale) };
    note(tx, &row)?;
    Ok(Applied::Done)
}

/// Notes that a task changed, and so its job.
pub(super) fn note(tx: &mut Tx, row: &Row) -> sqlx::Result<()> {
    tx.changed.ids.insert(row.try_get("id")?);
    tx.changed.ids.extend(row.try_get::<Option<Uuid>, _>("job_id")?);
    Ok(())
}

pub(crate) async fn release_due(tx: &mut Tx, now: Timestamp) -> sqlx::Result<Option<Timestamp>> {
    // A task keeps its turn, so it does not wait behind its owner's whole backlog again.
    let rows = sqlx::query(concat!(
        "UPDATE tasks SET state = 'queued', ready_at = $1, not_before = NULL \
         WHERE ",
        in_state!("delayed"),
        " AND id ",
        among!("SELECT id FROM tasks WHERE state = 'delayed' AND not_before <= $1 ORDER BY not_before LIMIT $2"),
        " RETURNING id, job_id"
    ))
    .bind(now.0)
    .bind(i64::from(DUE_MAX))
    .fetch_all(&mut *tx.conn)
    .await?;
    for row in &rows {
        note(tx, row)?;
    }
    tx.changed.ready |= !rows.is_empty();
    let next = sqlx::query("SELECT MIN(not_before) AS due_at FROM tasks WHERE state = 'delayed'")
        .fetch_one(&mut *tx.conn)
        .await?;
    moment_if_any(&next, "due_at")
}

pub(crate) async fn finish_upload(tx: &mut Tx, id: TaskId, file: &File, now: Timestamp) -> sqlx::Result<Applied> {
    dialect::lock_jobs_of(&mut tx.conn, &[id.0]).await?;
    let row = sqlx::query(concat!(
        "UPDATE tasks SET state = 'finished', percent = 100, started_at = $2, ended_at = $2 \
         WHERE id = $1 AND ",
        in_state!("uploading"),
        " RETURNING ",
        ended_columns!()
    ))
    .bind(id.0)
    .bind(now.0)
    .fetch_optional(&mut *tx.conn)
    .await?;
    if let Some(row) = &row {
        sets::insert_files(&mut tx.conn, &[(id.0, std::slice::from_ref(file))]).await?;
        if let Some(job) = row.try_get("job_id")? {
            start_jobs(tx, &BTreeSet::from([job]), now).await?;
        }
    }
    applied(tx, row, now).await
}

pub(crate) async fn expire_uploads(tx: &mut Tx, now: Timestamp) -> sqlx::Result<Option<Timestamp>> {
    let due = sqlx::query(
        "SELECT id FROM tasks WHERE state = 'uploading' AND upload_expires_at <= $1 \
         ORDER BY upload_expires_at LIMIT $2",
    )
    .bind(now.0)
    .bind(i64::from(DUE_MAX))
    .fetch_all(&mut *tx.conn)
    .await?;
    let due = due.iter().map(|row| row.try_get("id")).collect::<sqlx::Result<Vec<Uuid>>>()?;
    if !due.is_empty() {
        expire_some(tx, &due, now).await?;
    }
    let next = sqlx::query("SELECT MIN(upload_expires_at) AS due_at FROM tasks WHERE state = 'uploading'")
        .fetch_one(&mut *tx.conn)
        .await?;
    moment_if_any(&next, "due_at")
}

async fn expire_some(tx: &mut Tx, ids: &[Uuid], now: Timestamp) -> sqlx::Result<()> {
    // Jobs before tasks, as everybody does who ends tasks.
    dialect::lock_jobs_of(&mut tx.conn, ids).await?;
    let rows = sqlx::query(concat!(
        "UPDATE tasks SET state = 'error', code = $3, message = $4, forgiven = ignore_error, ended_at = $2 \
         WHERE ",
        in_state!("uploading"),
        " AND id ",
        listed!("$1"),
        " RETURNING ",
        ended_columns!()
    ))
    .bind(dialect::list(ids))
    .bind(now.0)
    .bind(Code::Timeout.wire())
    .bind(UPLOAD_EXPIRED_MESSAGE)
    .fetch_all(&mut *tx.conn)
    .await?;
    let ended = rows.iter().map(Ended::from_row).collect::<sqlx::Result<Vec<_>>>()?;
    settle(tx, ended, now).await
}

pub(crate) async fn cancel(tx: &mut Tx, user: UserId, id: TaskId, now: Timestamp) -> sqlx::Result<Cancellation> {
    let row = sqlx::query("SELECT 1 FROM tasks WHERE id = $1 AND user_id = $2")
        .bind(id.0)
        .bind(i64::from(user.0))
        .fetch_optional(&mut *tx.conn)
        .await?;
    if row.is_none() {
        return Ok(Cancellation::NotFound);
    }
    dialect::lock_jobs_of(&mut tx.conn, &[id.0]).await?;
    let row = sqlx::query(concat!(
        "UPDATE tasks SET state = 'error', code = $2, message = $3, forgiven = ignore_error, ended_at = $4, \
                          lease = NULL, session_id = NULL, not_before = NULL \
         WHERE id = $1 AND state IN ('blocked', 'uploading', 'queued', 'delayed', 'running') RETURNING ",
        ended_columns!()
    ))
    .bind(id.0)
    .bind(Code::Cancelled.wire())
    .bind(CANCELLED_MESSAGE)
    .bind(now.0)
    .fetch_optional(&mut *tx.conn)
    .await?;
    Ok(match applied(tx, row, now).await? {
        Applied::Done => Cancellation::Done,
        Applied::Stale => Cancellation::AlreadyEnded,
    })
}

/// Cancels what is open of a job that is locked.
pub(super) async fn cancel_job(tx: &mut Tx, job: JobId, now: Timestamp) -> sqlx::Result<()> {
    let rows = sqlx::query(concat!(
        "UPDATE tasks SET state = 'error', code = $2, message = $3, forgiven = ignore_error, ended_at = $4, \
                          lease = NULL, session_id = NULL, not_before = NULL \
         WHERE job_id = $1 AND state IN ('blocked', 'uploading', 'queued', 'delayed', 'running') RETURNING ",
        ended_columns!()
    ))
    .bind(job.0)
    .bind(Code::Cancelled.wire())
    .bind(CANCELLED_MESSAGE)
    .bind(now.0)
    .fetch_all(&mut *tx.conn)
    .await?;
    let ended = rows.iter().map(Ended::from_row).collect::<sqlx::Result<Vec<_>>>()?;
    settle(tx, ended, now).await
}
