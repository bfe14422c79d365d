//! Uploads that are open at the object store: clearing away those that nobody goes on with, and trying whether that works.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connectors::memory::MemoryJournal;
use connectors::{Digests, Error as StoreError, Kind, Progress, Put, Source};

use super::super::Error;
use super::Bucket;
use crate::model::BlobKey;

/// A file of more than one part is at least that long, whatever the settings say: Amazon's parts have 5 MiB at the least.
const SEVERAL_PARTS_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// A file whose bytes cannot be read: an upload of it is opened, and nothing is sent.
#[derive(Debug)]
struct Unreadable {
    size: u64,
}

#[async_trait]
impl Source for Unreadable {
    fn size(&self) -> u64 {
        self.size
    }

    fn digests(&self) -> Digests {
        Digests::UNKNOWN
    }

    async fn read_at(&self, _: u64, _: usize) -> connectors::Result<Bytes> {
        Err(StoreError::new(Kind::Local, "reading the file", "it has no bytes"))
    }
}

impl Bucket {
    /// Aborts the uploads that nobody goes on with. Credentials that may not do that are no reason to search again and again:
    /// it is said once, and a lifecycle rule of the bucket must do.
    pub(in super::super) async fn abort_abandoned(&self) -> Result<usize, Error> {
        match self.settings.store.abort_older(&self.settings.prefix, self.settings.abandoned_after).await {
            Err(error) if error.kind == Kind::AccessDenied => {
                if !self.has_warned.swap(true, Ordering::Relaxed) {
                    tracing::warn!(%error, "uploads that a crash cut off stay, as the credentials may not list or abort them");
                }
                Ok(0)
            }
            other => Ok(other?),
        }
    }

    /// Tries all that [`Self::abort_abandoned`] needs: opens an upload under this key, aborts it, and lists uploads.
    pub(in super::super) async fn try_uploads(&self, key: &BlobKey) -> Result<(), Error> {
        let journal = Arc::new(MemoryJournal::default());
        let size = self.settings.limits.part_bytes.saturating_mul(2).max(SEVERAL_PARTS_BYTES_MIN);
        let put = Put {
            name: self.name(key),
            source: Arc::new(Unreadable { size }),
            content_type: String::new(),
            journal: Arc::clone(&journal) as _,
            resume: None,
            progress: Progress::default(),
            memory: self.settings.memory.share(),
        };
        if let Err(error) = self.settings.store.put(put).await
            && error.kind != Kind::Local
        {
            return Err(error.into());
        }
        for open in journal.all() {
            self.settings.store.abort(&open).await?;
        }
        self.settings.store.abort_older(&self.settings.prefix, Duration::MAX).await?;
        Ok(())
    }
}
