//! Changes of state.

use async_trait::async_trait;

use super::ending::End;
use super::jobs::IDEMPOTENCY_KEPT;
use super::{MemoryStore, Rows, Session, accounts};
use crate::clock::Timestamp;
use crate::error::Code;
use crate::id::{JobId, SessionId, TaskId, Token, UserId};
use crate::model::{File, State};
use crate::store::transitions::DUE_MAX;
use crate::store::{
    Applied, Cancellation, Claim, ClaimRequest, Deletion, Expired, Heartbeat, Result, TaskProgress, Transitions,
};

impl Rows {
    /// The task, if this token holds its lease.
    fn held(&self, id: TaskId, token: Token) -> Option<TaskId> {
        self.tasks.get(&id).filter(|row| row.is_held_by(token)).map(|row| row.task.id)
    }

    /// Takes a running task from whoever has it.
    fn put_back(&mut self, id: TaskId, state: State, now: Timestamp) {
        let row = self.task_mut(id);
        row.lease = None;
        row.task.state = state;
        if state == State::Queued {
            row.ready_at = Some(now);
        }
    }

    /// Ends a session; its tasks are queued again, or end if they were claimed too often.
    fn end_session(&mut self, id: SessionId, attempts_max: u32, now: Timestamp) -> usize {
        let mine = self.tasks_where(|row| row.lease.is_some_and(|(_, session)| session == id));
        let (lost, again): (Vec<_>, Vec<_>) =
            mine.iter().copied().partition(|task| self.task(*task).task.attempt >= attempts_max);
        for task in again {
            self.put_back(task, State::Queued, now);
        }
        let message = "The server was interrupted each time it worked on this task.";
        self.end_all(&lost, &End::error(Code::WorkerLost, message), now);
        self.sessions.remove(&id);
        mine.len()
    }

    fn cancel(&mut self, user: UserId, id: TaskId, now: Timestamp) -> Cancellation {
        match self.tasks.get(&id).filter(|row| row.task.user_id == user) {
            None => Cancellation::NotFound,
            Some(row) if row.task.state.is_terminal() => Cancellation::AlreadyEnded,
            Some(_) => {
                self.end_all(&[id], &End::error(Code::Cancelled, "The task was cancelled."), now);
                Cancellation::Done
            }
        }
    }

    fn remove_task(&mut self, id: TaskId, now: Timestamp) {
        self.tasks.remove(&id);
        self.trash.entry(id).or_insert(now);
    }

    /// Returns how many tasks it had.
    fn remove_job(&mut self, id: JobId, now: Timestamp) -> usize {
        let tasks = self.tasks_where(|row| row.task.job_id == Some(id));
        for task in &tasks {
            self.remove_task(*task, now);
        }
        self.jobs.remove(&id);
        tasks.len()
    }

    fn delete_job(&mut self, user: UserId, id: JobId, now: Timestamp) -> Deletion {
        if self.jobs.get(&id).is_none_or(|row| row.job.user_id != user) {
            return Deletion::NotFound;
        }
        let open = self.tasks_where(|row| row.task.job_id == Some(id) && !row.task.state.is_terminal());
        self.end_all(&open, &End::error(Code::Cancelled, "The task was cancelled."), now);
        if self.is_untold(id) {
            return Deletion::Untold;
        }
        self.remove_job(id, now);
        Deletion::Done
    }

    fn expire(&mut self, ended_before: Timestamp, limit: u32, tasks_max: u32, now: Timestamp) -> u64 {
        let is_old = |ended_at: Option<Timestamp>| ended_at.is_some_and(|ended| ended < ended_before);
        let jobs = self.jobs.values().map(|row| &row.job);
        let mut jobs: Vec<_> = jobs.filter(|job| is_old(job.ended_at) && !self.is_untold(job.id)).collect();
        jobs.sort_by_key(|job| job.ended_at);
        let jobs: Vec<JobId> = jobs.into_iter().take(limit as usize).map(|job| job.id).collect();
        let (mut removed, mut tasks_left) = (0, tasks_max as usize);
        for id in jobs {
            if tasks_left > 0 {
                tasks_left = tasks_left.saturating_sub(self.remove_job(id, now));
                removed += 1;
            }
        }
        let mut tasks = self.tasks_where(|row| row.task.job_id.is_none() && is_old(row.task.ended_at));
        tasks.sort_by_key(|id| self.task(*id).task.ended_at);
        tasks.truncate(tasks_left.min(limit as usize - removed));
        for id in &tasks {
            self.remove_task(*id, now);
        }
        self.idempotency.retain(|_, promise| promise.created_at > now.minus(IDEMPOTENCY_KEPT));
        self.signed_results.retain(|_, (_, created_at)| *created_at > now.minus(accounts::RESULTS_KEPT));
        (removed + tasks.len()) as u64
    }

    /// Ends a task that a token holds.
    fn end_held(&mut self, id: TaskId, token: Token, end: &End, now: Timestamp) -> Applied {
        let Some(id) = self.held(id, token) else { return Applied::Stale };
        self.end_all(&[id], end, now);
        Applied::Done
    }
}

#[async_trait]
impl Transitions for MemoryStore {
    async fn session_time(&self, own: Timestamp) -> Result<Timestamp> {
        Ok(own)
    }

    async fn open_session(&self, id: SessionId, host_name: &str, exclusive: bool, now: Timestamp) -> Result<()> {
        self.change(|rows| {
            if exclusive {
                for older in rows.sessions.keys().copied().collect::<Vec<_>>() {
                    rows.end_session(older, u32::MAX, now);
                }
            }
            rows.sessions.insert(id, Session { host_name: host_name.to_owned(), last_seen: now });
        });
        Ok(())
    }

    async fn heartbeat(&self, id: SessionId, progress: &[TaskProgress], now: Timestamp) -> Result<Heartbeat> {
        Ok(self.change(|rows| {
            let Some(session) = rows.sessions.get_mut(&id) else { return Heartbeat::Expired };
            session.last_seen = now;
            for told in progress {
                if let Some(id) = rows.held(told.id, told.token) {
                    rows.task_mut(id).task.percent = told.percent.min(99);
                }
            }
            Heartbeat::Alive
        }))
    }

    async fn close_session(&self, id: SessionId, now: Timestamp) -> Result<()> {
        self.change(|rows| rows.end_session(id, u32::MAX, now));
        Ok(())
    }

    async fn expire_sessions(&self, seen_before: Timestamp, attempts_max: u32, now: Timestamp) -> Result<Expired> {
        Ok(self.change(|rows| {
            let dead: Vec<SessionId> = rows
                .sessions
                .iter()
                .filter(|(_, session)| session.last_seen < seen_before)
                .map(|(id, _)| *id)
                .collect();
            let tasks = dead.into_iter().map(|id| rows.end_session(id, attempts_max, now) as u64).sum();
            Expired { tasks, oldest: rows.sessions.values().map(|session| session.last_seen).min() }
        }))
    }

    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>> {
        Ok(self.change(|rows| {
            if !rows.sessions.contains_key(&request.session) {
                return Vec::new();
            }
            let next = rows.next_tasks(request);
            rows.lease(request, &next, Token::random())
        }))
    }

    async fn holds(&self, id: TaskId, token: Token) -> Result<bool> {
        Ok(self.read().held(id, token).is_some())
    }

    async fn leases(&self, id: SessionId) -> Result<Vec<(TaskId, Token)>> {
        let rows = self.read();
        let held =
            rows.tasks.iter().filter_map(|(task, row)| row.lease.map(|(token, session)| (*task, token, session)));
        Ok(held.filter(|(_, _, session)| *session == id).map(|(task, token, _)| (task, token)).collect())
    }

    async fn finish(&self, id: TaskId, token: Token, files: &[File], now: Timestamp) -> Result<Applied> {
        Ok(self.change(|rows| {
            let applied = rows.end_held(id, token, &End::Finished, now);
            if applied == Applied::Done {
                rows.task_mut(id).task.files = files.to_vec();
            }
            applied
        }))
    }

    async fn fail(&self, id: TaskId, token: Token, code: &str, message: &str, now: Timestamp) -> Result<Applied> {
        let end = End::Error { code: code.to_owned(), message: message.to_owned() };
        Ok(self.change(|rows| rows.end_held(id, token, &end, now)))
    }

    async fn delay(&self, id: TaskId, token: Token, until: Timestamp, now: Timestamp) -> Result<Applied> {
        Ok(self.change(|rows| {
            let Some(id) = rows.held(id, token) else { return Applied::Stale };
            rows.put_back(id, State::Delayed, now);
            rows.task_mut(id).not_before = Some(until);
            Applied::Done
        }))
    }

    async fn give_back(&self, id: TaskId, token: Token, now: Timestamp) -> Result<Applied> {
        Ok(self.change(|rows| {
            let Some(id) = rows.held(id, token) else { return Applied::Stale };
            rows.put_back(id, State::Queued, now);
            rows.task_mut(id).task.attempt -= 1;
            Applied::Done
        }))
    }

    async fn release_due(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        Ok(self.change(|rows| {
            let mut due = rows.tasks_where(|row| row.not_before.is_some_and(|due| due <= now));
            due.sort_by_key(|id| rows.task(*id).not_before);
            for id in due.into_iter().take(DUE_MAX as usize) {
                rows.task_mut(id).not_before = None;
                rows.put_back(id, State::Queued, now);
            }
            rows.tasks.values().filter_map(|row| row.not_before).min()
        }))
    }

    async fn finish_upload(&self, id: TaskId, file: &File, now: Timestamp) -> Result<Applied> {
        Ok(self.change(|rows| {
            let Some(row) = rows.tasks.get_mut(&id).filter(|row| row.task.state == State::Uploading) else {
                return Applied::Stale;
            };
            row.task.started_at = Some(now);
            row.task.files = vec![file.clone()];
            let job = row.task.job_id;
            rows.start_job(job, now);
            rows.end_all(&[id], &End::Finished, now);
            Applied::Done
        }))
    }

    async fn expire_uploads(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        Ok(self.change(|rows| {
            let mut late = rows.tasks_where(|row| {
                row.task.state == State::Uploading && row.task.upload_expires_at.is_some_and(|expires| expires <= now)
            });
            late.sort_by_key(|id| rows.task(*id).task.upload_expires_at);
            late.truncate(DUE_MAX as usize);
            let message = "The file was not uploaded in time; create the task again.";
            rows.end_all(&late, &End::error(Code::Timeout, message), now);
            let open = rows.tasks.values().filter(|row| row.task.state == State::Uploading);
            open.filter_map(|row| row.task.upload_expires_at).min()
        }))
    }

    async fn cancel(&self, user: UserId, id: TaskId, now: Timestamp) -> Result<Cancellation> {
        Ok(self.change(|rows| rows.cancel(user, id, now)))
    }

    async fn delete_task(&self, user: UserId, id: TaskId, now: Timestamp) -> Result<bool> {
        Ok(self.change(|rows| {
            if rows.cancel(user, id, now) == Cancellation::NotFound {
                return false;
            }
            rows.remove_task(id, now);
            true
        }))
    }

    async fn delete_job(&self, user: UserId, id: JobId, now: Timestamp) -> Result<Deletion> {
        Ok(self.change(|rows| rows.delete_job(user, id, now)))
    }

    async fn expire(&self, ended_before: Timestamp, limit: u32, tasks_max: u32, now: Timestamp) -> Result<u64> {
        Ok(self.change(|rows| rows.expire(ended_before, limit, tasks_max, now)))
    }
}
