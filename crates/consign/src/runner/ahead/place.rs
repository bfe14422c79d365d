//! The place of a head start at the host that it sends to. Files that are whole go first: before its turn, a head start has a
//! slot only while nobody else wants it and parts are under way.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connectors::{Digests, HostSlot, HostSlots, Result, Source};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::files::Arriving;

/// How often a head start that has no slot looks for a free one: nobody tells it, and it stands in no queue.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Where a head start stands at its destination's host.
#[derive(Debug)]
pub(super) struct Place {
    slots: HostSlots,
    host: String,
    standing: Mutex<Standing>,
    /// Told when its turn has come.
    turn: Notify,
}

/// What it may do at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Somebody's turn will come: parts go out while a slot is spare.
    Ahead,
    /// Nobody may write its lines: what is under way ends, and nothing begins.
    Sealed,
    /// A task has taken it over, and with it a slot as any transfer has.
    Come,
}

#[derive(Debug)]
struct Standing {
    turn: Turn,
    slot: Option<HostSlot>,
    part_bytes: u64,
    /// How far parts were let go.
    begun_bytes: u64,
    /// How much of that the destination has acknowledged.
    acknowledged_bytes: u64,
    /// The transfer has ended: nothing needs a slot any more.
    has_left: bool,
}

impl Standing {
    /// Gives the slot up while nothing is under way.
    fn rest(&mut self) {
        if self.turn != Turn::Come && self.begun_bytes <= self.acknowledged_bytes {
            self.slot = None;
        }
    }
}

/// Gives the slot back when the transfer ends, however it does.
pub(super) struct Leaving<'a>(&'a Place);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let mut standing = self.0.standing();
        standing.slot = None;
        standing.has_left = true;
    }
}

impl Place {
    /// At this host, for a file in parts of about this size.
    pub(super) fn new(slots: HostSlots, host: String, part_bytes: u64) -> Self {
        let standing = Standing {
            turn: Turn::Ahead,
            slot: None,
            part_bytes,
            begun_bytes: 0,
            acknowledged_bytes: 0,
            has_left: false,
        };
        Self { slots, host, standing: Mutex::new(standing), turn: Notify::new() }
    }

    /// Is held by the transfer.
    pub(super) fn leaving(&self) -> Leaving<'_> {
        Leaving(self)
    }

    /// An upload is open, perhaps anew: nothing of it has gone out.
    pub(super) fn opened(&self, part_bytes: u64) {
        let mut standing = self.standing();
        (standing.part_bytes, standing.begun_bytes, standing.acknowledged_bytes) = (part_bytes, 0, 0);
        standing.rest();
    }

    /// So many bytes more were acknowledged.
    pub(super) fn acknowledged(&self, bytes: u64) {
        let mut standing = self.standing();
        standing.acknowledged_bytes += bytes;
        standing.rest();
    }

    /// Nothing is under way, though the last part may have been let go already: the file is waited for.
    fn pause(&self) {
        let mut standing = self.standing();
        standing.begun_bytes = 0;
        standing.rest();
    }

    /// Nothing more begins before somebody has taken it over.
    pub(super) fn seal(&self) {
        let mut standing = self.standing();
        standing.turn = Turn::Sealed;
        standing.rest();
    }

    /// Its turn has come: waits for a slot as any transfer does, unless it has one, and keeps it unless it has ended meanwhile.
    ///
    /// # Cancel safety
    /// When dropped, its turn has not come, and its place in the queue is given up.
    pub(super) async fn come(&self) {
        if !self.has_come() {
            let slot = self.slots.take(&self.host).await;
            let mut standing = self.standing();
            standing.slot = (!standing.has_left).then_some(slot);
            standing.turn = Turn::Come;
        }
        self.turn.notify_waiters();
    }

    fn has_come(&self) -> bool {
        let mut standing = self.standing();
        let Some(slot) = &mut standing.slot else { return false };
        slot.settle();
        standing.turn = Turn::Come;
        true
    }

    /// Waits until the bytes before `end` may go out.
    pub(super) async fn admit(&self, end: u64) {
        loop {
            let turn = self.turn.notified();
            if self.is_admitted(end) {
                return;
            }
            // A timeout is what it looks again for.
            let _ = timeout(LOOK_EVERY, turn).await;
        }
    }

    fn is_admitted(&self, end: u64) -> bool {
        let mut standing = self.standing();
        if standing.turn == Turn::Come || end <= standing.acknowledged_bytes {
            return true;
        }
        if standing.slot.is_none() && standing.turn == Turn::Ahead {
            standing.slot = self.slots.spare(&self.host);
        }
        let is_admitted = standing.slot.is_some() && standing.turn == Turn::Ahead;
        if is_admitted {
            standing.begun_bytes = standing.begun_bytes.max(end);
        }
        is_admitted
    }

    /// The end of the part that the byte before `end` lies in.
    fn end_of_part(&self, end: u64) -> u64 {
        end.checked_next_multiple_of(self.standing().part_bytes.max(1)).unwrap_or(u64::MAX)
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file on its way, of which a part is there once it has come whole and may go out.
#[derive(Debug)]
pub(super) struct Paced {
    pub(super) arriving: Arriving,
    pub(super) place: Arc<Place>,
}

#[async_trait]
impl Source for Paced {
    fn size(&self) -> u64 {
        self.arriving.size()
    }

    fn digests(&self) -> Digests {
        self.arriving.digests()
    }

    async fn arrived(&self, end: u64) -> Result<()> {
        // By whole parts, so that whoever sends in smaller pieces does not hold a slot while the rest of a part comes.
        self.arriving.arrived(self.place.end_of_part(end).min(self.size())).await?;
        self.place.admit(end).await;
        Ok(())
    }

    async fn whole(&self) -> Result<()> {
        self.place.pause();
        self.arriving.whole().await
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        self.arriving.read_at(offset, length).await
    }
}
