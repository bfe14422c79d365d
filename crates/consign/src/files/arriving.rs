//! A file that is still being received, readable as far as it has come.

use std::fs::File;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use connectors::{Digests, Error, Kind, Result, Source};
use tokio::sync::watch;

use super::folder::source::LocalSource;

/// A file that is being received. It counts as whole only when its holder says so ([`Whole::say`]): bytes may have come that
/// nobody wants in the end.
#[derive(Clone, Debug)]
pub struct Arriving {
    /// Reads the file.
    bytes: Arc<LocalSource>,
    /// Bytes that are in the file, from its beginning.
    arrived: watch::Receiver<u64>,
    whole: watch::Receiver<Option<Digests>>,
    digests: Arc<OnceLock<Digests>>,
}

/// Says when an [`Arriving`] file is whole. Dropped before, it never is.
#[derive(Debug)]
pub struct Whole(watch::Sender<Option<Digests>>);

impl Whole {
    /// The file is whole and wanted, and has these digests.
    pub fn say(&self, digests: Digests) {
        self.0.send_replace(Some(digests));
    }
}

impl Arriving {
    /// A file that will have `size` bytes.
    pub(super) fn new(file: Arc<File>, size: u64, arrived: watch::Receiver<u64>) -> (Self, Whole) {
        let (say, whole) = watch::channel(None);
        let bytes = Arc::new(LocalSource::of(file, size, Digests::UNKNOWN));
        (Self { bytes, arrived, whole, digests: Arc::default() }, Whole(say))
    }
}

fn never() -> Error {
    Error::new(Kind::Local, "reading the file", "a file that was to come did not come whole")
}

#[async_trait]
impl Source for Arriving {
    fn size(&self) -> u64 {
        self.bytes.size()
    }

    fn digests(&self) -> Digests {
        self.digests.get().copied().unwrap_or(Digests::UNKNOWN)
    }

    async fn arrived(&self, end: u64) -> Result<()> {
        self.arrived.clone().wait_for(|arrived| *arrived >= end).await.map(drop).map_err(|_| never())
    }

    async fn whole(&self) -> Result<()> {
        let mut whole = self.whole.clone();
        let digests = whole.wait_for(Option::is_some).await.map_err(|_| never())?;
        if let Some(digests) = *digests {
            let _ = self.digests.set(digests);
        }
        Ok(())
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        self.bytes.read_at(offset, length).await
    }
}
