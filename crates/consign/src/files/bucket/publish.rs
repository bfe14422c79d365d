//! The ways in: a scratch file that is sent, and a file that is copied within the bucket.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use connectors::memory::MemoryJournal;
use connectors::{Connector, Kind, ObjectStore, Progress, Put, download};
use futures_util::{StreamExt as _, stream};

use super::super::check::Room;
use super::super::folder::source::LocalSource;
use super::super::stream::{Terms, pour};
use super::super::{Error, Received};
use super::Bucket;
use crate::model::BlobKey;

/// Media type of the objects: what a file is, its row knows.
const MEDIA_TYPE: &str = "application/octet-stream";
/// Copies of one task under way at once.
const COPIES_AT_ONCE: usize = 8;
/// After this time what a dropped upload left is cleared away once more: its last request may still have been at work.
const CLEAR_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// An object that goes away unless somebody keeps it, with the upload that makes it.
struct Unpublished {
    store: Arc<dyn ObjectStore>,
    journal: Arc<MemoryJournal>,
    name: String,
    is_kept: bool,
}

impl Bucket {
    /// Sends a whole file. When this returns, it is durable and visible under its key; if it fails, or is dropped, nothing
    /// stays.
    pub(in super::super) async fn publish(
        &self,
        key: &BlobKey,
        file: Arc<File>,
        received: &Received,
    ) -> Result<(), Error> {
        let journal = Arc::new(MemoryJournal::default());
        let guard = self.unpublished(key, Arc::clone(&journal));
        let put = Put {
            name: guard.name.clone(),
            source: Arc::new(LocalSource::of(file, received.size, received.digests)),
            content_type: MEDIA_TYPE.to_owned(),
            journal,
            resume: None,
            progress: Progress::default(),
            memory: self.settings.memory.share(),
        };
        match self.settings.store.put(put).await {
            Ok(_) => {
                connectors::fail_point!("bucket.published");
                guard.keep();
                Ok(())
            }
            Err(error) => {
                guard.clear().await;
                Err(error.into())
            }
        }
    }

    /// Gives each file a second key, all or none of them.
    pub(in super::super) async fn link_all(&self, pairs: &[(BlobKey, BlobKey)], room: &Room) -> Result<(), Error> {
        let guards: Vec<_> = pairs.iter().map(|(_, to)| self.unpublished(to, Arc::default())).collect();
        let copies: Vec<_> = pairs.iter().map(|(from, to)| self.link(from, to, room)).collect();
        let mut copies = stream::iter(copies).buffer_unordered(COPIES_AT_ONCE);
        while let Some(copied) = copies.next().await {
            if let Err(error) = copied {
                // A copy that ended after its deletion would stay.
                while copies.next().await.is_some() {}
                drop(copies);
                stream::iter(guards).for_each_concurrent(COPIES_AT_ONCE, Unpublished::clear).await;
                return Err(error);
            }
        }
        connectors::fail_point!("bucket.linked");
        guards.into_iter().for_each(Unpublished::keep);
        Ok(())
    }

    async fn link(&self, from: &BlobKey, to: &BlobKey, room: &Room) -> Result<(), Error> {
        match self.settings.store.copy(&self.name(from), &self.name(to)).await {
            Err(error) if matches!(error.kind, Kind::TooLarge | Kind::Unsupported) => self.carry(from, to, room).await,
            other => Ok(other?),
        }
    }

    /// Reads a file and stores it again, where the storage does not copy it.
    pub(in super::super) async fn carry(&self, from: &BlobKey, to: &BlobKey, room: &Room) -> Result<(), Error> {
        let described = self.settings.store.describe(&self.name(from), None).await?;
        let size = described.object.size;
        let scratch = self.scratch(to, room.clone()).await?;
        let store: Arc<dyn Connector> = Arc::clone(&self.settings.store) as _;
        let bytes = download::whole(&store, &described, &connectors::Limits::default(), self.settings.memory.share());
        let terms = Terms { announced_bytes: Some(size), limit_bytes: u64::MAX, with_md5: false };
        let received = match pour(bytes, scratch.writer(), terms, &Progress::default()).await {
            // These bytes come from our own store.
            Err(Error::Stream(error)) => return Err(error.into()),
            other => other?,
        };
        self.publish(to, scratch.file(), &received).await
    }

    fn unpublished(&self, key: &BlobKey, journal: Arc<MemoryJournal>) -> Unpublished {
        Unpublished { store: Arc::clone(&self.settings.store), journal, name: self.name(key), is_kept: false }
    }
}

impl Unpublished {
    /// It stays.
    fn keep(mut self) {
        self.is_kept = true;
    }

    /// Clears it away now.
    async fn clear(mut self) {
        self.is_kept = true;
        clear(&self.store, &self.journal, &self.name).await;
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.is_kept {
            return;
        }
        let (store, journal, name) = (Arc::clone(&self.store), Arc::clone(&self.journal), self.name.clone());
        runtime.spawn(async move {
            clear(&store, &journal, &name).await;
            tokio::time::sleep(CLEAR_AGAIN_AFTER).await;
            clear(&store, &journal, &name).await;
        });
    }
}

/// Aborts what was opened under a name, and removes what lies there. What cannot be cleared now is found by the sweeps.
async fn clear(store: &Arc<dyn ObjectStore>, journal: &MemoryJournal, name: &str) {
    for open in journal.all().iter().chain(&journal.open(name)) {
        if let Err(error) = store.abort(open).await {
            tracing::warn!(%error, "an unfinished upload to the file store stays until it is swept");
        }
    }
    if let Err(error) = store.delete(name).await {
        tracing::warn!(%error, "an unfinished file in the file store stays until it is swept");
    }
}
