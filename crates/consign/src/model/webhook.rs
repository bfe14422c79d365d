//! Webhooks, and the deliveries that tell them what happened.

use crate::clock::Timestamp;
use crate::id::{DeliveryId, JobId, UserId, WebhookId};

/// What a webhook can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventKind {
    /// A job was accepted.
    JobCreated,
    /// A job ended well.
    JobFinished,
    /// A job ended badly.
    JobFailed,
}

impl EventKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::JobCreated, Self::JobFinished, Self::JobFailed];

    /// As on the wire and in rows.
    pub const fn wire(self) -> &'static str {
        match self {
            Self::JobCreated => "job.created",
            Self::JobFinished => "job.finished",
            Self::JobFailed => "job.failed",
        }
    }

    /// Reads the wire form.
    pub fn from_wire(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.wire() == text)
    }

    /// Whether it tells the end of a job: the only events that a job's own `webhook_url` hears of.
    pub const fn is_end(self) -> bool {
        match self {
            Self::JobCreated => false,
            Self::JobFinished | Self::JobFailed => true,
        }
    }
}

/// An address that is told of a user's jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Its number.
    pub id: WebhookId,
    /// Whose it is.
    pub user_id: UserId,
    /// Its address, sealed by the server's vault.
    pub url: Vec<u8>,
    /// What it is told, in the order of the client.
    pub events: Vec<EventKind>,
    /// What signs its deliveries, sealed.
    pub secret: Vec<u8>,
    /// It said that it is gone, and is told nothing more.
    pub disabled: bool,
    /// The last attempt failed.
    pub failing: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// It will be tried, or is being tried.
    Pending,
    /// The receiver has it.
    Delivered,
    /// It was given up.
    Failed,
}

impl DeliveryState {
    const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Failed];

    /// As on the wire and in rows.
    pub const fn wire(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }

    /// Reads the wire form.
    pub fn from_wire(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.wire() == text)
    }
}

/// One event on its way to one receiver, as its owner may see it: without address and body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its id; the same at every attempt.
    pub id: DeliveryId,
    /// Whose it is.
    pub user_id: UserId,
    /// The webhook; none for the job's own `webhook_url`.
    pub webhook_id: Option<WebhookId>,
    /// What it tells of.
    pub job_id: JobId,
    /// What happened.
    pub event: EventKind,
    /// Where it stands.
    pub state: DeliveryState,
    /// When it is tried next, while it is pending.
    pub due_at: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was delivered or given up.
    pub ended_at: Option<Timestamp>,
    /// The latest attempts, oldest first.
    pub attempts: Vec<DeliveryAttempt>,
}

/// One attempt at a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryAttempt {
    /// From 1, over all attempts at this delivery.
    pub number: u32,
    /// When it began.
    pub at: Timestamp,
    /// The status of the answer, if one came.
    pub status: Option<u16>,
    /// What went wrong, and what to do.
    pub error: Option<String>,
    /// How long it took in milliseconds.
    pub duration_ms: u64,
}
