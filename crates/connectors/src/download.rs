//! Reading a whole object: in ranges side by side where that is faster, each going on where it broke, and with proof
//! that it was one object from the first byte to the last.
//!
//! In memory are at most [`Limits::parts_in_flight`] ranges of [`Limits::part_bytes`]: the next range is asked for when
//! the first one has been handed out whole. Opening a range is the connector's affair, its tries included; what breaks
//! later is asked for again here, from behind the last byte that came.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::Connector;
use crate::error::{Error, Kind, Result, Retry};
use crate::retry;
use crate::source::{ByteStream, Digests};
use crate::transfer::{Limits, Object};

/// Times that one range is gone on with, however far it came each time. With pauses of up to 20 s it bridges some
/// minutes.
const BREAKS_MAX: u32 = 20;

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
            Self::Md5(md5) => *md5 == digests.md5,
            Self::Sha256(sha256) => *sha256 == digests.sha256,
            Self::Crc32c(crc32c) => *crc32c == digests.crc32c,
        }
    }
}

/// Streams all bytes of an object, in order.
///
/// Without a digest, the storage is asked again behind the last byte, and the stream ends with
/// [`Kind::IntegrityMismatch`] when the object is no longer what it was. With one, comparing it is the caller's duty.
pub fn whole(connector: &Arc<dyn Connector>, described: &Described, limits: &Limits) -> ByteStream {
    let object = Arc::new(described.object.clone());
    let reader = Reader { connector: Arc::clone(connector), tries: limits.tries, object };
    let size = described.object.size;
    let bytes = if connector.reads_side_by_side() {
        Ahead::new(reader.clone(), size, limits).stream()
    } else {
        reader.clone().range(0..size)
    };
    if described.digest.is_some() || size == 0 {
        return bytes;
    }
    let checked = stream::once(async move { reader.check_unchanged().await.map(|()| Bytes::new()) });
    bytes.chain(checked).try_filter(|chunk| std::future::ready(!chunk.is_empty())).boxed()
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
    chunks: mpsc::UnboundedReceiver<Result<Bytes>>,
    left_bytes: u64,
    _task: AbortOnDropHandle<()>,
}

impl Lane {
    fn open(reader: Reader, range: Range<u64>) -> Self {
        let left_bytes = range.end - range.start;
        let (sender, chunks) = mpsc::unbounded_channel();
        let task = tokio::spawn(retry::carried(async move {
            let mut bytes = reader.range(range);
            while let Some(chunk) = bytes.next().await {
                let is_last = chunk.is_err();
                if sender.send(chunk).is_err() || is_last {
                    return;
                }
            }
        }));
        Self { chunks, left_bytes, _task: AbortOnDropHandle::new(task) }
    }
}

/// An object whose next ranges are read ahead.
struct Ahead {
    reader: Reader,
    lanes: VecDeque<Lane>,
    /// The first byte that no lane reads.
    next: u64,
    size: u64,
    lane_bytes: u64,
    lanes_max: usize,
}

impl Ahead {
    fn new(reader: Reader, size: u64, limits: &Limits) -> Self {
        Self {
            reader,
            lanes: VecDeque::new(),
            next: 0,
            size,
            lane_bytes: limits.part_bytes.max(1),
            lanes_max: limits.parts_in_flight.max(1),
        }
    }

    fn stream(self) -> ByteStream {
        Box::pin(stream::try_unfold(self, |mut ahead| async move {
            Ok(ahead.next_chunk().await?.map(|chunk| (chunk, ahead)))
        }))
    }

    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            while self.next < self.size && self.lanes.len() < self.lanes_max {
                let range = self.next..self.size.min(self.next.saturating_add(self.lane_bytes));
                self.next = range.end;
                self.lanes.push_back(Lane::open(self.reader.clone(), range));
            }
            let Some(lane) = self.lanes.front_mut() else { return Ok(None) };
            match lane.chunks.recv().await {
                Some(chunk) => {
                    let chunk = chunk?;
                    lane.left_bytes -= chunk.len() as u64;
                    return Ok(Some(chunk));
                }
                None if lane.left_bytes > 0 => {
                    return Err(Error::new(Kind::Local, ACTION, "the task that reads a range was stopped"));
                }
                None => drop(self.lanes.pop_front()),
            }
        }
    }
}

#[cfg(test)]
mod tests;
