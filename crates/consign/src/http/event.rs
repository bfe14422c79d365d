//! Turns a line of the outbox into deliveries: who is told, and the exact bytes that are sent.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use url::Url;

use super::body::{JobBody, View};
use crate::clock::Clock;
use crate::id::DeliveryId;
use crate::model::{EventKind, Job};
use crate::secret::Vault;
use crate::store::{self, NewDelivery, OutboxLine, Recipient, Store};

/// Numbers that the hosts of a user's jobs are spread over. Two hosts that share one share its bounds; a bound, because
/// a client may name any number of hosts.
const HOSTS_MAX: i64 = 1024;

/// What is sent: the job is not wrapped in `data`.
#[derive(Serialize)]
struct EventBody {
    event: &'static str,
    job: JobBody,
}

/// The bytes that tell of an event, the same however late they are made: a job that was created is shown as it was
/// then, and one that has ended does not change any more.
pub fn bytes(view: &View, event: EventKind, job: Job) -> Vec<u8> {
    let job = if event.is_end() { job } else { job.at_creation() };
    let body = EventBody { event: event.wire(), job: view.job(&job, true) };
    // Maps have text keys and nothing else can fail, so that this is never the fallback.
    serde_json::to_vec(&body).unwrap_or_else(|_| b"{}".to_vec())
}

/// Makes deliveries of the lines of the outbox. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Teller {
    /// Where the outbox is.
    pub store: Arc<dyn Store>,
    /// How jobs are shown.
    pub view: View,
    /// Seals what is sent.
    pub vault: Arc<Vault>,
    /// The time.
    pub clock: Clock,
}

impl Teller {
    /// Makes one delivery for each webhook that wants to know, and one for the job's own address.
    ///
    /// # Errors
    /// The store's; then the line is still there.
    pub async fn tell(&self, line: OutboxLine) -> store::Result<()> {
        let deliveries = match self.store.job(line.user_id, line.job_id).await? {
            Some(job) => self.deliveries(line, job).await?,
            // Jobs stay until the outbox has told of them, so that somebody else has just done it.
            None => Vec::new(),
        };
        self.store.tell(line, deliveries, self.clock.now()).await?;
        connectors::fail_point!("webhook.told");
        Ok(())
    }

    async fn deliveries(&self, line: OutboxLine, job: Job) -> store::Result<Vec<NewDelivery>> {
        let mut recipients: Vec<Recipient> = (self.store.webhooks(line.user_id).await?.iter().rev())
            .filter(|webhook| !webhook.disabled && webhook.events.contains(&line.event))
            .map(|webhook| Recipient::Webhook(webhook.id))
            .collect();
        if line.event.is_end() {
            recipients.extend(job.webhook_url.as_deref().and_then(|sealed| self.own_address(line, sealed)));
        }
        if recipients.is_empty() {
            return Ok(Vec::new());
        }
        let body = self.vault.seal(&bytes(&self.view, line.event, job));
        let now = self.clock.now();
        let new = |to| NewDelivery { id: DeliveryId::new(now), to, body: body.clone() };
        Ok(recipients.into_iter().map(new).collect())
    }

    fn own_address(&self, line: OutboxLine, sealed: &str) -> Option<Recipient> {
        let opened = STANDARD.decode(sealed).ok().and_then(|url| {
            let text = String::from_utf8(self.vault.open(&url).ok()?).ok()?;
            Some((self.host(&text), url))
        });
        if opened.is_none() {
            tracing::error!(
                job = %line.job_id,
                "the address of a job's webhook was stored with another secret key; it is not told"
            );
        }
        opened.map(|(host, url)| Recipient::Job { url, host })
    }

    /// A number for the host of an address; which host it is does not show.
    fn host(&self, url: &str) -> i64 {
        let url = Url::parse(url).ok();
        let host = url.as_ref().map_or("", |url| url.host_str().unwrap_or(""));
        let port = url.as_ref().and_then(Url::port_or_known_default).unwrap_or(0);
        let mark = self.vault.sign(&format!("webhook host\n{host}:{port}"));
        let number = i64::from_str_radix(mark.get(..8).unwrap_or("0"), 16).unwrap_or(0);
        -1 - number % HOSTS_MAX
    }

    /// Tells all that the outbox has about a job.
    ///
    /// # Errors
    /// The store's.
    pub async fn tell_of(&self, job: crate::id::JobId) -> store::Result<()> {
        for line in self.store.outbox_of(job).await? {
            self.tell(line).await?;
        }
        Ok(())
    }
}
