//! Statements about many rows of which each has values of its own: row by row where that is simpler, since a statement costs little
//! here.

use std::collections::BTreeMap;

use sqlx::{QueryBuilder, Row as _};
use uuid::Uuid;

use super::Db;
use super::dialect::{self, first_turn, listed};
use super::queries::claim::owners;
use super::queries::jobs::{NewRow, key_of};
use super::queries::rows::{bigint, receipt_text};
use super::queries::settle::{Counted, Ready, Tally, counted_columns};
use super::queries::{Conn, Row};
use crate::clock::Timestamp;
use crate::model::{File, Job};

/// Rows of one statement at the most, where its text grows with them.
const ROWS_PER_STATEMENT: usize = 200;

/// Who owns queued tasks.
pub(crate) const OWNERS_SQL: &str = concat!(owners!(), "SELECT user_id FROM owners WHERE user_id IS NOT NULL");

/// The tasks of one user that come next, but for some tasks and jobs.
pub(crate) const USER_SQL: &str = concat!(
    "SELECT id, user_id, priority, vt FROM tasks WHERE state = 'queued' AND user_id = $3 AND NOT id ",
    listed!("$2"),
    " AND NOT COALESCE(job_id, id) ",
    listed!("$2"),
    " ORDER BY priority DESC, vt, id LIMIT $1"
);

/// Queues tasks of a user, in their order behind what this user has.
pub(crate) const ENQUEUE_SQL: &str = concat!(
    "UPDATE tasks SET state = 'queued', ready_at = $3, vt = next.key + ",
    first_turn!(),
    " FROM json_each($2) AS next WHERE tasks.id = unhex(next.value) AND tasks.state = 'blocked'"
);

pub(crate) async fn enqueue(conn: &mut Conn, ready: &Ready, now: Timestamp) -> sqlx::Result<()> {
    for (&user, tasks) in ready {
        let ids: Vec<Uuid> = tasks.iter().map(|(_, id)| *id).collect();
        sqlx::query(ENQUEUE_SQL).bind(user).bind(dialect::list(&ids)).bind(now.0).execute(&mut *conn).await?;
    }
    Ok(())
}

pub(crate) async fn count_jobs(
    conn: &mut Conn,
    jobs: &BTreeMap<Uuid, Tally>,
    now: Timestamp,
) -> sqlx::Result<Vec<Counted>> {
    let mut counted = Vec::with_capacity(jobs.len());
    for (job, tally) in jobs {
        let row = sqlx::query(concat!(
            "UPDATE jobs SET open_tasks = open_tasks - $2, failed_tasks = failed_tasks + $3, \
                 status = CASE WHEN open_tasks > $2 THEN status WHEN failed_tasks + $3 > 0 THEN 'error' \
                               ELSE 'finished' END, \
                 ended_at = CASE WHEN open_tasks > $2 THEN NULL ELSE $4 END \
             WHERE id = $1 RETURNING ",
            counted_columns!()
        ))
        .bind(job)
        .bind(tally.ended)
        .bind(tally.failed)
        .bind(now.0)
        .fetch_one(&mut *conn)
        .await?;
        counted.push(Counted::from_row(&row)?);
    }
    Ok(counted)
}

pub(crate) async fn insert_files(conn: &mut Conn, files: &[(Uuid, &[File])]) -> sqlx::Result<()> {
    for (task, files) in files {
        let numbered: Vec<(usize, &File)> = files.iter().enumerate().collect();
        for chunk in numbered.chunks(ROWS_PER_STATEMENT) {
            insert_some_files(conn, *task, chunk).await?;
        }
    }
    Ok(())
}

async fn insert_some_files(conn: &mut Conn, task: Uuid, files: &[(usize, &File)]) -> sqlx::Result<()> {
    let mut query = QueryBuilder::<Db>::new(
        "INSERT INTO files (task_id, position, name, size, md5, sha256, crc32c, content_type, blob, \
                            download_inline, download_expires_at, receipt) ",
    );
    query.push_values(files, |mut row, &(position, file)| {
        row.push_bind(task)
            .push_bind(bigint(position))
            .push_bind(file.name.clone())
            .push_bind(bigint(file.size))
            .push_bind(file.digests.md5.map_or_else(Vec::new, |md5| md5.to_vec()))
            .push_bind(file.digests.sha256.to_vec())
            .push_bind(i64::from(file.digests.crc32c))
            .push_bind(file.content_type.clone())
            .push_bind(file.blob.as_ref().map(ToString::to_string))
            .push_bind(file.download.map(|download| download.inline))
            .push_bind(file.download.map(|download| download.expires_at.0))
            .push_bind(receipt_text(file));
    });
    query.build().execute(conn).await.map(drop)
}

/// Notes the last turn that each user's tasks were given.
pub(crate) async fn note_turns(conn: &mut Conn, turns: &BTreeMap<i64, i64>) -> sqlx::Result<()> {
    for (user, turn) in turns {
        sqlx::query("UPDATE users SET vt = $2 WHERE id = $1 AND vt < $2")
            .bind(user)
            .bind(turn)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

pub(crate) async fn insert_jobs(conn: &mut Conn, jobs: &[&Job]) -> sqlx::Result<()> {
    for job in jobs {
        sqlx::query(
            "INSERT INTO jobs (id, user_id, key_id, tag, webhook_url, status, open_tasks, failed_tasks, created_at) \
             VALUES ($1, $2, $3, $4, $5, 'waiting', $6, 0, $7)",
        )
        .bind(job.id.0)
        .bind(i64::from(job.user_id.0))
        .bind(key_of(job))
        .bind(job.tag.as_deref())
        .bind(job.webhook_url.as_deref())
        .bind(bigint(job.tasks.len()))
        .bind(job.created_at.0)
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

pub(crate) async fn insert_tasks(conn: &mut Conn, rows: &[NewRow<'_>]) -> sqlx::Result<()> {
    for chunk in rows.chunks(ROWS_PER_STATEMENT) {
        let mut query = QueryBuilder::<Db>::new(
            "INSERT INTO tasks (id, job_id, user_id, position, name, operation, state, ignore_error, forgiven, \
                                priority, vt, open_inputs, usable_inputs, attempt, percent, warnings, retry_of, \
                                created_at, ready_at, upload_expires_at) ",
        );
        query.push_values(chunk, |mut values, row| {
            let task = row.task;
            values
                .push_bind(task.id.0)
                .push_bind(task.job_id.map(|id| id.0))
                .push_bind(i64::from(task.user_id.0))
                .push_bind(row.position)
                .push_bind(task.name.clone())
                .push_bind(task.operation.clone())
                .push_bind(row.state.name())
                .push_bind(task.ignore_error)
                .push("FALSE, 0")
                .push_bind(row.turn)
                .push_bind(row.open)
                .push_bind(row.usable)
                .push("0, 0")
                .push_bind(row.warnings())
                .push_bind(task.retry_of.map(|id| id.0))
                .push_bind(task.created_at.0)
                .push_bind(row.ready_at.map(|moment| moment.0))
                .push_bind(task.upload_expires_at.map(|moment| moment.0));
        });
        query.build().execute(&mut *conn).await?;
    }
    Ok(())
}

pub(crate) async fn insert_payloads(conn: &mut Conn, rows: &[NewRow<'_>]) -> sqlx::Result<()> {
    for chunk in rows.chunks(ROWS_PER_STATEMENT) {
        let mut query = QueryBuilder::<Db>::new("INSERT INTO task_docs (task_id, payload) ");
        query.push_values(chunk, |mut values, row| {
            values.push_bind(row.task.id.0).push_bind(row.payload.to_vec());
        });
        query.build().execute(&mut *conn).await?;
    }
    Ok(())
}

pub(crate) async fn insert_dependencies(conn: &mut Conn, rows: &[(Uuid, i64, Uuid)]) -> sqlx::Result<()> {
    for chunk in rows.chunks(ROWS_PER_STATEMENT) {
        let mut query = QueryBuilder::<Db>::new("INSERT INTO dependencies (task_id, position, depends_on) ");
        query.push_values(chunk, |mut values, &(task, position, input)| {
            values.push_bind(task).push_bind(position).push_bind(input);
        });
        query.build().execute(&mut *conn).await?;
    }
    Ok(())
}

/// The first queued tasks of each user, but for some tasks, jobs and users.
pub(crate) async fn heads(conn: &mut Conn, per_user: u32, left_out: &[Uuid], full: Vec<i64>) -> sqlx::Result<Vec<Row>> {
    let mut heads = Vec::new();
    for row in sqlx::query(OWNERS_SQL).fetch_all(&mut *conn).await? {
        let user: i64 = row.try_get("user_id")?;
        if full.contains(&user) {
            continue;
        }
        let tasks = sqlx::query(USER_SQL).bind(i64::from(per_user)).bind(dialect::list(left_out)).bind(user);
        heads.extend(tasks.fetch_all(&mut *conn).await?);
    }
    Ok(heads)
}
