//! The journal of one attempt: writes the ledger for the connector, as long as the lease holds.

use std::sync::Arc;

use async_trait::async_trait;
use connectors::{Error, Journal, Kind, OpenUpload, Part, Result, Retry};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::id::{TaskId, Token};
use crate::store::{self, Store};

/// Writes the ledger for one attempt of a task.
#[derive(Debug)]
pub(super) struct TaskJournal {
    pub(super) store: Arc<dyn Store>,
    pub(super) id: TaskId,
    pub(super) token: Token,
    pub(super) clock: Clock,
    /// Stops the attempt once its lease is known to be lost.
    pub(super) cancel: CancellationToken,
}

impl TaskJournal {
    fn held(&self, written: store::Result<bool>) -> Result<()> {
        match written {
            Ok(true) => Ok(()),
            Ok(false) => {
                self.cancel.cancel();
                Err(Error::new(Kind::Local, "writing the ledger", "the lease on the task was lost"))
            }
            Err(error) => Err(failed(error)),
        }
    }
}

fn failed(error: store::Error) -> Error {
    // The database may answer again; the task must not fail because it did not once.
    Error::new(Kind::Local, "writing the ledger", "the ledger could not be written")
        .retrying(Retry::Later(None))
        .because(error)
}

#[async_trait]
impl Journal for TaskJournal {
    async fn opened(&self, open: &OpenUpload) -> Result<()> {
        let written = self.store.ledger_open(self.id, self.token, open, self.clock.now()).await;
        connectors::fail_point!("ledger.opened");
        self.held(written)
    }

    async fn part(&self, target: &str, number: u32, part: &Part) -> Result<()> {
        let written = self.store.ledger_part(self.id, self.token, target, number, part).await;
        connectors::fail_point!("ledger.part");
        self.held(written)
    }

    async fn closed(&self, target: &str) -> Result<()> {
        let written = self.store.ledger_close(self.id, self.token, target).await;
        connectors::fail_point!("ledger.closed");
        self.held(written)
    }
}
