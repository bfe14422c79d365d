//! Statements that make jobs and tasks, and that read one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sqlx::Row as _;
use uuid::Uuid;

use super::dialect::{for_share, listed};
use super::rows::{
    bigint, chosen, complete, file as file_row, file_columns, job as job_row, job_columns, task as task_row,
    task_columns,
};
use super::settle::{end_unborn, next_turn, settle};
use super::webhooks::note_creation;
use super::{Conn, Tx, sets};
use crate::clock::Timestamp;
use crate::id::{JobId, TaskId, UserId};
use crate::model::{File, Job, Origin, State, Task};
use crate::store::{Creation, Idempotency, NewJob, NewTask};

/// How long the answer to an idempotency key is kept.
pub(super) const IDEMPOTENCY_KEPT: Duration = Duration::from_hours(24);

/// How a task starts its life.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Birth {
    Uploading,
    Ready,
    Blocked {
        open: i64,
        usable: i64,
    },
    /// An input has failed already.
    Doomed {
        forgiven: bool,
    },
}

/// What is known of a task that was named as input.
#[derive(Clone, Copy, Debug)]
pub(crate) enum InputState {
    Open,
    Finished,
    Forgiven,
    Failed,
}

pub(crate) async fn create_job(tx: &mut Tx, new: &NewJob) -> sqlx::Result<Creation> {
    let job = &new.job;
    // It was stored already, and the answer lost: the id is the caller's own.
    if is_there(tx, "SELECT 1 FROM jobs WHERE id = $1", job.id.0).await? {
        return Ok(Creation::Created);
    }
    let births = match begin(tx, job.user_id, &job.tasks, new.idempotency.as_ref(), job.created_at).await? {
        Ok(births) => births,
        Err(answer) => return Ok(answer),
    };
    sets::insert_jobs(&mut tx.conn, &[job]).await?;
    note_creation(tx, job.user_id, job.id, job.created_at).await?;
    tx.changed.ids.insert(job.id.0);
    insert_tasks(tx, &job.tasks, &births, &new.payloads).await?;
    Ok(Creation::Created)
}

pub(crate) async fn create_task(tx: &mut Tx, new: &NewTask) -> sqlx::Result<Creation> {
    let task = &new.task;
    if is_there(tx, "SELECT 1 FROM tasks WHERE id = $1", task.id.0).await? {
        return Ok(Creation::Created);
    }
    let tasks = std::slice::from_ref(task);
    let births = match begin(tx, task.user_id, tasks, new.idempotency.as_ref(), task.created_at).await? {
        Ok(births) => births,
        Err(answer) => return Ok(answer),
    };
    insert_tasks(tx, tasks, &births, std::slice::from_ref(&new.payload)).await?;
    Ok(Creation::Created)
}

async fn is_there(tx: &mut Tx, sql: &'static str, id: Uuid) -> sqlx::Result<bool> {
    Ok(sqlx::query(sql).bind(id).fetch_optional(&mut *tx.conn).await?.is_some())
}

/// Answers what was answered before, or decides how each task starts.
async fn begin(
    tx: &mut Tx,
    user: UserId,
    tasks: &[Task],
    idempotency: Option<&Idempotency>,
    now: Timestamp,
) -> sqlx::Result<Result<Vec<Birth>, Creation>> {
    if let Some(key) = idempotency
        && !promise(tx, user, key, now).await?
        && let Some(answer) = replay(&mut tx.conn, user, &key.key, &key.request_hash, now).await?
    {
        return Ok(Err(answer));
    }
    match births(&mut tx.conn, user, tasks).await? {
        Ok(births) => Ok(Ok(births)),
        Err(gone) => {
            if let Some(key) = idempotency {
                take_back(tx, user, key).await?;
            }
            Ok(Err(Creation::InputGone(gone)))
        }
    }
}

/// Inputs in their order, each once.
fn inputs(task: &Task) -> Vec<TaskId> {
    let mut seen = BTreeSet::new();
    task.depends_on.iter().copied().filter(|id| seen.insert(*id)).collect()
}

/// Decides how each task starts; names an input that does not exist.
async fn births(conn: &mut Conn, user: UserId, tasks: &[Task]) -> sqlx::Result<Result<Vec<Birth>, TaskId>> {
    let own: BTreeSet<TaskId> = tasks.iter().map(|task| task.id).collect();
    let others: BTreeSet<Uuid> =
        tasks.iter().flat_map(|task| &task.depends_on).filter(|id| !own.contains(id)).map(|id| id.0).collect();
    let others = input_states(conn, user, &others).await?;
    Ok(births_among(tasks, &others))
}

/// The same, of what is known of the inputs that are not among the tasks.
pub(crate) fn births_among(tasks: &[Task], others: &BTreeMap<Uuid, InputState>) -> Result<Vec<Birth>, TaskId> {
    let own: BTreeSet<TaskId> = tasks.iter().map(|task| task.id).collect();
    let mut births = Vec::with_capacity(tasks.len());
    for task in tasks {
        let (mut open, mut usable, mut failed, mut forgiven) = (0, 0, 0, 0);
        for input in inputs(task) {
            let state = if own.contains(&input) { Some(InputState::Open) } else { others.get(&input.0).copied() };
            match state {
                Some(InputState::Open) => open += 1,
                Some(InputState::Finished) => usable += 1,
                Some(InputState::Forgiven) => forgiven += 1,
                Some(InputState::Failed) => failed += 1,
                None => return Err(input),
            }
        }
        births.push(if failed > 0 {
            Birth::Doomed { forgiven: false }
        } else if open > 0 {
            Birth::Blocked { open, usable }
        } else if task.state == State::Uploading {
            Birth::Uploading
        } else if forgiven > 0 && usable == 0 {
            Birth::Doomed { forgiven: true }
        } else {
            Birth::Ready
        });
    }
    Ok(births)
}

async fn input_states(conn: &mut Conn, user: UserId, ids: &BTreeSet<Uuid>) -> sqlx::Result<BTreeMap<Uuid, InputState>> {
    // They must not end before their dependents are there to be told.
    const SQL: &str = concat!(
        "SELECT id, user_id, state, forgiven FROM tasks WHERE id ",
        listed!("$1"),
        " ORDER BY id",
        for_share!()
    );
    let ids: Vec<Uuid> = ids.iter().copied().collect();
    let mut states = BTreeMap::new();
    for row in chosen(conn, SQL, &ids).await? {
        if row.try_get::<i64, _>("user_id")? != i64::from(user.0) {
            continue;
        }
        let state = match super::rows::state(&row)? {
            State::Finished => InputState::Finished,
            State::Error if row.try_get("forgiven")? => InputState::Forgiven,
            State::Error => InputState::Failed,
            State::Blocked | State::Uploading | State::Queued | State::Delayed | State::Running => InputState::Open,
        };
        states.insert(row.try_get("id")?, state);
    }
    Ok(states)
}

/// A task that is stored for the first time.
#[derive(Clone, Copy)]
pub(crate) struct NewRow<'t> {
    pub(crate) task: &'t Task,
    pub(crate) payload: &'t [u8],
    pub(crate) position: i64,
    pub(crate) state: State,
    pub(crate) turn: i64,
    pub(crate) open: i64,
    pub(crate) usable: i64,
    pub(crate) ready_at: Option<Timestamp>,
}

impl NewRow<'_> {
    /// As it is stored: JSON.
    pub(crate) fn warnings(&self) -> Option<String> {
        (!self.task.warnings.is_empty()).then(|| serde_json::json!(self.task.warnings).to_string())
    }
}

/// The rows of tasks that belong together, with consecutive turns from `turn` on for those that are ready.
pub(crate) fn new_rows<'t>(
    tasks: &'t [Task],
    births: &[Birth],
    payloads: &'t [Vec<u8>],
    turn: &mut i64,
) -> Vec<NewRow<'t>> {
    let mut rows = Vec::with_capacity(tasks.len());
    for (position, ((task, birth), payload)) in tasks.iter().zip(births).zip(payloads).enumerate() {
        let (state, open, usable) = match *birth {
            Birth::Uploading => (State::Uploading, 0, 0),
            Birth::Ready => (State::Queued, 0, 0),
            Birth::Blocked { open, usable } => (State::Blocked, open, usable),
            Birth::Doomed { .. } => (State::Blocked, 0, 0),
        };
        let is_ready = matches!(birth, Birth::Ready);
        rows.push(NewRow {
            task,
            payload,
            position: bigint(position),
            state,
            turn: if is_ready { *turn } else { 0 },
            open,
            usable,
            ready_at: is_ready.then_some(task.created_at),
        });
        *turn += i64::from(is_ready);
    }
    rows
}

/// Stores rows of tasks, with all that belongs to them.
pub(crate) async fn insert_rows(tx: &mut Tx, rows: &[NewRow<'_>]) -> sqlx::Result<()> {
    let dependencies: Vec<(Uuid, i64, Uuid)> = rows
        .iter()
        .flat_map(|row| inputs(row.task).into_iter().zip(0..).map(|(input, place)| (row.task.id.0, place, input.0)))
        .collect();
    sets::insert_tasks(&mut tx.conn, rows).await?;
    sets::insert_payloads(&mut tx.conn, rows).await?;
    sets::insert_dependencies(&mut tx.conn, &dependencies).await?;
    tx.changed.ids.extend(rows.iter().map(|row| row.task.id.0));
    tx.changed.ready |= rows.iter().any(|row| row.state == State::Queued);
    Ok(())
}

/// Stores tasks, and ends those that an input has doomed.
async fn insert_tasks(tx: &mut Tx, tasks: &[Task], births: &[Birth], payloads: &[Vec<u8>]) -> sqlx::Result<()> {
    let Some(first) = tasks.first() else { return Ok(()) };
    let (user, now) = (first.user_id, first.created_at);
    let has_ready = births.iter().any(|birth| matches!(birth, Birth::Ready));
    let mut turn = if has_ready { next_turn(tx, i64::from(user.0)).await? } else { 0 };
    insert_rows(tx, &new_rows(tasks, births, payloads, &mut turn)).await?;
    let mut doomed = Vec::new();
    for (task, birth) in tasks.iter().zip(births) {
        if let Birth::Doomed { forgiven } = birth {
            doomed.push((task.id.0, *forgiven));
        }
    }
    let ended = end_unborn(tx, &doomed, now).await?;
    settle(tx, ended, now).await
}

/// The key that a job was made with.
pub(crate) fn key_of(job: &Job) -> Option<Uuid> {
    match job.origin {
        Origin::Key(id) => Some(id.0),
        Origin::NoKey => None,
    }
}

pub(crate) async fn replay(
    conn: &mut Conn,
    user: UserId,
    key: &str,
    request_hash: &[u8; 32],
    now: Timestamp,
) -> sqlx::Result<Option<Creation>> {
    let row =
        sqlx::query("SELECT request_hash, answer FROM idempotency WHERE user_id = $1 AND key = $2 AND created_at > $3")
            .bind(i64::from(user.0))
            .bind(key)
            .bind(now.minus(IDEMPOTENCY_KEPT).0)
            .fetch_optional(conn)
            .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(if row.try_get::<&[u8], _>("request_hash")? == &request_hash[..] {
        Creation::Replayed(row.try_get("answer")?)
    } else {
        Creation::KeyReused
    }))
}

/// Takes an idempotency key for this transaction; `false` when it is taken. Whoever takes the same key at the same
/// moment waits for the first to commit.
async fn promise(tx: &mut Tx, user: UserId, promise: &Idempotency, now: Timestamp) -> sqlx::Result<bool> {
    let taken = sqlx::query(
        "INSERT INTO idempotency (user_id, key, request_hash, answer, created_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT (user_id, key) DO UPDATE SET request_hash = excluded.request_hash, answer = excluded.answer, \
             created_at = excluded.created_at WHERE idempotency.created_at <= $6",
    )
    .bind(i64::from(user.0))
    .bind(&promise.key)
    .bind(&promise.request_hash[..])
    .bind(&promise.answer)
    .bind(now.0)
    .bind(now.minus(IDEMPOTENCY_KEPT).0)
    .execute(&mut *tx.conn)
    .await?;
    Ok(taken.rows_affected() > 0)
}

async fn take_back(tx: &mut Tx, user: UserId, promise: &Idempotency) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM idempotency WHERE user_id = $1 AND key = $2")
        .bind(i64::from(user.0))
        .bind(&promise.key)
        .execute(&mut *tx.conn)
        .await
        .map(drop)
}

pub(crate) async fn job(conn: &mut Conn, user: UserId, id: JobId) -> sqlx::Result<Option<Job>> {
    let row = sqlx::query(concat!("SELECT ", job_columns!(), " FROM jobs WHERE id = $1 AND user_id = $2"))
        .bind(id.0)
        .bind(i64::from(user.0))
        .fetch_optional(&mut *conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let mut job = job_row(&row)?;
    job.tasks = tasks_of(conn, id).await?;
    Ok(Some(job))
}

/// The tasks of a job in their order.
pub(super) async fn tasks_of(conn: &mut Conn, job: JobId) -> sqlx::Result<Vec<Task>> {
    let rows = sqlx::query(concat!("SELECT ", task_columns!(), " FROM tasks WHERE job_id = $1 ORDER BY position"))
        .bind(job.0)
        .fetch_all(&mut *conn)
        .await?;
    let mut tasks = rows.iter().map(task_row).collect::<sqlx::Result<Vec<_>>>()?;
    complete(conn, &mut tasks).await?;
    Ok(tasks)
}

pub(crate) async fn task(conn: &mut Conn, user: Option<UserId>, id: TaskId) -> sqlx::Result<Option<Task>> {
    let row = sqlx::query(concat!("SELECT ", task_columns!(), " FROM tasks WHERE id = $1"))
        .bind(id.0)
        .fetch_optional(&mut *conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let mut task = task_row(&row)?;
    if user.is_some_and(|user| user != task.user_id) {
        return Ok(None);
    }
    complete(conn, std::slice::from_mut(&mut task)).await?;
    Ok(Some(task))
}

/// A task without its files and inputs, and one of its files.
pub(crate) async fn linked_file(
    conn: &mut Conn,
    id: TaskId,
    number: u32,
) -> sqlx::Result<Option<(Task, Option<File>)>> {
    let row = sqlx::query(concat!("SELECT ", task_columns!(), " FROM tasks WHERE id = $1"))
        .bind(id.0)
        .fetch_optional(&mut *conn)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let found = sqlx::query(concat!("SELECT ", file_columns!(), " FROM files WHERE task_id = $1 AND position = $2"))
        .bind(id.0)
        .bind(i64::from(number) - 1)
        .fetch_optional(conn)
        .await?;
    Ok(Some((task_row(&row)?, found.as_ref().map(file_row).transpose()?)))
}

pub(crate) async fn payload(conn: &mut Conn, id: TaskId) -> sqlx::Result<Option<Vec<u8>>> {
    let row = sqlx::query("SELECT payload FROM task_docs WHERE task_id = $1").bind(id.0).fetch_optional(conn).await?;
    row.map(|row| row.try_get("payload")).transpose()
}
