//! Where bytes come from: a local source that is read at any offset, and a stream that is read once.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use md5::{Digest as _, Md5};

use crate::error::{Error, Kind, Result};

/// Bytes that are read at once to be hashed: 1.5 ms of work, beside which handing them over is nothing.
const HASH_BYTES: u64 = 1024 * 1024;
/// Pieces that are read while one is hashed. They are in no budget, so they are few and small.
const HASH_AHEAD: usize = 2;

/// Bytes that arrive in order, once.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// What is known of a file's bytes before they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digests {
    /// MD5, as `Content-MD5` and S3's `ETag` have it, if it was needed so far: it takes longer than the others together.
    /// [`md5()`] knows it of any source.
    pub md5: Option<[u8; 16]>,
    /// SHA-256.
    pub sha256: [u8; 32],
    /// CRC-32C (Castagnoli), as S3 and Google Cloud Storage have it.
    pub crc32c: u32,
}

impl Digests {
    /// Those of a file that is still arriving: no file has them.
    pub const UNKNOWN: Self = Self { md5: None, sha256: [0; 32], crc32c: 0 };
}

/// A file of this side, readable at any offset, whose digests are known.
///
/// It never changes while somebody holds it. One that is still arriving grows until it is whole; only a connector that
/// says so ([`Connector::begins_early`](crate::Connector::begins_early)) is given such a file.
#[async_trait]
pub trait Source: Debug + Send + Sync {
    /// Length in bytes; of a file that is still arriving, the length that it will have.
    fn size(&self) -> u64;

    /// The digests of all its bytes; [`Digests::UNKNOWN`] until [`Self::whole`] has returned.
    fn digests(&self) -> Digests;

    /// Waits until the bytes before `end` can be read. Holds nothing meanwhile.
    ///
    /// # Errors
    /// [`Kind::Local`] when they will never come.
    async fn arrived(&self, _end: u64) -> Result<()> {
        Ok(())
    }

    /// Waits until the file is whole and may be shown to the world under its name.
    ///
    /// # Errors
    /// [`Kind::Local`] when it never will be.
    async fn whole(&self) -> Result<()> {
        Ok(())
    }

    /// Reads exactly `length` bytes from `offset`.
    ///
    /// # Errors
    /// [`Kind::Local`] when the file cannot be read or is shorter.
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes>;
}

/// The MD5 of all bytes of a source; where nobody knows it yet, they are read for it, as they arrive.
///
/// # Errors
/// Those of reading.
pub async fn md5(source: &Arc<dyn Source>) -> Result<[u8; 16]> {
    if let Some(md5) = source.digests().md5 {
        return Ok(md5);
    }
    let (mut hash, size) = (Md5::new(), source.size());
    let offsets = (0..size).step_by(usize::try_from(HASH_BYTES).unwrap_or(usize::MAX));
    let pieces = stream::iter(offsets).map(|offset| async move {
        let length = HASH_BYTES.min(size - offset);
        source.arrived(offset + length).await?;
        source.read_at(offset, usize::try_from(length).unwrap_or_default()).await
    });
    let mut pieces = std::pin::pin!(pieces.buffered(HASH_AHEAD));
    while let Some(bytes) = pieces.try_next().await? {
        // Off the threads that move bytes.
        let hashed = tokio::task::spawn_blocking(move || {
            hash.update(&bytes);
            hash
        });
        hash = hashed.await.map_err(|error| {
            Error::new(Kind::Local, "computing the checksum", "the computation was stopped").because(error)
        })?;
    }
    Ok(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemorySource;

    #[tokio::test]
    async fn an_md5_that_nobody_knows_is_computed() {
        for length in [0, 1, 1024 * 1024, 2_500_000] {
            let bytes = crate::contract::bytes(length, 7);
            let known: Arc<dyn Source> = Arc::new(MemorySource::new(bytes.clone()));
            let unknown = Arc::new(MemorySource::new(bytes).without_md5());
            let computed = md5(&(Arc::clone(&unknown) as Arc<dyn Source>)).await.unwrap();
            assert_eq!(Some(computed), known.digests().md5, "{length}");
            assert_eq!((md5(&known).await.unwrap(), unknown.read_bytes()), (computed, length as u64));
        }
        let broken: Arc<dyn Source> = Arc::new(MemorySource::new(vec![0; 10]).without_md5().failing_from(5));
        assert_eq!(md5(&broken).await.unwrap_err().kind, Kind::Local);
    }
}
