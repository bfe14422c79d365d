//! The way in: a stream becomes a kept file, whole or not at all.

use connectors::{ByteStream, Kind, Progress, WholeDigest};

use super::stream::{self, Terms};
use super::{Error, Files, Received, Scratch};
use crate::model::BlobKey;

impl Files {
    /// Receives a file: counts, limits and hashes in one pass, MD5 too, makes it durable, publishes it under `key`.
    ///
    /// # Errors
    /// Any; then nothing is left behind.
    ///
    /// # Cancel safety
    /// When dropped, nothing is left behind.
    pub async fn receive(
        &self,
        key: &BlobKey,
        stream: ByteStream,
        announced_bytes: Option<u64>,
        limit_bytes: u64,
        progress: &Progress,
    ) -> Result<Received, Error> {
        let scratch = self.scratch_for(key, announced_bytes, limit_bytes).await?;
        self.pour(scratch, stream, Terms { announced_bytes, limit_bytes, with_md5: true }, progress, None).await
    }

    /// As [`Self::receive`], and publishes only what has that digest, where one is known. The MD5 is computed only if that
    /// is the digest: it takes longer than all the rest.
    ///
    /// # Errors
    /// Any; then nothing is left behind.
    ///
    /// # Cancel safety
    /// When dropped, nothing is left behind.
    pub async fn receive_proven(
        &self,
        key: &BlobKey,
        stream: ByteStream,
        announced_bytes: Option<u64>,
        limit_bytes: u64,
        progress: &Progress,
        digest: Option<&WholeDigest>,
    ) -> Result<Received, Error> {
        let scratch = self.scratch_for(key, announced_bytes, limit_bytes).await?;
        self.fill(scratch, stream, announced_bytes, limit_bytes, progress, digest).await
    }

    /// Opens an empty file for as many bytes as were announced, if they are allowed and there is room for them.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Full`], [`Error::Disk`].
    pub async fn scratch_for(
        &self,
        key: &BlobKey,
        announced_bytes: Option<u64>,
        limit_bytes: u64,
    ) -> Result<Scratch, Error> {
        if announced_bytes.is_some_and(|announced| announced > limit_bytes) {
            return Err(Error::TooLarge { limit_bytes });
        }
        self.check_room(announced_bytes.unwrap_or(0)).await?;
        self.scratch(key).await
    }

    /// As [`Self::receive_proven`], into a file that [`Self::scratch_for`] opened.
    ///
    /// # Errors
    /// Any; then nothing is left behind.
    ///
    /// # Cancel safety
    /// When dropped, nothing is left behind.
    pub async fn fill(
        &self,
        scratch: Scratch,
        stream: ByteStream,
        announced_bytes: Option<u64>,
        limit_bytes: u64,
        progress: &Progress,
        digest: Option<&WholeDigest>,
    ) -> Result<Received, Error> {
        let with_md5 = matches!(digest, Some(WholeDigest::Md5(_)));
        self.pour(scratch, stream, Terms { announced_bytes, limit_bytes, with_md5 }, progress, digest).await
    }

    async fn pour(
        &self,
        scratch: Scratch,
        stream: ByteStream,
        terms: Terms,
        progress: &Progress,
        digest: Option<&WholeDigest>,
    ) -> Result<Received, Error> {
        let received = stream::pour(stream, scratch.writer(), terms, progress).await?;
        if digest.is_some_and(|digest| !digest.fits(&received.digests)) {
            let detail = "what arrived is not what the storage says it holds; it was altered on its way, or replaced";
            return Err(Error::Stream(connectors::Error::new(Kind::IntegrityMismatch, "receiving the file", detail)));
        }
        self.publish(scratch, &received).await?;
        Ok(received)
    }
}
