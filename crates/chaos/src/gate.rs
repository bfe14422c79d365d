//! An HTTP server behind a path that fails requests on demand, and counts those that it failed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use testkit::http_faults::{Action, HttpFaults};

/// One in so many requests fails while a server does.
const FAILS_ONE_IN: u64 = 3;

/// The path; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Gate {
    faults: HttpFaults,
    spoilt: Arc<AtomicU64>,
}

impl Gate {
    /// Listens at an address of this machine and passes everything on.
    pub(crate) async fn start(address: IpAddr, server: SocketAddr) -> Result<Self> {
        Ok(Self { faults: HttpFaults::start_on(address, server).await?, spoilt: Arc::default() })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.faults.addr()
    }

    pub(crate) fn endpoint(&self) -> String {
        self.faults.endpoint()
    }

    /// From now on some requests are answered with 500 or 503, and not carried out.
    pub(crate) fn answer_errors(&self) {
        self.rule(|number| match number % (2 * FAILS_ONE_IN) {
            0 => Action::Answer { status: 500, retry_after_secs: None },
            FAILS_ONE_IN => Action::Answer { status: 503, retry_after_secs: Some(1) },
            _ => Action::Pass,
        });
    }

    /// From now on some requests are carried out, and their answers are lost.
    pub(crate) fn lose_answers(&self) {
        self.rule(|number| if number % FAILS_ONE_IN == 0 { Action::DropAnswer } else { Action::Pass });
    }

    /// From now on half of the requests are cut.
    pub(crate) fn cut(&self) {
        self.rule(|number| if number % 2 == 0 { Action::Drop } else { Action::Pass });
    }

    /// From now on everything that was opened in this century was opened a century before: the server says so of uploads.
    pub(crate) fn age_uploads(&self) {
        self.faults.rule(|_| Action::Replace("<Initiated>20", "<Initiated>19"));
    }

    /// All works again.
    pub(crate) fn heal(&self) {
        self.faults.heal();
    }

    /// How many requests failed since this was asked before.
    pub(crate) fn take_spoilt(&self) -> u64 {
        self.spoilt.swap(0, Ordering::Relaxed)
    }

    fn rule(&self, action: fn(u64) -> Action) {
        let spoilt = Arc::clone(&self.spoilt);
        self.faults.rule(move |request| {
            let action = action(request.number);
            if action != Action::Pass {
                spoilt.fetch_add(1, Ordering::Relaxed);
            }
            action
        });
    }
}
