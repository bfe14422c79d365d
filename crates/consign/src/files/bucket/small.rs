//! A small object that is written to see whether anything can be.

use std::sync::Arc;

use bytes::Bytes;
use connectors::memory::{MemoryJournal, MemorySource};
use connectors::{Budget, Progress, Put};

use super::super::Error;
use super::Bucket;

/// Media type of small objects.
const MEDIA_TYPE: &str = "text/plain";
/// What is written to see whether anything can be.
const PROBE: &[u8] = b"consign sees whether it can write";

impl Bucket {
    /// Writes a small object and deletes it; what is dropped or fails leaves nothing.
    pub(super) async fn come_and_go(&self, name: String) -> Result<(), Error> {
        let journal = Arc::default();
        let guard = self.unpublished(name.clone(), Arc::clone(&journal));
        if let Err(error) = self.write_small(&name, Bytes::from_static(PROBE), journal).await {
            guard.clear().await;
            return Err(error);
        }
        let deleted = self.settings.store.delete(&name).await;
        guard.keep();
        Ok(deleted?)
    }

    /// Writes an object that is small enough to be sent in one piece.
    async fn write_small(&self, name: &str, bytes: Bytes, journal: Arc<MemoryJournal>) -> Result<(), Error> {
        let put = Put {
            name: name.to_owned(),
            source: Arc::new(MemorySource::new(bytes)),
            content_type: MEDIA_TYPE.to_owned(),
            journal,
            resume: None,
            progress: Progress::default(),
            // Not of the memory that transfers share: whoever asks whether this works must not wait for them.
            memory: Budget::default().share(),
        };
        self.settings.store.put(put).await?;
        Ok(())
    }
}
