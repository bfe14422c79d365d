//! A task: one node of a job's graph, or a task of its own.

use crate::clock::Timestamp;
use crate::id::{JobId, TaskId, UserId};
use crate::model::{File, State};

/// A task as the client may see it; its arguments stay sealed in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Whose it is.
    pub user_id: UserId,
    /// The job it belongs to.
    pub job_id: Option<JobId>,
    /// Its name in that job.
    pub name: Option<String>,
    /// What it does, such as `export/s3`.
    pub operation: String,
    /// Where it stands.
    pub state: State,
    /// Its failure does not fail the job, and its dependents run with what is left.
    pub ignore_error: bool,
    /// Progress from 0 to 100.
    pub percent: u8,
    /// Error code, once it failed.
    pub code: Option<String>,
    /// A sentence for the client.
    pub message: Option<String>,
    /// What the client should know about its arguments, such as unknown ones.
    pub warnings: Vec<String>,
    /// Files it produced or delivered, in order.
    pub files: Vec<File>,
    /// How often it was claimed.
    pub attempt: u32,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When it was first claimed, or its upload began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// When an upload must have come, for `import/upload`.
    pub upload_expires_at: Option<Timestamp>,
    /// The task that this one repeats.
    pub retry_of: Option<TaskId>,
    /// Tasks it takes files from, in the order of its `input`.
    pub depends_on: Vec<TaskId>,
    /// Name of the process that ran it last.
    pub host_name: Option<String>,
}

impl Task {
    /// The task as it was when it was accepted. Which of the states that wait it was in is not known any more, and the
    /// same to clients; only an upload shows its form.
    #[must_use]
    pub fn at_creation(self) -> Self {
        Self {
            state: if self.upload_expires_at.is_some() { State::Uploading } else { State::Queued },
            percent: 0,
            code: None,
            message: None,
            files: Vec::new(),
            attempt: 0,
            started_at: None,
            ended_at: None,
            host_name: None,
            ..self
        }
    }
}
