//! Making, reading and removing jobs and tasks.

use std::time::Duration;

use async_trait::async_trait;

use super::{JobRow, MemoryStore, Outcome, Promise, Rows, TaskRow};
use crate::clock::Timestamp;
use crate::id::{JobId, TaskId, UserId};
use crate::model::{BlobKey, EventKind, File, Job, Page, State, Task, WireStatus};
use crate::store::{Creation, Error, Idempotency, JobFilter, Jobs, NewJob, NewTask, Result, TaskFilter};

/// How long the answer to an idempotency key is kept.
pub(super) const IDEMPOTENCY_KEPT: Duration = Duration::from_hours(24);

impl Rows {
    pub(super) fn create_job(&mut self, new: NewJob) -> Creation {
        let NewJob { job, payloads, idempotency } = new;
        let now = job.created_at;
        if let Some(answer) = self.refusal(job.user_id, &job.tasks, idempotency.as_ref(), now) {
            return answer;
        }
        let (id, user_id) = (job.id, job.user_id);
        let tasks = job.tasks.clone();
        let bare = Job { tasks: Vec::new(), ..job };
        let open = tasks.iter().map(|task| task.id).collect();
        self.jobs.insert(id, JobRow { job: bare, open, has_failed: false });
        self.note(id, EventKind::JobCreated, now);
        self.insert_tasks(tasks, payloads, now);
        self.remember(user_id, idempotency, now);
        Creation::Created
    }

    fn create_task(&mut self, new: NewTask) -> Creation {
        let NewTask { task, payload, idempotency } = new;
        let (user_id, now) = (task.user_id, task.created_at);
        if let Some(answer) = self.refusal(user_id, std::slice::from_ref(&task), idempotency.as_ref(), now) {
            return answer;
        }
        self.insert_tasks(vec![task], vec![payload], now);
        self.remember(user_id, idempotency, now);
        Creation::Created
    }

    /// Ids are given once.
    fn check_ids(&self, tasks: &[Task]) -> Result<()> {
        match tasks.iter().find(|task| self.tasks.contains_key(&task.id)) {
            Some(task) => Err(Error::Broken(format!("there is a task {} already", task.id).into())),
            None => Ok(()),
        }
    }

    /// Why a creation does not happen.
    fn refusal(
        &self,
        user: UserId,
        tasks: &[Task],
        idempotency: Option<&Idempotency>,
        now: Timestamp,
    ) -> Option<Creation> {
        let replayed = idempotency.and_then(|promise| self.replay(user, &promise.key, &promise.request_hash, now));
        let gone = || {
            let is_there = |id: &TaskId| {
                tasks.iter().any(|task| task.id == *id)
                    || self.tasks.get(id).is_some_and(|row| row.task.user_id == user)
            };
            tasks.iter().flat_map(|task| &task.depends_on).find(|id| !is_there(id)).map(|id| Creation::InputGone(*id))
        };
        replayed.or_else(gone)
    }

    fn replay(&self, user: UserId, key: &str, request_hash: &[u8; 32], now: Timestamp) -> Option<Creation> {
        let promise = self.idempotency.get(&(user, key.to_owned()))?;
        if promise.created_at <= now.minus(IDEMPOTENCY_KEPT) {
            None
        } else if promise.request_hash == *request_hash {
            Some(Creation::Replayed(promise.answer.clone()))
        } else {
            Some(Creation::KeyReused)
        }
    }

    fn remember(&mut self, user: UserId, idempotency: Option<Idempotency>, now: Timestamp) {
        if let Some(Idempotency { key, request_hash, answer }) = idempotency {
            self.idempotency.insert((user, key), Promise { request_hash, answer, created_at: now });
        }
    }

    /// All are blocked at first; then each is judged by its inputs.
    fn insert_tasks(&mut self, tasks: Vec<Task>, payloads: Vec<Vec<u8>>, now: Timestamp) {
        let ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
        for (position, (mut task, payload)) in tasks.into_iter().zip(payloads).enumerate() {
            let mut inputs: Vec<(TaskId, Option<Outcome>)> = Vec::new();
            for &input in &task.depends_on {
                if inputs.iter().all(|(known, _)| *known != input) {
                    inputs.push((input, self.tasks.get(&input).and_then(TaskRow::outcome)));
                }
            }
            task.depends_on = inputs.iter().map(|(id, _)| *id).collect();
            task.depends_on.iter().for_each(|input| self.dependents.entry(*input).or_default().push(task.id));
            if task.state != State::Uploading || !inputs.is_empty() {
                task.state = State::Blocked;
            }
            let row = TaskRow {
                task,
                payload,
                position,
                inputs,
                forgiven: false,
                lease: None,
                turn: 0,
                ready_at: None,
                not_before: None,
            };
            self.tasks.insert(row.task.id, row);
        }
        self.begin(&ids, now);
    }
}

pub(super) fn of_page<T: Clone>(mut found: Vec<T>, page: Page) -> (Vec<T>, bool) {
    let size = page.size as usize;
    let start = (page.number.saturating_sub(1) as usize * size).min(found.len());
    let mut rest = found.split_off(start);
    let more = rest.len() > size;
    rest.truncate(size);
    (rest, more)
}

#[async_trait]
impl Jobs for MemoryStore {
    async fn create_job(&self, new: NewJob) -> Result<Creation> {
        self.change(|rows| {
            if rows.jobs.contains_key(&new.job.id) {
                return Ok(Creation::Created);
            }
            rows.check_ids(&new.job.tasks).map(|()| rows.create_job(new))
        })
    }

    async fn create_task(&self, new: NewTask) -> Result<Creation> {
        self.change(|rows| {
            if rows.tasks.contains_key(&new.task.id) {
                return Ok(Creation::Created);
            }
            Ok(rows.create_task(new))
        })
    }

    async fn replay(
        &self,
        user: UserId,
        key: &str,
        request_hash: &[u8; 32],
        now: Timestamp,
    ) -> Result<Option<Creation>> {
        Ok(self.read().replay(user, key, request_hash, now))
    }

    async fn job(&self, user: UserId, id: JobId) -> Result<Option<Job>> {
        let rows = self.read();
        let row = rows.jobs.get(&id).filter(|row| row.job.user_id == user);
        Ok(row.map(|row| Job { tasks: rows.tasks_of(id), ..row.job.clone() }))
    }

    async fn jobs(&self, user: UserId, ids: &[JobId]) -> Result<Vec<Job>> {
        let rows = self.read();
        let found = ids.iter().filter_map(|id| rows.jobs.get(id)).map(|row| row.job.clone());
        Ok(found.filter(|job| job.user_id == user).collect())
    }

    async fn list_jobs(&self, filter: &JobFilter, page: Page) -> Result<(Vec<Job>, bool)> {
        let rows = self.read();
        let is_wanted = |job: &&Job| {
            job.user_id == filter.user_id
                && filter.status.is_none_or(|status| job.status == status)
                && filter.tag.as_ref().is_none_or(|tag| job.tag.as_ref() == Some(tag))
                && filter.key_id.is_none_or(|key| job.origin == crate::model::Origin::Key(key))
        };
        let found = rows.jobs.values().rev().map(|row| &row.job).filter(is_wanted).cloned().collect();
        let (mut found, more) = of_page(found, page);
        if filter.with_tasks {
            for job in &mut found {
                job.tasks = rows.tasks_of(job.id);
            }
        }
        Ok((found, more))
    }

    async fn task(&self, user: UserId, id: TaskId) -> Result<Option<Task>> {
        let rows = self.read();
        Ok(rows.tasks.get(&id).map(|row| row.task.clone()).filter(|task| task.user_id == user))
    }

    async fn task_of_link(&self, id: TaskId) -> Result<Option<Task>> {
        Ok(self.read().tasks.get(&id).map(|row| row.task.clone()))
    }

    async fn linked_file(&self, id: TaskId, number: u32) -> Result<Option<(Task, Option<File>)>> {
        let rows = self.read();
        let Some(row) = rows.tasks.get(&id) else { return Ok(None) };
        let place = usize::try_from(number).unwrap_or(usize::MAX).checked_sub(1);
        let file = place.and_then(|place| row.task.files.get(place)).cloned();
        Ok(Some((Task { files: Vec::new(), depends_on: Vec::new(), ..row.task.clone() }, file)))
    }

    async fn tasks(&self, user: UserId, ids: &[TaskId]) -> Result<Vec<Task>> {
        let rows = self.read();
        let found = ids.iter().filter_map(|id| rows.tasks.get(id)).map(|row| row.task.clone());
        Ok(found.filter(|task| task.user_id == user).collect())
    }

    async fn list_tasks(&self, filter: &TaskFilter, page: Page) -> Result<(Vec<Task>, bool)> {
        let rows = self.read();
        let status = |task: &Task| -> WireStatus { task.state.wire(task.started_at.is_some()) };
        let is_wanted = |task: &&Task| {
            task.user_id == filter.user_id
                && filter.job_id.is_none_or(|job| task.job_id == Some(job))
                && filter.status.is_none_or(|wanted| status(task) == wanted)
                && filter.operation.as_ref().is_none_or(|operation| task.operation == *operation)
        };
        Ok(of_page(rows.tasks.values().rev().map(|row| &row.task).filter(is_wanted).cloned().collect(), page))
    }

    async fn retries(&self, user: UserId, id: TaskId) -> Result<Vec<Task>> {
        let rows = self.read();
        let mut found: Vec<Task> = rows.tasks.values().map(|row| row.task.clone()).collect();
        found.retain(|task| task.retry_of == Some(id) && task.user_id == user);
        found.sort_by_key(|task| (task.created_at, task.id));
        Ok(found)
    }

    async fn payload(&self, id: TaskId) -> Result<Option<Vec<u8>>> {
        Ok(self.read().tasks.get(&id).map(|row| row.payload.clone()))
    }

    async fn trash(&self, limit: u32) -> Result<Vec<TaskId>> {
        let rows = self.read();
        let mut found: Vec<TaskId> = rows.trash.keys().copied().collect();
        found.sort_by_key(|id| rows.trash[id]);
        found.truncate(limit as usize);
        Ok(found)
    }

    async fn take_trash(&self, limit: u32, now: Timestamp, until: Timestamp) -> Result<Vec<TaskId>> {
        let mut found = self.trash(u32::MAX).await?;
        let mut rows = self.read();
        found.retain(|id| rows.taken_trash.get(id).is_none_or(|taken| *taken <= now));
        found.truncate(limit as usize);
        rows.taken_trash.extend(found.iter().map(|id| (*id, until)));
        Ok(found)
    }

    async fn trash_emptied(&self, ids: &[TaskId]) -> Result<()> {
        self.change(|rows| {
            rows.trash.retain(|id, _| !ids.contains(id));
            rows.taken_trash.retain(|id, _| !ids.contains(id));
        });
        Ok(())
    }

    async fn blobs(&self, ids: &[TaskId]) -> Result<Vec<(TaskId, State, Vec<BlobKey>)>> {
        let rows = self.read();
        let found = rows.tasks.values().map(|row| &row.task).filter(|task| ids.contains(&task.id));
        Ok(found
            .map(|task| (task.id, task.state, task.files.iter().filter_map(|file| file.blob.clone()).collect()))
            .collect())
    }
}
