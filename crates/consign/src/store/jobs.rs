//! Making, reading and removing jobs and tasks in the store.

use async_trait::async_trait;

use super::Result;
use crate::clock::Timestamp;
use crate::id::{JobId, KeyId, TaskId, UserId};
use crate::model::{BlobKey, File, Job, Page, State, Task, WireStatus};

/// A job to be stored.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// The job with its tasks in order. `import/upload` tasks come as `Uploading`; for all others the store decides
    /// between `Blocked`, `Queued` and `Error` by their inputs, whatever is given here.
    pub job: Job,
    /// The sealed arguments of each task, in the order of the tasks.
    pub payloads: Vec<Vec<u8>>,
    /// Set when the client sent an idempotency key.
    pub idempotency: Option<Idempotency>,
}

/// A task of its own to be stored.
#[derive(Clone, Debug)]
pub struct NewTask {
    /// The task; its state as in [`NewJob`].
    pub task: Task,
    /// Its sealed arguments.
    pub payload: Vec<u8>,
    /// Set when the client sent an idempotency key.
    pub idempotency: Option<Idempotency>,
}

/// A client's promise that two requests are the same.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// The client's key.
    pub key: String,
    /// SHA-256 of method, path and body.
    pub request_hash: [u8; 32],
    /// The sealed answer to give again.
    pub answer: Vec<u8>,
}

/// What came of a creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation {
    /// It was stored.
    Created,
    /// The same request was answered before; this is the sealed answer. Nothing was stored.
    Replayed(Vec<u8>),
    /// The key was used for another request. Nothing was stored.
    KeyReused,
    /// A task that is named as input does not exist any more. Nothing was stored.
    InputGone(TaskId),
}

/// Which jobs are wanted.
#[derive(Clone, Debug)]
pub struct JobFilter {
    /// Whose.
    pub user_id: UserId,
    /// In this status.
    pub status: Option<WireStatus>,
    /// With this tag.
    pub tag: Option<String>,
    /// Created with this key.
    pub key_id: Option<KeyId>,
    /// Read their tasks too.
    pub with_tasks: bool,
}

/// Which tasks are wanted.
#[derive(Clone, Debug)]
pub struct TaskFilter {
    /// Whose.
    pub user_id: UserId,
    /// Of this job.
    pub job_id: Option<JobId>,
    /// In this status.
    pub status: Option<WireStatus>,
    /// With this operation.
    pub operation: Option<String>,
}

/// Jobs and tasks, but for the changes of their state.
#[async_trait]
pub trait Jobs: Send + Sync {
    /// Stores a job with all its tasks and the outbox rows of its making.
    async fn create_job(&self, new: NewJob) -> Result<Creation>;

    /// Stores a task of its own.
    async fn create_task(&self, new: NewTask) -> Result<Creation>;

    /// The answer of an earlier request with this idempotency key, before anything is made; `None` when the key is
    /// new.
    async fn replay(
        &self,
        user: UserId,
        key: &str,
        request_hash: &[u8; 32],
        now: Timestamp,
    ) -> Result<Option<Creation>>;

    /// Reads a job of that user with its tasks.
    async fn job(&self, user: UserId, id: JobId) -> Result<Option<Job>>;

    /// Reads those of the given jobs that exist and are that user's, without their tasks, in no order.
    async fn jobs(&self, user: UserId, ids: &[JobId]) -> Result<Vec<Job>>;

    /// Reads one page of jobs, newest first, and whether there are more.
    async fn list_jobs(&self, filter: &JobFilter, page: Page) -> Result<(Vec<Job>, bool)>;

    /// Reads a task of that user.
    async fn task(&self, user: UserId, id: TaskId) -> Result<Option<Task>>;

    /// Reads a task whoever owns it, for bearers of a signed link.
    async fn task_of_link(&self, id: TaskId) -> Result<Option<Task>>;

    /// Reads a task without its files, whoever owns it, and its `number`th file (from 1): what a download needs, however
    /// many files the task has.
    async fn linked_file(&self, id: TaskId, number: u32) -> Result<Option<(Task, Option<File>)>>;

    /// Reads those of the given tasks that exist and are that user's, in the given order.
    async fn tasks(&self, user: UserId, ids: &[TaskId]) -> Result<Vec<Task>>;

    /// Reads one page of tasks, newest first, and whether there are more.
    async fn list_tasks(&self, filter: &TaskFilter, page: Page) -> Result<(Vec<Task>, bool)>;

    /// Reads the tasks that repeat the given one, oldest first.
    async fn retries(&self, user: UserId, id: TaskId) -> Result<Vec<Task>>;

    /// The sealed arguments of a task.
    async fn payload(&self, id: TaskId) -> Result<Option<Vec<u8>>>;

    /// Tasks whose rows are gone and whose files are still to be removed, at most `limit`.
    async fn trash(&self, limit: u32) -> Result<Vec<TaskId>>;

    /// Takes tasks of that list which nobody has, those that were removed first, at most `limit`: nobody else gets them before
    /// `until`.
    async fn take_trash(&self, limit: u32, now: Timestamp, until: Timestamp) -> Result<Vec<TaskId>>;

    /// Strikes tasks off that list, whoever has them.
    async fn trash_emptied(&self, ids: &[TaskId]) -> Result<()>;

    /// For each of the given tasks that exists: its state and the blobs that its rows name.
    async fn blobs(&self, ids: &[TaskId]) -> Result<Vec<(TaskId, State, Vec<BlobKey>)>>;
}
