//! Bounds of requests, jobs and work at once.

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Period;

/// What `limits.request_bytes_max` may be at the most: arguments are a row of the database, and a line of its backup.
pub const REQUEST_BYTES_LIMIT: u64 = 256 * 1024 * 1024;

/// Bounds of requests, jobs and work at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Tasks that this process works on at once.
    pub tasks_running_max: u32,
    /// Tasks of one user that run at once, in all processes together.
    pub tasks_per_user_max: u32,
    /// Transfers to or from one host at once, in this process.
    pub transfers_per_host_max: u32,
    /// How often a task is tried before it fails: after transient faults of the other side, and after crashes of this one.
    pub attempts_max: u32,
    /// Longest time a task may take, with all its tries.
    pub task_timeout: Period,
    /// Largest file that is taken in.
    #[schemars(with = "String")]
    pub file_bytes_max: ByteSize,
    /// Files of one task.
    pub files_per_task_max: u32,
    /// Tasks of one job.
    pub tasks_per_job_max: u32,
    /// Largest request body but for uploads, 256 MiB at the most; `import/base64` and `import/raw` must fit into it.
    #[schemars(with = "String")]
    pub request_bytes_max: ByteSize,
    /// Jobs and tasks that one API key may create in a minute, counted by each process of the API for itself.
    pub creations_per_minute_max: u32,
    /// Longest time that a request waits for a job or task to end.
    pub wait_max: Period,
    /// How long the form of `import/upload` can be used.
    pub upload_lifetime: Period,
    /// How long running tasks, uploads and downloads may go on after the server was asked to stop.
    pub stop_grace: Period,
    /// How long a server that was asked to stop goes on serving while `readyz` says 503, so that a balancer has noticed before a connection is refused.
    pub drain_delay: Period,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tasks_running_max: 32,
            tasks_per_user_max: 16,
            transfers_per_host_max: 16,
            attempts_max: 5,
            task_timeout: Period::from_hours(5),
            file_bytes_max: ByteSize::gib(100),
            files_per_task_max: 10_000,
            tasks_per_job_max: 1_000,
            request_bytes_max: ByteSize::mib(16),
            creations_per_minute_max: 1_000,
            wait_max: Period::from_hours(5),
            upload_lifetime: Period::from_hours(12),
            stop_grace: Period::from_secs(20),
            drain_delay: Period::from_secs(0),
        }
    }
}

impl Limits {
    /// What must not be zero, by key.
    pub(super) fn counts(&self) -> Vec<(&'static str, u32)> {
        vec![
            ("limits.tasks_running_max", self.tasks_running_max),
            ("limits.tasks_per_user_max", self.tasks_per_user_max),
            ("limits.transfers_per_host_max", self.transfers_per_host_max),
            ("limits.attempts_max", self.attempts_max),
            ("limits.files_per_task_max", self.files_per_task_max),
            ("limits.tasks_per_job_max", self.tasks_per_job_max),
            ("limits.creations_per_minute_max", self.creations_per_minute_max),
        ]
    }
}
