//! Follows all jobs or all tasks of a user. It hears of every commit and reads what of it is its user's.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::log::{Past, job_event};
use super::marks::{Marks, Newcomer, News};
use super::one::task_news;
use super::{Event, OVERLAP, Subject};
use crate::error::ApiResult;
use crate::http::state::AppState;
use crate::id::{JobId, TaskId, UserId};
use crate::model::Page;
use crate::store::{JobFilter, TaskFilter};

/// Pause between two readings: what changes meanwhile is read together.
const PAUSE: Duration = Duration::from_millis(50);
/// Changed ids that are remembered until they are read; with more, all that is open is read again.
const PENDING_MAX: usize = 4096;
/// The newest jobs or tasks that are looked at after commits were missed, beside those known to be open.
const LOOK_AROUND: Page = Page { number: 1, size: 1000 };

/// Follows a user.
#[derive(Debug)]
pub(in crate::http) struct UserFollower {
    state: AppState,
    user: UserId,
    tells: Tells,
    commits: broadcast::Receiver<Arc<[Uuid]>>,
    pending: BTreeSet<Uuid>,
    has_missed: bool,
    not_before: Instant,
    marks: Marks,
    newcomer: Newcomer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tells {
    Jobs,
    Tasks,
}

impl UserFollower {
    /// Follows all jobs of a user from now on.
    pub(super) fn of_jobs(state: &AppState, user: UserId) -> Self {
        Self::open(state, user, Tells::Jobs)
    }

    /// Follows all tasks of a user from now on.
    pub(super) fn of_tasks(state: &AppState, user: UserId) -> Self {
        Self::open(state, user, Tells::Tasks)
    }

    fn open(state: &AppState, user: UserId, tells: Tells) -> Self {
        Self {
            state: state.clone(),
            user,
            tells,
            commits: state.store.hints().commits(),
            pending: BTreeSet::new(),
            has_missed: false,
            not_before: Instant::now(),
            marks: Marks::default(),
            newcomer: Newcomer::Since(state.clock.now().minus(OVERLAP)),
        }
    }

    /// See [`super::Follower::next`].
    pub(super) async fn next(&mut self) -> ApiResult<Vec<Event>> {
        loop {
            if self.pending.is_empty() && !self.has_missed {
                let heard = self.commits.recv().await;
                self.hear(heard);
            }
            sleep_until(self.not_before).await;
            while let Some(heard) = self.heard_already() {
                self.hear(heard);
            }
            let events = self.read().await?;
            self.pending.clear();
            self.has_missed = false;
            self.not_before = Instant::now() + PAUSE;
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }

    fn heard_already(&mut self) -> Option<Result<Arc<[Uuid]>, RecvError>> {
        match self.commits.try_recv() {
            Ok(ids) => Some(Ok(ids)),
            Err(TryRecvError::Lagged(missed)) => Some(Err(RecvError::Lagged(missed))),
            // The store, which announces commits, lives as long as this does.
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }

    fn hear(&mut self, heard: Result<Arc<[Uuid]>, RecvError>) {
        match heard {
            Ok(ids) if !ids.is_empty() && self.pending.len() + ids.len() <= PENDING_MAX => {
                self.pending.extend(ids.iter());
            }
            Ok(_) | Err(RecvError::Lagged(_) | RecvError::Closed) => self.has_missed = true,
        }
    }

    async fn read(&mut self) -> ApiResult<Vec<Event>> {
        let mut ids: BTreeSet<Uuid> = self.pending.clone();
        if self.has_missed {
            ids.extend(self.marks.open());
            ids.extend(self.newest().await?);
        }
        let ids: Vec<Uuid> = ids.into_iter().collect();
        match self.tells {
            Tells::Jobs => self.read_jobs(ids).await,
            Tells::Tasks => self.read_tasks(ids).await,
        }
    }

    async fn newest(&self) -> ApiResult<Vec<Uuid>> {
        let (user_id, status) = (self.user, None);
        Ok(match self.tells {
            Tells::Jobs => {
                let filter = JobFilter { user_id, status, tag: None, key_id: None, with_tasks: false };
                let (jobs, _) = self.state.store.list_jobs(&filter, LOOK_AROUND).await?;
                jobs.into_iter().map(|job| job.id.0).collect()
            }
            Tells::Tasks => {
                let filter = TaskFilter { user_id, job_id: None, status, operation: None };
                let (tasks, _) = self.state.store.list_tasks(&filter, LOOK_AROUND).await?;
                tasks.into_iter().map(|task| task.id.0).collect()
            }
        })
    }

    async fn read_jobs(&mut self, ids: Vec<Uuid>) -> ApiResult<Vec<Event>> {
        let ids: Vec<JobId> = ids.into_iter().map(JobId).collect();
        let mut whole = Vec::new();
        for job in self.state.store.jobs(self.user, &ids).await? {
            // Most changes are those of a task; only what has news is read with all its tasks.
            if self.marks.has_news(job.id.0, &Past::of_job(&job), self.newcomer) {
                whole.extend(self.state.store.job(self.user, job.id).await?);
            }
        }
        let mut events = Vec::new();
        for job in whole {
            let (past, job) = (Past::of_job(&job), Arc::new(job));
            for news in self.marks.advance(job.id.0, &past, self.newcomer) {
                if let News::Step(step, _) = news {
                    events.push(Event {
                        name: job_event(step, &past),
                        id: None,
                        subject: Subject::Job(Arc::clone(&job)),
                    });
                }
            }
        }
        Ok(events)
    }

    async fn read_tasks(&mut self, ids: Vec<Uuid>) -> ApiResult<Vec<Event>> {
        let ids: Vec<TaskId> = ids.into_iter().map(TaskId).collect();
        let tasks = self.state.store.tasks(self.user, &ids).await?;
        Ok(tasks.into_iter().flat_map(|task| task_news(&mut self.marks, task, self.newcomer)).collect())
    }
}
