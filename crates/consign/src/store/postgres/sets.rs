//! Statements about many rows of which each has values of its own: a row finds its own by its place in a list.
//!
//! A join with the lists would say the same, but a server that knows nothing yet of new tables may then go through all rows. To find a
//! place is a walk through the list, so lists are cut.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::queries::rows::{bigint, receipt_text};
use super::queries::settle::{Counted, Ready, Tally, counted_columns};
use super::queries::Conn;
use crate::clock::Timestamp;
use crate::model::File;

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
