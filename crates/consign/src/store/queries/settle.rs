//! What follows when tasks end, in the same transaction: dependents are queued or end too, jobs end, the outbox is
//! written.
//!
//! An error is *forgiven* when its task has `ignore_error`, or when it is `INPUT_TASK_FAILED` and all failed inputs
//! were forgiven. A forgiven error does not fail the job, and dependents run with the inputs that are left. Any other error
//! ends all dependents at once. Works through a list, without recursion: a client chooses the depth.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::{QueryBuilder, Row as _};
use uuid::Uuid;

use super::dialect::{self, listed, of};
use super::rows::user_id;
use super::webhooks::note;
use super::{Db, ROWS_PER_STATEMENT, Row, Tx};
use crate::clock::Timestamp;
use crate::error::Code;
use crate::id::JobId;
use crate::model::EventKind;

/// What a task with a failed input says.
const INPUT_FAILED_MESSAGE: &str = "Input task has failed";

/// Leaves the open uploads of tasks to be aborted.
pub(crate) const ORPHAN_SQL: &str =
    concat!("UPDATE ledger SET due_at = $2 WHERE due_at IS NULL AND task_id ", listed!("$1"));

/// Says of jobs that they have begun.
pub(crate) const START_SQL: &str = concat!(
    "UPDATE jobs SET status = 'processing', started_at = $2 WHERE status = 'waiting' AND id ",
    listed!("$1")
);

/// A task that was just ended; its row is written, what follows is not.
#[derive(Debug)]
pub(super) struct Ended {
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

/// What the statements that end a task return, for [`Ended::from_row`].
macro_rules! ended_columns {
    () => {
        "id, job_id, state, forgiven, host_name"
    };
}
pub(super) use ended_columns;

impl Ended {
    pub(super) fn from_row(row: &Row) -> sqlx::Result<Self> {
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
type Ready = BTreeMap<i64, Vec<(i64, Uuid)>>;

/// Draws the consequences of tasks that have ended.
pub(super) async fn settle(tx: &mut Tx, ended: Vec<Ended>, now: Timestamp) -> sqlx::Result<()> {
    let mut jobs: BTreeMap<Uuid, Tally> = BTreeMap::new();
    let mut ready = Ready::new();
    let (mut left, mut openers) = (ended, Vec::new());
    while let Some(task) = left.pop() {
        tx.changed.ids.insert(task.id);
        if task.has_uploads {
            openers.push(task.id);
        }
        if let Some(job) = task.job_id {
            jobs.entry(job).or_default().count(task.outcome);
        }
        if task.outcome == Outcome::Failed {
            left.extend(end_dependents(tx, task.id, now).await?);
        } else {
            count_down(tx, &task, &mut ready, &mut left, now).await?;
        }
    }
    orphan_uploads(tx, &openers, now).await?;
    for (user, mut tasks) in ready {
        tasks.sort_unstable();
        enqueue(tx, user, &tasks, now).await?;
    }
    for (job, tally) in jobs {
        count_job(tx, job, tally, now).await?;
    }
    Ok(())
}

/// Ends tasks that were born with a failed input; they are stored as blocked until now.
pub(super) async fn end_unborn(tx: &mut Tx, tasks: &[(Uuid, bool)], now: Timestamp) -> sqlx::Result<Vec<Ended>> {
    let mut ended = Vec::with_capacity(tasks.len());
    for &(id, forgiven) in tasks {
        ended.extend(end_one(tx, id, forgiven, now).await?);
    }
    Ok(ended)
}

#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    ended: i64,
    failed: i64,
}

impl Tally {
    fn count(&mut self, outcome: Outcome) {
        self.ended += 1;
        if outcome == Outcome::Failed {
            self.failed += 1;
        }
    }
}

/// An input failed for good: all that wait for it end.
async fn end_dependents(tx: &mut Tx, input: Uuid, now: Timestamp) -> sqlx::Result<Vec<Ended>> {
    let rows = sqlx::query(concat!(
        "UPDATE tasks SET state = 'error', code = $2, message = $3, forgiven = ignore_error, \
                          started_at = $4, ended_at = $4 \
         WHERE state = 'blocked' AND id ",
        of!("SELECT task_id FROM dependencies WHERE depends_on = $1"),
        " RETURNING ",
        ended_columns!()
    ))
    .bind(input)
    .bind(Code::InputTaskFailed.wire())
    .bind(INPUT_FAILED_MESSAGE)
    .bind(now.0)
    .fetch_all(&mut *tx.conn)
    .await?;
    rows.iter().map(Ended::from_row).collect()
}

/// No input of this task is left to work on.
async fn end_one(tx: &mut Tx, id: Uuid, forgiven: bool, now: Timestamp) -> sqlx::Result<Option<Ended>> {
    let row = sqlx::query(concat!(
        "UPDATE tasks SET state = 'error', code = $2, message = $3, forgiven = (ignore_error OR $5), \
                          started_at = $4, ended_at = $4 \
         WHERE id = $1 AND state = 'blocked' RETURNING ",
        ended_columns!()
    ))
    .bind(id)
    .bind(Code::InputTaskFailed.wire())
    .bind(INPUT_FAILED_MESSAGE)
    .bind(now.0)
    .bind(forgiven)
    .fetch_optional(&mut *tx.conn)
    .await?;
    row.as_ref().map(Ended::from_row).transpose()
}

/// An input ended in a way that lets others go on: those for which it was the last can run, or end without any.
async fn count_down(
    tx: &mut Tx,
    input: &Ended,
    ready: &mut Ready,
    left: &mut Vec<Ended>,
    now: Timestamp,
) -> sqlx::Result<()> {
    let rows = sqlx::query(concat!(
        "UPDATE tasks SET open_inputs = open_inputs - 1, usable_inputs = usable_inputs + $2 \
         WHERE state = 'blocked' AND id ",
        of!("SELECT task_id FROM dependencies WHERE depends_on = $1"),
        " RETURNING id, user_id, position, open_inputs, usable_inputs"
    ))
    .bind(input.id)
    .bind(i64::from(input.outcome == Outcome::Finished))
    .fetch_all(&mut *tx.conn)
    .await?;
    for row in &rows {
        if row.try_get::<i64, _>("open_inputs")? > 0 {
            continue;
        }
        let id = row.try_get("id")?;
        if row.try_get::<i64, _>("usable_inputs")? > 0 {
            ready.entry(row.try_get("user_id")?).or_default().push((row.try_get("position")?, id));
        } else {
            left.extend(end_one(tx, id, true, now).await?);
        }
    }
    Ok(())
}

async fn enqueue(tx: &mut Tx, user: i64, tasks: &[(i64, Uuid)], now: Timestamp) -> sqlx::Result<()> {
    for chunk in tasks.chunks(ROWS_PER_STATEMENT) {
        let mut query = QueryBuilder::<Db>::new("UPDATE tasks SET state = 'queued', ready_at = ");
        query.push_bind(now.0).push(", vt = next.column2 + ");
        push_first_turn(&mut query, user);
        query.push(" FROM (");
        query.push_values(chunk.iter().zip(0_i64..), |mut row, (&(_, id), place)| {
            row.push_bind(id).push_bind(place);
        });
        query.push(") AS next WHERE tasks.id = next.column1 AND tasks.state = 'blocked'");
        query.build().execute(&mut *tx.conn).await?;
    }
    tx.changed.ids.extend(tasks.iter().map(|(_, id)| *id));
    tx.changed.ready = true;
    Ok(())
}

/// The turn of a user's next task: where claims are now, or behind this user's last one, whether that was claimed or
/// is still queued. The tasks after it get the turns after it. So a backlog spreads out behind its owner, and another user's
/// first task comes next. Locks nothing: two transactions of a user may give the same turn, and the older task then goes
/// first.
fn push_first_turn(query: &mut QueryBuilder<Db>, user: i64) {
    query.push("(SELECT MAX(turn) FROM (SELECT value AS turn FROM meta WHERE name = 'virtual_time' ");
    query.push("UNION ALL SELECT vt + 1 FROM users WHERE id = ").push_bind(user);
    query.push(
        " UNION ALL SELECT vt + 1 FROM (SELECT vt FROM tasks WHERE state = 'queued' AND priority = 0 AND user_id = ",
    );
    query.push_bind(user).push(" ORDER BY vt DESC LIMIT 1) AS queued) AS turns)");
}

/// [`push_first_turn`] by itself, for tasks that are not stored yet.
pub(super) async fn first_turn(tx: &mut Tx, user: i64) -> sqlx::Result<i64> {
    let mut query = QueryBuilder::<Db>::new("SELECT ");
    push_first_turn(&mut query, user);
    query.push(" AS turn").build().fetch_one(&mut *tx.conn).await?.try_get("turn")
}

async fn orphan_uploads(tx: &mut Tx, tasks: &[Uuid], now: Timestamp) -> sqlx::Result<()> {
    if tasks.is_empty() {
        return Ok(());
    }
    let orphans = sqlx::query(ORPHAN_SQL).bind(dialect::list(tasks)).bind(now.0).execute(&mut *tx.conn).await?;
    tx.changed.sweep |= orphans.rows_affected() > 0;
    Ok(())
}

async fn count_job(tx: &mut Tx, job: Uuid, tally: Tally, now: Timestamp) -> sqlx::Result<()> {
    tx.changed.ids.insert(job);
    let row = sqlx::query(
        "UPDATE jobs SET open_tasks = open_tasks - $2, failed_tasks = failed_tasks + $3, \
             status = CASE WHEN open_tasks > $2 THEN status WHEN failed_tasks + $3 > 0 THEN 'error' \
                           ELSE 'finished' END, \
             ended_at = CASE WHEN open_tasks > $2 THEN NULL ELSE $4 END \
         WHERE id = $1 RETURNING user_id, status, open_tasks",
    )
    .bind(job)
    .bind(tally.ended)
    .bind(tally.failed)
    .bind(now.0)
    .fetch_one(&mut *tx.conn)
    .await?;
    if row.try_get::<i64, _>("open_tasks")? > 0 {
        return Ok(());
    }
    let event =
        if row.try_get::<&str, _>("status")? == "error" { EventKind::JobFailed } else { EventKind::JobFinished };
    note(tx, user_id(&row)?, JobId(job), event, now).await
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
