//! Webhooks, the outbox and deliveries.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;

use super::{DeliveryRow, MemoryStore, Rows};
use crate::clock::Timestamp;
use crate::id::{DeliveryId, JobId, UserId, WebhookId};
use crate::model::{Delivery, DeliveryAttempt, DeliveryState, Page, Webhook};
use crate::store::{
    AttemptEnd, DeliveryClaim, DeliveryFilter, NewDelivery, NewWebhook, OutboxLine, Parcel, Receiver, Recipient,
    Redelivery, Result, Webhooks,
};

/// Attempts that are kept of one delivery.
const ATTEMPTS_KEPT: usize = 50;

impl DeliveryRow {
    fn receiver(&self) -> Receiver {
        let webhook = self.delivery.webhook_id.map(|id| i64::from(id.0));
        let host = self.address.as_ref().map(|(_, host)| *host);
        Receiver { user_id: self.delivery.user_id, number: webhook.or(host).unwrap_or_default() }
    }

    fn is_pending(&self) -> bool {
        self.delivery.state == DeliveryState::Pending
    }

    fn end(&mut self, state: DeliveryState, due_at: Timestamp, now: Timestamp) {
        self.sending = false;
        (self.delivery.state, self.delivery.due_at) = (state, due_at);
        self.delivery.ended_at = (state != DeliveryState::Pending).then_some(now);
    }
}

impl Rows {
    fn add_delivery(&mut self, line: OutboxLine, new: NewDelivery, now: Timestamp) {
        let (webhook_id, address) = match new.to {
            Recipient::Webhook(id) => {
                let is_told = |webhook: &Webhook| webhook.user_id == line.user_id && !webhook.disabled;
                if !self.webhooks.get(&id).is_some_and(is_told) {
                    return;
                }
                (Some(id), None)
            }
            Recipient::Job { url, host } => (None, Some((url, host))),
        };
        let delivery = Delivery {
            id: new.id,
            user_id: line.user_id,
            webhook_id,
            job_id: line.job_id,
            event: line.event,
            state: DeliveryState::Pending,
            due_at: now,
            created_at: now,
            ended_at: None,
            attempts: Vec::new(),
        };
        let row = DeliveryRow { delivery, address, body: new.body, sending: false, attempts: 0, tries: 0 };
        self.deliveries.insert(new.id, row);
    }

    /// What may be sent now: the oldest first, within the bounds of receivers and users.
    fn next_deliveries(&self, claim: &DeliveryClaim) -> Vec<DeliveryId> {
        let due = |row: &&DeliveryRow| row.is_pending() && row.delivery.due_at <= claim.now;
        let mut due: Vec<&DeliveryRow> = self.deliveries.values().filter(due).collect();
        due.sort_by_key(|row| row.delivery.due_at);
        let (mut receivers, mut users) = (BTreeMap::new(), BTreeMap::new());
        for receiver in &claim.sending {
            *receivers.entry(*receiver).or_insert(0) += 1;
            *users.entry(receiver.user_id).or_insert(0) += 1;
        }
        let mut picked = Vec::new();
        for row in due {
            let by_receiver = receivers.entry(row.receiver()).or_insert(0);
            let by_user = users.entry(row.delivery.user_id).or_insert(0);
            let is_free = *by_receiver < claim.per_receiver_max && *by_user < claim.per_user_max;
            if is_free && picked.len() < claim.max as usize {
                *by_receiver += 1;
                *by_user += 1;
                picked.push(row.delivery.id);
            }
        }
        picked
    }

    fn send(&mut self, claim: &DeliveryClaim, ids: &[DeliveryId]) -> Vec<Parcel> {
        let mut parcels = Vec::with_capacity(ids.len());
        for id in ids {
            let row = self.deliveries.get_mut(id).expect("it was just found");
            row.sending = true;
            row.attempts += 1;
            row.tries += 1;
            row.delivery.due_at = claim.lease_until;
            let webhook = row.delivery.webhook_id.map(|id| &self.webhooks[&id]);
            let address = row.address.as_ref().map(|(url, _)| url.clone());
            parcels.push(Parcel {
                id: *id,
                receiver: row.receiver(),
                number: row.attempts,
                tries: row.tries,
                url: webhook.map(|webhook| webhook.url.clone()).or(address).unwrap_or_default(),
                secret: webhook.map(|webhook| webhook.secret.clone()),
                body: row.body.clone(),
            });
        }
        parcels
    }

    fn disable(&mut self, id: WebhookId, now: Timestamp) {
        if let Some(webhook) = self.webhooks.get_mut(&id) {
            (webhook.disabled, webhook.failing, webhook.updated_at) = (true, true, now);
        }
        for row in self.deliveries.values_mut().filter(|row| row.delivery.webhook_id == Some(id) && row.is_pending()) {
            let due_at = row.delivery.due_at;
            row.end(DeliveryState::Failed, due_at, now);
        }
    }

    fn end_attempt(&mut self, id: DeliveryId, attempt: DeliveryAttempt, end: AttemptEnd, now: Timestamp) -> bool {
        let is_its = |row: &&mut DeliveryRow| row.sending && row.attempts == attempt.number;
        let Some(row) = self.deliveries.get_mut(&id).filter(is_its) else { return false };
        match end {
            AttemptEnd::Delivered => row.end(DeliveryState::Delivered, now, now),
            AttemptEnd::Again(due_at) => row.end(DeliveryState::Pending, due_at, now),
            AttemptEnd::Failed | AttemptEnd::Gone => row.end(DeliveryState::Failed, now, now),
        }
        let attempts = &mut row.delivery.attempts;
        attempts.push(attempt);
        attempts.drain(..attempts.len().saturating_sub(ATTEMPTS_KEPT));
        let webhook_id = row.delivery.webhook_id;
        if end == AttemptEnd::Gone {
            if let Some(id) = webhook_id {
                self.disable(id, now);
            }
        } else if let Some(webhook) = webhook_id.and_then(|id| self.webhooks.get_mut(&id)) {
            let is_failing = end != AttemptEnd::Delivered;
            if webhook.failing != is_failing {
                (webhook.failing, webhook.updated_at) = (is_failing, now);
            }
        }
        true
    }
}

impl MemoryStore {
    /// Follows a claim of another store, which may choose among deliveries that are equally due. All must be due, bounds
    /// must hold, and none may be left that fits.
    ///
    /// # Errors
    /// What is wrong with the claim.
    pub fn follow_deliveries(
        &self,
        claim: &DeliveryClaim,
        ids: &[DeliveryId],
    ) -> std::result::Result<Vec<Parcel>, String> {
        self.change(|rows| {
            let chosen: BTreeSet<DeliveryId> = ids.iter().copied().collect();
            // Bounds alone decide what fits, so choosing from the chosen must take all of them.
            let is_due = |id: &DeliveryId| {
                rows.deliveries.get(id).is_some_and(|row| row.is_pending() && row.delivery.due_at <= claim.now)
            };
            if let Some(id) = ids.iter().find(|id| !is_due(id)) {
                return Err(format!("{id} was not due"));
            }
            let possible = rows.next_deliveries(claim).len();
            if chosen.len() != possible || ids.len() != possible {
                return Err(format!("{} deliveries were claimed, {possible} can be", ids.len()));
            }
            let parcels = rows.send(claim, ids);
            let mut sending = claim.sending.clone();
            sending.extend(parcels.iter().map(|parcel| parcel.receiver));
            let count = |is_same: &dyn Fn(&Receiver) -> bool| sending.iter().filter(|other| is_same(other)).count();
            let over = parcels.iter().map(|parcel| parcel.receiver).find(|receiver| {
                count(&|other| other == receiver) > claim.per_receiver_max as usize
                    || count(&|other| other.user_id == receiver.user_id) > claim.per_user_max as usize
            });
            over.map_or(Ok(parcels), |receiver| Err(format!("{receiver:?} is above its bound")))
        })
    }
}

#[async_trait]
impl Webhooks for MemoryStore {
    async fn create_webhook(&self, new: NewWebhook, webhooks_max: u32, now: Timestamp) -> Result<Option<Webhook>> {
        Ok(self.change(|rows| {
            let is_same = |webhook: &&Webhook| webhook.user_id == new.user_id && webhook.secret == new.secret;
            if let Some(stored) = rows.webhooks.values().find(is_same) {
                return Some(stored.clone());
            }
            let has = rows.webhooks.values().filter(|webhook| webhook.user_id == new.user_id).count();
            if !rows.users.contains_key(&new.user_id) || has >= webhooks_max as usize {
                return None;
            }
            rows.webhooks_made += 1;
            let id = WebhookId(rows.webhooks_made);
            let NewWebhook { user_id, url, events, secret } = new;
            let webhook = Webhook {
                id,
                user_id,
                url,
                events,
                secret,
                disabled: false,
                failing: false,
                created_at: now,
                updated_at: now,
            };
            rows.webhooks.insert(id, webhook.clone());
            Some(webhook)
        }))
    }

    async fn webhooks(&self, user: UserId) -> Result<Vec<Webhook>> {
        Ok(self.read().webhooks.values().rev().filter(|webhook| webhook.user_id == user).cloned().collect())
    }

    async fn delete_webhook(&self, user: UserId, id: WebhookId) -> Result<bool> {
        Ok(self.change(|rows| {
            let is_there = rows.webhooks.get(&id).is_some_and(|webhook| webhook.user_id == user);
            if is_there {
                rows.webhooks.remove(&id);
                rows.deliveries.retain(|_, row| row.delivery.webhook_id != Some(id));
            }
            is_there
        }))
    }

    async fn webhook_secret(&self, user: UserId, sealed: &[u8], _now: Timestamp) -> Result<Vec<u8>> {
        Ok(self.change(|rows| rows.webhook_secrets.entry(user).or_insert_with(|| sealed.to_vec()).clone()))
    }

    async fn rotate_webhook_secret(&self, user: UserId, sealed: &[u8], _now: Timestamp) -> Result<()> {
        self.change(|rows| rows.webhook_secrets.insert(user, sealed.to_vec()));
        Ok(())
    }

    async fn outbox(&self, limit: u32) -> Result<Vec<OutboxLine>> {
        let mut lines = self.read().outbox.clone();
        lines.sort_by_key(|(at, line)| (*at, line.id));
        Ok(lines.into_iter().take(limit as usize).map(|(_, line)| line).collect())
    }

    async fn take_outbox(&self, limit: u32, now: Timestamp, until: Timestamp) -> Result<Vec<OutboxLine>> {
        let mut lines = self.outbox(u32::MAX).await?;
        let mut rows = self.read();
        lines.retain(|line| rows.taken_lines.get(&line.id).is_none_or(|taken| *taken <= now));
        lines.truncate(limit as usize);
        rows.taken_lines.extend(lines.iter().map(|line| (line.id, until)));
        Ok(lines)
    }

    async fn outbox_of(&self, job: JobId) -> Result<Vec<OutboxLine>> {
        let mut lines = self.outbox(u32::MAX).await?;
        lines.retain(|line| line.job_id == job);
        Ok(lines)
    }

    async fn tell(&self, line: OutboxLine, deliveries: Vec<NewDelivery>, now: Timestamp) -> Result<bool> {
        Ok(self.change(|rows| {
            let untold = rows.outbox.len();
            rows.outbox.retain(|(_, other)| other.id != line.id);
            rows.taken_lines.remove(&line.id);
            let is_mine = rows.outbox.len() < untold;
            if is_mine {
                for new in deliveries {
                    rows.add_delivery(line, new, now);
                }
            }
            is_mine
        }))
    }

    async fn next_delivery(&self) -> Result<Option<Timestamp>> {
        let rows = self.read();
        Ok(rows.deliveries.values().filter(|row| row.is_pending()).map(|row| row.delivery.due_at).min())
    }

    async fn claim_deliveries(&self, claim: DeliveryClaim) -> Result<Vec<Parcel>> {
        Ok(self.change(|rows| {
            let next = rows.next_deliveries(&claim);
            rows.send(&claim, &next)
        }))
    }

    async fn release_deliveries(&self, now: Timestamp) -> Result<()> {
        self.change(|rows| {
            for row in rows.deliveries.values_mut().filter(|row| row.is_pending() && row.sending) {
                row.sending = false;
                row.delivery.due_at = now;
            }
        });
        Ok(())
    }

    async fn end_attempt(
        &self,
        id: DeliveryId,
        attempt: DeliveryAttempt,
        end: AttemptEnd,
        now: Timestamp,
    ) -> Result<bool> {
        Ok(self.change(|rows| rows.end_attempt(id, attempt, end, now)))
    }

    async fn deliveries(
        &self,
        user: UserId,
        filter: DeliveryFilter,
        page: Page,
    ) -> Result<Option<(Vec<Delivery>, bool)>> {
        let rows = self.read();
        let is_wanted = |delivery: &&Delivery| match filter {
            DeliveryFilter::Webhook(id) => delivery.webhook_id == Some(id) && delivery.user_id == user,
            DeliveryFilter::Job(id) => delivery.job_id == id && delivery.user_id == user,
        };
        let found = rows.deliveries.values().rev().map(|row| &row.delivery).filter(is_wanted);
        let found: Vec<Delivery> = found.cloned().collect();
        let is_known = match filter {
            DeliveryFilter::Webhook(id) => rows.webhooks.get(&id).is_some_and(|webhook| webhook.user_id == user),
            DeliveryFilter::Job(id) => rows.jobs.get(&id).is_some_and(|row| row.job.user_id == user),
        };
        Ok((is_known || !found.is_empty()).then(|| super::jobs::of_page(found, page)))
    }

    async fn redeliver(&self, user: UserId, id: DeliveryId, now: Timestamp) -> Result<Redelivery> {
        Ok(self.change(|rows| {
            let Some(row) = rows.deliveries.get_mut(&id).filter(|row| row.delivery.user_id == user) else {
                return Redelivery::NotFound;
            };
            if row.delivery.webhook_id.is_some_and(|webhook| rows.webhooks[&webhook].disabled) {
                return Redelivery::Disabled;
            }
            if !row.sending {
                row.end(DeliveryState::Pending, now, now);
                row.tries = 0;
            }
            Redelivery::Due(row.delivery.clone())
        }))
    }

    async fn expire_deliveries(&self, ended_before: Timestamp, limit: u32) -> Result<u64> {
        Ok(self.change(|rows| {
            let old = rows.deliveries.values().map(|row| &row.delivery);
            let mut old: Vec<_> = old.filter(|d| d.ended_at.is_some_and(|ended| ended < ended_before)).collect();
            old.sort_by_key(|delivery| delivery.ended_at);
            let old: Vec<DeliveryId> = old.into_iter().take(limit as usize).map(|delivery| delivery.id).collect();
            for id in &old {
                rows.deliveries.remove(id);
            }
            old.len() as u64
        }))
    }
}
