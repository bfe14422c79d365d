//! One budget of memory for the parts of all transfers of a process, fair between them.
//!
//! A task takes memory for a part before it asks for, or reads, the part's bytes, and gives it back when they are gone, or
//! when nothing is done with them for a while. Whoever holds nothing may have any memory that is free. Who holds something
//! gets more from one half of the budget only, and not once it holds more than is left of that half: however many parts a
//! destination takes and does not answer, a task that begins finds room for its first.
//!
//! Of those who wait, whoever holds least comes first, and among equals whoever asked first. Nobody overtakes the first in
//! the queue, be its part the largest; and one that waits holds nothing but what its earlier parts need to get done, so
//! that somebody can always go on. A part larger than the whole budget is served when nothing else is held, and counts as
//! large as it is.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Bytes of a budget that nobody chose.
const DEFAULT_BYTES: u64 = 256 * 1024 * 1024;

/// The budget of a process. Cheap to clone.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

struct Inner {
    total_bytes: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held_bytes: u64,
    /// In the order of asking.
    waiting: Vec<Waiting>,
    next_ticket: u64,
}

struct Waiting {
    ticket: u64,
    bytes: u64,
    share: Share,
    granted: oneshot::Sender<Held>,
}

/// What one task has of a budget, all its files together. Clones are the same task.
#[derive(Clone)]
pub struct Share {
    budget: Budget,
    /// Only changed while the budget is locked.
    held_bytes: Arc<AtomicU64>,
}

/// Memory of a part, until it is dropped.
#[must_use]
pub struct Held {
    share: Share,
    bytes: u64,
}

/// A place in the queue, given up when dropped.
struct Place<'a> {
    budget: &'a Budget,
    ticket: u64,
}

/// How a budget is used at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes that parts may have.
    pub total_bytes: u64,
    /// Bytes that parts have.
    pub held_bytes: u64,
    /// Parts that wait.
    pub waiting: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(DEFAULT_BYTES)
    }
}

impl Budget {
    /// A budget of so many bytes. One that is smaller than a part gives one part after the other.
    pub fn new(total_bytes: u64) -> Self {
        Self(Arc::new(Inner { total_bytes: total_bytes.max(1), state: Mutex::default() }))
    }

    /// The share of a task that begins.
    pub fn share(&self) -> Share {
        Share { budget: self.clone(), held_bytes: Arc::default() }
    }

    /// How it is used now.
    pub fn usage(&self) -> Usage {
        let state = self.state();
        Usage { total_bytes: self.0.total_bytes, held_bytes: state.held_bytes, waiting: state.waiting.len() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the queue, then serves whoever is first, for as long as there is enough.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut granted = Vec::new();
        let mut state = self.state();
        change(&mut state);
        while let Some(first) = first(&state.waiting) {
            let Waiting { bytes, share, .. } = &state.waiting[first];
            if !has_room(self.0.total_bytes, state.held_bytes, share.held_bytes(), *bytes) {
                break;
            }
            let waiting = state.waiting.remove(first);
            state.held_bytes += waiting.bytes;
            waiting.share.held_bytes.fetch_add(waiting.bytes, Ordering::Relaxed);
            granted.push(waiting);
        }
        drop(state);
        for Waiting { bytes, share, granted, .. } in granted {
            // Whoever has gone meanwhile gives it back by dropping it.
            drop(granted.send(Held { share, bytes }));
        }
    }
}

/// Whether there is room for a part of `bytes` beside the `held` ones, of which its task holds `own`.
///
/// # Source
/// Choudhury and Hahne, "Dynamic Queue Length Thresholds for Shared-Memory Packet Switches", 1998: who holds more than is
/// left waits, so that a few who stand still leave something to the next.
fn has_room(total: u64, held: u64, own: u64, bytes: u64) -> bool {
    let after = held.saturating_add(bytes);
    let half = total / 2;
    held == 0 || if own == 0 { after <= total } else { after <= half && own <= half - held }
}

/// Whose turn it is.
fn first(waiting: &[Waiting]) -> Option<usize> {
    let turns = waiting.iter().enumerate();
    turns.min_by_key(|(_, waiting)| (waiting.share.held_bytes(), waiting.ticket)).map(|(index, _)| index)
}

impl Share {
    /// Waits for memory for a part.
    ///
    /// # Panics
    /// Never: a place leaves the queue only by being served or given up.
    ///
    /// # Cancel safety
    /// When dropped, its place in the queue is given up.
    pub async fn take(&self, bytes: u64) -> Held {
        let (sender, receiver) = oneshot::channel();
        let mut ticket = 0;
        self.budget.change(|state| {
            ticket = state.next_ticket;
            state.next_ticket += 1;
            state.waiting.push(Waiting { ticket, bytes, share: self.clone(), granted: sender });
        });
        let _place = Place { budget: &self.budget, ticket };
        receiver.await.expect("a place leaves the queue only by being served or given up")
    }

    fn held_bytes(&self) -> u64 {
        self.held_bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.share.budget.change(|state| {
            state.held_bytes -= self.bytes;
            self.share.held_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        });
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let ticket = self.ticket;
        self.budget.change(|state| state.waiting.retain(|waiting| waiting.ticket != ticket));
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Budget").field(&self.usage()).finish()
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share").field("held_bytes", &self.held_bytes()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
