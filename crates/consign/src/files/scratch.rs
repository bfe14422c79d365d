//! Files that are being written, on this machine's disk: in the folder that keeps them, or on their way to an object store.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::arriving::{Arriving, Whole};
use super::check::Room;
use super::folder::Unpublished;
use crate::model::BlobKey;

/// A file that is being written. Dropping it removes it.
#[derive(Debug)]
pub struct Scratch {
    pub(super) file: Arc<File>,
    pub(super) room: Room,
    pub(super) home: Home,
    /// Bytes that are in the file, from its beginning.
    pub(super) arrived: watch::Sender<u64>,
}

/// Where a scratch file belongs.
#[derive(Debug)]
pub(super) enum Home {
    /// Below the folder that keeps it: its name to be, and the one that it has until then.
    Folder { path: PathBuf, part: Unpublished },
    /// Nowhere: it has no name here, and goes to an object store under this key.
    Bucket(BlobKey),
}

impl Scratch {
    /// Writes into it. All writers of a file share one position.
    pub fn writer(&self) -> Writer {
        Writer { file: Arc::clone(&self.file), room: self.room.clone(), arrived: self.arrived.clone() }
    }

    /// Reads it while it is received; it will have `size` bytes.
    pub fn arriving(&self, size: u64) -> (Arriving, Whole) {
        Arriving::new(self.file(), size, self.arrived.subscribe())
    }

    /// The open file.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }
}

/// Writes into a file that is being written, as long as the disk has room.
#[derive(Clone, Debug)]
pub struct Writer {
    file: Arc<File>,
    room: Room,
    arrived: watch::Sender<u64>,
}

impl Writer {
    #[cfg(test)]
    pub(super) fn new(file: Arc<File>, room: Room) -> Self {
        Self { file, room, arrived: watch::Sender::default() }
    }

    /// All bytes before `end` are in the file.
    pub(super) fn has_written(&self, end: u64) {
        self.arrived.send_replace(end);
    }

    /// Checks that the disk has room for so many bytes more.
    pub(super) fn check_room(&self, bytes: u64) -> io::Result<()> {
        self.room.check(bytes)
    }

    /// Writes at an offset, without a look at the room.
    pub(super) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.room.check(bytes.len() as u64)?;
        (&*self.file).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Writer {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        (&*self.file).seek(to)
    }
}
