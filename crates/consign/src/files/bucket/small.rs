//! Small objects: the mark of the bucket, and what is written to see whether anything can be.

use std::sync::Arc;

use bytes::Bytes;
use connectors::memory::{MemoryJournal, MemorySource};
use connectors::{Budget, Connector, Kind, Progress, Put, download};
use futures_util::TryStreamExt as _;

use super::super::{Error, mark};
use super::Bucket;

/// Media type of small objects.
const MEDIA_TYPE: &str = "text/plain";
/// What is written to see whether anything can be.
const PROBE: &[u8] = b"consign sees whether it can write";

impl Bucket {
    pub(in super::super) fn mark_name(&self) -> String {
        format!("{}{}", self.settings.prefix, mark::NAME)
    }

    /// What stands in the mark, if there is one.
    pub(in super::super) async fn read_mark(&self) -> Result<Option<Vec<u8>>, Error> {
        let store: Arc<dyn Connector> = Arc::clone(&self.settings.store) as _;
        let object = match store.stat(&self.mark_name()).await {
            Err(error) if error.kind == Kind::NotFound => return Ok(None),
            other => other?,
        };
        let size = object.size.min(mark::BYTES_MAX);
        let mut stream = download::part(store, Arc::new(object), 0..size, self.settings.limits.tries);
        let mut bytes = Vec::new();
        while let Some(chunk) = stream.try_next().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes))
    }

    /// Writes the mark. Where that fails, a mark that somebody else has written meanwhile stays.
    pub(in super::super) async fn write_mark(&self, text: String) -> Result<(), Error> {
        self.write_small(&self.mark_name(), text.into()).await
    }

    /// Writes a small object and deletes it. What stays when that fails or is dropped, the next try under this name removes: a
    /// clean-up after each would gather requests at a store that answers none.
    pub(super) async fn come_and_go(&self, name: &str) -> Result<(), Error> {
        self.write_small(name, Bytes::from_static(PROBE)).await?;
        Ok(self.settings.store.delete(name).await?)
    }

    /// Writes an object that is small enough to be sent in one piece.
    async fn write_small(&self, name: &str, bytes: Bytes) -> Result<(), Error> {
        let put = Put {
            name: name.to_owned(),
            source: Arc::new(MemorySource::new(bytes)),
            content_type: MEDIA_TYPE.to_owned(),
            journal: Arc::new(MemoryJournal::default()),
            resume: None,
            progress: Progress::default(),
            // Not of the memory that transfers share: whoever asks whether this works must not wait for them.
            memory: Budget::default().share(),
        };
        self.settings.store.put(put).await?;
        Ok(())
    }
}
