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
    hosts: Mutex<HashMap<String, Weak<Semaphore>>>,
}

/// The right to use a host, until it is dropped.
#[derive(Debug)]
pub struct HostSlot {
    _permit: Option<OwnedSemaphorePermit>,
    /// Keeps the host known as long as somebody uses it or waits for it.
    _host: Arc<Semaphore>,
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
        let slots = self.of(&host.to_ascii_lowercase());
        // A semaphore that is never closed gives a permit in the end.
        HostSlot { _permit: Arc::clone(&slots).acquire_owned().await.ok(), _host: slots }
    }

    fn of(&self, host: &str) -> Arc<Semaphore> {
        let mut hosts = self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, slots| slots.strong_count() > 0);
        if let Some(slots) = hosts.get(host).and_then(Weak::upgrade) {
            return slots;
        }
        let slots = Arc::new(Semaphore::new(self.0.each.max(1)));
        hosts.insert(host.to_owned(), Arc::downgrade(&slots));
        slots
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
}
