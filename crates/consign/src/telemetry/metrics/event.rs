//! What is counted: things that happen, and things that are open.

use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;

use super::labels::ReasonLabels;

/// Why a lease was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseLoss {
    /// Others declared this process dead.
    SessionExpired,
    /// This process could not renew in time and stopped its work.
    Fenced,
    /// The end of an attempt came too late and was dropped.
    StaleResult,
}

impl LeaseLoss {
    pub(super) const ALL: [Self; 3] = [Self::SessionExpired, Self::Fenced, Self::StaleResult];

    pub(super) fn label(self) -> ReasonLabels {
        let reason = match self {
            Self::SessionExpired => "session_expired",
            Self::Fenced => "fenced",
            Self::StaleResult => "stale_result",
        };
        ReasonLabels { reason }
    }
}

/// A file that was moved from or to a host.
#[derive(Clone, Copy, Debug)]
pub struct Moved<'a> {
    /// The operation that moved it.
    pub operation: &'a str,
    /// The other side, if there is one.
    pub host: Option<&'a str>,
    /// It came in, or else went out.
    pub is_import: bool,
    /// Its length, if all of it was moved.
    pub size_bytes: Option<u64>,
    /// How long that took.
    pub took: Duration,
}

/// Counts in a gauge as long as it lives.
#[derive(Debug)]
pub struct Held(Gauge);

impl Held {
    /// Counts one more.
    pub fn of(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}
