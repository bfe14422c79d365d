//! Memory for parts that are read from a disk: used again instead of given back to the system.
//!
//! Parts are read by many threads and dropped by others. The allocator of the C library has a heap for each of these
//! threads and keeps in it what was freed there, so that a process whose transfers have 32 MiB under way came to 150 MiB;
//! and every page that it asks the system for anew is filled with zeroes first.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Bytes from which on a buffer is kept. Smaller ones are cheap, and may become the memory of whoever has the bytes.
const KEPT_BYTES_MIN: usize = 1024 * 1024;
/// Bytes that are kept while nobody uses them: what one transfer has under way. More transfers hand buffers on to each
/// other.
const IDLE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Those of this process.
pub(super) static SHARED: Buffers = Buffers::new();

/// Buffers that nobody uses at the moment, the longest unused first.
#[derive(Debug)]
pub(super) struct Buffers(Mutex<Vec<Vec<u8>>>);

/// A buffer that goes back when its bytes are gone.
struct Lent {
    buffer: Vec<u8>,
    home: &'static Buffers,
}

impl Buffers {
    const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    /// An empty buffer for so many bytes: parts of a file are all of one size, apart from the last.
    pub(super) fn take(&self, length: usize) -> Vec<u8> {
        let mut idle = self.idle();
        let found = idle.iter().rposition(|buffer| buffer.capacity() == length).map(|place| idle.remove(place));
        drop(idle);
        found.unwrap_or_else(|| Vec::with_capacity(length))
    }

    /// The bytes of a filled buffer, which comes back here when they are gone if it is worth it.
    pub(super) fn lend(&'static self, buffer: Vec<u8>) -> Bytes {
        if buffer.capacity() < KEPT_BYTES_MIN {
            return buffer.into();
        }
        Bytes::from_owner(Lent { buffer, home: self })
    }

    fn give(&self, mut buffer: Vec<u8>) {
        buffer.clear();
        let mut idle = self.idle();
        idle.push(buffer);
        let mut gone = Vec::new();
        while idle.iter().map(Vec::capacity).sum::<usize>() > IDLE_BYTES_MAX {
            gone.push(idle.remove(0));
        }
        drop(idle);
        // Giving memory back to the system takes its time.
        drop(gone);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    fn lent(buffers: &'static Buffers, length: usize) -> (Bytes, *const u8) {
        let mut buffer = buffers.take(length);
        assert!(buffer.is_empty() && buffer.capacity() >= length);
        buffer.resize(length, 7);
        let place = buffer.as_ptr();
        (buffers.lend(buffer), place)
    }

    #[test]
    fn a_buffer_is_used_again_once_its_last_bytes_are_gone() {
        static BUFFERS: Buffers = Buffers::new();
        let (mut bytes, first) = lent(&BUFFERS, 8 * MIB);
        assert_eq!((bytes.len(), bytes.as_ptr()), (8 * MIB, first), "it is not copied");
        let end = bytes.split_off(MIB);
        drop(bytes);
        let (other, second) = lent(&BUFFERS, 8 * MIB);
        assert_ne!(first, second, "somebody still has its end");
        assert_eq!(end.len(), 7 * MIB);
        drop(end);
        let lengths = [8 * MIB - 1, 8 * MIB + 1, 8 * MIB];
        assert_eq!(lengths.map(|length| lent(&BUFFERS, length).1 == first), [false, false, true]);
        drop(other);
    }

    #[test]
    fn only_so_much_is_kept_and_nothing_small_and_the_longest_unused_goes() {
        static BUFFERS: Buffers = Buffers::new();
        let kept = || BUFFERS.idle().iter().map(|buffer| buffer.capacity() / MIB).collect::<Vec<_>>();
        drop(lent(&BUFFERS, MIB - 1));
        assert_eq!(kept(), [0; 0]);
        for (mebibytes, expected) in
            [(3, vec![3]), (20, vec![3, 20]), (9, vec![3, 20, 9]), (1, vec![20, 9, 1]), (33, vec![]), (32, vec![32])]
        {
            drop(lent(&BUFFERS, mebibytes * MIB));
            assert_eq!(kept(), expected);
        }
    }
}
