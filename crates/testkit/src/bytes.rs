//! Large data for tests: made from a seed, never kept, known by its hashes.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use md5::{Digest as _, Md5};
use sha2::Sha256;

/// How much is made, hashed or read in one go.
const CHUNK_BYTES: usize = 256 * 1024;

/// Length and hashes of data.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Digests {
    /// Length in bytes.
    pub size: u64,
    /// MD5, in lower-case hexadecimal.
    pub md5: String,
    /// SHA-256, in lower-case hexadecimal.
    pub sha256: String,
}

/// Makes `size` bytes of the endless data that belongs to `seed`. The same seed gives the same bytes, always.
pub fn pattern(seed: u64, size: usize) -> Vec<u8> {
    let mut data = vec![0; size];
    fill(seed, 0, &mut data);
    data
}

/// Fills `buffer` with the data that belongs to `seed`, from `offset` on: any part can be checked without the rest.
pub fn fill(seed: u64, offset: u64, buffer: &mut [u8]) {
    const WORD: u64 = 8;
    let skip = (offset % WORD) as usize;
    let (head, body) = buffer.split_at_mut(((8 - skip) % 8).min(buffer.len()));
    let mut index = offset / WORD;
    if !head.is_empty() {
        head.copy_from_slice(&word(seed, index)[skip..][..head.len()]);
        index += 1;
    }
    for chunk in body.chunks_mut(8) {
        chunk.copy_from_slice(&word(seed, index)[..chunk.len()]);
        index += 1;
    }
}

/// The `SplitMix64` generator at a position: cheap, and no two places look alike.
fn word(seed: u64, index: u64) -> [u8; 8] {
    let mut z = seed.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).to_le_bytes()
}

/// The pattern of `seed` as a reader, for data that is too large for memory.
#[derive(Debug)]
pub struct Pattern {
    seed: u64,
    offset: u64,
    size: u64,
}

impl Pattern {
    /// The first `size` bytes of the data that belongs to `seed`.
    pub fn new(seed: u64, size: u64) -> Self {
        Self { seed, offset: 0, size }
    }
}

impl Read for Pattern {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.offset).unwrap_or(usize::MAX);
        let count = left.min(buffer.len());
        fill(self.seed, self.offset, &mut buffer[..count]);
        self.offset += count as u64;
        Ok(count)
    }
}

/// Writes the pattern to a file.
///
/// # Errors
/// When the file cannot be written.
pub fn write_file(path: &Path, seed: u64, size: u64) -> io::Result<Digests> {
    let mut file = BufWriter::with_capacity(CHUNK_BYTES, File::create(path)?);
    let digests = copy_hashed(Pattern::new(seed, size), &mut file)?;
    file.flush()?;
    Ok(digests)
}

/// Hashes of the pattern, without keeping it.
///
/// # Panics
/// Never: memory does not fail to be read.
pub fn digest_pattern(seed: u64, size: u64) -> Digests {
    copy_hashed(Pattern::new(seed, size), io::sink()).expect("memory does not fail to be read")
}

/// Hashes of data in memory.
///
/// # Panics
/// Never: memory does not fail to be read.
pub fn digest(data: &[u8]) -> Digests {
    copy_hashed(data, io::sink()).expect("memory does not fail to be read")
}

/// Hashes of a file.
///
/// # Errors
/// When the file cannot be read.
pub fn digest_file(path: &Path) -> io::Result<Digests> {
    copy_hashed(File::open(path)?, io::sink())
}

fn copy_hashed(mut from: impl Read, mut to: impl Write) -> io::Result<Digests> {
    let (mut md5, mut sha256, mut size) = (Md5::new(), Sha256::new(), 0);
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        let chunk = &buffer[..count];
        md5.update(chunk);
        sha256.update(chunk);
        to.write_all(chunk)?;
        size += count as u64;
    }
    Ok(Digests { size, md5: hex::encode(md5.finalize()), sha256: hex::encode(sha256.finalize()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_the_known_ones() {
        let digests = digest(b"hello");
        assert_eq!(digests.size, 5);
        assert_eq!(digests.md5, "5d41402abc4b2a76b9719d911017c592");
        assert_eq!(digests.sha256, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    }

    #[test]
    fn any_part_of_the_pattern_is_the_same_as_in_the_whole() {
        let whole = pattern(7, 1000);
        for (offset, length) in [(0, 0), (0, 1), (3, 2), (5, 3), (5, 4), (8, 8), (13, 987), (999, 1)] {
            let mut part = vec![0; length];
            fill(7, offset as u64, &mut part);
            assert_eq!(part, whole[offset..offset + length], "{length} bytes at {offset}");
        }
        assert_ne!(whole, pattern(8, 1000));
    }

    #[test]
    fn files_streams_and_memory_agree() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pattern");
        let (seed, size) = (42, 1_000_003);
        let digests = write_file(&path, seed, size).unwrap();
        assert_eq!(digests, digest_file(&path).unwrap());
        assert_eq!(digests, digest_pattern(seed, size));
        assert_eq!(digests, digest(&pattern(seed, 1_000_003)));
    }
}
