//! The way out: what every connector of a process shares.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::budget::Budget;
use crate::egress::Guard;
use crate::gcs;
use crate::http::Client;
use crate::transfer::Limits;

/// The guarded network of a process, and the bounds of transfers over it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Network {
    /// Opens connections that are not HTTP.
    pub guard: Guard,
    /// Sends HTTP requests.
    pub http: Client,
    /// Bounds of every transfer.
    pub limits: Limits,
    /// Memory for the parts of all transfers.
    pub memory: Budget,
    /// Bounds of transfers with one host.
    pub hosts: HostSlots,
    /// Access tokens of Google service accounts.
    pub google_tokens: gcs::Tokens,
}

impl Network {
    /// Makes a network behind a guard, with so many transfers to each host at once, no tokens yet, and a budget
    /// of its own.
    pub fn new(guard: Guard, tls: rustls::ClientConfig, limits: Limits, transfers_per_host: usize) -> Self {
        Self {
            http: Client::new(guard.clone(), tls, &limits),
            guard,
            limits,
            memory: Budget::default(),
            hosts: HostSlots::new(transfers_per_host),
            google_tokens: gcs::Tokens::default(),
        }
    }
}

/// Bounds how many transfers of a process use one host at once, so that one slow destination cannot take everything,
/// and none is overrun. Cheap to clone.
#[derive(Clone)]
pub struct HostSlots(Arc<HostSlotsInner>);

struct HostSlotsInner {
    each: usize,
    /// Hosts without a transfer are forgotten when the next one is looked up.
    hosts: Mutex<HashMap<String, Weak<Host>>>,
}

/// The slots of one host.
#[derive(Debug)]
struct Host {
    slots: Arc<Semaphore>,
    /// How many of them transfers before their turn may have.
    early: Arc<Semaphore>,
}

/// The right to use a host, until it is dropped.
#[derive(Debug)]
pub struct HostSlot {
    _permit: Option<OwnedSemaphorePermit>,
    early: Option<OwnedSemaphorePermit>,
    /// Keeps the host known as long as somebody uses it or waits for it.
    _host: Arc<Host>,
}

impl HostSlot {
    /// The transfer's turn has come: the slot counts as any other from now on.
    pub fn settle(&mut self) {
        self.early = None;
    }
}

impl HostSlots {
    /// Makes a table with so many slots for each host.
    pub fn new(each: usize) -> Self {
        Self(Arc::new(HostSlotsInner { each, hosts: Mutex::default() }))
    }

    /// Waits for a slot of that host, in the order of asking.
    ///
    /// # Cancel safety
    /// When dropped, its place in the queue is given up.
    pub async fn take(&self, host: &str) -> HostSlot {
        let host = self.of(&host.to_ascii_lowercase());
        // A semaphore that is never closed gives a permit in the end.
        HostSlot { _permit: Arc::clone(&host.slots).acquire_owned().await.ok(), early: None, _host: host }
    }

    /// A slot for a transfer before its turn, if one is free and such transfers have not half of them already: those whose
    /// turn has come never wait behind them for long.
    pub fn spare(&self, host: &str) -> Option<HostSlot> {
        let host = self.of(&host.to_ascii_lowercase());
        let early = Arc::clone(&host.early).try_acquire_owned().ok()?;
        // Whoever waits is given what becomes free: nobody is overtaken here.
        let permit = Arc::clone(&host.slots).try_acquire_owned().ok()?;
        Some(HostSlot { _permit: Some(permit), early: Some(early), _host: host })
    }

    fn of(&self, host: &str) -> Arc<Host> {
        let mut hosts = self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, host| host.strong_count() > 0);
        if let Some(known) = hosts.get(host).and_then(Weak::upgrade) {
            return known;
        }
        let each = self.0.each.max(1);
        let new = Arc::new(Host { slots: Arc::new(Semaphore::new(each)), early: Arc::new(Semaphore::new(each / 2)) });
        hosts.insert(host.to_owned(), Arc::downgrade(&new));
        new
    }
}

impl fmt::Debug for HostSlots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostSlots").field("each", &self.0.each).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::HostSlots;

    #[tokio::test]
    async fn a_full_host_lets_others_pass_and_is_forgotten_when_empty() {
        let slots = HostSlots::new(2);
        let (first, second) = (slots.take("a").await, slots.take("A").await);
        assert!(slots.take("a").now_or_never().is_none());
        assert!(slots.take("b").now_or_never().is_some());
        drop(first);
        let third = slots.take("a").now_or_never();
        assert!(third.is_some());
        drop((second, third));
        drop(slots.take("c").await);
        assert_eq!(slots.0.hosts.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn before_its_turn_a_transfer_has_what_nobody_wants_and_never_more_than_half() {
        let slots = HostSlots::new(5);
        let mut first = slots.spare("a").unwrap();
        let second = slots.spare("A").unwrap();
        assert!(slots.spare("a").is_none(), "half of five");
        assert!(slots.spare("b").is_some());
        first.settle();
        let third = slots.spare("a").unwrap();
        let others = [slots.take("a").await, slots.take("a").await];
        drop(second);
        let mut waiting = Box::pin(slots.take("a"));
        let last = waiting.as_mut().now_or_never();
        assert!(last.is_some() && slots.spare("a").is_none(), "all are in use");
        let mut waiting = Box::pin(slots.take("a"));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(first);
        assert!(slots.spare("a").is_none(), "it is promised to who waits");
        assert!(waiting.now_or_never().is_some());
        drop((third, others, last));
        assert!(HostSlots::new(1).spare("a").is_none(), "half of one");
    }
}
