//! What the cases share: bytes, transfers, and looking at their end with both pairs of eyes.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;

use super::{Excluded, Fixture, Seen, Who};
use crate::budget::Budget;
use crate::memory::{MemoryJournal, MemorySource};
use crate::source::Source;
use crate::transfer::{OpenUpload, Progress, Put, Receipt};
use crate::{Connector, Error};

/// The media type of everything that the suite stores.
pub(super) const CONTENT_TYPE: &str = "application/x-contract";

/// Bytes without a pattern that a part boundary could hide in, the same for the same `seed`.
pub fn bytes(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = BytesMut::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out.freeze()
}

/// Stores `source` under `name` with a fresh journal, and checks that the journal is empty and the count right after.
///
/// # Errors
/// The connector's.
///
/// # Panics
/// When something stays in the journal, or progress is not the size.
pub async fn put(connector: &dyn Connector, name: &str, source: &Arc<MemorySource>) -> crate::Result<Receipt> {
    Attempt::of(name, Arc::clone(source)).put(connector).await
}

/// Builds a [`Put`] of the suite.
pub fn request(
    name: &str,
    source: &Arc<MemorySource>,
    journal: &Arc<MemoryJournal>,
    progress: &Progress,
    resume: Option<OpenUpload>,
) -> Put {
    Put {
        name: name.to_owned(),
        source: Arc::<MemorySource>::clone(source),
        content_type: CONTENT_TYPE.to_owned(),
        journal: Arc::<MemoryJournal>::clone(journal),
        resume,
        progress: progress.clone(),
        memory: Budget::default().share(),
    }
}

/// Reads a whole object.
///
/// # Errors
/// The connector's.
pub async fn get(connector: &dyn Connector, name: &str) -> crate::Result<Bytes> {
    let size = connector.stat(name).await?.size;
    if size == 0 {
        return Ok(Bytes::new());
    }
    collect(connector, name, 0..size).await
}

pub(super) async fn collect(connector: &dyn Connector, name: &str, range: Range<u64>) -> crate::Result<Bytes> {
    let all: BytesMut = connector.read(name, range).await?.try_collect().await?;
    Ok(all.freeze())
}

pub(super) fn source(length: usize, seed: u64) -> Arc<MemorySource> {
    Arc::new(MemorySource::new(bytes(length, seed)))
}

/// The size of a part.
pub(super) fn part(fixture: &dyn Fixture) -> usize {
    usize::try_from(fixture.limits().part_bytes).expect("a part fits into memory")
}

/// The size of an object that takes two rounds of parts.
pub(super) fn many_parts(fixture: &dyn Fixture) -> usize {
    part(fixture) * (fixture.limits().parts_in_flight + 3) + 17
}

pub(super) fn owner(fixture: &dyn Fixture) -> Result<Box<dyn Connector>, Excluded> {
    fixture.connect(Who::Owner, fixture.limits(), None)
}

/// Ends a case with all that is known of an error.
pub(super) trait Must<T> {
    /// What came, or the end of the case; `what` is the object, or what was asked.
    fn must(self, what: &str) -> T;
}

impl<T> Must<T> for Result<T, Error> {
    #[track_caller]
    #[expect(clippy::panic, reason = "a suite ends a broken case by panicking, with the connector's whole error")]
    fn must(self, what: &str) -> T {
        self.unwrap_or_else(|error| panic!("{what}: {error:?}"))
    }
}

impl<T> Must<T> for Result<T, super::BoxError> {
    #[track_caller]
    #[expect(clippy::panic, reason = "a suite ends a broken case by panicking, with the connector's whole error")]
    fn must(self, what: &str) -> T {
        self.unwrap_or_else(|error| panic!("the witness, {what}: {error}"))
    }
}

/// One object on its way, over as many attempts as it takes.
#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) name: String,
    pub(super) source: Arc<MemorySource>,
    pub(super) journal: Arc<MemoryJournal>,
}

impl Attempt {
    pub(super) fn of(name: impl Into<String>, source: Arc<MemorySource>) -> Self {
        Self { name: name.into(), source, journal: Arc::default() }
    }

    /// Goes on with what the journal holds, and checks progress, and journal and receipt if it ends well.
    pub(super) async fn put(&self, connector: &dyn Connector) -> crate::Result<Receipt> {
        let name = &self.name;
        let progress = Progress::default();
        let resume = self.journal.open(name);
        let ended = connector.put(request(name, &self.source, &self.journal, &progress, resume)).await;
        let receipt = ended.inspect_err(|error| {
            assert_eq!(progress.bytes(), 0, "{name}: an attempt that failed still counts bytes: {error:?}");
        })?;
        assert_eq!(self.journal.open(name), None, "{name}: the journal still holds an upload that is complete");
        assert_eq!(progress.bytes(), self.source.size(), "{name}: progress is not the size");
        assert!(!receipt.location.is_empty(), "{name}: the receipt names no location");
        assert!(["crc32c", "md5", "sha256", "size"].contains(&receipt.verified.as_str()), "{receipt:?}");
        Ok(receipt)
    }

    /// What the source is, as a witness must see it.
    pub(super) fn expected(&self, connector: &dyn Connector) -> Seen {
        Seen {
            size: self.source.size(),
            sha256: hex::encode(self.source.digests().sha256),
            content_type: connector.capability().keeps_content_type.then(|| CONTENT_TYPE.to_owned()),
        }
    }

    /// Checks with both pairs of eyes that the object is whole, and that nothing else is left of the upload.
    pub(super) async fn is_whole(&self, fixture: &dyn Fixture, connector: &dyn Connector) {
        let (name, expected) = (self.name.as_str(), self.expected(connector));
        let seen = fixture.witness().read(name).await.must(name);
        assert_eq!(seen.as_ref(), Some(&expected), "{name}: the witness read something else");
        let found = get(connector, name).await.must(name);
        assert!(found == *self.source.bytes(), "{name}: {} bytes came back, or others", found.len());
        nothing_left(fixture, name, &self.journal).await;
    }

    /// Checks that there is no such object, and nothing of it.
    pub(super) async fn is_nowhere(&self, fixture: &dyn Fixture) {
        let seen = fixture.witness().read(&self.name).await.must(&self.name);
        assert_eq!(seen, None, "{}: there is an object", self.name);
        nothing_left(fixture, &self.name, &self.journal).await;
    }
}

/// Checks that nothing but objects is left in the folder of `name`.
pub(super) async fn nothing_left(fixture: &dyn Fixture, name: &str, journal: &MemoryJournal) {
    let left = fixture.witness().left_over(folder(name), &journal.all()).await.must(name);
    assert!(left.is_empty(), "{name}: left over: {left:?}");
}

/// Where an object lies, with the slash at the end.
pub(super) fn folder(name: &str) -> &str {
    let end = name.trim_end_matches('/').rfind('/').expect("the prefix ends with a slash");
    &name[..=end]
}

pub(super) async fn delete(connector: &dyn Connector, name: &str) {
    connector.delete(name).await.must(name);
}
