//! What benchmarks send where nobody has to keep it: one block again and again; and how bytes are known again.

use std::fs::File;
use std::io::{BufWriter, Read as _, Write as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest as Crc};
use sha2::{Digest as _, Sha256};

/// Size of the block that is repeated.
pub(super) const BLOCK_BYTES: usize = 1024 * 1024;
/// How much is read or hashed in one go.
const CHUNK_BYTES: usize = 1024 * 1024;

/// The block.
pub(super) fn block() -> Bytes {
    Bytes::from(testkit::bytes::pattern(5, BLOCK_BYTES))
}

/// What lies between two places of a file that repeats the block, in slices of it.
pub(super) fn repeated(from: u64, to: u64) -> impl Iterator<Item = Bytes> {
    let (block, mut at) = (block(), from);
    std::iter::from_fn(move || {
        let begins = usize::try_from(at % BLOCK_BYTES as u64).ok()?;
        let length = (BLOCK_BYTES - begins).min(usize::try_from(to.saturating_sub(at)).unwrap_or(BLOCK_BYTES));
        at += length as u64;
        (length > 0).then(|| block.slice(begins..begins + length))
    })
}

/// Writes a file that repeats the block.
///
/// # Errors
/// When it cannot be written.
pub(super) fn write_repeated(path: &Path, size: u64) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for piece in repeated(0, size) {
        file.write_all(&piece)?;
    }
    Ok(file.flush()?)
}

/// SHA-256 of pieces after one another, in hexadecimal.
pub(super) fn sha256(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> String {
    let mut hash = Sha256::new();
    for piece in pieces {
        hash.update(piece.as_ref());
    }
    hex::encode(hash.finalize())
}

/// SHA-256 of a file, in hexadecimal. No other hash with it: MD5 would take twice as long, after every run.
///
/// # Errors
/// When it cannot be read.
pub(super) fn sha256_of_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; CHUNK_BYTES]);
    loop {
        let length = file.read(&mut chunk)?;
        if length == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(&chunk[..length]);
    }
}

/// CRC-32C of pieces that come one by one: so cheap that it does not slow who takes them.
pub(super) fn crc32c() -> Crc {
    Crc::new(CrcAlgorithm::Crc32Iscsi)
}

/// CRC-32C of what lies between two places of a file that repeats the block.
pub(super) fn crc32c_of_repeated(from: u64, to: u64) -> u64 {
    let mut crc = crc32c();
    for piece in repeated(from, to) {
        crc.update(&piece);
    }
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_repeated_is_the_same_as_in_the_whole() {
        let size = 2 * BLOCK_BYTES + 10;
        let whole: Vec<u8> = repeated(0, size as u64).flatten().collect();
        assert_eq!((whole.len(), &whole[..10]), (size, &whole[BLOCK_BYTES..BLOCK_BYTES + 10]));
        let (from, to) = (BLOCK_BYTES - 3, 2 * BLOCK_BYTES + 4);
        let part: Vec<u8> = repeated(from as u64, to as u64).flatten().collect();
        assert_eq!(part, whole[from..to]);
        assert_eq!(crc32c_of_repeated(from as u64, to as u64), u64::from(crc_fast::crc32_iscsi(&part)));
        assert_eq!(repeated(7, 7).count(), 0);
    }

    #[test]
    fn files_and_pieces_have_the_same_digest() {
        let dir = tempfile::tempdir().unwrap();
        let (path, size) = (dir.path().join("repeated"), BLOCK_BYTES as u64 + 5);
        write_repeated(&path, size).unwrap();
        assert_eq!(sha256_of_file(&path).unwrap(), sha256(repeated(0, size)));
        assert_eq!(sha256(["hel", "lo"]), "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    }
}
