//! Follows one job or one task, from now on or from the beginning of its log.

use std::sync::Arc;
use std::time::Duration;

use super::log::{EventId, Past, Step, job_event, task_event};
use super::marks::{Marks, Newcomer, News};
use super::{Event, OVERLAP, Subject};
use crate::clock::Timestamp;
use crate::error::{ApiError, ApiResult};
use crate::http::pace::Pace;
use crate::http::state::AppState;
use crate::id::{JobId, TaskId, UserId};
use crate::model::{Job, Task};

/// A job with many tasks changes often and is dear to read: so long per task until it is read again.
const PAUSE_PER_TASK: Duration = Duration::from_micros(100);

/// Follows a job.
#[derive(Debug)]
pub(in crate::http) struct JobFollower {
    state: AppState,
    user: UserId,
    id: JobId,
    pace: Pace,
    marks: Marks,
    newcomer: Newcomer,
    tells: Tells,
    is_over: bool,
}

/// What of a job is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tells {
    Job,
    Tasks,
    Both,
}

impl JobFollower {
    /// Follows the job alone, from now on.
    pub(super) async fn of_job(state: &AppState, user: UserId, id: JobId) -> ApiResult<Self> {
        Self::open(state, user, id, Tells::Job, Newcomer::Settled).await
    }

    /// Follows the tasks of a job, from now on.
    pub(super) async fn of_tasks(state: &AppState, user: UserId, id: JobId) -> ApiResult<Self> {
        Self::open(state, user, id, Tells::Tasks, Newcomer::Settled).await
    }

    /// Follows a job with its tasks from the beginning, or after an event of its log.
    ///
    /// # Errors
    /// [`Code::NotFound`](crate::error::Code::NotFound).
    pub(in crate::http) async fn of_log(
        state: &AppState,
        user: UserId,
        id: JobId,
        after: Option<EventId>,
    ) -> ApiResult<Self> {
        let since = after.map_or(Timestamp(i64::MIN), |after| after.at.minus(OVERLAP));
        Self::open(state, user, id, Tells::Both, Newcomer::Since(since)).await
    }

    async fn open(state: &AppState, user: UserId, id: JobId, tells: Tells, newcomer: Newcomer) -> ApiResult<Self> {
        // Watching begins before the first reading, so that no change falls in between.
        let pace = Pace::new(state.store.hints(), id.0);
        state.store.jobs(user, &[id]).await?.pop().ok_or_else(ApiError::not_found)?;
        let state = state.clone();
        Ok(Self { state, user, id, pace, marks: Marks::default(), newcomer, tells, is_over: false })
    }

    /// See [`super::Follower::next`]. A job that is deleted has no end to tell of.
    pub(in crate::http) async fn next(&mut self) -> ApiResult<Vec<Event>> {
        while !self.is_over {
            self.pace.turn().await;
            let Some(job) = self.state.store.job(self.user, self.id).await? else {
                self.is_over = true;
                break;
            };
            self.pace.was_read(PAUSE_PER_TASK * u32::try_from(job.tasks.len()).unwrap_or(u32::MAX));
            self.is_over = job.status.is_terminal();
            let events = self.news(&Arc::new(job));
            if !events.is_empty() {
                return Ok(events);
            }
        }
        Ok(Vec::new())
    }

    fn news(&mut self, job: &Arc<Job>) -> Vec<Event> {
        let mut events = Vec::new();
        if self.tells != Tells::Tasks {
            let past = Past::of_job(job);
            for news in self.marks.advance(job.id.0, &past, self.newcomer) {
                if let News::Step(step, at) = news {
                    let (name, id) = (job_event(step, &past), Some(EventId::of_job(step, at)));
                    events.push(Event { name, id, subject: Subject::Job(Arc::clone(job)) });
                }
            }
        }
        if self.tells != Tells::Job {
            for (position, task) in job.tasks.iter().enumerate() {
                let past = Past::of_task(task);
                for news in self.marks.advance(task.id.0, &past, self.newcomer) {
                    let (name, id) = match news {
                        News::Step(step, at) => (task_event(step, &past), Some(EventId::of_task(position, step, at))),
                        News::Progress => (task_event(Step::Started, &past), None),
                    };
                    events.push(Event { name, id, subject: Subject::TaskOf(Arc::clone(job), position) });
                }
            }
        }
        // Progress, which has no id, comes first.
        events.sort_by_key(|event| event.id);
        events
    }
}

/// Follows a task.
#[derive(Debug)]
pub(in crate::http) struct TaskFollower {
    state: AppState,
    user: UserId,
    id: TaskId,
    pace: Pace,
    marks: Marks,
    is_over: bool,
}

impl TaskFollower {
    /// Follows a task from now on.
    pub(super) async fn open(state: &AppState, user: UserId, id: TaskId) -> ApiResult<Self> {
        let pace = Pace::new(state.store.hints(), id.0);
        state.store.task(user, id).await?.ok_or_else(ApiError::not_found)?;
        Ok(Self { state: state.clone(), user, id, pace, marks: Marks::default(), is_over: false })
    }

    /// See [`super::Follower::next`].
    pub(super) async fn next(&mut self) -> ApiResult<Vec<Event>> {
        while !self.is_over {
            self.pace.turn().await;
            let Some(task) = self.state.store.task(self.user, self.id).await? else {
                self.is_over = true;
                break;
            };
            self.pace.was_read(Duration::ZERO);
            self.is_over = task.state.is_terminal();
            let events = task_news(&mut self.marks, task, Newcomer::Settled);
            if !events.is_empty() {
                return Ok(events);
            }
        }
        Ok(Vec::new())
    }
}

/// What is new about a task by itself.
pub(super) fn task_news(marks: &mut Marks, task: Task, newcomer: Newcomer) -> Vec<Event> {
    let past = Past::of_task(&task);
    let task = Arc::new(task);
    let event = |news| {
        let step = match news {
            News::Step(step, _) => step,
            News::Progress => Step::Started,
        };
        Event { name: task_event(step, &past), id: None, subject: Subject::Task(Arc::clone(&task)) }
    };
    marks.advance(task.id.0, &past, newcomer).into_iter().map(event).collect()
}
