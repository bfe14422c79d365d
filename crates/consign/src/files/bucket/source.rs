//! Reading a kept file at any offset, by ranges.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use connectors::{Connector, Digests, Error, Kind, Object, ObjectStore, Retry, Source, download};
use futures_util::TryStreamExt as _;

use crate::model::File;

const ACTION: &str = "reading the file";

/// A kept file. Each reading is a request of its own, which is sent again when it breaks.
#[derive(Debug)]
pub(super) struct BucketSource {
    store: Arc<dyn ObjectStore>,
    object: Arc<Object>,
    digests: Digests,
    tries: u32,
}

impl BucketSource {
    /// Without the mark of its version: a name never gets other bytes, but a copy that is made again gets another mark.
    pub(super) fn new(store: Arc<dyn ObjectStore>, name: String, file: &File, tries: u32) -> Self {
        let object = Object { name, size: file.size, etag: None, content_type: None };
        Self { store, object: Arc::new(object), digests: file.digests, tries }
    }
}

#[async_trait]
impl Source for BucketSource {
    fn size(&self) -> u64 {
        self.object.size
    }

    fn digests(&self) -> Digests {
        self.digests
    }

    async fn read_at(&self, offset: u64, length: usize) -> connectors::Result<Bytes> {
        let end = offset.saturating_add(length as u64);
        if end > self.object.size {
            return Err(Error::new(Kind::Local, ACTION, "a file of this server is shorter than it should be"));
        }
        let store: Arc<dyn Connector> = Arc::clone(&self.store) as _;
        let mut stream = download::part(store, Arc::clone(&self.object), offset..end, self.tries);
        let mut bytes = BytesMut::with_capacity(length);
        while let Some(chunk) = stream.try_next().await.map_err(failed)? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }
}

/// The file store's fault is not the destination's: it keeps its cause for the log, and is tried again but for what is gone.
fn failed(error: Error) -> Error {
    let retry = if error.kind == Kind::NotFound || error.is_transient() { error.retry } else { Retry::Later(None) };
    Error::new(Kind::Local, ACTION, "the file store of this server could not be read").because(error).retrying(retry)
}
