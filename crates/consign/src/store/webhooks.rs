//! Webhooks in the store: the outbox, the deliveries that are made of it, and the attempts at them.

use async_trait::async_trait;

use super::Result;
use crate::clock::Timestamp;
use crate::id::{DeliveryId, EventId, JobId, UserId, WebhookId};
use crate::model::{Delivery, DeliveryAttempt, EventKind, Page, Webhook};

/// A webhook to be stored.
#[derive(Clone, Debug)]
pub struct NewWebhook {
    /// Whose it is.
    pub user_id: UserId,
    /// Its address, sealed.
    pub url: Vec<u8>,
    /// What it is told.
    pub events: Vec<EventKind>,
    /// What signs its deliveries, sealed. No two are alike, so that a creation that is run again is known by it.
    pub secret: Vec<u8>,
}

/// Something that happened and that nobody was told of yet. Its job is there as long as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutboxLine {
    /// Its id.
    pub id: EventId,
    /// Whose job it is.
    pub user_id: UserId,
    /// The job.
    pub job_id: JobId,
    /// What happened.
    pub event: EventKind,
}

/// A delivery to be stored.
#[derive(Clone, Debug)]
pub struct NewDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// Who gets it.
    pub to: Recipient,
    /// What is sent, sealed.
    pub body: Vec<u8>,
}

/// Who gets a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// A webhook; nobody, if it is gone or disabled by then.
    Webhook(WebhookId),
    /// The job's own address.
    Job {
        /// The address, sealed.
        url: Vec<u8>,
        /// A number for its host. Below zero, so that it is no webhook's.
        host: i64,
    },
}

/// Who may be slow without delaying anybody else: a webhook, or a host that one user's jobs name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receiver {
    /// Whose it is.
    pub user_id: UserId,
    /// The webhook's number, or the host's.
    pub number: i64,
}

/// A wish for deliveries that are due.
#[derive(Clone, Debug)]
pub struct DeliveryClaim {
    /// Deliveries wanted.
    pub max: u32,
    /// Deliveries that one receiver may be sent at once.
    pub per_receiver_max: u32,
    /// Deliveries that one user may have sent at once.
    pub per_user_max: u32,
    /// The receivers of what this process is sending now, one entry a delivery.
    pub sending: Vec<Receiver>,
    /// When the claimed deliveries are due again should this process not tell how they went.
    pub lease_until: Timestamp,
    /// The time.
    pub now: Timestamp,
}

/// A delivery that was claimed.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Its id.
    pub id: DeliveryId,
    /// Who gets it.
    pub receiver: Receiver,
    /// The number of this attempt; it also proves the right to record it.
    pub number: u32,
    /// Attempts, with this one, since the delivery was made or asked for again.
    pub tries: u32,
    /// The address, sealed.
    pub url: Vec<u8>,
    /// The webhook's secret, sealed; none for a job's own address.
    pub secret: Option<Vec<u8>>,
    /// What is sent, sealed.
    pub body: Vec<u8>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptEnd {
    /// The receiver has it.
    Delivered,
    /// It is tried again then.
    Again(Timestamp),
    /// It is given up.
    Failed,
    /// The receiver is gone: it is given up, and so is the webhook with all that is on its way there.
    Gone,
}

/// Which deliveries are wanted.
#[derive(Clone, Copy, Debug)]
pub enum DeliveryFilter {
    /// Of a webhook.
    Webhook(WebhookId),
    /// Of a job, to whomever.
    Job(JobId),
}

/// What became of a wish to deliver again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redelivery {
    /// It is due now, or is being sent at this moment.
    Due(Delivery),
    /// Its webhook is disabled.
    Disabled,
    /// There is no such delivery of that user.
    NotFound,
}

/// Webhooks, and what they are told.
#[async_trait]
pub trait Webhooks: Send + Sync {
    /// Stores a webhook, once however often it is asked for; `None` when the user has `webhooks_max` already.
    async fn create_webhook(&self, new: NewWebhook, webhooks_max: u32, now: Timestamp) -> Result<Option<Webhook>>;

    /// All webhooks of a user, newest first.
    async fn webhooks(&self, user: UserId) -> Result<Vec<Webhook>>;

    /// Removes a webhook with its deliveries; `false` when there is no such one of that user.
    async fn delete_webhook(&self, user: UserId, id: WebhookId) -> Result<bool>;

    /// The sealed secret of the webhooks that a user's jobs bring with them; stores `sealed` when there is none.
    async fn webhook_secret(&self, user: UserId, sealed: &[u8], now: Timestamp) -> Result<Vec<u8>>;

    /// Replaces that secret.
    async fn rotate_webhook_secret(&self, user: UserId, sealed: &[u8], now: Timestamp) -> Result<()>;

    /// The oldest lines of the outbox, at most `limit`.
    async fn outbox(&self, limit: u32) -> Result<Vec<OutboxLine>>;

    /// Takes the oldest lines of the outbox that nobody has, at most `limit`: nobody else gets them here before `until`. Whoever
    /// tells one all the same has told it.
    async fn take_outbox(&self, limit: u32, now: Timestamp, until: Timestamp) -> Result<Vec<OutboxLine>>;

    /// The lines of the outbox about a job.
    async fn outbox_of(&self, job: JobId) -> Result<Vec<OutboxLine>>;

    /// Turns a line of the outbox into deliveries that are due; `false` when somebody else did.
    async fn tell(&self, line: OutboxLine, deliveries: Vec<NewDelivery>, now: Timestamp) -> Result<bool>;

    /// When the next delivery is due.
    async fn next_delivery(&self) -> Result<Option<Timestamp>>;

    /// Takes deliveries that are due, for receivers and users below their limits, oldest first.
    async fn claim_deliveries(&self, claim: DeliveryClaim) -> Result<Vec<Parcel>>;

    /// Makes due what a process was sending that is gone. Only when no other process can be alive.
    async fn release_deliveries(&self, now: Timestamp) -> Result<()>;

    /// Records an attempt and what follows; `false` when somebody else has the delivery by now, or it is gone.
    async fn end_attempt(
        &self,
        id: DeliveryId,
        attempt: DeliveryAttempt,
        end: AttemptEnd,
        now: Timestamp,
    ) -> Result<bool>;

    /// Reads one page of deliveries, newest first, and whether there are more; `None` when that user has no such webhook
    /// or nothing is known of the job.
    async fn deliveries(
        &self,
        user: UserId,
        filter: DeliveryFilter,
        page: Page,
    ) -> Result<Option<(Vec<Delivery>, bool)>>;

    /// Makes a delivery due, with all its tries before it, however it ended.
    async fn redeliver(&self, user: UserId, id: DeliveryId, now: Timestamp) -> Result<Redelivery>;

    /// Removes deliveries that ended before then, at most `limit`; returns how many.
    async fn expire_deliveries(&self, ended_before: Timestamp, limit: u32) -> Result<u64>;
}
