//! Reading a kept file at any offset.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use connectors::{Digests, Error, Kind, Source};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::buffers;

/// A kept file, opened once; it stays readable while somebody holds it, even when its task is removed.
#[derive(Debug)]
pub(in super::super) struct LocalSource {
    file: Arc<File>,
    size: u64,
    digests: Digests,
}

impl LocalSource {
    /// A file that is open already.
    pub(in super::super) fn of(file: Arc<File>, size: u64, digests: Digests) -> Self {
        Self { file, size, digests }
    }

    /// Opens it and checks that it is as long as its row says.
    pub(super) fn open(path: &Path, size: u64, digests: Digests) -> io::Result<Arc<dyn Source>> {
        let file = File::open(path)?;
        check_length(file.metadata()?.len(), size)?;
        Ok(Arc::new(Self { file: Arc::new(file), size, digests }))
    }
}

#[async_trait]
impl Source for LocalSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn digests(&self) -> Digests {
        self.digests
    }

    async fn read_at(&self, offset: u64, length: usize) -> connectors::Result<Bytes> {
        let file = Arc::clone(&self.file);
        read(move || read_at(&file, offset, length)).await
    }
}

/// A kept file that is open only while it is read.
#[derive(Debug)]
pub(super) struct ClosedSource {
    path: PathBuf,
    size: u64,
    digests: Digests,
}

impl ClosedSource {
    /// Checks that it is there and as long as its row says.
    pub(super) fn find(path: PathBuf, size: u64, digests: Digests) -> io::Result<Arc<dyn Source>> {
        check_length(path.metadata()?.len(), size)?;
        Ok(Arc::new(Self { path, size, digests }))
    }
}

#[async_trait]
impl Source for ClosedSource {
    fn size(&self) -> u64 {
        self.size
    }

    fn digests(&self) -> Digests {
        self.digests
    }

    async fn read_at(&self, offset: u64, length: usize) -> connectors::Result<Bytes> {
        let path = self.path.clone();
        read(move || read_at(&File::open(path)?, offset, length)).await
    }
}

fn check_length(found: u64, size: u64) -> io::Result<()> {
    if found == size {
        return Ok(());
    }
    Err(io::Error::other(format!("a kept file has {found} bytes instead of {size}")))
}

/// Reads into memory that is not filled with zeroes before, which would cost as much as the reading.
fn read_at(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut buffer = buffers::SHARED.take(length);
    while buffer.len() < length {
        let at = offset + buffer.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut buffer), at) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    buffer.truncate(length);
    Ok(buffers::SHARED.lend(buffer))
}

async fn read(work: impl FnOnce() -> io::Result<Bytes> + Send + 'static) -> connectors::Result<Bytes> {
    let failed = |cause: io::Error| {
        Error::new(Kind::Local, "reading the file", "a file of this server could not be read").because(cause)
    };
    tokio::task::spawn_blocking(work).await.map_err(|stopped| failed(io::Error::other(stopped)))?.map_err(failed)
}
