//! Statements about many rows of which each has values of its own: row by row where that is simpler, since a statement costs little
//! here.

use std::collections::BTreeMap;

use sqlx::QueryBuilder;
use uuid::Uuid;

use super::queries::rows::{bigint, receipt_text};
use super::queries::settle::{Counted, Ready, Tally, counted_columns, first_turn};
use super::queries::{Conn, ROWS_PER_STATEMENT};
use super::{Db, dialect};
use crate::clock::Timestamp;
use crate::model::File;

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
