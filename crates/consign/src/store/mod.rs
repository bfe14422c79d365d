//! The store: jobs, tasks, files, users, the ledger and the outbox, on stable storage. The task rows are the queue.
//!
//! [`Store`] is what happens, not tables; a database implements it and passes the suite in `contract`. Nothing outside this
//! folder knows which database it is. Every method that changes something is one transaction and returns once that
//! transaction is on stable storage. Methods that need the time are given it.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::clock::Timestamp;
use crate::id::UserId;

pub mod accounts;
#[cfg(feature = "test-support")]
pub mod contract;
mod dialect;
pub mod hints;
pub mod jobs;
pub mod ledger;
#[cfg(feature = "test-support")]
pub mod memory;
mod migrations;
pub mod postgres;
pub mod signed_urls;
pub mod sqlite;
pub mod state;
pub mod transitions;
pub mod webhooks;

pub use accounts::{Accounts, NewKey};
pub use hints::Hints;
pub use jobs::{Creation, Idempotency, JobFilter, Jobs, NewJob, NewTask, TaskFilter};
pub use ledger::Ledger;
#[cfg(feature = "test-support")]
pub use memory::MemoryStore;
pub use postgres::PostgresStore;
pub use signed_urls::SignedUrls;
pub use sqlite::SqliteStore;
pub use state::State;
pub use transitions::{
    Applied, Cancellation, Claim, ClaimRequest, Deletion, Expired, Heartbeat, Input, TaskProgress, Transitions,
};
pub use webhooks::{
    AttemptEnd, DeliveryClaim, DeliveryFilter, NewDelivery, NewWebhook, OutboxLine, Parcel, Receiver, Recipient,
    Redelivery, Webhooks,
};

/// A result of the store.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure of the store. What does not exist is not an error but `None` or `false`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database did not answer in time or refused the connection: try again later.
    #[error("the database does not answer")]
    Unavailable(#[source] Cause),
    /// The disk of the database is full.
    #[error("the database's disk is full")]
    DiskFull(#[source] Cause),
    /// A statement failed, or a row makes no sense: a fault of the program or of the disk.
    #[error("the database refused a statement")]
    Broken(#[source] Cause),
    /// A later version has added to the database what this one does not know, and would leave out.
    #[error(
        "the database has schema {found}, this program knows schemas up to {known} and would leave out what was added since; \
         use the later version"
    )]
    NewerSchema {
        /// Schema of the database.
        found: i64,
        /// Newest schema that this program knows.
        known: i64,
    },
}

/// How far the clocks of a process and of a database that it shares may be apart. Leases do not depend on it, they live by the
/// database's clock; what is due does, and how long somebody else leaves alone what this process has taken.
pub const CLOCKS_APART_MAX: Duration = Duration::from_secs(4);

/// What lies behind a failure, for the log.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Everything that a database must be able to do.
#[async_trait]
pub trait Store: Accounts + Jobs + Transitions + Ledger + SignedUrls + Webhooks + State + Debug + Send + Sync {
    /// Whether the database answers and can be written to: it is. Tells its time, where it has a clock of its own.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn ping(&self) -> Result<Option<Timestamp>>;

    /// Counts for metrics and `doctor`.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn counts(&self, now: Timestamp) -> Result<Counts>;

    /// Who has the most tasks queued, then running: at most `limit` users, for metrics.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn loads(&self, limit: u32) -> Result<Vec<Load>>;

    /// The number that goes by a name; `value`, which is stored, when there is none yet.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn agree_on(&self, name: &str, value: i64) -> Result<i64>;

    /// Takes a turn at what only one process is to do: `false` while another has it, until then. One that ends later than `until`
    /// was taken by a clock that was ahead, and does not count. Whoever dies with a turn has had it.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn take_turn(&self, name: &str, now: Timestamp, until: Timestamp) -> Result<bool>;

    /// Which database this is and where, for people.
    fn describe(&self) -> String;

    /// Where changes are announced.
    fn hints(&self) -> &Arc<Hints>;

    /// Closes all connections; what was acknowledged is on stable storage already.
    async fn close(&self);
}

/// How much there is of what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Tasks that wait for others or for an upload.
    pub waiting: u64,
    /// Tasks that can be claimed.
    pub queued: u64,
    /// Tasks that wait to be tried again.
    pub delayed: u64,
    /// Tasks that are being worked on.
    pub running: u64,
    /// Age in seconds of the oldest task that can be claimed.
    pub oldest_queued_secs: u64,
    /// Uploads open at destinations.
    pub open_uploads: u64,
    /// Users.
    pub users: u64,
    /// API keys that are not revoked.
    pub keys: u64,
    /// Age in seconds of the oldest event that no delivery was made of.
    pub oldest_event_secs: u64,
    /// Deliveries of webhooks that are not at their end.
    pub deliveries: u64,
    /// For how many seconds the delivery that is overdue the longest has been so.
    pub oldest_delivery_secs: u64,
    /// Age in seconds of the oldest transaction for which the database keeps rows that are gone, and that claims then pass over.
    pub oldest_snapshot_secs: u64,
}

/// What a user has queued and running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Whose tasks.
    pub user: UserId,
    /// Tasks that can be claimed.
    pub queued: u64,
    /// Tasks that are being worked on.
    pub running: u64,
}
