//! Tasks that end well at the same time, in one transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use sqlx::Row as _;
use uuid::Uuid;

use super::dialect::{self, in_state};
use super::group::Grouped;
use super::queries::settle::{Ended, ended_columns, settle};
use super::queries::{Tx, transitions};
use super::sets;
use crate::clock::Timestamp;
use crate::id::{TaskId, Token};
use crate::model::File;
use crate::store::Applied;

/// Ends tasks, each under its own lease.
pub(crate) const FINISH_SQL: &str = concat!(
    "UPDATE tasks SET state = 'finished', percent = 100, ended_at = $3, lease = NULL, session_id = NULL \
     WHERE id = ANY($1::uuid[]) AND lease = ($2::bigint[])[array_position($1, tasks.id)] AND ",
    in_state!("running"),
    " RETURNING ",
    ended_columns!()
);

/// A task that ends well.
pub(super) struct End {
    pub(super) id: TaskId,
    pub(super) token: Token,
    pub(super) files: Vec<File>,
    pub(super) now: Timestamp,
}

impl Grouped for End {
    type Answer = Applied;

    fn key(&self) -> Uuid {
        self.id.0
    }

    fn rows(&self) -> usize {
        1 + self.files.len()
    }

    async fn together(tx: &mut Tx, ends: &[Arc<Self>]) -> sqlx::Result<Vec<Applied>> {
        let ids: Vec<Uuid> = ends.iter().map(|end| end.id.0).collect();
        let tokens: Vec<i64> = ends.iter().map(|end| end.token.0).collect();
        let now = ends.iter().map(|end| end.now).max().unwrap_or(Timestamp(0));
        dialect::lock_jobs_of(&mut tx.conn, &ids).await?;
        let rows = sqlx::query(FINISH_SQL).bind(&ids).bind(tokens).bind(now.0).fetch_all(&mut *tx.conn).await?;
        let done = rows.iter().map(|row| row.try_get("id")).collect::<sqlx::Result<BTreeSet<Uuid>>>()?;
        let files: Vec<(Uuid, &[File])> =
            ends.iter().filter(|end| done.contains(&end.id.0)).map(|end| (end.id.0, end.files.as_slice())).collect();
        sets::insert_files(&mut tx.conn, &files).await?;
        let ended = rows.iter().map(Ended::from_row).collect::<sqlx::Result<Vec<_>>>()?;
        settle(tx, ended, now).await?;
        let applied = |end: &Arc<Self>| if done.contains(&end.id.0) { Applied::Done } else { Applied::Stale };
        Ok(ends.iter().map(applied).collect())
    }

    async fn alone(&self, tx: &mut Tx) -> sqlx::Result<Applied> {
        transitions::finish(tx, self.id, self.token, &self.files, self.now).await
    }
}
