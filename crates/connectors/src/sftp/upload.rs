//! One upload: a temporary file beside its target, written in a pipeline, resumed after a break, renamed at the end.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesOrdered};
use futures_util::{FutureExt as _, Stream, StreamExt as _, TryStreamExt as _, stream};
use russh_sftp::protocol::OpenFlags;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::errors::Step;
use super::session::{Entry, OpenFile, Session};
use super::{path, publish};
use crate::budget::{Held, Share};
use crate::error::{Error, Kind, Result};
use crate::source::Source;
use crate::transfer::{OpenUpload, Part, Put};

/// Most parts that one upload writes into the journal; larger files have larger parts.
const PARTS_MAX: u64 = 10_000;

/// Bytes that are read at once. A file store that is a bucket is asked once for each; and where memory is short, a file has so much
/// under way, not a packet at a time.
const WINDOW_BYTES: usize = 1024 * 1024;

const WRITING: &str = "writing the file";

/// An upload between its attempts.
#[derive(Debug)]
pub(super) struct Upload {
    put: Put,
    sha256: String,
    part_bytes: u64,
    /// What is open at the server; also what an earlier attempt in another process left.
    open: Option<OpenUpload>,
    /// Bytes that the progress was told of; given back unless it ends well, so that another attempt can count them itself.
    counted: u64,
}

impl Upload {
    pub(super) fn new(put: Put, part_bytes: u64) -> Self {
        let sha256 = hex::encode(put.source.digests().sha256);
        let part_bytes = part_bytes.max(put.source.size().div_ceil(PARTS_MAX)).max(1);
        Self { open: put.resume.clone(), put, sha256, part_bytes, counted: 0 }
    }

    /// Sends what is missing and publishes the file. Returns what there is to note.
    ///
    /// # Errors
    /// Any; after a transient one another call goes on where this one ended.
    pub(super) async fn attempt(&mut self, session: &Arc<Session>) -> Result<Option<String>> {
        let (file, from) = match self.reopen(session).await? {
            Some(found) => found,
            None => (self.create(session).await?, 0),
        };
        self.count(from);
        self.send(session, &file, from).await?;
        self.seal(file).await?;
        crate::fail_point!("sftp.written");
        self.put.source.whole().await?;
        let temporary = self.handle();
        let note = publish::publish(session, &temporary, &self.put.name).await?;
        crate::fail_point!("sftp.renamed");
        self.put.journal.closed(&self.put.name).await?;
        // It ended well: its bytes stay counted.
        self.counted = 0;
        Ok(note)
    }

    fn handle(&self) -> String {
        self.open.as_ref().map(|open| open.handle.clone()).unwrap_or_default()
    }

    fn step(&self) -> Step<'_> {
        Step::new(WRITING, "write to", path::split(&self.put.name).0)
    }

    /// Opens the temporary file of an earlier attempt, and tells up to where it can be trusted.
    async fn reopen(&mut self, session: &Arc<Session>) -> Result<Option<(OpenFile, u64)>> {
        // It stays known until it is gone: should the connection break here, the next attempt finds it again.
        let Some(mut open) = self.open.clone() else { return Ok(None) };
        publish::restore(session, &open).await?;
        if open.target != self.put.name || open.sha256 != self.sha256 {
            session.remove(&open.handle).await?;
            self.open = None;
            return Ok(None);
        }
        let file = match session.open(&open.handle, OpenFlags::WRITE, self.step()).await {
            Err(error) if error.kind == Kind::NotFound => {
                self.open = None;
                return Ok(None);
            }
            other => other?,
        };
        let size = file.size(self.step()).await?.unwrap_or(0);
        let from = trusted(&open, size.min(self.put.source.size()));
        open.parts.retain(|number, _| u64::from(*number) * open.part_bytes <= from);
        self.open = Some(open);
        Ok(Some((file, from)))
    }

    /// Makes a new temporary file, in the journal first, with the directories that it needs.
    async fn create(&mut self, session: &Arc<Session>) -> Result<OpenFile> {
        let open = OpenUpload {
            target: self.put.name.clone(),
            handle: path::temporary(&self.put.name),
            sha256: self.sha256.clone(),
            part_bytes: self.part_bytes,
            parts: std::collections::BTreeMap::new(),
        };
        self.put.journal.opened(&open).await?;
        // Before it is made: should the answer get lost, the next attempt finds it, and makes no other beside it.
        self.open = Some(open.clone());
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE;
        let file = match session.open(&open.handle, flags, self.step()).await {
            // Not every server says NotFound of a missing directory.
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::Unavailable) => {
                make_directories(session, path::split(&self.put.name).0).await?;
                session.open(&open.handle, flags, self.step()).await?
            }
            other => other?,
        };
        crate::fail_point!("sftp.created");
        Ok(file)
    }

    /// Sends the bytes from `from` on, many packets at a time, and writes down what was acknowledged.
    async fn send(&mut self, session: &Session, file: &OpenFile, from: u64) -> Result<()> {
        let (name, size) = (self.put.name.clone(), self.put.source.size());
        let step = Step::new(WRITING, "write to", path::split(&name).0);
        let mut packets = packets(session, &self.put, from);
        let mut acknowledgements = FuturesOrdered::new();
        let mut acknowledged = from;
        let (mut is_read, mut fault) = (false, None);
        let mut noting = None;
        let sent = loop {
            noting = noting.or_else(|| self.note(acknowledged));
            // Side by side: a packet that waits for its bytes or for memory holds up nothing that is under way, nor does the
            // journal.
            tokio::select! {
                biased;
                Some(answer) = acknowledgements.next(), if !acknowledgements.is_empty() => match answer {
                    Ok(bytes) => {
                        acknowledged += bytes;
                        self.count(acknowledged);
                    }
                    Err(error) => break Err(explain_full(session, error, &name, size - acknowledged).await),
                },
                noted = noted(&mut noting), if noting.is_some() => {
                    noting = None;
                    self.keep(noted?);
                }
                packet = packets.next(), if !is_read => match packet {
                    Some(Ok(packet)) => acknowledgements.push_back(write(file, packet, step)),
                    // What is on its way is still counted, so that the next attempt goes on from there.
                    Some(Err(error)) => (is_read, fault) = (true, Some(error)),
                    None => is_read = true,
                },
                else => break fault.map_or(Ok(()), Err),
            }
        };
        if let Some(noting) = noting {
            self.keep(noting.await?);
        }
        sent
    }

    /// Writes down the next part, if it is acknowledged.
    fn note(&self, acknowledged: u64) -> Option<Noting> {
        let (open, size) = (self.open.as_ref()?, self.put.source.size());
        let number = u32::try_from(open.parts.len() + 1).unwrap_or(u32::MAX);
        let begin = u64::from(number - 1) * open.part_bytes;
        let end = size.min(begin + open.part_bytes);
        if begin >= size || end > acknowledged {
            return None;
        }
        let part = Part { size: end - begin, etag: String::new(), checksum: None };
        let (journal, name) = (Arc::clone(&self.put.journal), self.put.name.clone());
        Some(async move { journal.part(&name, number, &part).await.map(|()| (number, part)) }.boxed())
    }

    fn keep(&mut self, (number, part): (u32, Part)) {
        if let Some(open) = &mut self.open {
            open.parts.insert(number, part);
        }
    }

    fn count(&mut self, bytes: u64) {
        if bytes < self.counted {
            self.put.progress.take_back(self.counted - bytes);
        } else if bytes > self.counted {
            self.put.progress.add(bytes - self.counted);
        }
        self.counted = bytes;
    }

    /// Puts the file on stable storage, checks its length and closes it.
    async fn seal(&self, file: OpenFile) -> Result<()> {
        let step = self.step();
        file.sync(step).await?;
        let size = file.size(step).await?;
        file.close(step).await?;
        let expected = self.put.source.size();
        if size == Some(expected) {
            return Ok(());
        }
        let found = size.map_or_else(|| "an unknown number of".to_owned(), |size| size.to_string());
        let detail = format!("{expected} bytes were sent, but the server holds {found} bytes");
        Err(Error::new(Kind::IntegrityMismatch, "checking the length", detail))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.put.progress.take_back(self.counted);
    }
}

/// Up to where the journal and the server agree that the file was written.
fn trusted(open: &OpenUpload, size: u64) -> u64 {
    let recorded = (1..).map_while(|number| open.parts.get(&number)).map(|part| part.size).sum::<u64>();
    if recorded <= size { recorded } else { size - size % open.part_bytes.max(1) }
}

/// A part that is being written down beside the sending.
type Noting = BoxFuture<'static, Result<(u32, Part)>>;

async fn noted(noting: &mut Option<Noting>) -> Result<(u32, Part)> {
    match noting {
        Some(noting) => noting.await,
        None => std::future::pending().await,
    }
}

/// Bytes that may be sent, and the leave and memory that they have until they are acknowledged.
struct Packet {
    offset: u64,
    data: Bytes,
    _permit: OwnedSemaphorePermit,
    _memory: Arc<Held>,
}

/// Bytes that were read at once, with their memory and the leave of the first packet.
struct Window {
    offset: u64,
    data: Bytes,
    memory: Arc<Held>,
    permit: OwnedSemaphorePermit,
}

/// Reads the bytes from `from` on, one window after the other, and cuts them into packets.
fn packets(session: &Session, put: &Put, from: u64) -> BoxStream<'static, Result<Packet>> {
    let turns = Arc::clone(&session.in_flight);
    let (source, memory) = (Arc::clone(&put.source), put.memory.clone());
    let (size, packet_bytes) = (source.size(), session.packet_bytes.max(1));
    // Whole packets.
    let window_bytes = packet_bytes * (WINDOW_BYTES / packet_bytes).max(1);
    let (again, size_left) = (Arc::clone(&turns), move |offset| usize::try_from(size - offset).unwrap_or(usize::MAX));
    let read = move |offset: u64| {
        window(Arc::clone(&source), Arc::clone(&turns), memory.clone(), offset, size_left(offset).min(window_bytes))
    };
    let windows = stream::iter((from..size).step_by(window_bytes)).then(read);
    windows.map_ok(move |window| cut(window, packet_bytes, Arc::clone(&again))).try_flatten().boxed()
}

/// Reads a window once its first packet may be sent. Bytes that have still to come hold neither leave nor memory.
async fn window(
    source: Arc<dyn Source>,
    turns: Arc<Semaphore>,
    memory: Share,
    offset: u64,
    length: usize,
) -> Result<Window> {
    source.arrived(offset + length as u64).await?;
    let permit = leave(turns).await?;
    let memory = Arc::new(memory.take(length as u64).await);
    let data = source.read_at(offset, length).await?;
    Ok(Window { offset, data, memory, permit })
}

async fn leave(turns: Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    let closed = |error| Error::new(Kind::Local, WRITING, "the session is closed").because(error);
    turns.acquire_owned().await.map_err(closed)
}

/// The packets of a window, each with its leave.
fn cut(window: Window, packet_bytes: usize, turns: Arc<Semaphore>) -> impl Stream<Item = Result<Packet>> {
    let Window { offset, data, memory, permit } = window;
    let mut first = Some(permit);
    stream::iter((0..data.len()).step_by(packet_bytes)).then(move |begin| {
        let data = data.slice(begin..data.len().min(begin + packet_bytes));
        let (turns, memory, offset) = (Arc::clone(&turns), Arc::clone(&memory), offset + begin as u64);
        let first = first.take();
        async move {
            let permit = match first {
                Some(permit) => permit,
                None => leave(turns).await?,
            };
            Ok(Packet { offset, data, _permit: permit, _memory: memory })
        }
    })
}

async fn write(file: &OpenFile, packet: Packet, step: Step<'_>) -> Result<u64> {
    let Packet { offset, data, _permit, _memory } = packet;
    let length = data.len() as u64;
    file.write(offset, data, step).await?;
    Ok(length)
}

/// OpenSSH says no more than "Failure" when the disk is full; this asks it for the free space.
async fn explain_full(session: &Session, error: Error, name: &str, missing: u64) -> Error {
    if error.kind != Kind::Unavailable {
        return error;
    }
    let directory = path::split(name).0;
    let place = if directory.is_empty() { "." } else { directory };
    match session.free_bytes(place).await {
        Some(free) if free < missing => {
            let detail =
                format!("the server has no space left for `{name}`: {missing} bytes of it are still to be written");
            Error::new(Kind::NoSpace, error.action, detail).because(error)
        }
        Some(_) | None => error,
    }
}

/// Makes a directory and those that it lies in, as far as they are missing.
async fn make_directories(session: &Session, directory: &str) -> Result<()> {
    let mut missing = Vec::new();
    for ancestor in path::ancestors(directory) {
        match session.stat(ancestor).await {
            Ok(Entry::Other) => break,
            Ok(Entry::File { .. } | Entry::Link) => {
                let detail = format!("`{ancestor}` is a file, so nothing can be stored below it");
                return Err(Error::new(Kind::InvalidRequest, "making the directory", detail));
            }
            Err(error) if error.kind == Kind::NotFound => missing.push(ancestor),
            Err(error) => return Err(error),
        }
    }
    for ancestor in missing.into_iter().rev() {
        if let Err(error) = session.make_directory(ancestor).await {
            // Another upload may have been quicker.
            if !matches!(session.stat(ancestor).await, Ok(Entry::Other)) {
                return Err(error);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn only_what_both_sides_have_is_trusted() {
        let part = |size| Part { size, etag: String::new(), checksum: None };
        let open = |parts: BTreeMap<u32, Part>| OpenUpload {
            target: "a".to_owned(),
            handle: "b".to_owned(),
            sha256: String::new(),
            part_bytes: 10,
            parts,
        };
        let contiguous = open([(1, part(10)), (2, part(10))].into());
        assert_eq!(trusted(&contiguous, 37), 20);
        assert_eq!(trusted(&contiguous, 20), 20);
        assert_eq!(trusted(&contiguous, 19), 10);
        assert_eq!(trusted(&contiguous, 0), 0);
        assert_eq!(trusted(&open([(1, part(10)), (3, part(10))].into()), 37), 10);
        assert_eq!(trusted(&open(BTreeMap::new()), 37), 0);
    }
}
