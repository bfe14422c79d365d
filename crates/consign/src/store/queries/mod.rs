//! Every statement of the store, written once: each database includes this folder with its own `Db`, and its own
//! `dialect` for the little that differs.
//!
//! What keeps the text portable: `$n` parameters, `BIGINT` moments and counts, JSON as text that is never queried,
//! `CASE` instead of `max`, `RETURNING`, `ON CONFLICT`, no statement inside a common table expression. A statement that
//! changes a task's state has its old state, and the lease where there is one, in its `WHERE`: zero rows mean that the
//! change came too late.

use std::collections::BTreeSet;

use sqlx::Database;
use uuid::Uuid;

use super::{Db, Link, dialect, sets};
use crate::store::Hints;

pub(crate) mod accounts;
pub(crate) mod claim;
pub(crate) mod deliveries;
pub(crate) mod jobs;
pub(crate) mod ledger;
pub(crate) mod lists;
pub(crate) mod rows;
pub(crate) mod sessions;
pub(crate) mod settle;
pub(crate) mod signed_urls;
pub(crate) mod state;
pub(crate) mod sweep;
pub(crate) mod tables;
pub(crate) mod transitions;
pub(crate) mod webhooks;

/// A connection.
pub(crate) type Conn = <Db as Database>::Connection;
/// A row of an answer.
pub(crate) type Row = <Db as Database>::Row;

/// A transaction that is being written, and what to announce once it is on stable storage.
pub(crate) struct Tx {
    /// The connection, inside the transaction.
    pub(crate) conn: Link,
    /// What this command changed.
    pub(crate) changed: Changed,
}

/// What to announce after the commit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Changed {
    /// Tasks can be claimed.
    pub(crate) ready: bool,
    /// A claim left out tasks that others were changing.
    pub(crate) left_out: bool,
    /// There is something to clean up.
    pub(crate) sweep: bool,
    /// The outbox has something to tell.
    pub(crate) outbox: bool,
    /// Deliveries are due.
    pub(crate) deliveries: bool,
    /// Jobs and tasks that changed.
    pub(crate) ids: BTreeSet<Uuid>,
}

impl Changed {
    /// Tells those who wait in this process.
    pub(crate) fn announce(self, hints: &Hints) {
        hints.announce(self.ids);
        if self.ready {
            hints.announce_ready();
        }
        if self.left_out {
            hints.announce_left_out();
        }
        if self.outbox {
            hints.announce_outbox();
        }
        if self.deliveries {
            hints.announce_deliveries();
        }
        if self.sweep {
            hints.announce_sweep();
        }
    }
}
