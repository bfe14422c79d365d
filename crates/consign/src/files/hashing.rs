//! The digests of a file: two always, MD5 where somebody needs it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use connectors::Digests;
use crc_fast::CrcAlgorithm::Crc32Iscsi;
use md5::{Digest as _, Md5};

use super::{Error, Received, blocking};

/// Bytes that are read back at once.
const READ_BYTES: usize = 1024 * 1024;

/// MD5 alone: it takes more than the other two and the disk together, so it is computed only where somebody needs it,
/// and by a thread of its own.
pub(super) struct Slow(Md5);

/// SHA-256 and CRC-32C.
pub(super) struct Quick {
    sha256: Context,
    crc32c: crc_fast::Digest,
}

impl Slow {
    pub(super) fn new() -> Self {
        Self(Md5::new())
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
}

impl Quick {
    pub(super) fn new() -> Self {
        Self { sha256: Context::new(&SHA256), crc32c: crc_fast::Digest::new(Crc32Iscsi) }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.crc32c.update(bytes);
    }
}

/// The digests of what both were fed.
pub(super) fn finish(slow: Option<Slow>, quick: Quick) -> Digests {
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(quick.sha256.finish().as_ref());
    let crc32c = u32::try_from(quick.crc32c.finalize()).expect("a CRC-32 has 32 bits");
    Digests { md5: slow.map(|slow| slow.0.finalize().into()), sha256, crc32c }
}

/// Reads a file back and hashes it, but for MD5.
pub(super) async fn of_file(file: Arc<File>) -> Result<Received, Error> {
    let (mut quick, mut size) = (Quick::new(), 0);
    let mut buffer = vec![0; READ_BYTES];
    // One turn of the pool a piece, so that a dropped future stops the reading.
    loop {
        let file = Arc::clone(&file);
        let length;
        (quick, buffer, length) = blocking(move || {
            let length = file.read_at(&mut buffer, size)?;
            quick.update(&buffer[..length]);
            Ok((quick, buffer, length))
        })
        .await?;
        if length == 0 {
            return Ok(Received { size, digests: finish(None, quick) });
        }
        size += length as u64;
    }
}
