//! A source and a journal that live in memory, for tests and for files that are born in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use aws_lc_rs::digest;
use bytes::Bytes;
use md5::Digest as _;

use crate::error::{Error, Kind, Result};
use crate::source::{Digests, Source};
use crate::transfer::{Journal, OpenUpload, Part};

impl Digests {
    /// Computes the digests of bytes that are in memory.
    pub fn of(bytes: &[u8]) -> Self {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        Self { md5: Some(md5::Md5::digest(bytes).into()), sha256, crc32c: crc_fast::crc32_iscsi(bytes) }
    }
}

/// A source whose bytes are in memory. It counts what is read of it and can be told to fail from an offset on.
pub struct MemorySource {
    bytes: Bytes,
    digests: Digests,
    fails_from: u64,
    read_bytes: AtomicU64,
}

impl MemorySource {
    /// Makes a source of `bytes`.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let digests = Digests::of(&bytes);
        Self { bytes, digests, fails_from: u64::MAX, read_bytes: AtomicU64::new(0) }
    }

    /// Lets every read that reaches beyond `offset` fail: a transfer that is interrupted there.
    #[must_use]
    pub fn failing_from(mut self, offset: u64) -> Self {
        self.fails_from = offset;
        self
    }

    /// Makes it a file whose MD5 nobody has needed so far.
    #[must_use]
    pub fn without_md5(mut self) -> Self {
        self.digests.md5 = None;
        self
    }

    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many bytes were read so far, repetitions included.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for MemorySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySource").field("size", &self.bytes.len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for MemorySource {
    fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn digests(&self) -> Digests {
        self.digests
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let failed = || Error::new(Kind::Local, "reading the file", "the file cannot be read");
        let end = offset + length as u64;
        if end > self.fails_from || end > self.size() {
            return Err(failed());
        }
        let start = usize::try_from(offset).map_err(|error| failed().because(error))?;
        self.read_bytes.fetch_add(length as u64, Ordering::Relaxed);
        Ok(self.bytes.slice(start..start + length))
    }
}

/// A journal that remembers in memory: durable enough for what dies with the process.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: BTreeMap<String, OpenUpload>,
    /// All that were ever opened under a handle.
    opened: Vec<OpenUpload>,
    opened_total: u64,
    closed_total: u64,
}

impl MemoryJournal {
    /// What is open under `target`.
    pub fn open(&self, target: &str) -> Option<OpenUpload> {
        self.state().open.get(target).cloned()
    }

    /// All that was ever open, as it was when it was opened, complete or not.
    pub fn all(&self) -> Vec<OpenUpload> {
        self.state().opened.clone()
    }

    /// How many uploads were opened and how many of them were closed.
    pub fn totals(&self) -> (u64, u64) {
        let state = self.state();
        (state.opened_total, state.closed_total)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding the journal")
    }
}

#[async_trait]
impl Journal for MemoryJournal {
    async fn opened(&self, open: &OpenUpload) -> Result<()> {
        let mut state = self.state();
        if !open.handle.is_empty() {
            state.opened.push(open.clone());
        }
        let before = state.open.insert(open.target.clone(), open.clone());
        // The answer to an upload that was written down when it was asked for is no further one.
        if before.is_none_or(|before| !before.handle.is_empty()) {
            state.opened_total += 1;
        }
        Ok(())
    }

    async fn part(&self, target: &str, number: u32, part: &Part) -> Result<()> {
        match self.state().open.get_mut(target) {
            Some(open) => {
                open.parts.insert(number, part.clone());
                Ok(())
            }
            None => Err(Error::new(Kind::Local, "writing the journal", "a part of an upload that was never opened")),
        }
    }

    async fn closed(&self, target: &str) -> Result<()> {
        let mut state = self.state();
        state.closed_total += 1;
        state.open.remove(target);
        Ok(())
    }
}
