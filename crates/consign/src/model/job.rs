//! A job: the client's graph of tasks.

use crate::clock::Timestamp;
use crate::id::{JobId, KeyId, UserId};
use crate::model::{Task, WireStatus};

/// A job with its tasks in the order of their creation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Whose it is.
    pub user_id: UserId,
    /// The client's label.
    pub tag: Option<String>,
    /// Where to send its webhooks beside the user's own: base64 of the address, sealed by the server's vault.
    pub webhook_url: Option<String>,
    /// Where it stands.
    pub status: WireStatus,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When its first task started.
    pub started_at: Option<Timestamp>,
    /// When its last task ended.
    pub ended_at: Option<Timestamp>,
    /// Where it came from.
    pub origin: Origin,
    /// Its tasks; empty where they were not asked for.
    pub tasks: Vec<Task>,
}

impl Job {
    /// The job as it was when it was accepted, whatever has become of it: nothing has started, uploads are waited for.
    #[must_use]
    pub fn at_creation(self) -> Self {
        let tasks = self.tasks.into_iter().map(Task::at_creation).collect();
        Self { status: WireStatus::Waiting, started_at: None, ended_at: None, tasks, ..self }
    }
}

/// What brought a job about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A call with this API key.
    Key(KeyId),
    /// No key: the server's own command line, or a signed URL.
    NoKey,
}
