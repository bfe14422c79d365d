//! Whether this process can work, and what an operator should do if not: what `readyz` and `/metrics` ask.
//!
//! Checks are bounded in time, and shared: whoever asks while somebody is being answered gets the same answer, so that
//! probes cannot become a load.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::disk::Disk;
use super::metrics::{Metrics, USERS_MAX};
use crate::clock::{Clock, Timestamp};
use crate::files::Files;
use crate::store::{CLOCKS_APART_MAX, Store};

/// How long a part of the server may take to say that it works.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an answer holds for whoever probes.
const PROBE_KEPT: Duration = Duration::from_millis(500);
/// How long what was read for metrics holds: a scrape must not be a load.
const SCRAPE_KEPT: Duration = Duration::from_secs(5);

/// One thing that must work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Check {
    /// `database`, `clock`, `file_store`, `runner`, `webhooks` or `serving`.
    name: &'static str,
    /// Whether it works.
    ok: bool,
    /// What is wrong and what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// Whether the server can work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Readiness {
    /// Whether it can.
    pub ready: bool,
    /// Why not.
    reasons: Vec<&'static str>,
    /// What was looked at.
    checks: Vec<Check>,
}

/// What is looked at. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    shared: Arc<Shared>,
}

/// That something works, or what is wrong and what to do.
type Found = Result<(), &'static str>;

/// What is wrong with a part, if anything is, and what to do.
type Look = Box<dyn Fn() -> Option<&'static str> + Send + Sync>;

struct Shared {
    store: Arc<dyn Store>,
    files: Files,
    clock: Clock,
    metrics: Arc<Metrics>,
    disk: Disk,
    parts: std::sync::Mutex<Vec<(&'static str, Look)>>,
    draining: CancellationToken,
    checked: Mutex<Option<(Instant, [Check; 3])>>,
    counted: Mutex<Counted>,
}

/// When the store was counted.
struct Counted {
    /// When it was last asked.
    asked: Option<Instant>,
    /// When it last answered; before, since when this process lives.
    answered: Instant,
}

impl Health {
    /// Looks at these.
    pub fn new(store: Arc<dyn Store>, files: Files, clock: Clock, metrics: Arc<Metrics>, data_dir: PathBuf) -> Self {
        let shared = Shared {
            store,
            files,
            clock,
            metrics,
            disk: Disk::of(data_dir),
            parts: std::sync::Mutex::default(),
            draining: CancellationToken::new(),
            checked: Mutex::default(),
            counted: Mutex::new(Counted { asked: None, answered: Instant::now() }),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Asks a part of this process, too: what is wrong with it, if anything is, and what to do.
    pub fn watch(&self, name: &'static str, look: impl Fn() -> Option<&'static str> + Send + Sync + 'static) {
        self.parts().push((name, Box::new(look)));
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, Vec<(&'static str, Look)>> {
        self.shared.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says from now on that this process is not ready, because it is about to stop.
    pub fn drain(&self) {
        self.shared.draining.cancel();
    }

    /// Whether this process can work.
    pub async fn readiness(&self) -> Readiness {
        self.look(PROBE_KEPT).await
    }

    /// All metrics as text, with what the store counts.
    pub async fn metrics(&self) -> String {
        let shared = &self.shared;
        let readiness = self.look(SCRAPE_KEPT).await;
        let metrics = &shared.metrics;
        let is_ok = |name| i64::from(readiness.checks.iter().any(|check| check.name == name && check.ok));
        metrics.ready.set(i64::from(readiness.ready));
        metrics.database_up.set(is_ok("database"));
        metrics.file_store_up.set(is_ok("file_store"));
        // What does not come in time stays as it was.
        if let Some(space) = shared.disk.space(PATIENCE).await {
            metrics.data_free_bytes.set(i64::try_from(space.free_bytes).unwrap_or(i64::MAX));
            metrics.data_bytes.set(i64::try_from(space.bytes).unwrap_or(i64::MAX));
        }
        // Held while the text is made, so that nobody sees half of the users.
        let mut counted = shared.counted.lock().await;
        if counted.asked.is_none_or(|at| at.elapsed() >= SCRAPE_KEPT) {
            if self.count().await {
                counted.answered = Instant::now();
            }
            counted.asked = Some(Instant::now());
        }
        metrics.counts_age.set(i64::try_from(counted.answered.elapsed().as_secs()).unwrap_or(i64::MAX));
        metrics.text()
    }

    /// Reads what the store counts, and tells whether it could. What does not come in time stays as it was.
    async fn count(&self) -> bool {
        let Shared { store, clock, metrics, .. } = &*self.shared;
        let began = Instant::now();
        let counts = async { Ok((store.counts(clock.now()).await?, store.loads(USERS_MAX).await?)) };
        match timeout(PATIENCE, counts).await {
            Ok(Ok((counts, loads))) => {
                metrics.stored("count", began.elapsed());
                metrics.set_counts(&counts, &loads);
                return true;
            }
            Ok(Err(error)) => {
                let error: crate::store::Error = error;
                tracing::warn!(error = &error as &dyn std::error::Error, "the store cannot be counted");
            }
            Err(_) => tracing::warn!("the store takes too long to be counted"),
        }
        false
    }

    async fn look(&self, kept: Duration) -> Readiness {
        let mut checks = self.checked(kept).await.to_vec();
        // These cost nothing and change at once, so that they are never remembered.
        checks.extend(self.parts().iter().map(|(name, look)| check(name, look().map_or(Ok(()), Err))));
        let stops = "The server is about to stop; send requests to another one.";
        checks.push(check("serving", (!self.shared.draining.is_cancelled()).then_some(()).ok_or(stops)));
        let reasons: Vec<_> = checks.iter().filter_map(|check| check.reason).collect();
        Readiness { ready: reasons.is_empty(), reasons, checks }
    }

    /// What the parts said, not longer ago than this. One asks, the others wait for its answer.
    async fn checked(&self, kept: Duration) -> [Check; 3] {
        let mut checked = self.shared.checked.lock().await;
        if let Some((at, checks)) = &*checked
            && at.elapsed() < kept
        {
            return checks.clone();
        }
        let ((database, clock), files) = tokio::join!(self.database(), self.file_store());
        let checks = [check("database", database), check("clock", clock), check("file_store", files)];
        *checked = Some((Instant::now(), checks.clone()));
        checks
    }

    /// Whether the database can be written to, and whether its clock and this machine's agree, as far as it tells.
    async fn database(&self) -> (Found, Found) {
        let (began, asked) = (Instant::now(), self.shared.clock.now());
        match timeout(PATIENCE, self.shared.store.ping()).await {
            Ok(Ok(told)) => {
                self.shared.metrics.stored("ping", began.elapsed());
                (Ok(()), told.map_or(Ok(()), |told| clocks_agree(asked, told, self.shared.clock.now())))
            }
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the database is not ready");
                let reason = "The database does not answer or cannot be written to: see that it runs, and that its disk has room.";
                (Err(reason), Ok(()))
            }
            Err(_) => {
                let reason = "The database takes too long to answer: see to its load, its disk and the way to it.";
                (Err(reason), Ok(()))
            }
        }
    }

    /// The one place that asks the file store, of whatever kind it is.
    async fn file_store(&self) -> Found {
        match timeout(PATIENCE, self.shared.files.ping()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the file store is not ready");
                Err("The file store cannot be written to, or its disk is full: make room, or see to its rights.")
            }
            Err(_) => Err("The file store takes too long to answer: see to its load and the way to it."),
        }
    }
}

/// Whether a database that was asked at one moment, and had answered at another, told a time between them, or nearly so.
fn clocks_agree(asked: Timestamp, told: Timestamp, answered: Timestamp) -> Found {
    let apart = told.since(answered).max(asked.since(told));
    if apart <= CLOCKS_APART_MAX {
        return Ok(());
    }
    tracing::warn!(apart_secs = apart.as_secs(), "the clocks of this machine and of the database differ");
    Err(
        "The clocks of this machine and of the database differ, so that processes do not agree on what is due: synchronise \
         them (NTP).",
    )
}

fn check(name: &'static str, found: Found) -> Check {
    Check { name, ok: found.is_ok(), reason: found.err() }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Health")
    }
}
