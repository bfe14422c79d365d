//! What follows when tasks end, in the same transaction: dependents are queued or end too, jobs end, the outbox is
//! written.
//!
//! An error is *forgiven* when its task has `ignore_error`, or when it is `INPUT_TASK_FAILED` and all failed inputs
//! were forgiven. A forgiven error does not fail the job, and dependents run with the inputs that are left. Any other error
//! ends all dependents at once. Works through a list, without recursion: a client chooses the depth.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row as _;
use uuid::Uuid;

use super::dialect::{self, first_turn, listed, of};
use super::rows::user_id;
use super::webhooks::note;
use super::{Row, Tx, sets};
use crate::clock::Timestamp;
use crate::error::Code;
use crate::id::{JobId, UserId};
use crate::model::EventKind;

/// What a task with a failed input says.
const INPUT_FAILED_MESSAGE: &str = "Input task has failed";

/// What the statements that end a task return, for [`Ended::from_row`].
macro_rules! ended_columns {
    () => {
        "id, job_id, state, forgiven, host_name"
    };
}
pub(crate) use ended_columns;

/// What the statements that count tasks return, for [`Counted::from_row`].
macro_rules! counted_columns {
    () => {
        "id, user_id, status, open_tasks = 0 AND (webhook_url IS NOT NULL OR EXISTS ( \
             SELECT 1 FROM webhooks w WHERE w.user_id = jobs.user_id AND NOT w.disabled)) AS is_told"
    };
}
pub(crate) use counted_columns;

/// Leaves the open uploads of tasks to be aborted.
pub(crate) const ORPHAN_SQL: &str =
    concat!("UPDATE ledger SET due_at = $2 WHERE due_at IS NULL AND task_id ", listed!("$1"));

/// Says of jobs that they have begun.
pub(crate) const START_SQL: &str =
    concat!("UPDATE jobs SET status = 'processing', started_at = $2 WHERE status = 'waiting' AND id ", listed!("$1"));

/// Ends what waits for inputs that failed.
pub(crate) const END_SQL: &str = concat!(
    "UPDATE tasks SET state = 'error', code = $2, message = $3, forgiven = ignore_error, \
                      started_at = $4, ended_at = $4 \
     WHERE state = 'blocked' AND id ",
    of!(concat!("SELECT task_id FROM dependencies WHERE depends_on ", listed!("$1"))),
    " RETURNING ",
    ended_columns!()
);

/// Counts inputs down that have ended.
pub(crate) const COUNT_DOWN_SQL: &str = concat!(
    "UPDATE tasks SET (open_inputs, usable_inputs) = ( \
         SELECT tasks.open_inputs - COUNT(*), tasks.usable_inputs + $2 * COUNT(*) FROM dependencies d \
         WHERE d.task_id = tasks.id AND d.depends_on ",
    listed!("$1"),
    ") WHERE state = 'blocked' AND id ",
    of!(concat!("SELECT task_id FROM dependencies WHERE depends_on ", listed!("$1"))),
    " RETURNING id, user_id, position, open_inputs, usable_inputs"
);

/// The turn that comes next for a user.
pub(crate) const FIRST_TURN_SQL: &str = concat!("SELECT ", first_turn!(), " AS turn");

/// A task that was just ended; its row is written, what follows is not.
#[derive(Debug)]
pub(crate) struct Ended {
    id: Uuid,
    job_id: Option<Uuid>,
    /// Some process had it once, or may have sent what it waited for, and may have left uploads open. (The number of
    /// attempts does not tell: a lease that is given back is not counted.)
    has_uploads: bool,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Finished,
    Forgiven,
    Failed,
}

impl Ended {
    pub(crate) fn from_row(row: &Row) -> sqlx::Result<Self> {
        let outcome = if row.try_get::<&str, _>("state")? == "finished" {
            Outcome::Finished
        } else if row.try_get("forgiven")? {
            Outcome::Forgiven
        } else {
            Outcome::Failed
        };
        Ok(Self {
            id: row.try_get("id")?,
            job_id: row.try_get("job_id")?,
            has_uploads: outcome != Outcome::Finished || row.try_get::<Option<&str>, _>("host_name")?.is_some(),
            outcome,
        })
    }
}

/// Tasks that can run now: their place in their job and their id, by user.
pub(crate) type Ready = BTreeMap<i64, Vec<(i64, Uuid)>>;

/// Draws the consequences of tasks that have ended: in rounds, for what ends in one may end others in the next.
pub(crate) async fn settle(tx: &mut Tx, ended: Vec<Ended>, now: Timestamp) -> sqlx::Result<()> {
    let mut jobs: BTreeMap<Uuid, Tally> = BTreeMap::new();
    let mut ready = Ready::new();
    let (mut round, mut openers) = (ended, Vec::new());
    while !round.is_empty() {
        let (mut finished, mut forgiven, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        for task in round {
            tx.changed.ids.insert(task.id);
            if task.has_uploads {
                openers.push(task.id);
            }
            if let Some(job) = task.job_id {
                jobs.entry(job).or_default().count(task.outcome);
            }
            match task.outcome {
                Outcome::Finished => finished.push(task.id),
                Outcome::Forgiven => forgiven.push(task.id),
                Outcome::Failed => failed.push(task.id),
            }
        }
        // First: what has a failed input ends, whatever its other inputs did in the same round.
        let mut next = end_dependents(tx, &failed, now).await?;
        next.extend(count_down(tx, &finished, 1, &mut ready, now).await?);
        next.extend(count_down(tx, &forgiven, 0, &mut ready, now).await?);
        round = next;
    }
    orphan_uploads(tx, &openers, now).await?;
    enqueue(tx, ready, now).await?;
    count_jobs(tx, jobs, now).await
}

/// Ends tasks that were born with a failed input; they are stored as blocked until now.
pub(super) async fn end_unborn(tx: &mut Tx, tasks: &[(Uuid, bool)], now: Timestamp) -> sqlx::Result<Vec<Ended>> {
    let mut ended = Vec::with_capacity(tasks.len());
    for forgiven in [false, true] {
        let ids: Vec<Uuid> = tasks.iter().filter(|(_, is)| *is == forgiven).map(|(id, _)| *id).collect();
        ended.extend(end_without_inputs(tx, &ids, forgiven, now).await?);
    }
    Ok(ended)
}

/// How many tasks of a job have ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// All of them.
    pub(crate) ended: i64,
    /// Those whose error counts.
    pub(crate) failed: i64,
}

impl Tally {
    fn count(&mut self, outcome: Outcome) {
        self.ended += 1;
        if outcome == Outcome::Failed {
            self.failed += 1;
        }
    }
}

/// Inputs failed for good: all that wait for one of them end.
async fn end_dependents(tx: &mut Tx, inputs: &[Uuid], now: Timestamp) -> sqlx::Result<Vec<Ended>> {
    if inputs.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(END_SQL)
        .bind(dialect::list(inputs))
        .bind(Code::InputTaskFailed.wire())
        .bind(INPUT_FAILED_MESSAGE)
        .bind(now.0)
        .fetch_all(&mut *tx.conn)
        .await?;
    rows.iter().map(Ended::from_row).collect()
}

/// No input of these tasks is left to work on.
async fn end_without_inputs(tx: &mut Tx, ids: &[Uuid], forgiven: bool, now: Timestamp) -> sqlx::Result<Vec<Ended>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(concat!(
        "UPDATE tasks SET state = 'error', code = $2, message = $3, forgiven = (ignore_error OR $5), \
                          started_at = $4, ended_at = $4 \
         WHERE state = 'blocked' AND id ",
        listed!("$1"),
        " RETURNING ",
        ended_columns!()
    ))
    .bind(dialect::list(ids))
    .bind(Code::InputTaskFailed.wire())
    .bind(INPUT_FAILED_MESSAGE)
    .bind(now.0)
    .bind(forgiven)
    .fetch_all(&mut *tx.conn)
    .await?;
    rows.iter().map(Ended::from_row).collect()
}

/// Inputs ended in a way that lets others go on: those for which they were the last can run, or end without any. Returns the latter.
async fn count_down(
    tx: &mut Tx,
    inputs: &[Uuid],
    usable: i64,
    ready: &mut Ready,
    now: Timestamp,
) -> sqlx::Result<Vec<Ended>> {
    if inputs.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query(COUNT_DOWN_SQL).bind(dialect::list(inputs)).bind(usable).fetch_all(&mut *tx.conn).await?;
    let mut without = Vec::new();
    for row in &rows {
        if row.try_get::<i64, _>("open_inputs")? > 0 {
            continue;
        }
        let id = row.try_get("id")?;
        if row.try_get::<i64, _>("usable_inputs")? > 0 {
            ready.entry(row.try_get("user_id")?).or_default().push((row.try_get("position")?, id));
        } else {
            without.push(id);
        }
    }
    end_without_inputs(tx, &without, true, now).await
}

async fn enqueue(tx: &mut Tx, mut ready: Ready, now: Timestamp) -> sqlx::Result<()> {
    if ready.is_empty() {
        return Ok(());
    }
    for tasks in ready.values_mut() {
        tasks.sort_unstable();
    }
    sets::enqueue(&mut tx.conn, &ready, now).await?;
    tx.changed.ids.extend(ready.values().flatten().map(|(_, id)| *id));
    tx.changed.ready = true;
    Ok(())
}

/// The turn of a user's next task that is not stored yet.
pub(super) async fn next_turn(tx: &mut Tx, user: i64) -> sqlx::Result<i64> {
    sqlx::query(FIRST_TURN_SQL).bind(user).fetch_one(&mut *tx.conn).await?.try_get("turn")
}

async fn orphan_uploads(tx: &mut Tx, tasks: &[Uuid], now: Timestamp) -> sqlx::Result<()> {
    if tasks.is_empty() {
        return Ok(());
    }
    let orphans = sqlx::query(ORPHAN_SQL).bind(dialect::list(tasks)).bind(now.0).execute(&mut *tx.conn).await?;
    tx.changed.sweep |= orphans.rows_affected() > 0;
    Ok(())
}

/// A job some of whose tasks were counted.
pub(crate) struct Counted {
    id: JobId,
    user: UserId,
    /// Its end, if somebody must be told of it.
    told: Option<EventKind>,
}

impl Counted {
    pub(crate) fn from_row(row: &Row) -> sqlx::Result<Self> {
        let event =
            if row.try_get::<&str, _>("status")? == "error" { EventKind::JobFailed } else { EventKind::JobFinished };
        let told = row.try_get::<bool, _>("is_told")?.then_some(event);
        Ok(Self { id: JobId(row.try_get("id")?), user: user_id(row)?, told })
    }
}

async fn count_jobs(tx: &mut Tx, jobs: BTreeMap<Uuid, Tally>, now: Timestamp) -> sqlx::Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let counted = sets::count_jobs(&mut tx.conn, &jobs, now).await?;
    if counted.len() < jobs.len() {
        return Err(sqlx::Error::RowNotFound);
    }
    for Counted { id, user, told } in counted {
        if let Some(event) = told {
            note(tx, user, id, event, now).await?;
        }
    }
    tx.changed.ids.extend(jobs.into_keys());
    Ok(())
}

/// Tasks of these jobs started: the jobs have too.
pub(super) async fn start_jobs(tx: &mut Tx, jobs: &BTreeSet<Uuid>, now: Timestamp) -> sqlx::Result<()> {
    if jobs.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = jobs.iter().copied().collect();
    sqlx::query(START_SQL).bind(dialect::list(&ids)).bind(now.0).execute(&mut *tx.conn).await?;
    tx.changed.ids.extend(jobs);
    Ok(())
}
