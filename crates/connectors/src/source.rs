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

/// A file of this side, readable at any offset, whose digests are known.
///
/// It never changes while somebody holds it.
#[async_trait]
pub trait Source: Debug + Send + Sync {
    /// Length in bytes.
    fn size(&self) -> u64;

    /// The digests of all its bytes.
    fn digests(&self) -> Digests;

    /// Reads exactly `length` bytes from `offset`.
    ///
    /// # Errors
    /// [`Kind::Local`](crate::Kind::Local) when the file cannot be read or is shorter.
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes>;
}
