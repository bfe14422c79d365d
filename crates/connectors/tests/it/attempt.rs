//! An upload that may take several attempts, and what must be true behind it.

use std::sync::Arc;
use std::time::Duration;

use connectors::contract;
use connectors::memory::{MemoryJournal, MemorySource};
use connectors::{Connector, Progress, Receipt, Result};
use testkit::proxy::Proxy;

/// A journal with a source, and what an attempt needs beside them.
pub(crate) struct Attempt {
    pub(crate) source: Arc<MemorySource>,
    pub(crate) journal: Arc<MemoryJournal>,
    pub(crate) progress: Progress,
}

impl Attempt {
    pub(crate) fn of(size: usize, seed: u64) -> Self {
        Self {
            source: Arc::new(MemorySource::new(contract::bytes(size, seed))),
            journal: Arc::default(),
            progress: Progress::default(),
        }
    }

    /// Tries to put the source, going on with what an earlier attempt left open.
    pub(crate) async fn put(&self, connector: &dyn Connector, name: &str) -> Result<Receipt> {
        let resume = self.journal.open(name);
        connector.put(contract::request(name, &self.source, &self.journal, &self.progress, resume)).await
    }

    /// Checks that the object is whole, the journal empty and the count right.
    pub(crate) async fn is_whole(&self, connector: &dyn Connector, name: &str) {
        assert!(contract::get(connector, name).await.unwrap() == *self.source.bytes(), "other bytes came back");
        self.is_settled(name);
    }

    /// Checks that the journal is empty and the count right.
    pub(crate) fn is_settled(&self, name: &str) {
        assert_eq!(self.journal.open(name), None);
        assert_eq!(self.progress.bytes(), self.source.bytes().len() as u64);
    }

    /// Checks that, while the other side takes no byte, as many requests wait for it as may be in flight, and no more, and
    /// that no more of the source was read than that takes.
    pub(crate) async fn goes_out_side_by_side(
        self,
        connector: impl Connector + 'static,
        proxy: &Proxy,
        in_flight: usize,
        read_bytes_max: u64,
    ) -> (Self, Box<dyn Connector>) {
        proxy.stall_after(1024 * 1024);
        let source = Arc::clone(&self.source);
        let sending = tokio::spawn(async move {
            self.put(&connector, "x").await.unwrap();
            (self, Box::new(connector) as Box<dyn Connector>)
        });
        while proxy.connections() < in_flight as u64 && !sending.is_finished() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(proxy.connections(), in_flight as u64);
        assert!(source.read_bytes() <= read_bytes_max, "{} bytes were read", source.read_bytes());
        proxy.heal();
        sending.await.unwrap()
    }
}
