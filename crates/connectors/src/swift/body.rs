//! The body of an upload: a range of the source, read while it is sent, counted, and hashed where that is not known yet.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use md5::{Digest as _, Md5};

use crate::error::{Error, Kind, Result};
use crate::http::Body;
use crate::source::Source;
use crate::transfer::Progress;

/// Bytes that are read at once: large enough for a disk, and few enough that all that is in flight stays small.
const PIECE_BYTES: u64 = 512 * 1024;
/// Pieces that are read ahead of the connection.
const PIECES_AHEAD: usize = 2;
/// Memory of a range that is sent: those, and the one that the connection has.
pub(super) const SENDING_BYTES: u64 = PIECE_BYTES * (PIECES_AHEAD as u64 + 1);

/// A range of a source that is sent, perhaps more than once. Its bytes are counted as they leave, and given back when it
/// is sent again, or dropped before it arrived.
#[derive(Debug)]
pub(super) struct Cargo {
    source: Arc<dyn Source>,
    range: Range<u64>,
    is_hashed: bool,
    progress: Progress,
    sending: Mutex<Option<Sending>>,
}

/// One sending; it counts until it is over.
#[derive(Clone, Debug)]
struct Sending(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    progress: Progress,
    /// None when it is over.
    bytes: Option<u64>,
    md5: Md5,
}

impl Cargo {
    /// `is_hashed` asks for the MD5 of what is sent.
    pub(super) fn new(source: &Arc<dyn Source>, range: Range<u64>, is_hashed: bool, progress: &Progress) -> Self {
        Self { source: Arc::clone(source), range, is_hashed, progress: progress.clone(), sending: Mutex::default() }
    }

    pub(super) fn size(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// The body for another sending.
    pub(super) fn body(&self) -> Body {
        let sending = Sending::new(&self.progress);
        if let Some(before) = self.sending().replace(sending.clone()) {
            before.give_back();
        }
        if self.range.is_empty() {
            return Body::empty();
        }
        let (source, range, is_hashed) = (Arc::clone(&self.source), self.range.clone(), self.is_hashed);
        let offsets = (0..self.size().div_ceil(PIECE_BYTES)).map(move |piece| range.start + piece * PIECE_BYTES);
        let end = self.range.end;
        let pieces = stream::iter(offsets).map(move |offset| {
            let source = Arc::clone(&source);
            let length = usize::try_from(PIECE_BYTES.min(end - offset)).unwrap_or_default();
            async move { source.read_at(offset, length).await }
        });
        let pieces = pieces.buffered(PIECES_AHEAD).and_then(move |piece| {
            let sending = sending.clone();
            async move { sending.passes(piece, is_hashed).await }
        });
        Body::stream(self.size(), Box::pin(pieces))
    }

    /// MD5 of what was sent last, in lower-case hex.
    pub(super) fn md5(&self) -> String {
        self.sending().as_ref().map(|sending| hex::encode(sending.state().md5.clone().finalize())).unwrap_or_default()
    }

    /// It arrived: its bytes stay counted.
    pub(super) fn arrived(self) {
        if let Some(sending) = self.sending().take() {
            sending.state().bytes = None;
        }
    }

    fn sending(&self) -> MutexGuard<'_, Option<Sending>> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cargo {
    fn drop(&mut self) {
        if let Some(sending) = self.sending().take() {
            sending.give_back();
        }
    }
}

impl Sending {
    fn new(progress: &Progress) -> Self {
        Self(Arc::new(Mutex::new(State { progress: progress.clone(), bytes: Some(0), md5: Md5::new() })))
    }

    async fn passes(&self, piece: Bytes, is_hashed: bool) -> Result<Bytes> {
        if is_hashed {
            let (sending, bytes) = (self.clone(), piece.clone());
            let hashed = tokio::task::spawn_blocking(move || sending.state().md5.update(&bytes)).await;
            hashed.map_err(|error| {
                Error::new(Kind::Local, "computing a checksum", "the computation did not end").because(error)
            })?;
        }
        let mut state = self.state();
        if let Some(bytes) = &mut state.bytes {
            *bytes += piece.len() as u64;
            state.progress.add(piece.len() as u64);
        }
        drop(state);
        Ok(piece)
    }

    fn give_back(&self) {
        let mut state = self.state();
        if let Some(bytes) = state.bytes.take() {
            state.progress.take_back(bytes);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::memory::MemorySource;

    #[tokio::test]
    async fn a_range_is_sent_whole_hashed_and_counted_once() {
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|i| (i % 251) as u8).collect();
        let source: Arc<dyn Source> = Arc::new(MemorySource::new(bytes.clone()));
        let progress = Progress::default();
        for (range, is_kept) in
            [(0..3_000_000, false), (7..1_048_583, false), (5..5, false), (2_999_999..3_000_000, true)]
        {
            let cargo = Cargo::new(&source, range.clone(), true, &progress);
            for _ in 0..2 {
                let sent = cargo.body().collect().await.unwrap().to_bytes();
                let expected = &bytes[usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()];
                assert!(sent == expected, "{range:?}");
                assert_eq!(cargo.md5(), hex::encode(Md5::digest(expected)));
                assert_eq!(progress.bytes(), range.end - range.start);
            }
            if is_kept {
                cargo.arrived();
            }
        }
        assert_eq!(progress.bytes(), 1);
    }
}
