//! The dispatcher of webhooks: makes deliveries of what the outbox has to tell, and sends them until they arrived.
//!
//! Two loops: one turns lines of the outbox into deliveries ([`Teller`]), the other takes deliveries that are due and
//! sends each in a task of its own ([`send`]). Both are woken by hints of the store and look again by themselves after a
//! while. In a fleet each process takes lines of the outbox from the others for a while, so that they share the work.
//! Deliveries are rows, claimed by a lease in their due time: any number of processes may send, and what a process was
//! sending when it died is due again. So a receiver gets everything at least once, in no particular order.
//!
//! One that is slow delays nobody else: what is sent at once is bounded in all, by user and by receiver, and a claim goes
//! from receiver to receiver, so that nobody's backlog can fill it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use connectors::http::Client;
use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::http::event::Teller;
use crate::id::DeliveryId;
use crate::secret::Vault;
use crate::store::{self, DeliveryClaim, OutboxLine, Parcel, Receiver, Store};
use crate::telemetry::loops::Loops;
use crate::telemetry::metrics::Metrics;

pub mod retry;
pub mod send;
pub mod sign;

/// Time between looks that nobody asked for.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// Pause after the database failed.
const FAILED_PAUSE: Duration = Duration::from_secs(2);
/// The shortest pause between looks while there is more due than may be sent.
const BOUNDED_PAUSE: Duration = Duration::from_secs(1);
/// Lines of the outbox that are read, or taken, in one go.
const LINES: u32 = 100;
/// For how long a process takes lines from the others: what one that died had, or failed to tell, is left for so long. Should it
/// take longer, two tell the same line, and the second one finds it told.
const TAKEN_FOR: Duration = Duration::from_secs(10);
/// Lines that are told at once: their transactions share a commit on SQLite. Each needs a connection on PostgreSQL, where half of
/// those that a process has by default are left to others.
const TELLING_MAX: usize = 8;
/// Deliveries that this process sends at once.
const SENDING_MAX: u32 = 64;
/// Those of one user.
const SENDING_PER_USER_MAX: u32 = 16;
/// Those to one webhook, or to one host that a user's jobs name.
const SENDING_PER_RECEIVER_MAX: u32 = 4;
/// How long a claim holds: far above the time that an attempt may take.
const LEASE: Duration = Duration::from_mins(1);
/// Time between removals of old deliveries.
const EXPIRE_EVERY: Duration = Duration::from_mins(1);
/// Deliveries that are removed in one transaction.
const EXPIRE_BATCH: u32 = 500;

/// What a dispatcher works with.
#[derive(Clone, Debug)]
pub struct Tools {
    /// Where the outbox and the deliveries are.
    pub store: Arc<dyn Store>,
    /// The guarded way out.
    pub client: Client,
    /// Opens what is sealed.
    pub vault: Arc<Vault>,
    /// The time.
    pub clock: Clock,
    /// Counters of this process.
    pub metrics: Arc<Metrics>,
    /// Makes deliveries of the outbox.
    pub teller: Teller,
    /// How long deliveries are kept after they ended.
    pub retention: Duration,
    /// No other process can be alive on this database.
    pub exclusive: bool,
}

/// A running dispatcher. Cheap to clone.
#[derive(Clone)]
pub struct Dispatcher {
    shared: Arc<Shared>,
}

struct Shared {
    tools: Tools,
    sending: Mutex<HashMap<DeliveryId, Receiver>>,
    freed: Notify,
    loops: Loops,
    attempts: TaskTracker,
}

impl Dispatcher {
    /// Starts telling.
    ///
    /// # Errors
    /// The store's.
    pub async fn start(tools: Tools) -> store::Result<Self> {
        if tools.exclusive {
            tools.store.release_deliveries(tools.clock.now()).await?;
            connectors::fail_point!("webhook.released");
        }
        let dispatcher = Self {
            shared: Arc::new(Shared {
                tools,
                sending: Mutex::default(),
                freed: Notify::new(),
                loops: Loops::default(),
                attempts: TaskTracker::new(),
            }),
        };
        let loops = &dispatcher.shared.loops;
        loops.start(dispatcher.clone().tell());
        loops.start(dispatcher.clone().send());
        loops.start(dispatcher.clone().expire());
        Ok(dispatcher)
    }

    /// Stops: starts no attempt any more, and lets those under way end, for `grace` at the most.
    pub async fn stop(&self, grace: Duration) {
        let shared = &self.shared;
        shared.loops.stop().await;
        shared.attempts.close();
        if timeout(grace, shared.attempts.wait()).await.is_err() {
            tracing::info!("some webhooks are still being sent; they are sent again after the next start");
        }
    }

    /// What keeps webhooks from being sent here, if anything does, and what to do.
    pub fn trouble(&self) -> Option<&'static str> {
        self.shared.loops.is_broken().then_some(
            "A part of what sends webhooks has ended by a fault of the program: restart this process; its log says more.",
        )
    }

    fn tools(&self) -> &Tools {
        &self.shared.tools
    }

    fn sending(&self) -> std::sync::MutexGuard<'_, HashMap<DeliveryId, Receiver>> {
        self.shared.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Turns the outbox into deliveries until it is cancelled.
    async fn tell(self) {
        let tools = self.tools();
        // In a fleet nobody announces that somebody has died with lines that he had taken.
        let look_again = if tools.exclusive { LOOK_AGAIN } else { TAKEN_FOR };
        loop {
            let pause = match self.tell_all().await {
                Ok(()) => look_again,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the outbox has to wait");
                    FAILED_PAUSE
                }
            };
            // A timeout here is the safety net, not a failure.
            let _ = timeout(pause, tools.store.hints().outbox()).await;
        }
    }

    async fn tell_all(&self) -> store::Result<()> {
        loop {
            let lines = self.take_lines().await?;
            // One that cannot be told must not keep the others from being told.
            let mut outcome = Ok(());
            for some in lines.chunks(TELLING_MAX) {
                let telling: Vec<_> = some.iter().map(|line| self.tools().teller.tell(*line)).collect();
                outcome = join_all(telling).await.into_iter().fold(outcome, Result::and);
            }
            outcome?;
            if lines.len() < LINES as usize {
                return Ok(());
            }
        }
    }

    /// Lines that this process is to tell. One that is alone has all anyway; what was taken by the one before it must not wait.
    async fn take_lines(&self) -> store::Result<Vec<OutboxLine>> {
        let store = &self.tools().store;
        if self.tools().exclusive {
            return store.outbox(LINES).await;
        }
        // Taking is a transaction: not for nothing.
        if store.outbox(1).await?.is_empty() {
            return Ok(Vec::new());
        }
        let now = store.session_time(self.tools().clock.now()).await?;
        store.take_outbox(LINES, now, now.plus(TAKEN_FOR)).await
    }

    /// Sends what is due until it is cancelled.
    async fn send(self) {
        loop {
            let pause = match self.send_due().await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "webhooks have to wait");
                    FAILED_PAUSE
                }
            };
            tokio::select! {
                () = self.tools().store.hints().deliveries() => {}
                () = self.shared.freed.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Starts attempts at what is due, as far as there is room. Returns when to look again.
    async fn send_due(&self) -> store::Result<Duration> {
        let tools = self.tools();
        let now = tools.clock.now();
        match tools.store.next_delivery().await? {
            None => return Ok(LOOK_AGAIN),
            Some(due_at) if due_at > now => return Ok(due_at.since(now).min(LOOK_AGAIN)),
            Some(_) => {}
        }
        let sending: Vec<Receiver> = self.sending().values().copied().collect();
        let max = SENDING_MAX.saturating_sub(u32::try_from(sending.len()).unwrap_or(u32::MAX));
        if max == 0 {
            return Ok(LOOK_AGAIN);
        }
        let claim = DeliveryClaim {
            max,
            per_receiver_max: SENDING_PER_RECEIVER_MAX,
            per_user_max: SENDING_PER_USER_MAX,
            sending,
            lease_until: now.plus(LEASE),
            now,
        };
        for parcel in tools.store.claim_deliveries(claim).await? {
            connectors::fail_point!("webhook.claimed");
            self.start_attempt(parcel);
        }
        // What is due and was not taken is over a bound; it hides when something else will be due.
        let next = tools.store.next_delivery().await?;
        Ok(next.map_or(LOOK_AGAIN, |due_at| due_at.since(now).clamp(BOUNDED_PAUSE, LOOK_AGAIN)))
    }

    fn start_attempt(&self, parcel: Parcel) {
        let (id, receiver) = (parcel.id, parcel.receiver);
        self.sending().insert(id, receiver);
        let dispatcher = self.clone();
        self.shared.attempts.spawn(async move {
            let _sending = Sending { dispatcher: &dispatcher, id };
            send::attempt(dispatcher.tools(), parcel).await;
        });
    }

    /// Removes old deliveries until it is cancelled.
    async fn expire(self) {
        loop {
            match self.expire_some().await {
                Ok(removed) if removed >= u64::from(EXPIRE_BATCH) => continue,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "old deliveries are not removed yet");
                }
            }
            tokio::time::sleep(EXPIRE_EVERY).await;
        }
    }

    /// Removes some by the database's clock, where processes share one: what one of them removes is gone for all.
    async fn expire_some(&self) -> store::Result<u64> {
        let tools = self.tools();
        let now = tools.store.session_time(tools.clock.now()).await?;
        tools.store.expire_deliveries(now.minus(tools.retention), EXPIRE_BATCH).await
    }
}

/// A delivery that is being sent; makes room when it is dropped.
struct Sending<'a> {
    dispatcher: &'a Dispatcher,
    id: DeliveryId,
}

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.dispatcher.sending().remove(&self.id);
        self.dispatcher.shared.freed.notify_one();
    }
}

impl fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher").field("sending", &self.sending().len()).finish_non_exhaustive()
    }
}
