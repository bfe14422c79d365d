//! The half of the store that changes a task's state: one method an event, one guarded transaction a method.
//!
//! Every change by a runner names the lease token; a token that no longer holds changes nothing and says
//! [`Applied::Stale`]. The transition that ends a task also readies or ends its dependents, ends its job when it was
//! the last, and writes the outbox, in the same transaction.

use async_trait::async_trait;
use connectors::OpenUpload;

use super::Result;
use crate::clock::Timestamp;
use crate::id::{JobId, SessionId, TaskId, Token, UserId};
use crate::model::{File, Task};

/// Tasks whose time has come that one call moves at the most: bounds for how long their jobs are locked.
pub const DUE_MAX: u32 = 1000;

/// How much a runner wants to take on.
#[derive(Clone, Copy, Debug)]
pub struct ClaimRequest {
    /// The process session that will hold the leases.
    pub session: SessionId,
    /// Tasks at the most: the free slots of the process.
    pub tasks_max: u32,
    /// Tasks of one user that may run at once in all processes.
    pub per_user_max: u32,
    /// The time.
    pub now: Timestamp,
}

/// A task that was claimed.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The task, already `Running`, `attempt` already counted.
    pub task: Task,
    /// Its sealed arguments.
    pub payload: Vec<u8>,
    /// The proof of the lease.
    pub token: Token,
    /// When it was last queued.
    pub ready_at: Option<Timestamp>,
    /// The tasks it takes files from, in the order of its `input`.
    pub inputs: Vec<Input>,
    /// What earlier attempts left open at its destination.
    pub open: Vec<OpenUpload>,
}

/// A task that files are taken from.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its id.
    pub task_id: TaskId,
    /// Its name in the job.
    pub name: Option<String>,
    /// Its files; none if it failed.
    pub files: Vec<File>,
}

/// What became of a guarded change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Applied {
    /// It happened.
    Done,
    /// The lease or the state was no longer what it must be; nothing happened.
    Stale,
}

/// What became of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancellation {
    /// The task ended.
    Done,
    /// It had ended before.
    AlreadyEnded,
    /// There is no such task of that user.
    NotFound,
}

/// What became of a wish to delete a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone.
    Done,
    /// It has ended, and stays until the outbox has told of it.
    Untold,
    /// There is no such job of that user.
    NotFound,
}

/// Progress of a running task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskProgress {
    /// The task.
    pub id: TaskId,
    /// The proof of the lease.
    pub token: Token,
    /// From 0 to 99: 100 comes with the end.
    pub percent: u8,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// The session lives.
    Alive,
    /// The session was declared dead: stop everything and open a new one.
    Expired,
}

/// What became of sessions that were not seen any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// Tasks that they held.
    pub tasks: u64,
    /// When the one of all other sessions was last seen that has not been seen for the longest: the next one to expire.
    pub oldest: Option<Timestamp>,
}

/// Changes of state.
#[async_trait]
pub trait Transitions: Send + Sync {
    /// The time by the clock that sessions live by: the database's where processes share one, for their own may differ; else
    /// `own`. All moments of sessions are of this clock, and it says what is due and what is kept no longer.
    async fn session_time(&self, own: Timestamp) -> Result<Timestamp>;

    /// Registers a process start. `exclusive` says that no other process can be alive on this database: all older
    /// sessions end at once and their tasks are queued again.
    async fn open_session(&self, id: SessionId, host_name: &str, exclusive: bool, now: Timestamp) -> Result<()>;

    /// Says that a session is alive and how far its tasks are.
    async fn heartbeat(&self, id: SessionId, progress: &[TaskProgress], now: Timestamp) -> Result<Heartbeat>;

    /// Ends a session; tasks that it still holds are queued again.
    async fn close_session(&self, id: SessionId, now: Timestamp) -> Result<()>;

    /// Ends sessions that were last seen before `seen_before`; their tasks are queued again, or end with
    /// `WORKER_LOST` once they were claimed `attempts_max` times.
    async fn expire_sessions(&self, seen_before: Timestamp, attempts_max: u32, now: Timestamp) -> Result<Expired>;

    /// Claims tasks that are ready, fairly between users. One token a call.
    async fn claim(&self, request: &ClaimRequest) -> Result<Vec<Claim>>;

    /// Whether this token still holds the task's lease.
    async fn holds(&self, id: TaskId, token: Token) -> Result<bool>;

    /// The leases that a session holds, whether its process knows of them or not.
    async fn leases(&self, id: SessionId) -> Result<Vec<(TaskId, Token)>>;

    /// Ends a task well, with its files in order.
    async fn finish(&self, id: TaskId, token: Token, files: &[File], now: Timestamp) -> Result<Applied>;

    /// Ends a task badly.
    async fn fail(&self, id: TaskId, token: Token, code: &str, message: &str, now: Timestamp) -> Result<Applied>;

    /// Puts a task off; it is queued again at `until`.
    async fn delay(&self, id: TaskId, token: Token, until: Timestamp, now: Timestamp) -> Result<Applied>;

    /// Gives a lease back unused: the task is queued again and the attempt not counted.
    async fn give_back(&self, id: TaskId, token: Token, now: Timestamp) -> Result<Applied>;

    /// Queues tasks whose time has come, up to [`DUE_MAX`] of them; returns when the next one is due.
    async fn release_due(&self, now: Timestamp) -> Result<Option<Timestamp>>;

    /// Ends an `import/upload` task with the file that came.
    async fn finish_upload(&self, id: TaskId, file: &File, now: Timestamp) -> Result<Applied>;

    /// Ends `import/upload` tasks whose file did not come in time, with `TIMEOUT`, up to [`DUE_MAX`] of them; returns when the next
    /// one is due.
    async fn expire_uploads(&self, now: Timestamp) -> Result<Option<Timestamp>>;

    /// Ends a task with `CANCELLED` and its dependents with `INPUT_TASK_FAILED`.
    async fn cancel(&self, user: UserId, id: TaskId, now: Timestamp) -> Result<Cancellation>;

    /// Cancels if need be and removes a task; its files go to the trash. `false` when there is no such task.
    async fn delete_task(&self, user: UserId, id: TaskId, now: Timestamp) -> Result<bool>;

    /// Cancels if need be and removes a job with all its tasks; their files go to the trash. A job of which the outbox
    /// has still to tell is only cancelled.
    async fn delete_job(&self, user: UserId, id: JobId, now: Timestamp) -> Result<Deletion>;

    /// Removes jobs and tasks of their own that ended before `ended_before` and of which the outbox has nothing to tell
    /// any more, old idempotency keys and sessions; at most `limit` jobs and tasks of their own, and no further job once
    /// `tasks_max` tasks are gone: a job goes whole, however many it has. Returns how many jobs and tasks of their own went.
    async fn expire(&self, ended_before: Timestamp, limit: u32, tasks_max: u32, now: Timestamp) -> Result<u64>;
}
