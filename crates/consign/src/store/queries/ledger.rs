//! Statements about uploads that are open at destinations.

use connectors::{OpenUpload, Part};
use sqlx::Row as _;
use uuid::Uuid;

use super::dialect::{self, for_key_share, for_share, in_state, of};
use super::rows::{bigint, number, open_upload, open_uploads};
use super::{Conn, Tx};
use crate::clock::Timestamp;
use crate::id::{TaskId, Token};
use crate::model::{Follower, LedgerEntry};

/// Whether this token lets its holder write lines of a task: it holds the task's lease, or the task waits for one whose
/// lease it holds. Neither may end before the line is written: what ends a task orphans the lines that it sees.
async fn may_write(tx: &mut Tx, id: TaskId, token: Token) -> sqlx::Result<bool> {
    // Looked at before anything is locked: who waits for a job must not hold its task, and no task comes back to this state.
    let is_blocked = "SELECT 1 FROM tasks WHERE id = $1 AND state = 'blocked'";
    if sqlx::query(is_blocked).bind(id.0).fetch_optional(&mut *tx.conn).await?.is_none() {
        let own = concat!("SELECT 1 FROM tasks WHERE id = $1 AND lease = $2 AND ", in_state!("running"), for_share!());
        return Ok(sqlx::query(own).bind(id.0).bind(token.0).fetch_optional(&mut *tx.conn).await?.is_some());
    }
    dialect::lock_jobs_of(&mut tx.conn, &[id.0]).await?;
    let input = concat!(
        "SELECT 1 FROM tasks WHERE id ",
        of!("SELECT depends_on FROM dependencies WHERE task_id = $1"),
        " AND lease = $2 AND ",
        in_state!("running"),
        for_share!()
    );
    if sqlx::query(input).bind(id.0).bind(token.0).fetch_optional(&mut *tx.conn).await?.is_none() {
        return Ok(false);
    }
    let waiting = concat!("SELECT 1 FROM tasks WHERE id = $1 AND state = 'blocked'", for_share!());
    Ok(sqlx::query(waiting).bind(id.0).fetch_optional(&mut *tx.conn).await?.is_some())
}

pub(crate) async fn open(
    tx: &mut Tx,
    id: TaskId,
    token: Token,
    open: &OpenUpload,
    now: Timestamp,
) -> sqlx::Result<bool> {
    if !may_write(tx, id, token).await? {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO ledger (task_id, target, handle, sha256, part_bytes, operation, payload, opened_at, abort_tries) \
         SELECT t.id, $2, $3, $4, $5, t.operation, d.payload, $6, 0 \
         FROM tasks t JOIN task_docs d ON d.task_id = t.id WHERE t.id = $1 \
         ON CONFLICT (task_id, target) DO UPDATE SET handle = excluded.handle, sha256 = excluded.sha256, \
             part_bytes = excluded.part_bytes, opened_at = excluded.opened_at, due_at = NULL, abort_tries = 0",
    )
    .bind(id.0)
    .bind(&open.target)
    .bind(&open.handle)
    .bind(&open.sha256)
    .bind(bigint(open.part_bytes))
    .bind(now.0)
    .execute(&mut *tx.conn)
    .await?;
    sqlx::query("DELETE FROM ledger_parts WHERE task_id = $1 AND target = $2")
        .bind(id.0)
        .bind(&open.target)
        .execute(&mut *tx.conn)
        .await?;
    for (&number, part) in &open.parts {
        write_part(tx, id, token, &open.target, number, part).await?;
    }
    Ok(true)
}

/// Gives an upload its digest: one statement, however many parts it has.
pub(crate) async fn seal(tx: &mut Tx, id: TaskId, token: Token, open: &OpenUpload) -> sqlx::Result<bool> {
    if !may_write(tx, id, token).await? {
        return Ok(false);
    }
    let sealed = sqlx::query("UPDATE ledger SET sha256 = $4 WHERE task_id = $1 AND target = $2 AND handle = $3")
        .bind(id.0)
        .bind(&open.target)
        .bind(&open.handle)
        .bind(&open.sha256)
        .execute(&mut *tx.conn)
        .await?;
    Ok(sealed.rows_affected() > 0)
}

/// Writes down an acknowledged part; `false` when the lease is lost.
pub(crate) async fn write_part(
    tx: &mut Tx,
    id: TaskId,
    token: Token,
    target: &str,
    number: u32,
    part: &Part,
) -> sqlx::Result<bool> {
    let written = sqlx::query(concat!(
        "INSERT INTO ledger_parts (task_id, target, number, size, etag, checksum) \
         SELECT l.task_id, l.target, $4, $5, $6, $7 FROM ledger l JOIN tasks t ON t.id = l.task_id \
         WHERE l.task_id = $1 AND l.target = $3 AND ((t.state = 'running' AND t.lease = $2) OR \
             (t.state = 'blocked' AND EXISTS (SELECT 1 FROM dependencies d JOIN tasks i ON i.id = d.depends_on \
                                              WHERE d.task_id = t.id AND i.state = 'running' AND i.lease = $2)))",
        for_key_share!("l"),
        " ON CONFLICT (task_id, target, number) \
             DO UPDATE SET size = excluded.size, etag = excluded.etag, checksum = excluded.checksum"
    ))
    .bind(id.0)
    .bind(token.0)
    .bind(target)
    .bind(i64::from(number))
    .bind(bigint(part.size))
    .bind(&part.etag)
    .bind(part.checksum.as_deref())
    .execute(&mut *tx.conn)
    .await?;
    Ok(written.rows_affected() > 0)
}

/// The one task that waits for a running one and for nothing else.
pub(crate) async fn follower(conn: &mut Conn, id: TaskId, token: Token) -> sqlx::Result<Option<Follower>> {
    let rows = sqlx::query(
        "SELECT t.id, t.operation, t.state, p.payload, \
                (SELECT COUNT(*) FROM dependencies o WHERE o.task_id = t.id) AS inputs \
         FROM tasks i JOIN dependencies d ON d.depends_on = i.id JOIN tasks t ON t.id = d.task_id \
         JOIN task_docs p ON p.task_id = t.id \
         WHERE i.id = $1 AND i.state = 'running' AND i.lease = $2 LIMIT 2",
    )
    .bind(id.0)
    .bind(token.0)
    .fetch_all(&mut *conn)
    .await?;
    let [row] = rows.as_slice() else { return Ok(None) };
    if row.try_get::<&str, _>("state")? != "blocked" || row.try_get::<i64, _>("inputs")? != 1 {
        return Ok(None);
    }
    let id: Uuid = row.try_get("id")?;
    Ok(Some(Follower {
        id: TaskId(id),
        operation: row.try_get("operation")?,
        payload: row.try_get("payload")?,
        open: open_uploads(conn, &[id]).await?.remove(&id).unwrap_or_default(),
    }))
}

pub(crate) async fn close(tx: &mut Tx, id: TaskId, token: Token, target: &str) -> sqlx::Result<bool> {
    // Of the next attempt at the task the line may have another upload.
    if !may_write(tx, id, token).await? {
        return Ok(false);
    }
    sqlx::query("DELETE FROM ledger WHERE task_id = $1 AND target = $2")
        .bind(id.0)
        .bind(target)
        .execute(&mut *tx.conn)
        .await?;
    Ok(true)
}

/// Strikes out what was aborted; not what the task goes on with.
pub(crate) async fn aborted(tx: &mut Tx, id: TaskId, target: &str) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM ledger WHERE task_id = $1 AND target = $2 AND due_at IS NOT NULL")
        .bind(id.0)
        .bind(target)
        .execute(&mut *tx.conn)
        .await?;
    Ok(())
}

pub(crate) async fn orphans(conn: &mut Conn, now: Timestamp, limit: u32) -> sqlx::Result<Vec<LedgerEntry>> {
    let rows = sqlx::query(
        "SELECT task_id, target, handle, sha256, part_bytes, operation, payload, abort_tries FROM ledger \
         WHERE due_at IS NOT NULL AND due_at <= $1 ORDER BY due_at LIMIT $2",
    )
    .bind(now.0)
    .bind(i64::from(limit))
    .fetch_all(&mut *conn)
    .await?;
    let mut entries = Vec::with_capacity(rows.len());
    for row in &rows {
        let task_id = TaskId(row.try_get("task_id")?);
        entries.push(LedgerEntry {
            task_id,
            operation: row.try_get("operation")?,
            payload: row.try_get("payload")?,
            open: open_upload(conn, task_id, row).await?,
            abort_tries: number(row, "abort_tries")?,
        });
    }
    Ok(entries)
}

/// Takes one try of one line. Line by line, so that whoever dies holds up few lines, and for no longer than one try may take.
pub(crate) async fn claim_abort(
    tx: &mut Tx,
    id: TaskId,
    target: &str,
    tries: u32,
    now: Timestamp,
    until: Timestamp,
) -> sqlx::Result<bool> {
    let claimed = sqlx::query(
        "UPDATE ledger SET due_at = $5 \
         WHERE task_id = $1 AND target = $2 AND abort_tries = $3 AND due_at IS NOT NULL AND due_at <= $4",
    )
    .bind(id.0)
    .bind(target)
    .bind(i64::from(tries))
    .bind(now.0)
    .bind(until.0)
    .execute(&mut *tx.conn)
    .await?;
    Ok(claimed.rows_affected() > 0)
}

pub(crate) async fn abort_failed(
    tx: &mut Tx,
    id: TaskId,
    target: &str,
    tries: u32,
    again_at: Timestamp,
) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE ledger SET abort_tries = abort_tries + 1, due_at = $4 \
         WHERE task_id = $1 AND target = $2 AND abort_tries = $3 AND due_at IS NOT NULL",
    )
    .bind(id.0)
    .bind(target)
    .bind(i64::from(tries))
    .bind(again_at.0)
    .execute(&mut *tx.conn)
    .await?;
    Ok(())
}
