//! What a transfer is told, what it tells on its way, and what it leaves to show.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::budget::Share;
use crate::error::Result;
use crate::source::Source;

/// What a storage can do, and its protocol can express.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// An interrupted upload goes on at its last acknowledged part.
    pub resumes: bool,
    /// What an unfinished upload left can be cleared away; else it expires at the storage by itself.
    pub aborts: bool,
    /// Names are opaque keys: `a//b`, `/a` and `f/` are names like any other. False for a file system.
    pub names_are_keys: bool,
    /// Among the keys are `a/../b`, `./c` and `d\\e`.
    pub keeps_dot_segments: bool,
    /// Objects lie in a container that must be there; else `put` makes what is missing.
    pub has_containers: bool,
    /// A byte that changes on its way is noticed in an object that is sent in one go, too.
    pub checks_single_put: bool,
    /// The protocol has an answer that asks to come back later.
    pub can_throttle: bool,
    /// The storage keeps a content type.
    pub keeps_content_type: bool,
    /// The strongest proof that an upload arrived whole, as the receipt names it.
    pub verifies_by: &'static str,
    /// Longest object name in bytes.
    pub name_bytes_max: usize,
    /// Largest object in bytes.
    pub object_bytes_max: u64,
}

/// Bounds of every transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of a part, where the object is small enough for it; larger objects take larger parts.
    pub part_bytes: u64,
    /// Parts of one transfer in flight at once.
    pub parts_in_flight: usize,
    /// Size up to which Swift gets an object in one piece, and of the segments of larger ones.
    pub segment_bytes: u64,
    /// Tries of one request before its transfer fails.
    pub tries: u32,
    /// The time to open a connection, with TLS or SSH handshake.
    pub connect_timeout: Duration,
    /// The time during which at least one byte must move, and an answer must begin once all is sent.
    pub idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            part_bytes: 8 * 1024 * 1024,
            parts_in_flight: 4,
            segment_bytes: 256 * 1024 * 1024,
            tries: 5,
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_mins(1),
        }
    }
}

/// One file to store.
#[derive(Clone, Debug)]
pub struct Put {
    /// Full name at the storage, byte for byte.
    pub name: String,
    /// The bytes.
    pub source: Arc<dyn Source>,
    /// Media type, unless the connector was told another for all objects.
    pub content_type: String,
    /// Where to write down what is open at the storage.
    pub journal: Arc<dyn Journal>,
    /// What an earlier attempt left open for this name.
    pub resume: Option<OpenUpload>,
    /// Counts acknowledged bytes.
    pub progress: Progress,
    /// Gives memory for its parts.
    pub memory: Share,
}

/// An upload that is open at the storage: enough to go on with it, or to abort it. Its handle may be a secret (who has the
/// address of a session may write the object), so it is not shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenUpload {
    /// The name that the object will have.
    pub target: String,
    /// What the storage calls it: an upload id, a temporary name, a session address. Empty while the storage has been
    /// asked to open one and its answer has not come.
    pub handle: String,
    /// SHA-256 of the source in lower-case hex: another source never resumes it.
    pub sha256: String,
    /// Size of its parts in bytes; the last one may be shorter.
    pub part_bytes: u64,
    /// Acknowledged parts by number, from 1.
    pub parts: BTreeMap<u32, Part>,
}

impl fmt::Debug for OpenUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { target, handle, sha256, part_bytes, parts } = self;
        let handle = if handle.is_empty() { "" } else { "***" };
        f.debug_struct("OpenUpload")
            .field("target", target)
            .field("handle", &handle)
            .field("sha256", sha256)
            .field("part_bytes", part_bytes)
            .field("parts", parts)
            .finish()
    }
}

/// An acknowledged part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Length in bytes.
    pub size: u64,
    /// What the storage called it.
    pub etag: String,
    /// The checksum that completes the upload, as the protocol writes it, where one was accepted.
    pub checksum: Option<String>,
}

/// The durable list of what is open at the storage. Every method returns once the fact is on stable storage.
#[async_trait]
pub trait Journal: fmt::Debug + Send + Sync {
    /// Writes down an upload before its first byte is sent, or a temporary name before it is used.
    ///
    /// # Errors
    /// [`Kind::Local`](crate::Kind::Local): then nothing must be sent.
    async fn opened(&self, open: &OpenUpload) -> Result<()>;

    /// Writes down an acknowledged part.
    ///
    /// # Errors
    /// [`Kind::Local`](crate::Kind::Local).
    async fn part(&self, target: &str, number: u32, part: &Part) -> Result<()>;

    /// Strikes out the upload of `target`: it is complete, or gone.
    ///
    /// # Errors
    /// [`Kind::Local`](crate::Kind::Local).
    async fn closed(&self, target: &str) -> Result<()>;
}

/// Counts the bytes that the other side acknowledged, for all files of a task together.
#[derive(Clone, Default)]
pub struct Progress(Arc<ProgressInner>);

type Listener = Box<dyn Fn(u64) + Send + Sync>;

#[derive(Default)]
struct ProgressInner {
    bytes: AtomicU64,
    listener: Option<Listener>,
}

impl Progress {
    /// Calls `listener` with the new total after every addition. It must be quick and must not block.
    pub fn reporting(listener: impl Fn(u64) + Send + Sync + 'static) -> Self {
        Self(Arc::new(ProgressInner { bytes: AtomicU64::new(0), listener: Some(Box::new(listener)) }))
    }

    /// Adds acknowledged bytes.
    pub fn add(&self, bytes: u64) {
        let total = self.0.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(listener) = &self.0.listener {
            listener(total);
        }
    }

    /// Takes back bytes that have to be sent again.
    pub fn take_back(&self, bytes: u64) {
        self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Bytes so far.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Progress").field(&self.bytes()).finish()
    }
}

/// Acknowledged bytes of one upload; given back unless it ends well, so that another attempt can count them itself.
#[derive(Debug)]
pub(crate) struct Counted<'a> {
    progress: &'a Progress,
    bytes: u64,
}

impl<'a> Counted<'a> {
    pub(crate) fn new(progress: &'a Progress) -> Self {
        Self { progress, bytes: 0 }
    }

    /// Counts bytes.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.progress.add(bytes);
        self.bytes += bytes;
    }

    /// Takes in bytes that are counted already.
    pub(crate) fn adopt(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Gives bytes back that have to be sent again.
    pub(crate) fn take_back(&mut self, bytes: u64) {
        self.progress.take_back(bytes);
        self.bytes -= bytes;
    }

    /// Counts this many bytes from now on, be they more or fewer than before.
    pub(crate) fn set(&mut self, bytes: u64) {
        self.add(bytes.saturating_sub(self.bytes));
        self.take_back(self.bytes.saturating_sub(bytes));
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The upload ended well: its bytes stay counted.
    pub(crate) fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.progress.take_back(self.bytes);
    }
}

/// An object at the storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Full name, byte for byte.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// The storage's mark of this content, without quotes.
    pub etag: Option<String>,
    /// Media type, where the storage keeps one.
    pub content_type: Option<String>,
}

/// What the storage confirmed. Field names are those of a task's `result.files` entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Where the object is: `s3://bucket/key`, `sftp://host:port/path`. No credential, no query.
    pub location: String,
    /// The storage's mark of the content, without quotes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// The storage's version id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How the bytes were proved to have arrived: `crc32c`, `md5`, `size`.
    pub verified: String,
    /// Fingerprint of the SSH host key that was seen, `SHA256:…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// What the client should know although it succeeded, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_end_well_is_given_back() {
        let progress = Progress::default();
        progress.add(1);
        let mut counted = Counted::new(&progress);
        counted.add(10);
        for (bytes, expected) in [(4, 5), (12, 13), (12, 13)] {
            counted.set(bytes);
            assert_eq!((counted.bytes(), progress.bytes()), (bytes, expected));
        }
        counted.take_back(2);
        progress.add(5);
        counted.adopt(5);
        assert_eq!((counted.bytes(), progress.bytes()), (15, 16));
        drop(counted);
        assert_eq!(progress.bytes(), 1);
        let mut counted = Counted::new(&progress);
        counted.add(7);
        counted.keep();
        assert_eq!(progress.bytes(), 8);
    }
}
