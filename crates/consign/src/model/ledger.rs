//! The ledger: what is open at a destination on behalf of a task.

use connectors::OpenUpload;

use crate::id::TaskId;

/// An upload that is open at a destination, with all that is needed to abort it after its task is gone.
#[derive(Clone, Debug)]
pub struct LedgerEntry {
    /// The task it was opened for.
    pub task_id: TaskId,
    /// That task's operation.
    pub operation: String,
    /// That task's arguments, sealed.
    pub payload: Vec<u8>,
    /// What is open.
    pub open: OpenUpload,
    /// Failed tries to abort it.
    pub abort_tries: u32,
}

/// A task that waits for a running one and for nothing else: its uploads may begin before it is claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follower {
    /// The task.
    pub id: TaskId,
    /// Its operation.
    pub operation: String,
    /// Its arguments, sealed.
    pub payload: Vec<u8>,
    /// What is open on its behalf.
    pub open: Vec<OpenUpload>,
}
