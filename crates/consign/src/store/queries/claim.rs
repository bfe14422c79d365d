//! The claim: which ready tasks come next, and their leases.
//!
//! Every task was given a turn when it was queued ([`super::settle::turns`]). A claim takes the lowest turns whose
//! owner is below the limit. Running tasks are counted from an index, so the limit cannot drift.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Row as _;
use uuid::Uuid;

use super::rows::{file, file_columns, moment_if_any, open_uploads, task, task_columns};
use super::settle::start_job;
use super::{Conn, Row, Tx, sessions};
use crate::clock::Timestamp;
use crate::id::{TaskId, Token};
use crate::model::Task;
use crate::store::{Claim, ClaimRequest, Input};

/// Queued tasks that a claim looks at, by turn, for each one that it wants, before it asks user by user.
const WINDOW_PER_TASK: u32 = 4;

/// The same in all, at the most.
const WINDOW_MAX: u32 = 256;

/// The tasks that come next, whoever owns them.
pub(crate) const WINDOW_SQL: &str = "\
     SELECT id, user_id, priority, vt FROM tasks WHERE state = 'queued' AND ended_at IS NULL \
     ORDER BY priority DESC, vt, id LIMIT $1";

/// The tasks of one user that come next.
pub(crate) const USER_SQL: &str = "\
     SELECT id, user_id, priority, vt FROM tasks WHERE state = 'queued' AND user_id = $1 \
     ORDER BY priority DESC, vt, id LIMIT $2";

/// Who owns queued tasks: hops from one owner to the next in the index.
pub(crate) const OWNERS_SQL: &str = "WITH RECURSIVE owners (user_id) AS ( \
         SELECT MIN(user_id) FROM tasks WHERE state = 'queued' \
         UNION ALL \
         SELECT (SELECT MIN(t.user_id) FROM tasks t WHERE t.state = 'queued' AND t.user_id > owners.user_id) \
         FROM owners WHERE owners.user_id IS NOT NULL) \
     SELECT user_id FROM owners WHERE user_id IS NOT NULL";

pub(crate) async fn claim(tx: &mut Tx, request: &ClaimRequest) -> sqlx::Result<Vec<Claim>> {
    // A session that was declared dead must not get tasks: nobody would ever take them back.
    let Some(host_name) = sessions::host_name(tx, request.session).await? else { return Ok(Vec::new()) };
    let picked = pick(tx, request).await?;
    let Some(last_turn) = picked.iter().map(|ready| ready.turn).max() else { return Ok(Vec::new()) };
    sqlx::query("UPDATE meta SET value = $1 WHERE name = 'virtual_time' AND value < $1")
        .bind(last_turn)
        .execute(&mut tx.conn)
        .await?;

    let token = Token::random();
    let mut claims = Vec::with_capacity(picked.len());
    let mut jobs = BTreeSet::new();
    for ready in picked {
        if let Some((task, ready_at)) = lease(tx, ready.id, request, token, &host_name).await? {
            jobs.extend(task.job_id);
            claims.push(Claim { ready_at, ..complete(&mut tx.conn, task, token).await? });
        }
    }
    for job in jobs {
        start_job(tx, job.0, request.now).await?;
    }
    Ok(claims)
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

async fn pick(tx: &mut Tx, request: &ClaimRequest) -> sqlx::Result<Vec<Ready>> {
    let running = sessions::running(tx).await?;
    let window = request.tasks_max.saturating_mul(WINDOW_PER_TASK).min(WINDOW_MAX);
    let rows = sqlx::query(WINDOW_SQL).bind(i64::from(window)).fetch_all(&mut tx.conn).await?;
    let ready = rows.iter().map(Ready::from_row).collect::<sqlx::Result<Vec<_>>>()?;
    let picked = within_limits(ready, &running, request);
    if picked.len() == request.tasks_max as usize || rows.len() < window as usize {
        return Ok(picked);
    }
    // Users at their limit fill the window: they must not hide the others.
    let ready = heads(tx, &running, request).await?;
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
async fn heads(tx: &mut Tx, running: &BTreeMap<i64, u32>, request: &ClaimRequest) -> sqlx::Result<Vec<Ready>> {
    let users = sqlx::query(OWNERS_SQL).fetch_all(&mut tx.conn).await?;
    let mut ready = Vec::new();
    for row in &users {
        let user: i64 = row.try_get("user_id")?;
        let free = request.per_user_max.saturating_sub(running.get(&user).copied().unwrap_or(0));
        if free == 0 {
            continue;
        }
        let rows = sqlx::query(USER_SQL)
            .bind(user)
            .bind(i64::from(free.min(request.tasks_max)))
            .fetch_all(&mut tx.conn)
            .await?;
        for row in &rows {
            ready.push(Ready::from_row(row)?);
        }
    }
    ready.sort_unstable();
    Ok(ready)
}

async fn lease(
    tx: &mut Tx,
    id: Uuid,
    request: &ClaimRequest,
    token: Token,
    host_name: &str,
) -> sqlx::Result<Option<(Task, Option<Timestamp>)>> {
    let row = sqlx::query(concat!(
        "UPDATE tasks SET state = 'running', attempt = attempt + 1, lease = $2, session_id = $3, host_name = $4, \
                          started_at = COALESCE(started_at, $5) \
         WHERE id = $1 AND state = 'queued' RETURNING ",
        task_columns!(),
        ", ready_at"
    ))
    .bind(id)
    .bind(token.0)
    .bind(request.session.0)
    .bind(host_name)
    .bind(request.now.0)
    .fetch_optional(&mut tx.conn)
    .await?;
    tx.changed.ids.insert(id);
    row.map(|row| Ok((task(&row)?, moment_if_any(&row, "ready_at")?))).transpose()
}

/// Adds all that a runner needs to work on a task.
async fn complete(conn: &mut Conn, mut task: Task, token: Token) -> sqlx::Result<Claim> {
    let payload = sqlx::query("SELECT payload FROM task_docs WHERE task_id = $1")
        .bind(task.id.0)
        .fetch_one(&mut *conn)
        .await?
        .try_get("payload")?;
    let inputs = inputs(conn, task.id).await?;
    task.depends_on = inputs.iter().map(|input| input.task_id).collect();
    let open = open_uploads(conn, task.id).await?;
    Ok(Claim { task, payload, token, ready_at: None, inputs, open })
}

async fn inputs(conn: &mut Conn, task: TaskId) -> sqlx::Result<Vec<Input>> {
    let rows = sqlx::query(
        "SELECT d.depends_on, t.name FROM dependencies d LEFT JOIN tasks t ON t.id = d.depends_on \
         WHERE d.task_id = $1 ORDER BY d.position",
    )
    .bind(task.0)
    .fetch_all(&mut *conn)
    .await?;
    let mut inputs = Vec::with_capacity(rows.len());
    for row in &rows {
        let task_id = TaskId(row.try_get("depends_on")?);
        let files =
            sqlx::query(concat!("SELECT ", file_columns!(), " FROM files WHERE task_id = $1 ORDER BY position"))
                .bind(task_id.0)
                .fetch_all(&mut *conn)
                .await?;
        let files = files.iter().map(file).collect::<sqlx::Result<Vec<_>>>()?;
        inputs.push(Input { task_id, name: row.try_get("name")?, files });
    }
    Ok(inputs)
}
