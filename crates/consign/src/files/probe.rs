//! Trying all that a file store must be able to do, with a few bytes.

use bytes::Bytes;
use connectors::Progress;
use futures_util::stream;

use super::{Error, Files, Place};
use crate::clock::Timestamp;
use crate::id::{TaskId, Token};
use crate::model::{BlobKey, File};

/// What is written, and read back.
const PROBE: &[u8] = b"consign tries its file store";
/// Times that it is tried, should what was kept be gone.
const TRIES: u32 = 3;

impl Files {
    /// Keeps a few bytes under a name that no task has, gives them a second name, reads, lists and removes them. In an object
    /// store it opens an upload as well, aborts it, and lists uploads.
    ///
    /// # Errors
    /// Those of the step that failed; what was kept is removed as far as that can be done.
    pub async fn probe(&self) -> Result<(), Error> {
        let mut number = 1;
        loop {
            let task = TaskId::new(Timestamp(0));
            let tried = self.try_as(task).await;
            let removed = self.remove_task(task).await;
            match tried.and(removed) {
                // The search of a running server removes what no row names, and comes once an hour.
                Err(Error::Disk(error)) if number < TRIES => {
                    tracing::debug!(%error, "the file store is tried again");
                    number += 1;
                }
                other => return other,
            }
        }
    }

    async fn try_as(&self, task: TaskId) -> Result<(), Error> {
        let token = Token::random();
        let (first, second) = (BlobKey::new(task, token, 1), BlobKey::new(task, token, 2));
        let bytes = Box::pin(stream::iter([Ok(Bytes::from_static(PROBE))]));
        let size = PROBE.len() as u64;
        let received = self.receive(&first, bytes, Some(size), size, &Progress::default()).await?;
        self.link(&first, &second, received.digests).await?;
        let file = File {
            name: "probe".to_owned(),
            size,
            digests: received.digests,
            content_type: String::new(),
            blob: None,
            download: None,
            receipt: None,
        };
        let source = self.source(&second, &file).await?;
        let read = source.read_at(0, PROBE.len()).await?;
        if read != PROBE || self.attempts(task).await? != [token] {
            return Err(Error::Disk(std::io::Error::other("what was kept is not what comes back")));
        }
        match &self.place {
            Place::Folder(_) => Ok(()),
            Place::Bucket(bucket) => bucket.try_uploads(&BlobKey::new(task, token, 3)).await,
        }
    }
}
