//! Live events: jobs and tasks tell what happens to them, over Socket.IO ([`sockets`]) and as server-sent events
//! (`v2/jobs/events.rs`).
//!
//! Both ask a [`Follower`], which is woken by hints, reads the rows again and compares them with what its subscriber was
//! told ([`marks`]). Nothing is kept for anybody: events follow from the rows ([`log`]), so one can come late, come
//! again, or go on at another process. The data of an event is always what the row says now.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::body::View;
use super::state::AppState;
use crate::error::{ApiError, ApiResult, Code};
use crate::id::{JobId, TaskId, UserId};
use crate::model::{Job, Task};
use crate::telemetry::metrics::{Held, Metrics};

mod log;
mod marks;
mod one;
mod packet;
pub mod sockets;
mod subscription;
mod user;

pub use log::EventId;
pub(super) use one::JobFollower;

/// Live connections at once in this process, of each kind: whoever opens sockets without a key keeps nobody with a key from
/// a stream.
const SEATS_MAX: usize = 4096;
/// Events of this long before the last one that a client saw are told again: two commits may land in the other order of
/// their times.
const OVERLAP: Duration = Duration::from_secs(5);

/// Bounds live connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Live {
    sockets: Seats,
    streams: Seats,
    /// How long what may take.
    pub periods: Periods,
}

/// The seats of one kind of live connection.
#[derive(Clone, Debug)]
struct Seats {
    free: Arc<Semaphore>,
    taken: Gauge,
}

/// How long what may take on a live connection; tests have less patience.
#[derive(Clone, Copy, Debug)]
pub struct Periods {
    /// How often it is checked whether the key of a subscription still holds.
    pub key_check: Duration,
    /// How often a silent stream of server-sent events says that it lives.
    pub keep_alive: Duration,
    /// A Socket.IO client that has not subscribed to anything within this time is shown out.
    pub silence_max: Duration,
}

impl Live {
    /// All seats free, and counted.
    pub(super) fn counted(metrics: &Metrics) -> Self {
        let periods = Periods {
            key_check: Duration::from_mins(1),
            keep_alive: Duration::from_secs(15),
            silence_max: Duration::from_mins(1),
        };
        let seats = |kind| Seats { free: Arc::new(Semaphore::new(SEATS_MAX)), taken: metrics.live(kind) };
        Self { sockets: seats("socket"), streams: seats("stream"), periods }
    }

    /// A seat for a Socket.IO connection; it is free again when the last copy is gone.
    ///
    /// # Errors
    /// [`Code::Unavailable`] when all are taken.
    pub(super) fn socket(&self) -> ApiResult<Seat> {
        Self::seat(&self.sockets)
    }

    /// A seat for a stream of server-sent events; it is free again when the last copy is gone.
    ///
    /// # Errors
    /// [`Code::Unavailable`] when all are taken.
    pub(super) fn stream(&self) -> ApiResult<Seat> {
        Self::seat(&self.streams)
    }

    fn seat(seats: &Seats) -> ApiResult<Seat> {
        let permit = Arc::clone(&seats.free).try_acquire_owned().map_err(|_| {
            ApiError::new(Code::Unavailable, "Too many live connections are open; try again in a moment.")
                .after(Duration::from_secs(5))
        })?;
        Ok(Seat { _permit: Arc::new((permit, Held::of(&seats.taken))) })
    }

    /// How many live connections there are.
    pub fn taken(&self) -> usize {
        2 * SEATS_MAX - self.sockets.free.available_permits() - self.streams.free.available_permits()
    }
}

/// The right to have a live connection.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    _permit: Arc<(OwnedSemaphorePermit, Held)>,
}

/// What can be subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// `private-job.{id}`: `job.*` of one job.
    Job(JobId),
    /// `private-job.{id}.tasks`: `task.*` of its tasks.
    JobTasks(JobId),
    /// `private-task.{id}`: `task.*` of one task.
    Task(TaskId),
    /// `private-user.{id}.jobs`: `job.*` of all jobs of a user.
    UserJobs(UserId),
    /// `private-user.{id}.tasks`: `task.*` of all tasks of a user.
    UserTasks(UserId),
}

impl FromStr for Channel {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('.');
        let (kind, id, of) = (parts.next(), parts.next().ok_or(())?, parts.next());
        if parts.next().is_some() {
            return Err(());
        }
        let job = || id.parse().map_err(|_| ());
        let user = || id.parse().map(UserId).map_err(|_| ());
        match (kind, of) {
            (Some("private-job"), None) => Ok(Self::Job(job()?)),
            // One page of the documentation spells it with an s.
            (Some("private-job" | "private-jobs"), Some("tasks")) => Ok(Self::JobTasks(job()?)),
            (Some("private-task"), None) => Ok(Self::Task(id.parse().map_err(|_| ())?)),
            (Some("private-user"), Some("jobs")) => Ok(Self::UserJobs(user()?)),
            (Some("private-user"), Some("tasks")) => Ok(Self::UserTasks(user()?)),
            _ => Err(()),
        }
    }
}

/// Something that happened.
#[derive(Clone)]
pub struct Event {
    /// Such as `job.finished`.
    pub name: &'static str,
    /// Its name in the job's log; progress has none, nor have events of channels that span jobs.
    pub id: Option<EventId>,
    subject: Subject,
}

/// What it happened to, as it is now.
#[derive(Clone)]
enum Subject {
    Job(Arc<Job>),
    TaskOf(Arc<Job>, usize),
    Task(Arc<Task>),
}

impl Event {
    /// Whether nothing follows it in the job's log.
    pub(super) fn is_end_of_job(&self) -> bool {
        matches!(self.name, "job.finished" | "job.failed")
    }

    /// The job or task as JSON.
    pub(super) fn data(&self, view: &View) -> String {
        let json = match &self.subject {
            Subject::Job(job) => serde_json::to_string(&serde_json::json!({"job": view.job(job, true)})),
            Subject::TaskOf(job, position) => serde_json::to_string(
                &serde_json::json!({"task": job.tasks.get(*position).map(|task| view.task(task))}),
            ),
            Subject::Task(task) => serde_json::to_string(&serde_json::json!({"task": view.task(task)})),
        };
        // Maps have text keys and nothing else can fail, so that this is never the fallback.
        json.unwrap_or_else(|_| "{}".to_owned())
    }
}

/// Shows no files and links: those are capabilities.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("name", &self.name).field("id", &self.id).finish_non_exhaustive()
    }
}

/// Follows a channel for one subscriber.
#[derive(Debug)]
pub(super) enum Follower {
    /// One job.
    Job(JobFollower),
    /// One task.
    Task(one::TaskFollower),
    /// All jobs or tasks of a user.
    User(user::UserFollower),
}

impl Follower {
    /// Begins to follow. What has ended already is told at once.
    ///
    /// # Errors
    /// [`Code::NotFound`] when it is not there, or somebody else's.
    pub(super) async fn open(state: &AppState, user: UserId, channel: Channel) -> ApiResult<Self> {
        match channel {
            Channel::Job(id) => Ok(Self::Job(JobFollower::of_job(state, user, id).await?)),
            Channel::JobTasks(id) => Ok(Self::Job(JobFollower::of_tasks(state, user, id).await?)),
            Channel::Task(id) => Ok(Self::Task(one::TaskFollower::open(state, user, id).await?)),
            Channel::UserJobs(id) | Channel::UserTasks(id) if id != user => Err(ApiError::not_found()),
            Channel::UserJobs(id) => Ok(Self::User(user::UserFollower::of_jobs(state, id))),
            Channel::UserTasks(id) => Ok(Self::User(user::UserFollower::of_tasks(state, id))),
        }
    }

    /// Waits for what is new; nothing means that nothing follows.
    ///
    /// # Errors
    /// What the store says.
    ///
    /// # Cancel safety
    /// What was not returned is returned by the next call.
    pub(super) async fn next(&mut self) -> ApiResult<Vec<Event>> {
        match self {
            Self::Job(follower) => follower.next().await,
            Self::Task(follower) => follower.next().await,
            Self::User(follower) => follower.next().await,
        }
    }
}
