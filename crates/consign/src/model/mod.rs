//! The words of the program as plain data: jobs, tasks, files, users, webhooks. No I/O, no clock.

pub mod file;
pub mod graph;
pub mod job;
pub mod ledger;
pub mod page;
pub mod signed_url;
pub mod task;
pub mod task_state;
pub mod user;
pub mod webhook;

pub use file::{BlobKey, Download, File};
pub use job::{Job, Origin};
pub use ledger::{Follower, LedgerEntry};
pub use page::Page;
pub use signed_url::SignedUrl;
pub use task::Task;
pub use task_state::{Event, State, WireStatus};
pub use user::{ApiKey, Scope, User};
pub use webhook::{Delivery, DeliveryAttempt, DeliveryState, EventKind, Webhook};
