//! The ways in: a scratch file that is sent, and a file that is copied within the bucket.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use connectors::memory::MemoryJournal;
use connectors::{Connector, Described, Kind, ObjectStore, Progress, Put, WholeDigest, download};
use futures_util::stream::{self, FuturesUnordered};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::super::check::Room;
use super::super::folder::source::LocalSource;
use super::super::stream::{Terms, pour};
use super::super::{Error, Link, Received};
use super::{Bucket, Settings};
use crate::model::BlobKey;

/// Media type of the objects: what a file is, its row knows.
const MEDIA_TYPE: &str = "application/octet-stream";
/// Copies of one task under way at once.
const COPIES_AT_ONCE: usize = 8;
/// Objects of one task that are cleared away at once, when nobody wants them.
const CLEARED_AT_ONCE: usize = 8;
/// After this time what a dropped upload left is cleared away once more: its last request may still have been at work.
const CLEAR_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Objects that go away unless somebody keeps them, with the uploads that make them.
struct Unpublished {
    store: Arc<dyn ObjectStore>,
    begun: Vec<Begun>,
}

/// An object that may be there by now, or an upload of it.
struct Begun {
    name: String,
    journal: Arc<MemoryJournal>,
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
        let mut guard = self.unpublished();
        guard.add(self.name(key), Arc::clone(&journal));
        let put = Put {
            name: self.name(key),
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

    /// Gives each file a second key, all or none of them. After the first failure no copy is begun any more: where the storage
    /// is away, each would fail only after all its tries.
    pub(in super::super) async fn link_all(&self, links: &[Link], room: &Room) -> Result<(), Error> {
        let mut guard = self.unpublished();
        let (mut left, mut copies, mut failed) = (links.iter(), FuturesUnordered::new(), None);
        loop {
            while failed.is_none()
                && copies.len() < COPIES_AT_ONCE
                && let Some(link) = left.next()
            {
                guard.add(self.name(&link.to), Arc::default());
                copies.push(self.link(link, room));
            }
            // Those under way are waited for: a copy that ended after its deletion would stay.
            match copies.next().await {
                Some(Ok(())) => {}
                Some(Err(error)) => failed = failed.or(Some(error)),
                None => break,
            }
        }
        drop(copies);
        if let Some(error) = failed {
            guard.clear().await;
            return Err(error);
        }
        connectors::fail_point!("bucket.linked");
        guard.keep();
        Ok(())
    }

    async fn link(&self, link: &Link, room: &Room) -> Result<(), Error> {
        match self.settings.store.copy(&self.name(&link.from), &self.name(&link.to)).await {
            Err(error) if matches!(error.kind, Kind::TooLarge | Kind::Unsupported) => self.carry(link, room).await,
            other => Ok(other?),
        }
    }

    /// Reads a file and stores it again, where the storage does not copy it; only if it is still what its row says.
    pub(in super::super) async fn carry(&self, link: &Link, room: &Room) -> Result<(), Error> {
        let Settings { store, limits, memory, .. } = &self.settings;
        let object = store.stat(&self.name(&link.from)).await?;
        let terms = Terms { announced_bytes: Some(object.size), limit_bytes: u64::MAX, with_md5: false };
        let digest = WholeDigest::Sha256(link.digests.sha256);
        let described = Described { object, digest: Some(digest) };
        let scratch = self.scratch(&link.to, room.clone()).await?;
        let bytes = download::whole(&(Arc::clone(store) as Arc<dyn Connector>), &described, limits, memory.share());
        let received = match pour(bytes, scratch.writer(), terms, &Progress::default()).await {
            // These bytes come from our own store.
            Err(Error::Stream(error)) => return Err(error.into()),
            other => other?,
        };
        if !digest.fits(&received.digests) {
            let detail = "a kept file is not what it was; it was altered on its way, or in the file store";
            return Err(connectors::Error::new(Kind::IntegrityMismatch, "copying the file", detail).into());
        }
        self.publish(&link.to, scratch.file(), &received).await
    }

    /// Clears objects away unless they are kept.
    fn unpublished(&self) -> Unpublished {
        Unpublished { store: Arc::clone(&self.settings.store), begun: Vec::new() }
    }
}

impl Unpublished {
    /// Takes in an object that is about to be made.
    fn add(&mut self, name: String, journal: Arc<MemoryJournal>) {
        self.begun.push(Begun { name, journal });
    }

    /// They stay.
    fn keep(mut self) {
        self.begun.clear();
    }

    /// Clears them away now; if it is dropped meanwhile, that is done without it.
    async fn clear(mut self) {
        clear_all(&self.store, &self.begun).await;
        self.begun.clear();
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.begun.is_empty() {
            return;
        }
        let (store, begun) = (Arc::clone(&self.store), std::mem::take(&mut self.begun));
        runtime.spawn(async move {
            clear_all(&store, &begun).await;
            tokio::time::sleep(CLEAR_AGAIN_AFTER).await;
            clear_all(&store, &begun).await;
        });
    }
}

/// Clears away all of them, a few at a time. When one cannot be cleared, nor can the others, as a rule, each after all its
/// tries: they are left to the sweeps.
async fn clear_all(store: &Arc<dyn ObjectStore>, begun: &[Begun]) {
    let begun: Vec<_> = begun.iter().map(Ok).collect();
    let cleared = stream::iter(begun).try_for_each_concurrent(CLEARED_AT_ONCE, |begun| clear(store, begun)).await;
    if let Err(error) = cleared {
        tracing::warn!(%error, "unfinished files in the file store stay until they are swept");
    }
}

/// Aborts what was opened under a name, and removes what lies there.
async fn clear(store: &Arc<dyn ObjectStore>, begun: &Begun) -> connectors::Result<()> {
    let Begun { name, journal } = begun;
    let mut cleared = Ok(());
    for open in journal.all().iter().chain(&journal.open(name)) {
        let aborted = store.abort(open).await;
        cleared = cleared.and(aborted);
    }
    let deleted = store.delete(name).await;
    cleared.and(deleted)
}
