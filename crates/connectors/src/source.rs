//! Where bytes come from: a local source that is read at any offset, and a stream that is read once.

use std::fmt::Debug;
use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;

use crate::error::Result;

/// Bytes that arrive in order, once.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// What is known of a file's bytes before they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digests {
    /// MD5, as `Content-MD5` and S3's `ETag` have it.
    pub md5: [u8; 16],
    /// SHA-256.
    pub sha256: [u8; 32],
    /// CRC-32C (Castagnoli), as S3 and Google Cloud Storage have it.
    pub crc32c: u32,
}

impl Digests {
    /// Those of a file that is still arriving: no file has them.
    pub const UNKNOWN: Self = Self { md5: [0; 16], sha256: [0; 32], crc32c: 0 };
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
    /// [`Kind::Local`](crate::Kind::Local) when they will never come.
    async fn arrived(&self, _end: u64) -> Result<()> {
        Ok(())
    }

    /// Waits until the file is whole and may be shown to the world under its name.
    ///
    /// # Errors
    /// [`Kind::Local`](crate::Kind::Local) when it never will be.
    async fn whole(&self) -> Result<()> {
        Ok(())
    }

    /// Reads exactly `length` bytes from `offset`.
    ///
    /// # Errors
    /// [`Kind::Local`](crate::Kind::Local) when the file cannot be read or is shorter.
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes>;
}
