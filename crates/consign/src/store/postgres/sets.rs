//! Statements about many rows of which each has values of its own: a row finds its own by its place in a list.
//!
//! A join with the lists would say the same, but a server that knows nothing yet of new tables may then go through all rows. To find a
//! place is a walk through the list, so lists are cut.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::queries::claim::owners;
use super::queries::jobs::{NewRow, key_of};
use super::queries::rows::{bigint, receipt_text};
use super::queries::settle::{Counted, Ready, Tally, counted_columns};
use super::queries::{Conn, Row};
use crate::clock::Timestamp;
use crate::model::{File, Job};

/// Rows of one statement at the most.
const ROWS_MAX: usize = 200;
/// Files of one statement at the most.
const FILES_MAX: usize = 1000;

/// Queues tasks, each at its place behind what its user has.
pub(crate) const ENQUEUE_SQL: &str = "\
     UPDATE tasks SET state = 'queued', ready_at = $3, vt = ($2::bigint[])[array_position($1::uuid[], tasks.id)] + ( \
         SELECT GREATEST(m.value, u.vt + 1, ( \
             SELECT q.vt + 1 FROM tasks q WHERE q.state = 'queued' AND q.priority = 0 AND q.user_id = u.id \
             ORDER BY q.vt DESC LIMIT 1)) \
         FROM users u, meta m WHERE u.id = tasks.user_id AND m.name = 'virtual_time') \
     WHERE state = 'blocked' AND id = ANY($1)";

/// Counts ended tasks in their jobs, and ends jobs.
pub(crate) const COUNT_SQL: &str = concat!(
    "UPDATE jobs SET open_tasks = open_tasks - ($2::bigint[])[array_position($1::uuid[], jobs.id)], \
         failed_tasks = failed_tasks + ($3::bigint[])[array_position($1, jobs.id)], \
         status = CASE WHEN open_tasks > ($2::bigint[])[array_position($1, jobs.id)] THEN status \
                       WHEN failed_tasks + ($3::bigint[])[array_position($1, jobs.id)] > 0 THEN 'error' ELSE 'finished' END, \
         ended_at = CASE WHEN open_tasks > ($2::bigint[])[array_position($1, jobs.id)] THEN NULL ELSE $4::bigint END \
     WHERE id = ANY($1) RETURNING ",
    counted_columns!()
);

/// Stores files, of whatever tasks.
pub(crate) const FILES_SQL: &str = "\
     INSERT INTO files (task_id, position, name, size, md5, sha256, crc32c, content_type, blob, download_inline, \
                        download_expires_at, receipt) \
     SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::text[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bigint[], \
                          $8::text[], $9::text[], $10::boolean[], $11::bigint[], $12::text[])";

/// The first queued tasks of each user, but for some tasks, jobs and users.
pub(crate) const HEADS_SQL: &str = concat!(
    owners!(),
    "SELECT q.id, q.user_id, q.priority, q.vt FROM owners o CROSS JOIN LATERAL ( \
         SELECT t.id, t.user_id, t.priority, t.vt FROM tasks t \
         WHERE t.state = 'queued' AND t.user_id = o.user_id AND NOT t.id = ANY($2) \
             AND NOT COALESCE(t.job_id, t.id) = ANY($2) \
         ORDER BY t.priority DESC, t.vt, t.id LIMIT $1) q \
     WHERE o.user_id <> ALL($3)"
);

/// Stores jobs.
pub(crate) const JOBS_SQL: &str = "\
     INSERT INTO jobs (id, user_id, key_id, tag, webhook_url, status, open_tasks, failed_tasks, created_at) \
     SELECT n.id, n.user_id, n.key_id, n.tag, n.webhook_url, 'waiting', n.tasks, 0, n.created_at \
     FROM UNNEST($1::uuid[], $2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::bigint[], $7::bigint[]) \
         AS n (id, user_id, key_id, tag, webhook_url, tasks, created_at)";

/// Stores tasks.
pub(crate) const TASKS_SQL: &str = "\
     INSERT INTO tasks (id, job_id, user_id, position, name, operation, state, ignore_error, forgiven, priority, vt, \
                        open_inputs, usable_inputs, attempt, percent, warnings, retry_of, created_at, ready_at, \
                        upload_expires_at) \
     SELECT n.id, n.job_id, n.user_id, n.position, n.name, n.operation, n.state, n.ignore_error, FALSE, 0, n.vt, \
            n.open_inputs, n.usable_inputs, 0, 0, n.warnings, n.retry_of, n.created_at, n.ready_at, n.upload_expires_at \
     FROM UNNEST($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::text[], \
                 $8::boolean[], $9::bigint[], $10::bigint[], $11::bigint[], $12::text[], $13::uuid[], $14::bigint[], \
                 $15::bigint[], $16::bigint[]) \
         AS n (id, job_id, user_id, position, name, operation, state, ignore_error, vt, open_inputs, usable_inputs, \
               warnings, retry_of, created_at, ready_at, upload_expires_at)";

/// Notes the last turn that each user's tasks were given.
pub(crate) const TURNS_SQL: &str = "\
     UPDATE users SET vt = ($2::bigint[])[array_position($1::bigint[], users.id)] \
     WHERE id = ANY($1) AND vt < ($2::bigint[])[array_position($1, users.id)]";

pub(crate) async fn enqueue(conn: &mut Conn, ready: &Ready, now: Timestamp) -> sqlx::Result<()> {
    let tasks: Vec<(i64, Uuid)> =
        ready.iter().flat_map(|(user, tasks)| tasks.iter().map(|(_, id)| (*user, *id))).collect();
    for chunk in tasks.chunks(ROWS_MAX) {
        let ids: Vec<Uuid> = chunk.iter().map(|(_, id)| *id).collect();
        let of_users = chunk.chunk_by(|(user, _), (next, _)| user == next);
        let places: Vec<i64> = of_users.flat_map(|tasks| (0..).take(tasks.len())).collect();
        sqlx::query(ENQUEUE_SQL).bind(ids).bind(places).bind(now.0).execute(&mut *conn).await?;
    }
    Ok(())
}

pub(crate) async fn count_jobs(
    conn: &mut Conn,
    jobs: &BTreeMap<Uuid, Tally>,
    now: Timestamp,
) -> sqlx::Result<Vec<Counted>> {
    let tallies: Vec<(Uuid, Tally)> = jobs.iter().map(|(job, tally)| (*job, *tally)).collect();
    let mut counted = Vec::with_capacity(tallies.len());
    for chunk in tallies.chunks(ROWS_MAX) {
        let rows = sqlx::query(COUNT_SQL)
            .bind(chunk.iter().map(|(job, _)| *job).collect::<Vec<Uuid>>())
            .bind(chunk.iter().map(|(_, tally)| tally.ended).collect::<Vec<i64>>())
            .bind(chunk.iter().map(|(_, tally)| tally.failed).collect::<Vec<i64>>())
            .bind(now.0)
            .fetch_all(&mut *conn)
            .await?;
        for row in &rows {
            counted.push(Counted::from_row(row)?);
        }
    }
    Ok(counted)
}

pub(crate) async fn insert_files(conn: &mut Conn, files: &[(Uuid, &[File])]) -> sqlx::Result<()> {
    let rows: Vec<(Uuid, i64, &File)> = files
        .iter()
        .flat_map(|(task, files)| files.iter().zip(0_i64..).map(|(file, position)| (*task, position, file)))
        .collect();
    for chunk in rows.chunks(FILES_MAX) {
        let files = || chunk.iter().map(|(.., file)| *file);
        sqlx::query(FILES_SQL)
            .bind(chunk.iter().map(|(task, ..)| *task).collect::<Vec<Uuid>>())
            .bind(chunk.iter().map(|(_, position, _)| *position).collect::<Vec<i64>>())
            .bind(files().map(|file| file.name.as_str()).collect::<Vec<&str>>())
            .bind(files().map(|file| bigint(file.size)).collect::<Vec<i64>>())
            .bind(files().map(|file| file.digests.md5.map_or_else(Vec::new, Vec::from)).collect::<Vec<Vec<u8>>>())
            .bind(files().map(|file| file.digests.sha256.to_vec()).collect::<Vec<Vec<u8>>>())
            .bind(files().map(|file| i64::from(file.digests.crc32c)).collect::<Vec<i64>>())
            .bind(files().map(|file| file.content_type.as_str()).collect::<Vec<&str>>())
            .bind(files().map(|file| file.blob.as_ref().map(ToString::to_string)).collect::<Vec<Option<String>>>())
            .bind(files().map(|file| file.download.map(|download| download.inline)).collect::<Vec<Option<bool>>>())
            .bind(files().map(|file| file.download.map(|link| link.expires_at.0)).collect::<Vec<Option<i64>>>())
            .bind(files().map(receipt_text).collect::<Vec<Option<String>>>())
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

pub(crate) async fn note_turns(conn: &mut Conn, turns: &BTreeMap<i64, i64>) -> sqlx::Result<()> {
    let (users, turns): (Vec<i64>, Vec<i64>) = turns.iter().map(|(user, turn)| (*user, *turn)).unzip();
    sqlx::query(TURNS_SQL).bind(users).bind(turns).execute(conn).await.map(drop)
}

pub(crate) async fn insert_jobs(conn: &mut Conn, jobs: &[&Job]) -> sqlx::Result<()> {
    sqlx::query(JOBS_SQL)
        .bind(jobs.iter().map(|job| job.id.0).collect::<Vec<Uuid>>())
        .bind(jobs.iter().map(|job| i64::from(job.user_id.0)).collect::<Vec<i64>>())
        .bind(jobs.iter().map(|job| key_of(job)).collect::<Vec<Option<Uuid>>>())
        .bind(jobs.iter().map(|job| job.tag.as_deref()).collect::<Vec<Option<&str>>>())
        .bind(jobs.iter().map(|job| job.webhook_url.as_deref()).collect::<Vec<Option<&str>>>())
        .bind(jobs.iter().map(|job| bigint(job.tasks.len())).collect::<Vec<i64>>())
        .bind(jobs.iter().map(|job| job.created_at.0).collect::<Vec<i64>>())
        .execute(conn)
        .await
        .map(drop)
}

pub(crate) async fn insert_tasks(conn: &mut Conn, rows: &[NewRow<'_>]) -> sqlx::Result<()> {
    let tasks = || rows.iter().map(|row| row.task);
    sqlx::query(TASKS_SQL)
        .bind(tasks().map(|task| task.id.0).collect::<Vec<Uuid>>())
        .bind(tasks().map(|task| task.job_id.map(|id| id.0)).collect::<Vec<Option<Uuid>>>())
        .bind(tasks().map(|task| i64::from(task.user_id.0)).collect::<Vec<i64>>())
        .bind(rows.iter().map(|row| row.position).collect::<Vec<i64>>())
        .bind(tasks().map(|task| task.name.as_deref()).collect::<Vec<Option<&str>>>())
        .bind(tasks().map(|task| task.operation.as_str()).collect::<Vec<&str>>())
        .bind(rows.iter().map(|row| row.state.name()).collect::<Vec<&str>>())
        .bind(tasks().map(|task| task.ignore_error).collect::<Vec<bool>>())
        .bind(rows.iter().map(|row| row.turn).collect::<Vec<i64>>())
        .bind(rows.iter().map(|row| row.open).collect::<Vec<i64>>())
        .bind(rows.iter().map(|row| row.usable).collect::<Vec<i64>>())
        .bind(rows.iter().map(NewRow::warnings).collect::<Vec<Option<String>>>())
        .bind(tasks().map(|task| task.retry_of.map(|id| id.0)).collect::<Vec<Option<Uuid>>>())
        .bind(tasks().map(|task| task.created_at.0).collect::<Vec<i64>>())
        .bind(rows.iter().map(|row| row.ready_at.map(|moment| moment.0)).collect::<Vec<Option<i64>>>())
        .bind(tasks().map(|task| task.upload_expires_at.map(|moment| moment.0)).collect::<Vec<Option<i64>>>())
        .execute(conn)
        .await
        .map(drop)
}

pub(crate) async fn insert_payloads(conn: &mut Conn, rows: &[NewRow<'_>]) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO task_docs (task_id, payload) SELECT * FROM UNNEST($1::uuid[], $2::bytea[])")
        .bind(rows.iter().map(|row| row.task.id.0).collect::<Vec<Uuid>>())
        .bind(rows.iter().map(|row| row.payload).collect::<Vec<&[u8]>>())
        .execute(conn)
        .await
        .map(drop)
}

pub(crate) async fn insert_dependencies(conn: &mut Conn, rows: &[(Uuid, i64, Uuid)]) -> sqlx::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO dependencies (task_id, position, depends_on) \
         SELECT * FROM UNNEST($1::uuid[], $2::bigint[], $3::uuid[])",
    )
    .bind(rows.iter().map(|(task, ..)| *task).collect::<Vec<Uuid>>())
    .bind(rows.iter().map(|(_, position, _)| *position).collect::<Vec<i64>>())
    .bind(rows.iter().map(|(.., input)| *input).collect::<Vec<Uuid>>())
    .execute(conn)
    .await
    .map(drop)
}

pub(crate) async fn heads(conn: &mut Conn, per_user: u32, left_out: &[Uuid], full: Vec<i64>) -> sqlx::Result<Vec<Row>> {
    sqlx::query(HEADS_SQL).bind(i64::from(per_user)).bind(left_out).bind(full).fetch_all(conn).await
}
