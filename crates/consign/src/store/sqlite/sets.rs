//! Statements about many rows of which each has values of its own: row by row where that is simpler, since a statement costs little
//! here.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::dialect;
use super::queries::Conn;
use super::queries::settle::{Counted, Ready, Tally, counted_columns, first_turn};
use crate::clock::Timestamp;

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
