//! One pass: from a stream onto the disk, counted, limited and hashed.
//!
//! Bytes are gathered into batches. While one batch is written and hashed by the blocking pool, the next one is
//! gathered; so a file in transit costs two batches of memory, and no thread while its sender is slow.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use connectors::{ByteStream, Progress};
use futures_util::StreamExt as _;
use tokio::task::JoinHandle;

use super::hashing::{self, Quick, Slow};
use super::scratch::Writer;
use super::{Error, Received};

/// Bytes of a batch. Large enough that handing it over costs nothing beside hashing it.
const BATCH_BYTES: usize = 1024 * 1024;
/// Pieces of a batch: bounds what a stream of tiny pieces costs.
const BATCH_PIECES: usize = 1024;

/// What is asked of a stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// Its length, where that was told.
    pub(super) announced_bytes: Option<u64>,
    /// Most that is taken.
    pub(super) limit_bytes: u64,
    /// Whether its MD5 is computed, too.
    pub(super) with_md5: bool,
}

/// Writes a stream into an empty file. Each batch is written only if the disk has room for it: what others write
/// meanwhile counts, and a length may not be known before.
pub(super) async fn pour(
    mut stream: ByteStream,
    file: Writer,
    terms: Terms,
    progress: &Progress,
) -> Result<Received, Error> {
    let Terms { announced_bytes, limit_bytes, with_md5 } = terms;
    let mut sink = Sink::new(file, with_md5);
    let mut batch = Batch::default();
    let mut size = 0_u64;
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(Error::Stream)?;
        size += piece.len() as u64;
        if size > limit_bytes {
            return Err(Error::TooLarge { limit_bytes });
        }
        if let Some(announced_bytes) = announced_bytes.filter(|&announced| size > announced) {
            return Err(Error::WrongLength { announced_bytes, received_bytes: size });
        }
        progress.add(piece.len() as u64);
        batch.add(piece);
        if batch.is_full() {
            sink.take(std::mem::take(&mut batch)).await?;
        }
    }
    if let Some(announced_bytes) = announced_bytes.filter(|&announced| size != announced) {
        return Err(Error::WrongLength { announced_bytes, received_bytes: size });
    }
    sink.take(batch).await?;
    let (slow, quick) = sink.finish().await?;
    Ok(Received { size, digests: hashing::finish(slow, quick) })
}

/// Pieces that are handled together.
#[derive(Default)]
struct Batch {
    pieces: Vec<Bytes>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, piece: Bytes) {
        self.bytes += piece.len();
        self.pieces.push(piece);
    }

    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.pieces.len() >= BATCH_PIECES
    }
}

/// Where batches go: two jobs on the pool at the most, one that hashes slowly, one that hashes quickly and writes.
struct Sink {
    file: Writer,
    written: u64,
    slow: Option<JoinHandle<Slow>>,
    quick: JoinHandle<io::Result<Quick>>,
}

impl Sink {
    fn new(file: Writer, with_md5: bool) -> Self {
        let slow = with_md5.then(|| tokio::task::spawn_blocking(Slow::new));
        let quick = tokio::task::spawn_blocking(|| Ok(Quick::new()));
        Self { file, written: 0, slow, quick }
    }

    /// Hands a batch to the pool once the one before it is done.
    async fn take(&mut self, batch: Batch) -> Result<(), Error> {
        let (slow, mut quick) = self.idle().await?;
        let start = self.written;
        self.written += batch.bytes as u64;
        let pieces: Arc<[Bytes]> = batch.pieces.into();
        let (file, bytes) = (self.file.clone(), batch.bytes as u64);
        self.slow = slow.map(|mut slow| {
            let pieces = Arc::clone(&pieces);
            tokio::task::spawn_blocking(move || {
                pieces.iter().for_each(|piece| slow.update(piece));
                slow
            })
        });
        self.quick = tokio::task::spawn_blocking(move || {
            file.check_room(bytes)?;
            let mut offset = start;
            for piece in pieces.iter() {
                file.write_all_at(piece, offset)?;
                quick.update(piece);
                offset += piece.len() as u64;
            }
            // Told at once, since a sender may fall silent behind it.
            file.has_written(offset);
            Ok(quick)
        });
        Ok(())
    }

    async fn idle(&mut self) -> Result<(Option<Slow>, Quick), Error> {
        let stopped = |error| Error::Disk(io::Error::other(error));
        let slow = match &mut self.slow {
            Some(slow) => Some(slow.await.map_err(stopped)?),
            None => None,
        };
        let quick = (&mut self.quick).await.map_err(stopped)??;
        Ok((slow, quick))
    }

    async fn finish(mut self) -> Result<(Option<Slow>, Quick), Error> {
        self.idle().await
    }
}
