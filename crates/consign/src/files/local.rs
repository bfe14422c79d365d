//! The folder: how a file comes into being in it, and how it vanishes when nobody wants it.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::Room;
use super::sync_folder;

/// What a file is called while it is written: this, behind its name.
pub(super) const PART: &str = ".part";
/// Tries to make a file in a folder that another writer of the same task, having given up, removes at that moment.
const CREATE_TRIES: u32 = 8;
/// Bytes that are copied between two looks at the room that is left.
const COPY_BYTES: u64 = 8 * 1024 * 1024;
/// Files and folders are the server's own.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// A file that is being written. Dropping it removes it.
#[derive(Debug)]
pub struct Scratch {
    file: Arc<File>,
    path: PathBuf,
    part: Unpublished,
    room: Room,
}

/// Writes into a file that is being written, as long as the disk has room.
#[derive(Clone, Debug)]
pub struct Writer {
    file: Arc<File>,
    room: Room,
}

impl Writer {
    #[cfg(test)]
    pub(super) fn new(file: Arc<File>, room: Room) -> Self {
        Self { file, room }
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

/// A name that goes away unless somebody keeps it; its folder too, when it is left empty.
#[derive(Debug)]
pub(super) struct Unpublished(Option<PathBuf>);

impl Scratch {
    /// Creates `{path}.part` below `root`, with the folders that it needs.
    pub(super) fn create(root: &Path, path: PathBuf, room: Room) -> io::Result<Self> {
        let part = part_of(&path);
        let file = in_folder(root, &path, || {
            let open =
                |create_new| File::options().read(true).write(true).create_new(create_new).mode(FILE_MODE).open(&part);
            match open(true) {
                // Left by an earlier run of the same attempt.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    fs::remove_file(&part)?;
                    open(true)
                }
                other => other,
            }
        })?;
        let part = Unpublished(Some(part));
        file.try_lock()?;
        Ok(Self { file: Arc::new(file), path, part, room })
    }

    /// Writes into it. All writers of a file share one position.
    pub fn writer(&self) -> Writer {
        Writer { file: Arc::clone(&self.file), room: self.room.clone() }
    }

    /// The open file.
    pub(super) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Syncs it and gives it its final name.
    pub(super) fn publish(self) -> io::Result<Unpublished> {
        self.file.sync_all()?;
        connectors::fail_point!("files.written");
        fs::rename(part_of(&self.path), &self.path)?;
        self.part.keep();
        let published = Unpublished(Some(self.path));
        published.sync_folder()?;
        connectors::fail_point!("files.published");
        Ok(published)
    }
}

impl Unpublished {
    /// It stays.
    pub(super) fn keep(mut self) {
        self.0 = None;
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.0.as_deref().and_then(Path::parent).map_or(Ok(()), sync_folder)
    }
}

impl Drop for Unpublished {
    fn drop(&mut self) {
        let Some(path) = self.0.take() else { return };
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "an unfinished file could not be removed; the next start removes it");
        }
        // Folders that hold something else refuse to go, as they should.
        for folder in path.ancestors().skip(1).take(2) {
            if fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }
}

/// Makes the root, only readable by the server.
pub(super) fn make_root(root: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(root)
}

/// Gives each file a second name; copies where the disk cannot do that.
pub(super) fn link_all(root: &Path, pairs: Vec<(PathBuf, PathBuf)>, room: &Room) -> io::Result<Vec<Unpublished>> {
    let mut links: Vec<Unpublished> = Vec::with_capacity(pairs.len());
    let mut folders: Vec<PathBuf> = Vec::new();
    for (from, to) in pairs {
        links.push(Unpublished(Some(to.clone())));
        in_folder(root, &to, || link(root, &from, &to, room))?;
        folders.extend(to.parent().map(Path::to_owned));
    }
    folders.sort_unstable();
    folders.dedup();
    folders.iter().try_for_each(|folder| sync_folder(folder))?;
    Ok(links)
}

fn link(root: &Path, from: &Path, to: &Path, room: &Room) -> io::Result<()> {
    let first = fs::hard_link(from, to);
    let second = match first {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(to)?;
            fs::hard_link(from, to)
        }
        other => other,
    };
    match second {
        Err(error) if cannot_link(&error) => copy(root, from, to, room),
        other => other,
    }
}

/// Whether this file can have no further name, on this disk or at all.
pub(super) fn cannot_link(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::CrossesDevices
            | io::ErrorKind::TooManyLinks
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::Unsupported
    )
}

pub(super) fn copy(root: &Path, from: &Path, to: &Path, room: &Room) -> io::Result<()> {
    let origin = File::open(from)?;
    room.check(origin.metadata()?.len())?;
    let scratch = Scratch::create(root, to.to_owned(), room.clone())?;
    // Others write meanwhile: the room is looked at again and again.
    while io::copy(&mut (&origin).take(COPY_BYTES), &mut &*scratch.file)? > 0 {
        room.check(0)?;
    }
    scratch.publish()?.keep();
    Ok(())
}

/// Does something in the folder of `path`, which is made, and made durable, when it is missing.
fn in_folder<T>(root: &Path, path: &Path, mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut tries = 0;
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries < CREATE_TRIES => {
                tries += 1;
                make_folders(root, path)?;
            }
            other => return other,
        }
    }
}

fn make_folders(root: &Path, path: &Path) -> io::Result<()> {
    let mut missing: Vec<&Path> = path.ancestors().skip(1).take_while(|folder| *folder != root).collect();
    missing.reverse();
    for folder in missing {
        match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
            Ok(()) => sync_folder(folder.parent().unwrap_or(root))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            // Removed again by another writer that gave up: the caller tries again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes a folder with all it holds; one that is not there counts as removed.
pub(super) fn remove_folder(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PART);
    PathBuf::from(name)
}
