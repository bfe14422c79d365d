//! Statements that read several jobs or tasks.

use std::collections::BTreeMap;

use sqlx::{QueryBuilder, Row as _};
use uuid::Uuid;

use super::dialect::listed;
use super::jobs::tasks_of;
use super::rows::{chosen, complete, job as job_row, job_columns, state, task as task_row, task_columns};
use super::{Conn, Db};
use crate::id::{JobId, TaskId, UserId};
use crate::model::{BlobKey, Job, Page, State, Task, WireStatus};
use crate::store::{JobFilter, TaskFilter};

pub(crate) async fn list_jobs(conn: &mut Conn, filter: &JobFilter, page: Page) -> sqlx::Result<(Vec<Job>, bool)> {
    let mut query = QueryBuilder::<Db>::new(concat!("SELECT ", job_columns!(), " FROM jobs WHERE user_id = "));
    query.push_bind(i64::from(filter.user_id.0));
    if let Some(status) = filter.status {
        // In the words of the indexes, so that few among many are found without reading the many.
        query.push(match status {
            WireStatus::Waiting => " AND status = 'waiting' AND ended_at IS NULL",
            WireStatus::Processing => " AND status = 'processing' AND ended_at IS NULL",
            WireStatus::Finished => " AND status = 'finished'",
            WireStatus::Error => " AND status = 'error'",
        });
    }
    if let Some(tag) = &filter.tag {
        query.push(" AND tag = ").push_bind(tag.clone());
    }
    if let Some(key) = filter.key_id {
        query.push(" AND key_id = ").push_bind(key.0);
    }
    page_of(&mut query, page);
    let rows = query.build().fetch_all(&mut *conn).await?;
    let mut jobs = rows.iter().map(job_row).collect::<sqlx::Result<Vec<_>>>()?;
    let more = cut(&mut jobs, page);
    if filter.with_tasks {
        for job in &mut jobs {
            job.tasks = tasks_of(conn, job.id).await?;
        }
    }
    Ok((jobs, more))
}

pub(crate) async fn list_tasks(conn: &mut Conn, filter: &TaskFilter, page: Page) -> sqlx::Result<(Vec<Task>, bool)> {
    let mut query = QueryBuilder::<Db>::new(concat!("SELECT ", task_columns!(), " FROM tasks WHERE user_id = "));
    query.push_bind(i64::from(filter.user_id.0));
    if let Some(job) = filter.job_id {
        query.push(" AND job_id = ").push_bind(job.0);
    }
    if let Some(status) = filter.status {
        query.push(match status {
            WireStatus::Waiting => {
                " AND state IN ('blocked', 'uploading', 'queued', 'delayed') AND started_at IS NULL AND ended_at IS NULL"
            }
            WireStatus::Processing => {
                " AND state IN ('queued', 'delayed', 'running') AND started_at IS NOT NULL AND ended_at IS NULL"
            }
            WireStatus::Finished => " AND state = 'finished'",
            WireStatus::Error => " AND state = 'error'",
        });
    }
    if let Some(operation) = &filter.operation {
        query.push(" AND operation = ").push_bind(operation.clone());
    }
    page_of(&mut query, page);
    let rows = query.build().fetch_all(&mut *conn).await?;
    let mut tasks = rows.iter().map(task_row).collect::<sqlx::Result<Vec<_>>>()?;
    let more = cut(&mut tasks, page);
    complete(conn, &mut tasks).await?;
    Ok((tasks, more))
}

/// Asks for one more than the page holds, to see whether there are more.
pub(super) fn page_of(query: &mut QueryBuilder<Db>, page: Page) {
    query.push(" ORDER BY id DESC LIMIT ").push_bind(i64::from(page.size) + 1);
    query.push(" OFFSET ").push_bind(page.offset());
}

pub(super) fn cut<T>(entries: &mut Vec<T>, page: Page) -> bool {
    let more = entries.len() > page.size as usize;
    entries.truncate(page.size as usize);
    more
}

pub(crate) async fn jobs(conn: &mut Conn, user: UserId, ids: &[JobId]) -> sqlx::Result<Vec<Job>> {
    const SQL: &str = concat!("SELECT ", job_columns!(), " FROM jobs WHERE id ", listed!("$1"));
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = chosen(conn, SQL, &ids).await?;
    let mut found = rows.iter().map(job_row).collect::<sqlx::Result<Vec<_>>>()?;
    found.retain(|job| job.user_id == user);
    Ok(found)
}

pub(crate) async fn tasks(conn: &mut Conn, user: UserId, ids: &[TaskId]) -> sqlx::Result<Vec<Task>> {
    const SQL: &str = concat!("SELECT ", task_columns!(), " FROM tasks WHERE id ", listed!("$1"));
    let uuids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let rows = chosen(conn, SQL, &uuids).await?;
    let mut found = rows.iter().map(task_row).collect::<sqlx::Result<Vec<_>>>()?;
    found.retain(|task| task.user_id == user);
    complete(conn, &mut found).await?;
    let places: BTreeMap<TaskId, usize> = ids.iter().zip(0..).map(|(id, place)| (*id, place)).collect();
    found.sort_unstable_by_key(|task| places.get(&task.id).copied());
    Ok(found)
}

pub(crate) async fn retries(conn: &mut Conn, user: UserId, id: TaskId) -> sqlx::Result<Vec<Task>> {
    let rows = sqlx::query(concat!(
        "SELECT ",
        task_columns!(),
        " FROM tasks WHERE retry_of = $1 AND user_id = $2 ORDER BY created_at, id"
    ))
    .bind(id.0)
    .bind(i64::from(user.0))
    .fetch_all(&mut *conn)
    .await?;
    let mut tasks = rows.iter().map(task_row).collect::<sqlx::Result<Vec<_>>>()?;
    complete(conn, &mut tasks).await?;
    Ok(tasks)
}

pub(crate) async fn blobs(conn: &mut Conn, ids: &[TaskId]) -> sqlx::Result<Vec<(TaskId, State, Vec<BlobKey>)>> {
    const SQL: &str = concat!(
        "SELECT t.id, t.state, f.blob FROM tasks t LEFT JOIN files f ON f.task_id = t.id WHERE t.id ",
        listed!("$1"),
        " ORDER BY t.id, f.position"
    );
    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let mut found: Vec<(TaskId, State, Vec<BlobKey>)> = Vec::with_capacity(ids.len());
    for row in chosen(conn, SQL, &ids).await? {
        let id = TaskId(row.try_get("id")?);
        if found.last().is_none_or(|(last, ..)| *last != id) {
            found.push((id, state(&row)?, Vec::new()));
        }
        let blob = row.try_get::<Option<String>, _>("blob")?.map(BlobKey::from_row);
        if let Some((_, _, blobs)) = found.last_mut() {
            blobs.extend(blob);
        }
    }
    Ok(found)
}
