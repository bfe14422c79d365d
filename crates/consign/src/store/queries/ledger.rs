//! Statements about uploads that are open at destinations.

use connectors::{OpenUpload, Part};
use sqlx::Row as _;

use super::dialect::for_share_of_t;
use super::rows::{bigint, number, open_upload};
use super::{Conn, Tx};
use crate::clock::Timestamp;
use crate::id::{TaskId, Token};
use crate::model::LedgerEntry;

pub(crate) async fn open(
    tx: &mut Tx,
    id: TaskId,
    token: Token,
    open: &OpenUpload,
    now: Timestamp,
) -> sqlx::Result<bool> {
    // The task must not end meanwhile: what ends it orphans the lines that it sees.
    let written = sqlx::query(concat!(
        "INSERT INTO ledger (task_id, target, handle, sha256, part_bytes, operation, payload, opened_at, abort_tries) \
         SELECT t.id, $3, $4, $5, $6, t.operation, d.payload, $7, 0 \
         FROM tasks t JOIN task_docs d ON d.task_id = t.id \
         WHERE t.id = $1 AND t.state = 'running' AND t.lease = $2",
        for_share_of_t!(),
        " ON CONFLICT (task_id, target) DO UPDATE SET handle = excluded.handle, sha256 = excluded.sha256, \
             part_bytes = excluded.part_bytes, opened_at = excluded.opened_at, due_at = NULL, abort_tries = 0"
    ))
    .bind(id.0)
    .bind(token.0)
    .bind(&open.target)
    .bind(&open.handle)
    .bind(&open.sha256)
    .bind(bigint(open.part_bytes))
    .bind(now.0)
    .execute(&mut *tx.conn)
    .await?;
    if written.rows_affected() == 0 {
        return Ok(false);
    }
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

/// Writes down an acknowledged part; `false` when the lease is lost.
pub(crate) async fn write_part(
    tx: &mut Tx,
    id: TaskId,
    token: Token,
    target: &str,
    number: u32,
    part: &Part,
) -> sqlx::Result<bool> {
    let written = sqlx::query(
        "INSERT INTO ledger_parts (task_id, target, number, size, etag, checksum) \
         SELECT l.task_id, l.target, $4, $5, $6, $7 FROM ledger l JOIN tasks t ON t.id = l.task_id \
         WHERE l.task_id = $1 AND l.target = $3 AND t.state = 'running' AND t.lease = $2 \
         ON CONFLICT (task_id, target, number) \
             DO UPDATE SET size = excluded.size, etag = excluded.etag, checksum = excluded.checksum",
    )
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

pub(crate) async fn close(tx: &mut Tx, id: TaskId, target: &str) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM ledger WHERE task_id = $1 AND target = $2")
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

pub(crate) async fn abort_failed(tx: &mut Tx, id: TaskId, target: &str, again_at: Timestamp) -> sqlx::Result<()> {
    sqlx::query(
        "UPDATE ledger SET abort_tries = abort_tries + 1, due_at = $3 \
         WHERE task_id = $1 AND target = $2 AND due_at IS NOT NULL",
    )
    .bind(id.0)
    .bind(target)
    .bind(again_at.0)
    .execute(&mut *tx.conn)
    .await?;
    Ok(())
}
