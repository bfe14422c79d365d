//! Jobs that are made at the same time, in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sqlx::Row as _;
use uuid::Uuid;

use super::group::Grouped;
use super::queries::jobs::{births_among, create_job, insert_rows, new_rows};
use super::queries::{Tx, webhooks};
use super::sets;
use crate::model::{EventKind, Job};
use crate::store::{Creation, NewJob};

/// Jobs of these that are stored already.
pub(crate) const THERE_SQL: &str = "SELECT id FROM jobs WHERE id = ANY($1)";

/// The turns of users' next tasks, as `first_turn!` has them, and whether they have webhooks.
pub(crate) const USERS_SQL: &str = "\
     SELECT u.id, GREATEST(m.value, u.vt + 1, ( \
                SELECT q.vt + 1 FROM tasks q WHERE q.state = 'queued' AND q.priority = 0 AND q.user_id = u.id \
                ORDER BY q.vt DESC LIMIT 1)) AS turn, \
            EXISTS (SELECT 1 FROM webhooks w WHERE w.user_id = u.id AND NOT w.disabled) AS is_told \
     FROM users u, meta m WHERE m.name = 'virtual_time' AND u.id = ANY($1)";

/// Payloads of a job that shares a statement with others. 64 KiB: a whole group of them has 4 MiB, as in `queries::state`, for
/// PostgreSQL takes no message of a gibibyte.
const PAYLOAD_BYTES_MAX: usize = 64 * 1024;

/// A job that can be made together with others: no key that it could share with one of them, no input that somebody may be
/// ending, and payloads that leave room for theirs.
pub(super) struct Create(NewJob);

impl Create {
    /// The job comes back when it must be made by itself.
    pub(super) fn of(new: NewJob) -> Result<Self, Box<NewJob>> {
        let own: BTreeSet<_> = new.job.tasks.iter().map(|task| task.id).collect();
        let has_own_inputs = new.job.tasks.iter().flat_map(|task| &task.depends_on).all(|input| own.contains(input));
        let is_small = new.payloads.iter().map(Vec::len).sum::<usize>() <= PAYLOAD_BYTES_MAX;
        let is_alike = new.idempotency.is_none() && has_own_inputs && !own.is_empty();
        if is_alike && is_small { Ok(Self(new)) } else { Err(Box::new(new)) }
    }
}

impl Grouped for Create {
    type Answer = Creation;

    fn key(&self) -> Uuid {
        self.0.job.id.0
    }

    fn rows(&self) -> usize {
        1 + 3 * self.0.job.tasks.len()
    }

    async fn together(tx: &mut Tx, commands: &[Arc<Self>]) -> sqlx::Result<Vec<Creation>> {
        // Those were stored already, and the answer lost: the ids are the callers' own.
        let ids: Vec<Uuid> = commands.iter().map(|command| command.key()).collect();
        let there = sqlx::query(THERE_SQL).bind(ids).fetch_all(&mut *tx.conn).await?;
        let there = there.iter().map(|row| row.try_get("id")).collect::<sqlx::Result<BTreeSet<Uuid>>>()?;
        let new: Vec<&NewJob> =
            commands.iter().filter(|command| !there.contains(&command.key())).map(|command| &command.0).collect();
        if !new.is_empty() {
            create(tx, &new).await?;
        }
        Ok(vec![Creation::Created; commands.len()])
    }

    async fn alone(&self, tx: &mut Tx) -> sqlx::Result<Creation> {
        create_job(tx, &self.0).await
    }
}

async fn create(tx: &mut Tx, new: &[&NewJob]) -> sqlx::Result<()> {
    let jobs: Vec<&Job> = new.iter().map(|new| &new.job).collect();
    let mut users = users(tx, &jobs).await?;
    sets::insert_jobs(&mut tx.conn, &jobs).await?;
    let mut rows = Vec::new();
    for NewJob { job, payloads, .. } in new {
        // Whose user is gone is refused by the database.
        let (turn, is_told) = users.entry(i64::from(job.user_id.0)).or_default();
        // All inputs are among the tasks.
        let births = births_among(&job.tasks, &BTreeMap::new()).map_err(|_| sqlx::Error::RowNotFound)?;
        rows.extend(new_rows(&job.tasks, &births, payloads, turn));
        if *is_told {
            webhooks::note(tx, job.user_id, job.id, EventKind::JobCreated, job.created_at).await?;
        }
        tx.changed.ids.insert(job.id.0);
    }
    insert_rows(tx, &rows).await
}

/// The next turn of each user, and whether somebody is to be told of new jobs.
async fn users(tx: &mut Tx, jobs: &[&Job]) -> sqlx::Result<BTreeMap<i64, (i64, bool)>> {
    let ids: BTreeSet<i64> = jobs.iter().map(|job| i64::from(job.user_id.0)).collect();
    let rows = sqlx::query(USERS_SQL).bind(ids.into_iter().collect::<Vec<i64>>()).fetch_all(&mut *tx.conn).await?;
    rows.iter().map(|row| Ok((row.try_get("id")?, (row.try_get("turn")?, row.try_get("is_told")?)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use crate::store::contract::Scene;

    #[tokio::test]
    async fn a_job_with_long_payloads_is_made_by_itself() {
        let scene = Scene::new(Arc::new(MemoryStore::new())).await;
        for (bytes, is_grouped) in [(0, true), (PAYLOAD_BYTES_MAX, true), (PAYLOAD_BYTES_MAX + 1, false)] {
            let mut new = scene.new_job(scene.user, "a; b: a");
            new.payloads = vec![vec![0; bytes / 2], vec![0; bytes - bytes / 2]];
            let id = new.job.id;
            match Create::of(new) {
                Ok(create) => assert!(is_grouped && create.key() == id.0, "{bytes}"),
                Err(new) => assert!(!is_grouped && new.job.id == id, "{bytes}"),
            }
        }
    }
}
