//! The ledger in the store: uploads that are open at destinations.

use async_trait::async_trait;
use connectors::{OpenUpload, Part};

use super::Result;
use crate::clock::Timestamp;
use crate::id::{TaskId, Token};
use crate::model::{Follower, LedgerEntry};

/// The durable list of what is open at destinations. A line outlives its task: it holds a copy of the task's
/// operation and sealed arguments.
///
/// Lines of a task are written by who holds its lease; while it waits for another task, by who holds that one's.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// The one task that waits for this running one, if that is all it waits for, and if the token still holds the lease.
    async fn follower(&self, id: TaskId, token: Token) -> Result<Option<Follower>>;

    /// Writes down an upload before its first byte is sent, if the token still holds the lease; replaces what stood
    /// there for the same target. `false` when the lease is lost: then nothing must be sent.
    async fn ledger_open(&self, id: TaskId, token: Token, open: &OpenUpload, now: Timestamp) -> Result<bool>;

    /// Writes down whose bytes an upload has, which began before they were known: of the line of its target and handle, the
    /// digest becomes that of `open`, and nothing else changes. `false` when the lease is lost, or no such upload is open.
    async fn ledger_seal(&self, id: TaskId, token: Token, open: &OpenUpload) -> Result<bool>;

    /// Writes down an acknowledged part. `false` when the lease is lost.
    async fn ledger_part(&self, id: TaskId, token: Token, target: &str, number: u32, part: &Part) -> Result<bool>;

    /// Strikes out an upload, if there is one and the token still holds the lease. `false` when the lease is lost: what stands
    /// there may be another's by now.
    async fn ledger_close(&self, id: TaskId, token: Token, target: &str) -> Result<bool>;

    /// Strikes out an upload that was aborted because its task has ended or is gone; never one that a task may go on with.
    async fn ledger_aborted(&self, id: TaskId, target: &str) -> Result<()>;

    /// Uploads whose task has ended or is gone, and that are due for (another) try to abort them, at most `limit`.
    async fn ledger_orphans(&self, now: Timestamp, limit: u32) -> Result<Vec<LedgerEntry>>;

    /// Takes an upload that was read with `tries` for the next try to abort it; `false` when somebody else has, or has failed
    /// meanwhile. It is due again at `until`, so that it is not lost with whoever takes it.
    async fn ledger_claim_abort(
        &self,
        id: TaskId,
        target: &str,
        tries: u32,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool>;

    /// Counts the try to abort that follows on `tries` as failed; the entry is due again at `again_at`. A try that was counted
    /// already, by whomever, is not counted twice.
    async fn ledger_abort_failed(&self, id: TaskId, target: &str, tries: u32, again_at: Timestamp) -> Result<()>;
}
