//! From rows to the model.

use std::collections::BTreeMap;

use connectors::{Digests, OpenUpload, Part};
use sqlx::Row as _;
use uuid::Uuid;

use super::dialect::{self, listed};
use super::{Conn, Row};
use crate::clock::Timestamp;
use crate::id::{JobId, KeyId, TaskId, UserId};
use crate::model::{BlobKey, Download, File, Job, Origin, State, Task, WireStatus};

macro_rules! task_columns {
    () => {
        "id, user_id, job_id, name, operation, state, ignore_error, percent, code, message, warnings, attempt, \
         created_at, started_at, ended_at, upload_expires_at, retry_of, host_name"
    };
}
pub(super) use task_columns;

macro_rules! job_columns {
    () => {
        "id, user_id, key_id, tag, webhook_url, status, created_at, started_at, ended_at"
    };
}
pub(super) use job_columns;

macro_rules! file_columns {
    () => {
        "name, size, md5, sha256, crc32c, content_type, blob, download_inline, download_expires_at, receipt"
    };
}
pub(super) use file_columns;

/// A row that makes no sense.
pub(super) fn nonsense(column: &'static str) -> sqlx::Error {
    sqlx::Error::ColumnDecode { index: column.to_owned(), source: "the value makes no sense".into() }
}

/// A count or a number that was stored as `BIGINT`.
pub(super) fn number<T: TryFrom<i64>>(row: &Row, column: &'static str) -> sqlx::Result<T> {
    T::try_from(row.try_get::<i64, _>(column)?).map_err(|_| nonsense(column))
}

/// A count for a `BIGINT` column; no count of ours comes near its end.
pub(crate) fn bigint(count: impl TryInto<i64>) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

fn bytes<const N: usize>(row: &Row, column: &'static str) -> sqlx::Result<[u8; N]> {
    row.try_get::<&[u8], _>(column)?.try_into().map_err(|_| nonsense(column))
}

/// Empty where nobody needed it.
fn md5(row: &Row) -> sqlx::Result<Option<[u8; 16]>> {
    match row.try_get::<&[u8], _>("md5")? {
        [] => Ok(None),
        _ => bytes(row, "md5").map(Some),
    }
}

pub(super) fn moment(row: &Row, column: &'static str) -> sqlx::Result<Timestamp> {
    row.try_get(column).map(Timestamp)
}

pub(super) fn moment_if_any(row: &Row, column: &'static str) -> sqlx::Result<Option<Timestamp>> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(Timestamp))
}

pub(super) fn user_id(row: &Row) -> sqlx::Result<UserId> {
    number(row, "user_id").map(UserId)
}

pub(super) fn state(row: &Row) -> sqlx::Result<State> {
    State::from_name(row.try_get("state")?).ok_or_else(|| nonsense("state"))
}

/// A task without its files and inputs.
pub(super) fn task(row: &Row) -> sqlx::Result<Task> {
    let warnings: Option<&str> = row.try_get("warnings")?;
    Ok(Task {
        id: TaskId(row.try_get("id")?),
        user_id: user_id(row)?,
        job_id: row.try_get::<Option<Uuid>, _>("job_id")?.map(JobId),
        name: row.try_get("name")?,
        operation: row.try_get("operation")?,
        state: state(row)?,
        ignore_error: row.try_get("ignore_error")?,
        percent: number(row, "percent")?,
        code: row.try_get("code")?,
        message: row.try_get("message")?,
        warnings: match warnings {
            Some(json) => serde_json::from_str(json).map_err(|_| nonsense("warnings"))?,
            None => Vec::new(),
        },
        files: Vec::new(),
        attempt: number(row, "attempt")?,
        created_at: moment(row, "created_at")?,
        started_at: moment_if_any(row, "started_at")?,
        ended_at: moment_if_any(row, "ended_at")?,
        upload_expires_at: moment_if_any(row, "upload_expires_at")?,
        retry_of: row.try_get::<Option<Uuid>, _>("retry_of")?.map(TaskId),
        depends_on: Vec::new(),
        host_name: row.try_get("host_name")?,
    })
}

/// A job without its tasks.
pub(super) fn job(row: &Row) -> sqlx::Result<Job> {
    Ok(Job {
        id: JobId(row.try_get("id")?),
        user_id: user_id(row)?,
        tag: row.try_get("tag")?,
        webhook_url: row.try_get("webhook_url")?,
        status: WireStatus::from_wire(row.try_get("status")?).ok_or_else(|| nonsense("status"))?,
        created_at: moment(row, "created_at")?,
        started_at: moment_if_any(row, "started_at")?,
        ended_at: moment_if_any(row, "ended_at")?,
        origin: row.try_get::<Option<Uuid>, _>("key_id")?.map_or(Origin::NoKey, |id| Origin::Key(KeyId(id))),
        tasks: Vec::new(),
    })
}

pub(super) fn file(row: &Row) -> sqlx::Result<File> {
    let inline: Option<bool> = row.try_get("download_inline")?;
    let expires_at = moment_if_any(row, "download_expires_at")?;
    let receipt: Option<&str> = row.try_get("receipt")?;
    Ok(File {
        name: row.try_get("name")?,
        size: number(row, "size")?,
        digests: Digests { md5: md5(row)?, sha256: bytes(row, "sha256")?, crc32c: number(row, "crc32c")? },
        content_type: row.try_get("content_type")?,
        blob: row.try_get::<Option<String>, _>("blob")?.map(BlobKey::from_row),
        download: inline.zip(expires_at).map(|(inline, expires_at)| Download { inline, expires_at }),
        receipt: match receipt {
            Some(json) => Some(serde_json::from_str(json).map_err(|_| nonsense("receipt"))?),
            None => None,
        },
    })
}

/// A receipt as it is stored: JSON.
pub(crate) fn receipt_text(file: &File) -> Option<String> {
    file.receipt.as_ref().map(|receipt| serde_json::json!(receipt).to_string())
}

/// Adds files and inputs to tasks that were read without.
pub(super) async fn complete(conn: &mut Conn, tasks: &mut [Task]) -> sqlx::Result<()> {
    const FILES: &str = concat!(
        "SELECT task_id, ",
        file_columns!(),
        " FROM files WHERE task_id ",
        listed!("$1"),
        " ORDER BY task_id, position"
    );
    const INPUTS: &str = concat!(
        "SELECT task_id, depends_on FROM dependencies WHERE task_id ",
        listed!("$1"),
        " ORDER BY task_id, position"
    );
    let places: BTreeMap<Uuid, usize> = tasks.iter().enumerate().map(|(n, task)| (task.id.0, n)).collect();
    let ids: Vec<Uuid> = places.keys().copied().collect();
    for row in chosen(conn, FILES, &ids).await? {
        if let Some(&place) = places.get(&row.try_get("task_id")?) {
            tasks[place].files.push(file(&row)?);
        }
    }
    for row in chosen(conn, INPUTS, &ids).await? {
        if let Some(&place) = places.get(&row.try_get("task_id")?) {
            tasks[place].depends_on.push(TaskId(row.try_get("depends_on")?));
        }
    }
    Ok(())
}

/// Reads what a statement says about some ids, which are its first parameter.
pub(super) async fn chosen(conn: &mut Conn, sql: &'static str, ids: &[Uuid]) -> sqlx::Result<Vec<Row>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    sqlx::query(sql).bind(dialect::list(ids)).fetch_all(conn).await
}

/// Reads all uploads that are open for some tasks.
pub(super) async fn open_uploads(conn: &mut Conn, tasks: &[Uuid]) -> sqlx::Result<BTreeMap<Uuid, Vec<OpenUpload>>> {
    const SQL: &str = concat!(
        "SELECT task_id, target, handle, sha256, part_bytes FROM ledger WHERE due_at IS NULL AND task_id ",
        listed!("$1"),
        " ORDER BY task_id, target"
    );
    let mut uploads: BTreeMap<Uuid, Vec<OpenUpload>> = BTreeMap::new();
    for row in chosen(conn, SQL, tasks).await? {
        let task: Uuid = row.try_get("task_id")?;
        let upload = open_upload(conn, TaskId(task), &row).await?;
        uploads.entry(task).or_default().push(upload);
    }
    Ok(uploads)
}

/// Adds the parts to a row of the ledger.
pub(super) async fn open_upload(conn: &mut Conn, task: TaskId, row: &Row) -> sqlx::Result<OpenUpload> {
    let target: String = row.try_get("target")?;
    let rows = sqlx::query("SELECT number, size, etag, checksum FROM ledger_parts WHERE task_id = $1 AND target = $2")
        .bind(task.0)
        .bind(&target)
        .fetch_all(conn)
        .await?;
    let mut parts = BTreeMap::new();
    for part in &rows {
        let size = number(part, "size")?;
        parts.insert(
            number(part, "number")?,
            Part { size, etag: part.try_get("etag")?, checksum: part.try_get("checksum")? },
        );
    }
    Ok(OpenUpload {
        target,
        handle: row.try_get("handle")?,
        sha256: row.try_get("sha256")?,
        part_bytes: number(row, "part_bytes")?,
        parts,
    })
}
