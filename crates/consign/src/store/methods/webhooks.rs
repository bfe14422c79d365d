//! The store's methods about webhooks.

use async_trait::async_trait;

use super::super::{Database, queries};
use crate::clock::Timestamp;
use crate::id::{DeliveryId, JobId, UserId, WebhookId};
use crate::model::{Delivery, DeliveryAttempt, Page, Webhook};
use crate::store::{
    AttemptEnd, DeliveryClaim, DeliveryFilter, NewDelivery, NewWebhook, OutboxLine, Parcel, Redelivery, Result,
    Webhooks,
};

#[async_trait]
impl Webhooks for Database {
    async fn create_webhook(&self, new: NewWebhook, webhooks_max: u32, now: Timestamp) -> Result<Option<Webhook>> {
        command!(self, [new] webhooks::create(&new, webhooks_max, now))
    }

    async fn webhooks(&self, user: UserId) -> Result<Vec<Webhook>> {
        read!(self, webhooks::list(user))
    }

    async fn delete_webhook(&self, user: UserId, id: WebhookId) -> Result<bool> {
        command!(self, [] webhooks::delete(user, id))
    }

    async fn webhook_secret(&self, user: UserId, sealed: &[u8], now: Timestamp) -> Result<Vec<u8>> {
        let sealed = sealed.to_vec();
        command!(self, [sealed] webhooks::secret(user, &sealed, now))
    }

    async fn rotate_webhook_secret(&self, user: UserId, sealed: &[u8], now: Timestamp) -> Result<()> {
        let sealed = sealed.to_vec();
        command!(self, [sealed] webhooks::rotate_secret(user, &sealed, now))
    }

    async fn outbox(&self, limit: u32) -> Result<Vec<OutboxLine>> {
        read!(self, webhooks::outbox(limit))
    }

    async fn take_outbox(&self, limit: u32, now: Timestamp, until: Timestamp) -> Result<Vec<OutboxLine>> {
        command!(self, [] webhooks::take_outbox(limit, now, until))
    }

    async fn outbox_of(&self, job: JobId) -> Result<Vec<OutboxLine>> {
        read!(self, webhooks::outbox_of(job))
    }

    async fn tell(&self, line: OutboxLine, deliveries: Vec<NewDelivery>, now: Timestamp) -> Result<bool> {
        command!(self, [deliveries] webhooks::tell(line, &deliveries, now))
    }

    async fn next_delivery(&self) -> Result<Option<Timestamp>> {
        read!(self, deliveries::next())
    }

    async fn claim_deliveries(&self, claim: DeliveryClaim) -> Result<Vec<Parcel>> {
        command!(self, [claim] deliveries::claim(&claim))
    }

    async fn release_deliveries(&self, now: Timestamp) -> Result<()> {
        command!(self, [] deliveries::release(now))
    }

    async fn end_attempt(
        &self,
        id: DeliveryId,
        attempt: DeliveryAttempt,
        end: AttemptEnd,
        now: Timestamp,
    ) -> Result<bool> {
        command!(self, [attempt] deliveries::end_attempt(id, &attempt, end, now))
    }

    async fn deliveries(
        &self,
        user: UserId,
        filter: DeliveryFilter,
        page: Page,
    ) -> Result<Option<(Vec<Delivery>, bool)>> {
        read!(self, deliveries::list(user, filter, page))
    }

    async fn redeliver(&self, user: UserId, id: DeliveryId, now: Timestamp) -> Result<Redelivery> {
        command!(self, [] deliveries::redeliver(user, id, now))
    }

    async fn expire_deliveries(&self, ended_before: Timestamp, limit: u32) -> Result<u64> {
        command!(self, [] deliveries::expire(ended_before, limit))
    }
}
