//! Bytes of objects: how they come framed, and how they go out in part.

use anyhow::{Context as _, Result};
use bytes::Bytes;

/// Size of a piece of an answer.
const PIECE_BYTES: usize = 64 * 1024;

/// Takes out what `aws-chunked` puts between the bytes: a line with a length in front of each chunk, and a trailer.
pub(super) fn unchunk(memory: &mut Vec<u8>) -> Result<()> {
    let (mut from, mut to) = (0, 0);
    loop {
        let line = memory[from..].iter().position(|byte| *byte == b'\n').context("a chunk without a length")?;
        let length = std::str::from_utf8(&memory[from..from + line])?.trim();
        let length = usize::from_str_radix(length.split(';').next().unwrap_or_default(), 16)?;
        from += line + 1;
        if length == 0 {
            memory.truncate(to);
            return Ok(());
        }
        anyhow::ensure!(from + length <= memory.len(), "a chunk is longer than the body");
        memory.copy_within(from..from + length, to);
        (from, to) = (from + length + 2, to + length);
    }
}

/// The bytes from `start` to `end`, in pieces of the size that is written at once. Nothing is copied.
pub(super) fn between(pieces: &[Bytes], start: u64, end: u64) -> Vec<Bytes> {
    let (mut found, mut begins) = (Vec::new(), 0);
    for piece in pieces {
        let ends = begins + piece.len() as u64;
        // Never more than the length of a piece, which is in memory.
        let within = |at: u64| usize::try_from(at.clamp(begins, ends) - begins).unwrap_or(piece.len());
        let (mut from, to) = (within(start), within(end));
        while from < to {
            let next = (from + PIECE_BYTES).min(to);
            found.push(piece.slice(from..next));
            from = next;
        }
        begins = ends;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together() {
        let mut memory = b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nx-amz-checksum-crc32:AAAA\r\n\r\n".to_vec();
        unchunk(&mut memory).unwrap();
        assert_eq!(memory, b"hello!");
        assert!(unchunk(&mut b"ff\r\nshort".to_vec()).is_err());
    }

    #[test]
    fn a_range_may_lie_across_parts() {
        let pieces = [Bytes::from_static(b"abc"), Bytes::from_static(b"defg")];
        assert_eq!(between(&pieces, 1, 5).concat(), b"bcde");
        assert_eq!(between(&pieces, 3, 7).concat(), b"defg");
        assert_eq!(between(&pieces, 0, 99).concat(), b"abcdefg");
    }
}
