//! Reading a whole object: in ranges side by side where that is faster, each going on where it broke, and with proof
//! that it was one object from the first byte to the last.
//!
//! In memory are at most [`Limits::parts_in_flight`] ranges of [`Limits::part_bytes`], and never more than the budget
//! of all transfers gives: a range is asked for when there is memory for it, and the first one always has it, so that a
//! transfer goes on with whatever it gets. Opening a range is the connector's affair, its tries included; what breaks
//! later is asked for again here, from behind the last byte that came.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::Connector;
use crate::budget::{Held, Share};
use crate::error::{Error, Kind, Result, Retry};
use crate::retry;
use crate::source::{ByteStream, Digests};
use crate::transfer::{Limits, Object};

/// Times that one range is gone on with, however far it came each time. With pauses of up to 20 s it bridges some
/// minutes.
const BREAKS_MAX: u32 = 20;

/// Bytes that a range hands out at once: large enough that what comes behind (hashing, writing) is paid seldom.
const PIECE_BYTES: usize = 256 * 1024;

/// Memory of a read that is not made of ranges: what the protocol asks for ahead.
const SINGLE_BYTES: u64 = 4 * 1024 * 1024;

/// What an error says was being done.
const ACTION: &str = "reading the object";

/// All that a storage tells of one object before it is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The object, with its media type where the storage keeps one.
    pub object: Object,
    /// A digest of all its bytes, where the storage knows one.
    pub digest: Option<WholeDigest>,
}

/// A digest of all bytes of an object, as the storage tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WholeDigest {
    /// MD5.
    Md5([u8; 16]),
    /// SHA-256.
    Sha256([u8; 32]),
    /// CRC-32C (Castagnoli).
    Crc32c(u32),
}

impl WholeDigest {
    /// Whether bytes with these digests are the ones that the storage means.
    pub fn fits(&self, digests: &Digests) -> bool {
        match self {
            Self::Md5(md5) => Some(*md5) == digests.md5,
            Self::Sha256(sha256) => *sha256 == digests.sha256,
            Self::Crc32c(crc32c) => *crc32c == digests.crc32c,
        }
    }
}

/// Streams all bytes of an object, in order.
///
/// Without a digest, the storage is asked again behind the last byte, and the stream ends with
/// [`Kind::IntegrityMismatch`] when the object is no longer what it was. With one, comparing it is the caller's duty.
/// Memory is taken from `share`.
pub fn whole(connector: &Arc<dyn Connector>, described: &Described, limits: &Limits, share: Share) -> ByteStream {
    let object = Arc::new(described.object.clone());
    let reader = Reader { connector: Arc::clone(connector), tries: limits.tries, object };
    let size = described.object.size;
    let bytes = if connector.reads_side_by_side() {
        Ahead::new(reader.clone(), size, limits, share).stream()
    } else {
        single(reader.clone(), size, share)
    };
    if described.digest.is_some() || size == 0 {
        return bytes;
    }
    let checked = stream::once(async move { reader.check_unchanged().await.map(|()| Bytes::new()) });
    bytes.chain(checked).try_filter(|chunk| std::future::ready(!chunk.is_empty())).boxed()
}

/// All bytes in one read.
fn single(reader: Reader, size: u64, share: Share) -> ByteStream {
    let opened = async move {
        let held = share.take(size.min(SINGLE_BYTES)).await;
        reader.range(0..size).inspect(move |_| _ = &held)
    };
    opened.flatten_stream().boxed()
}

/// Streams a range of one object, in order, of just this version where the protocol can insist on one. It goes on where
/// it broke, as often as `tries` allows.
pub fn part(connector: Arc<dyn Connector>, object: Arc<Object>, range: Range<u64>, tries: u32) -> ByteStream {
    Reader { connector, object, tries }.range(range)
}

/// The error of an object that is no longer what it was when its transfer began.
pub(crate) fn changed(name: &str) -> Error {
    let detail = format!("`{name}` was changed while it was read");
    Error::new(Kind::IntegrityMismatch, ACTION, detail)
}

/// Reads parts of one object.
#[derive(Clone)]
struct Reader {
    connector: Arc<dyn Connector>,
    object: Arc<Object>,
    tries: u32,
}

impl Reader {
    /// The bytes of a range, across as many answers as it takes.
    fn range(self, range: Range<u64>) -> ByteStream {
        let pull = Pull { reader: self, at: range.start, end: range.end, open: None, breaks: 0, broke_at: 0, vain: 0 };
        Box::pin(stream::try_unfold(pull, |mut pull| async move { Ok(pull.next().await?.map(|chunk| (chunk, pull))) }))
    }

    async fn check_unchanged(&self) -> Result<()> {
        let before = &self.object;
        let now = match self.connector.stat(&before.name).await {
            Err(error) if error.kind == Kind::NotFound => return Err(changed(&before.name)),
            other => other?,
        };
        // A listing may know less than a look at the object.
        let is_marked_otherwise = before.etag.is_some() && now.etag.is_some() && before.etag != now.etag;
        if now.size == before.size && !is_marked_otherwise { Ok(()) } else { Err(changed(&before.name)) }
    }
}

/// A range that is being read.
struct Pull {
    reader: Reader,
    /// The next byte.
    at: u64,
    end: u64,
    open: Option<ByteStream>,
    /// How often it broke, where last, and how often since a byte came.
    breaks: u32,
    broke_at: u64,
    vain: u32,
}

impl Pull {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.at < self.end {
            let Some(open) = &mut self.open else {
                let Reader { connector, object, .. } = &self.reader;
                self.open = Some(connector.read_same(object, self.at..self.end).await?);
                continue;
            };
            match open.try_next().await {
                Ok(Some(chunk)) if chunk.len() as u64 > self.end - self.at => {
                    return Err(Error::new(
                        Kind::Protocol,
                        ACTION,
                        "the storage sends more bytes than it was asked for",
                    ));
                }
                Ok(Some(chunk)) if chunk.is_empty() => {}
                Ok(Some(chunk)) => {
                    self.at += chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                Ok(None) => {
                    let detail = format!("`{}` ended before all bytes had arrived", self.reader.object.name);
                    self.mend(Error::new(Kind::Unreachable, ACTION, detail)).await?;
                }
                Err(error) => self.mend(error).await?,
            }
        }
        // What is left open would hold a connection, or a file at the server.
        self.open = None;
        Ok(None)
    }

    /// Waits for the next try, if there is to be one.
    async fn mend(&mut self, broken: Error) -> Result<()> {
        self.open = None;
        let Retry::Later(asked) = broken.retry else { return Err(broken) };
        self.breaks += 1;
        self.vain = if self.at > self.broke_at { 1 } else { self.vain + 1 };
        self.broke_at = self.at;
        if self.vain >= self.reader.tries || self.breaks > BREAKS_MAX {
            return Err(broken);
        }
        tracing::debug!(error = %broken, at = self.at, "the read goes on where it broke");
        retry::note(broken.kind);
        tokio::time::sleep(retry::pause(self.vain + 1, asked)).await;
        Ok(())
    }
}

/// A range that is read by a task of its own.
struct Lane {
    /// Bounded by the length of the range.
    pieces: mpsc::UnboundedReceiver<Result<Bytes>>,
    left_bytes: u64,
    _task: AbortOnDropHandle<()>,
    _memory: Held,
}

impl Lane {
    fn open(reader: Reader, range: Range<u64>, memory: Held) -> Self {
        let left_bytes = range.end - range.start;
        let (sender, pieces) = mpsc::unbounded_channel();
        let task = tokio::spawn(retry::carried(async move {
            if let Err(error) = gather(reader, range, &sender).await {
                _ = sender.send(Err(error));
            }
        }));
        Self { pieces, left_bytes, _task: AbortOnDropHandle::new(task), _memory: memory }
    }
}

/// Reads a range and sends it in pieces of [`PIECE_BYTES`]. What comes is copied: a chunk of a connection may be a small
/// part of a large buffer, and would keep all of it.
async fn gather(reader: Reader, range: Range<u64>, sender: &mpsc::UnboundedSender<Result<Bytes>>) -> Result<()> {
    let mut left = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
    let mut bytes = reader.range(range);
    let mut piece = Vec::new();
    while let Some(mut chunk) = bytes.try_next().await? {
        while !chunk.is_empty() {
            if piece.capacity() == 0 {
                piece.reserve_exact(left.min(PIECE_BYTES));
            }
            let fits = (piece.capacity() - piece.len()).min(chunk.len());
            piece.extend_from_slice(&chunk.split_to(fits));
            left -= fits;
            if (piece.len() == piece.capacity() || left == 0)
                && sender.send(Ok(std::mem::take(&mut piece).into())).is_err()
            {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// An object whose next ranges are read ahead.
struct Ahead {
    reader: Reader,
    share: Share,
    lanes: VecDeque<Lane>,
    /// The range that waits for memory. One at a time, so that the first of all that are left always has it.
    asking: Option<(Range<u64>, BoxFuture<'static, Held>)>,
    /// The first byte that no lane reads and nobody asks for.
    next: u64,
    size: u64,
    lane_bytes: u64,
    lanes_max: usize,
}

impl Ahead {
    fn new(reader: Reader, size: u64, limits: &Limits, share: Share) -> Self {
        Self {
            reader,
            share,
            lanes: VecDeque::new(),
            asking: None,
            next: 0,
            size,
            lane_bytes: limits.part_bytes.max(1),
            lanes_max: limits.parts_in_flight.max(1),
        }
    }

    fn stream(self) -> ByteStream {
        Box::pin(stream::try_unfold(self, |mut ahead| async move {
            Ok(ahead.next_piece().await?.map(|piece| (piece, ahead)))
        }))
    }

    async fn next_piece(&mut self) -> Result<Option<Bytes>> {
        loop {
            self.ask();
            let piece = tokio::select! {
                biased;
                memory = granted(&mut self.asking), if self.asking.is_some() => {
                    if let Some((range, _)) = self.asking.take() {
                        self.lanes.push_back(Lane::open(self.reader.clone(), range, memory));
                    }
                    continue;
                }
                piece = first_piece(&mut self.lanes), if !self.lanes.is_empty() => piece,
                else => return Ok(None),
            };
            let Some(lane) = self.lanes.front_mut() else { continue };
            match piece {
                Some(piece) => {
                    let piece = piece?;
                    lane.left_bytes -= piece.len() as u64;
                    return Ok(Some(piece));
                }
                None if lane.left_bytes > 0 => {
                    return Err(Error::new(Kind::Local, ACTION, "the task that reads a range was stopped"));
                }
                None => drop(self.lanes.pop_front()),
            }
        }
    }

    /// Asks for memory for the next range, if there is one that may be read ahead.
    fn ask(&mut self) {
        if self.asking.is_some() || self.next >= self.size || self.lanes.len() >= self.lanes_max {
            return;
        }
        let range = self.next..self.size.min(self.next.saturating_add(self.lane_bytes));
        self.next = range.end;
        let (share, bytes) = (self.share.clone(), range.end - range.start);
        self.asking = Some((range, async move { share.take(bytes).await }.boxed()));
    }
}

async fn granted(asking: &mut Option<(Range<u64>, BoxFuture<'static, Held>)>) -> Held {
    match asking {
        Some((_, memory)) => memory.await,
        None => std::future::pending().await,
    }
}

async fn first_piece(lanes: &mut VecDeque<Lane>) -> Option<Result<Bytes>> {
    match lanes.front_mut() {
        Some(lane) => lane.pieces.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
