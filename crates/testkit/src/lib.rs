//! Starts the real servers that the tests deliver to, on loopback, and breaks the connections to them on demand.
//!
//! - [`sshd()`] and [`ceph()`]: an OpenSSH server and a Ceph gateway (S3), started once for all test processes of a run
//! - [`gcs()`]: a stand-in for Google Cloud Storage (an emulator behind a gate of ours), likewise
//! - [`azurite()`]: a server of the Azure Blob protocol, likewise
//! - [`openstack()`]: Keystone and Swift (its S3 API included), likewise
//! - [`postgres()`]: a PostgreSQL server with a fresh database for each test, and [`own_postgres()`]: one that a test may crash
//! - [`pooler()`]: PgBouncer in front of one
//! - [`proxy::Proxy`]: a TCP connection that is cut, stalls, flips a bit, refuses or dawdles
//! - [`egress`]: spellings of addresses that the egress guard must refuse
//! - [`http_faults::HttpFaults`]: an HTTP path that throttles or loses an answer
//! - [`bytes`]: large data that is made from a seed and known by its hashes
//! - [`namespace`]: port 443 and host names of a test's own
//! - [`tls`]: TLS in front of any server, for names of one's choice
//! - [`tool`], [`witness`], [`openssh`]: client programs by other hands, as independent witnesses
//! - [`clients`]: programs written for the hosted service, and the record of what they did, for `docs/generated/clients.md`
//! - [`conformance`]: writes down what was shown, for `docs/generated/conformance.md`
//!
//! A test asks for a server and leaves when the machine has none (in CI that is a failure instead):
//!
//! ```no_run
//! # async fn test() {
//! let Some(sshd) = testkit::or_skip(testkit::sshd().await) else { return };
//! # }
//! ```
//!
//! The servers come from `scripts/testbed`; `scripts/testbed/setup.sh` installs them.
#![forbid(unsafe_code)]

mod azurite;
pub mod bytes;
mod ceph;
pub mod clients;
pub mod conformance;
pub mod egress;
mod gcs;
pub mod http_faults;
pub mod namespace;
pub mod openssh;
mod openstack;
mod place;
mod pooler;
mod postgres;
pub mod proxy;
mod record;
mod server;
mod sshd;
pub mod tls;
pub mod tool;
pub mod witness;

use std::fmt;

pub use anyhow::Result;

pub use crate::azurite::{Azurite, azurite};
pub use crate::ceph::{Account, Ceph, ceph};
pub use crate::gcs::{Gcs, gcs};
pub use crate::openstack::{OpenStack, User, openstack};
pub use crate::place::{in_ci, note_skipped};
pub use crate::pooler::{CONNECTIONS as POOLER_CONNECTIONS, Pooler, pooler};
pub use crate::postgres::{OwnPostgres, Postgres, own_postgres, postgres};
pub use crate::sshd::{Key, Sshd, sshd};

/// Something that the machine does not have and a test cannot do without.
#[derive(Debug)]
pub struct Missing {
    what: String,
    remedy: String,
}

impl Missing {
    pub(crate) fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is missing: {}", self.what, self.remedy)
    }
}

impl std::error::Error for Missing {}

/// Gives what was asked for, or nothing when the machine lacks it: the test then returns, and a line says why.
///
/// # Panics
/// On every other error, and in CI (`CI` is set) also when something is missing.
#[must_use]
#[track_caller]
#[expect(clippy::print_stderr, clippy::panic, reason = "it speaks to whoever runs the tests, and ends one of them")]
pub fn or_skip<T>(result: Result<T>) -> Option<T> {
    match result {
        Ok(it) => Some(it),
        Err(error) if error.is::<Missing>() && !in_ci() => {
            let place = std::panic::Location::caller();
            let line = format!("skipped: {} ({}:{})", error, place.file(), place.line());
            eprintln!("{line}");
            note_skipped(&line);
            None
        }
        Err(error) => panic!("{error:#}"),
    }
}
