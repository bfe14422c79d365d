//! The claim: which ready tasks come next, and their leases.
//!
//! Every task was given a turn when it was queued (`super::settle`). A claim takes the lowest turns whose
//! owner is below the limit. Running tasks are counted from an index, so the limit cannot drift.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row as _;
use uuid::Uuid;

use super::dialect::{in_state, listed};
use super::rows::{chosen, file, file_columns, moment_if_any, open_uploads, task, task_columns};
use super::settle::start_jobs;
use super::{Conn, Row, Tx, dialect, sessions, sets};
use crate::clock::Timestamp;
use crate::id::{TaskId, Token};
use crate::model::{File, Task};
use crate::store::{Claim, ClaimRequest, Input};

/// Queued tasks that a claim looks at, by turn, for each one that it wants, before it asks user by user.
const WINDOW_PER_TASK: u32 = 4;

/// The same in all, at the most.
const WINDOW_MAX: u32 = 256;

/// How often a claim picks anew, leaving out what others are changing.
const PICKS_MAX: usize = 3;

/// The tasks that come next, whoever owns them, but for some tasks and jobs.
pub(crate) const WINDOW_SQL: &str = concat!(
    "SELECT id, user_id, priority, vt FROM tasks WHERE state = 'queued' AND ended_at IS NULL AND NOT id ",
    listed!("$2"),
    " AND NOT COALESCE(job_id, id) ",
    listed!("$2"),
    " ORDER BY priority DESC, vt, id LIMIT $1"
);

/// Who owns queued tasks: hops from one owner to the next in the index.
macro_rules! owners {
    () => {
        "WITH RECURSIVE owners (user_id) AS ( \
             SELECT MIN(user_id) FROM tasks WHERE state = 'queued' \
             UNION ALL \
             SELECT (SELECT MIN(t.user_id) FROM tasks t WHERE t.state = 'queued' AND t.user_id > owners.user_id) \
             FROM owners WHERE owners.user_id IS NOT NULL) "
    };
}
pub(crate) use owners;

/// Leases those of the tasks that are still queued, and says what else there is to read of them.
pub(crate) const LEASE_SQL: &str = concat!(
    "UPDATE tasks SET state = 'running', attempt = attempt + 1, lease = $2, session_id = $3, host_name = $4, \
                      started_at = COALESCE(started_at, $5) \
     WHERE ",
    in_state!("queued"),
    " AND id ",
    listed!("$1"),
    " RETURNING ",
    task_columns!(),
    ", ready_at, (SELECT payload FROM task_docs WHERE task_docs.task_id = tasks.id) AS payload, \
     EXISTS (SELECT 1 FROM dependencies WHERE dependencies.task_id = tasks.id) AS has_inputs, \
     EXISTS (SELECT 1 FROM ledger WHERE ledger.task_id = tasks.id AND ledger.due_at IS NULL) AS has_open"
);

/// What they take files from.
pub(crate) const INPUTS_SQL: &str = concat!(
    "SELECT d.task_id, d.depends_on, t.name FROM dependencies d LEFT JOIN tasks t ON t.id = d.depends_on \
     WHERE d.task_id ",
    listed!("$1"),
    " ORDER BY d.task_id, d.position"
);

/// Those files.
pub(crate) const FILES_SQL: &str = concat!(
    "SELECT task_id, ",
    file_columns!(),
    " FROM files WHERE task_id ",
    listed!("$1"),
    " ORDER BY task_id, position"
);

pub(crate) async fn claim(tx: &mut Tx, request: &ClaimRequest) -> sqlx::Result<Vec<Claim>> {
    // A session that was declared dead must not get tasks: nobody would ever take them back.
    let Some(host_name) = sessions::claimer(tx, request.session).await? else { return Ok(Vec::new()) };
    let mut picked = pick_free(tx, request).await?;
    if picked.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = picked.iter().map(|ready| ready.id).collect();
    let token = Token::random();
    let tasks = lease(tx, &ids, request, token, &host_name).await?;
    let leased: BTreeSet<Uuid> = tasks.iter().map(|leased| leased.task.id.0).collect();
    picked.retain(|ready| leased.contains(&ready.id));
    note_turns(tx, &picked).await?;
    let jobs: BTreeSet<Uuid> = tasks.iter().filter_map(|leased| leased.task.job_id).map(|job| job.0).collect();
    start_jobs(tx, &jobs, request.now).await?;
    complete(&mut tx.conn, tasks, token).await
}

/// Notes how far turns have been taken, by all and by each user.
async fn note_turns(tx: &mut Tx, picked: &[Ready]) -> sqlx::Result<()> {
    let mut turns: BTreeMap<i64, i64> = BTreeMap::new();
    for ready in picked {
        let turn = turns.entry(ready.user).or_insert(ready.turn);
        *turn = ready.turn.max(*turn);
    }
    sqlx::query("UPDATE meta SET value = $1 WHERE name = 'virtual_time' AND value < $1")
        .bind(turns.values().copied().max())
        .execute(&mut *tx.conn)
        .await?;
    sets::note_turns(&mut tx.conn, &turns).await
}

/// A task that can be claimed. Sorts by who comes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ready {
    /// Higher goes first.
    priority: std::cmp::Reverse<i64>,
    turn: i64,
    id: Uuid,
    user: i64,
}

impl Ready {
    fn from_row(row: &Row) -> sqlx::Result<Self> {
        Ok(Self {
            priority: std::cmp::Reverse(row.try_get("priority")?),
            turn: row.try_get("vt")?,
            id: row.try_get("id")?,
            user: row.try_get("user_id")?,
        })
    }
}

/// Picks tasks that can be taken now, and locks them. What another transaction is changing keeps its turn, and does not hide what
/// comes behind it; whoever claims is told to ask again soon.
async fn pick_free(tx: &mut Tx, request: &ClaimRequest) -> sqlx::Result<Vec<Ready>> {
    let mut left_out = BTreeSet::new();
    for picks in 1..=PICKS_MAX {
        let mut picked = pick(tx, request, &left_out).await?;
        if picked.is_empty() {
            break;
        }
        let ids: Vec<Uuid> = picked.iter().map(|ready| ready.id).collect();
        let free: BTreeSet<Uuid> = dialect::lock_free(&mut tx.conn, &ids).await?.into_iter().collect();
        let is_all = free.len() == ids.len();
        tx.changed.left_out |= !is_all;
        if is_all || picks == PICKS_MAX {
            picked.retain(|ready| free.contains(&ready.id));
            return Ok(picked);
        }
        leave_out(tx, &ids, &free, &mut left_out).await?;
    }
    Ok(Vec::new())
}

/// Adds what somebody is changing to what is left out: a job of which no task is free, or else the task.
async fn leave_out(
    tx: &mut Tx,
    ids: &[Uuid],
    free: &BTreeSet<Uuid>,
    left_out: &mut BTreeSet<Uuid>,
) -> sqlx::Result<()> {
    const SQL: &str = concat!("SELECT id, COALESCE(job_id, id) AS job FROM tasks WHERE id ", listed!("$1"));
    let (mut with_free, mut busy) = (BTreeSet::new(), Vec::new());
    for row in chosen(&mut tx.conn, SQL, ids).await? {
        let (id, job): (Uuid, Uuid) = (row.try_get("id")?, row.try_get("job")?);
        if free.contains(&id) {
            with_free.insert(job);
        } else {
            busy.push((id, job));
        }
    }
    left_out.extend(busy.into_iter().map(|(id, job)| if with_free.contains(&job) { id } else { job }));
    Ok(())
}

async fn pick(tx: &mut Tx, request: &ClaimRequest, left_out: &BTreeSet<Uuid>) -> sqlx::Result<Vec<Ready>> {
    let running = sessions::running(tx).await?;
    let window = request.tasks_max.saturating_mul(WINDOW_PER_TASK).min(WINDOW_MAX);
    let left_out: Vec<Uuid> = left_out.iter().copied().collect();
    let rows =
        sqlx::query(WINDOW_SQL).bind(i64::from(window)).bind(dialect::list(&left_out)).fetch_all(&mut *tx.conn).await?;
    let ready = rows.iter().map(Ready::from_row).collect::<sqlx::Result<Vec<_>>>()?;
    let picked = within_limits(ready, &running, request);
    if picked.len() == request.tasks_max as usize || rows.len() < window as usize {
        return Ok(picked);
    }
    // Users at their limit fill the window: they must not hide the others.
    let ready = heads(tx, &running, request, &left_out).await?;
    Ok(within_limits(ready, &running, request))
}

/// Takes tasks in their order as long as their owner is below the limit.
fn within_limits(ready: Vec<Ready>, running: &BTreeMap<i64, u32>, request: &ClaimRequest) -> Vec<Ready> {
    let mut running = running.clone();
    let mut picked = Vec::new();
    for task in ready {
        if picked.len() == request.tasks_max as usize {
            break;
        }
        let tasks = running.entry(task.user).or_default();
        if *tasks < request.per_user_max {
            *tasks += 1;
            picked.push(task);
        }
    }
    picked
}

/// The first tasks of each user who is below the limit, in their order. Costs one look-up a user that has tasks
/// queued, however many those are.
async fn heads(
    tx: &mut Tx,
    running: &BTreeMap<i64, u32>,
    request: &ClaimRequest,
    left_out: &[Uuid],
) -> sqlx::Result<Vec<Ready>> {
    let full = running.iter().filter(|(_, tasks)| **tasks >= request.per_user_max).map(|(user, _)| *user).collect();
    let per_user = request.per_user_max.min(request.tasks_max);
    let rows = sets::heads(&mut tx.conn, per_user, left_out, full).await?;
    let mut ready = rows.iter().map(Ready::from_row).collect::<sqlx::Result<Vec<_>>>()?;
    ready.sort_unstable();
    Ok(ready)
}

/// A task that this claim has taken.
struct Leased {
    task: Task,
    ready_at: Option<Timestamp>,
    payload: Vec<u8>,
    has_inputs: bool,
    has_open: bool,
}

impl Leased {
    fn from_row(row: &Row) -> sqlx::Result<Self> {
        Ok(Self {
            task: task(row)?,
            ready_at: moment_if_any(row, "ready_at")?,
            payload: row.try_get("payload")?,
            has_inputs: row.try_get("has_inputs")?,
            has_open: row.try_get("has_open")?,
        })
    }
}

/// Leases those of the tasks that are still queued; in their order.
async fn lease(
    tx: &mut Tx,
    ids: &[Uuid],
    request: &ClaimRequest,
    token: Token,
    host_name: &str,
) -> sqlx::Result<Vec<Leased>> {
    let places: BTreeMap<Uuid, usize> = ids.iter().enumerate().map(|(place, id)| (*id, place)).collect();
    let rows = sqlx::query(LEASE_SQL)
        .bind(dialect::list(ids))
        .bind(token.0)
        .bind(request.session.0)
        .bind(host_name)
        .bind(request.now.0)
        .fetch_all(&mut *tx.conn)
        .await?;
    let mut tasks = rows.iter().map(Leased::from_row).collect::<sqlx::Result<Vec<_>>>()?;
    tasks.sort_unstable_by_key(|leased| places.get(&leased.task.id.0).copied());
    tx.changed.ids.extend(tasks.iter().map(|leased| leased.task.id.0));
    Ok(tasks)
}

/// Adds all that a runner needs to work on the tasks.
async fn complete(conn: &mut Conn, tasks: Vec<Leased>, token: Token) -> sqlx::Result<Vec<Claim>> {
    let those = |wanted: fn(&Leased) -> bool| -> Vec<Uuid> {
        tasks.iter().filter(|leased| wanted(leased)).map(|leased| leased.task.id.0).collect()
    };
    let mut inputs = inputs(conn, &those(|leased| leased.has_inputs)).await?;
    let mut open = open_uploads(conn, &those(|leased| leased.has_open)).await?;
    let mut claims = Vec::with_capacity(tasks.len());
    for Leased { mut task, ready_at, payload, .. } in tasks {
        let id = task.id.0;
        let inputs = inputs.remove(&id).unwrap_or_default();
        task.depends_on = inputs.iter().map(|input| input.task_id).collect();
        let open = open.remove(&id).unwrap_or_default();
        claims.push(Claim { task, payload, token, ready_at, inputs, open });
    }
    Ok(claims)
}

async fn inputs(conn: &mut Conn, tasks: &[Uuid]) -> sqlx::Result<BTreeMap<Uuid, Vec<Input>>> {
    let mut inputs: BTreeMap<Uuid, Vec<Input>> = BTreeMap::new();
    for row in chosen(conn, INPUTS_SQL, tasks).await? {
        let input =
            Input { task_id: TaskId(row.try_get("depends_on")?), name: row.try_get("name")?, files: Vec::new() };
        inputs.entry(row.try_get("task_id")?).or_default().push(input);
    }
    let named: BTreeSet<Uuid> = inputs.values().flatten().map(|input| input.task_id.0).collect();
    let files = files(conn, &named.into_iter().collect::<Vec<_>>()).await?;
    for input in inputs.values_mut().flatten() {
        input.files = files.get(&input.task_id.0).cloned().unwrap_or_default();
    }
    Ok(inputs)
}

async fn files(conn: &mut Conn, tasks: &[Uuid]) -> sqlx::Result<BTreeMap<Uuid, Vec<File>>> {
    let mut files: BTreeMap<Uuid, Vec<File>> = BTreeMap::new();
    for row in chosen(conn, FILES_SQL, tasks).await? {
        files.entry(row.try_get("task_id")?).or_default().push(file(&row)?);
    }
    Ok(files)
}
