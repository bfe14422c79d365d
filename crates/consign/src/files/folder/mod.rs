//! The folder: how a file comes into being in it, and how it vanishes when nobody wants it.
//!
//! On disk a file is `{root}/{task}/{token}/{number}`; while it is written it has `.part` behind its name and is
//! locked, so that a second process on the same folder can tell it from what a crash left.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use connectors::Source;
use tokio::sync::watch;

use super::check::Room;
use super::scratch::{Home, Scratch};
use super::{Error, Link, blocking, mark};
use crate::model::{self, BlobKey};

mod buffers;
pub(super) mod source;
mod sweep;

/// What a file is called while it is written: this, behind its name.
const PART: &str = ".part";
/// Tries to make a file in a folder that another writer of the same task, having given up, or a process that starts removes at
/// that moment. Each takes some microseconds.
const CREATE_TRIES: u32 = 64;
/// Bytes that are copied between two looks at the room that is left.
const COPY_BYTES: u64 = 8 * 1024 * 1024;
/// Files and folders are the server's own.
const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// The folder of a file store. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    root: Arc<Path>,
}

impl Folder {
    /// Opens it, makes it if need be, and clears away what a crash left half-written.
    pub(super) async fn open(root: &Path) -> Result<Self, Error> {
        let root: Arc<Path> = Arc::from(root);
        let folder = Arc::clone(&root);
        blocking(move || {
            make_root(&folder)?;
            sweep::clear_parts(&folder)
        })
        .await?;
        Ok(Self { root })
    }

    pub(super) fn root(&self) -> Arc<Path> {
        Arc::clone(&self.root)
    }

    /// Where a file is.
    pub(super) fn path(&self, key: &BlobKey) -> PathBuf {
        self.root.join(key.as_str())
    }

    /// Opens an empty file that is to have this key.
    pub(super) async fn scratch(&self, key: &BlobKey, room: Room) -> Result<Scratch, Error> {
        let (root, path) = (self.root(), self.path(key));
        blocking(move || {
            room.check(0)?;
            Scratch::create(&root, path, room)
        })
        .await
    }

    /// Makes a scratch file durable under its final name.
    pub(super) async fn publish(file: Arc<File>, path: PathBuf, part: Unpublished) -> Result<(), Error> {
        // The guard comes back through the pool: if this future is dropped meanwhile, nobody takes it, and it
        // removes what was published.
        blocking(move || publish(&file, path, part)).await?.keep();
        Ok(())
    }

    /// A kept file, opened now and for as long as somebody holds it.
    pub(super) async fn source(&self, key: &BlobKey, file: &model::File) -> Result<Arc<dyn Source>, Error> {
        let path = self.path(key);
        let (size, digests) = (file.size, file.digests);
        blocking(move || source::LocalSource::open(&path, size, digests)).await
    }

    /// A kept file that is opened for each reading.
    pub(super) async fn input(&self, key: &BlobKey, file: &model::File) -> Result<Arc<dyn Source>, Error> {
        let path = self.path(key);
        let (size, digests) = (file.size, file.digests);
        blocking(move || source::ClosedSource::find(path, size, digests)).await
    }

    /// Gives each file a second name, all or none of them.
    pub(super) async fn link_all(&self, links: Vec<Link>, room: Room) -> Result<(), Error> {
        let root = self.root();
        let pairs = links.iter().map(|link| (self.path(&link.from), self.path(&link.to))).collect();
        let links = blocking(move || link_all(&root, pairs, &room)).await?;
        links.into_iter().for_each(Unpublished::keep);
        Ok(())
    }

    /// What stands in the mark, if there is one.
    pub(super) async fn read_mark(&self) -> Result<Option<Vec<u8>>, Error> {
        let path = self.root.join(mark::NAME);
        blocking(move || {
            let file = match File::open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            let mut bytes = Vec::new();
            file.take(mark::BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(Some(bytes))
        })
        .await
    }

    /// Writes the mark, whole or not at all.
    pub(super) async fn write_mark(&self, text: String) -> Result<(), Error> {
        let root = self.root();
        blocking(move || {
            let mut file = tempfile::NamedTempFile::new_in(&root)?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(root.join(mark::NAME))?;
            sync_folder(&root)
        })
        .await
    }

    /// Removes what lies below a relative path.
    pub(super) async fn remove(&self, path: String) -> Result<(), Error> {
        let folder = self.root.join(path);
        blocking(move || remove_folder(&folder)).await
    }
}

/// A name that goes away unless somebody keeps it; its folder too, when it is left empty.
#[derive(Debug)]
pub(super) struct Unpublished(Option<PathBuf>);

impl Scratch {
    /// Creates `{path}.part` below `root`, with the folders that it needs.
    fn create(root: &Path, path: PathBuf, room: Room) -> io::Result<Self> {
        let name = part_of(&path);
        for _ in 0..CREATE_TRIES {
            let file = in_folder(root, &path, || {
                let open = |create_new| {
                    File::options().read(true).write(true).create_new(create_new).mode(FILE_MODE).open(&name)
                };
                match open(true) {
                    // Left by an earlier run of the same attempt.
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        fs::remove_file(&name)?;
                        open(true)
                    }
                    other => other,
                }
            })?;
            let part = Unpublished(Some(name.clone()));
            // A process that starts takes a file that nobody has locked yet for one that a crash left.
            if lock_in_place(&file, &name)? {
                let home = Home::Folder { path, part };
                return Ok(Self { file: Arc::new(file), room, home, arrived: watch::Sender::default() });
            }
        }
        Err(io::Error::other("a new file is taken away again and again"))
    }
}

/// Locks a new file, and tells whether it still has its name. Who holds it has taken it for a left-over, and is about to remove it.
fn lock_in_place(file: &File, name: &Path) -> io::Result<bool> {
    file.lock()?;
    let there = match fs::metadata(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let own = file.metadata()?;
    Ok((there.dev(), there.ino()) == (own.dev(), own.ino()))
}

/// Syncs a file and gives it its final name.
fn publish(file: &File, path: PathBuf, part: Unpublished) -> io::Result<Unpublished> {
    file.sync_all()?;
    connectors::fail_point!("files.written");
    fs::rename(part_of(&path), &path)?;
    part.keep();
    let published = Unpublished(Some(path));
    published.sync_folder()?;
    connectors::fail_point!("files.published");
    Ok(published)
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
fn make_root(root: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(root)
}

/// Gives each file a second name; copies where the disk cannot do that.
fn link_all(root: &Path, pairs: Vec<(PathBuf, PathBuf)>, room: &Room) -> io::Result<Vec<Unpublished>> {
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
    connectors::fail_point!("files.linked");
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
    let Scratch { file, home: Home::Folder { path, part }, .. } = Scratch::create(root, to.to_owned(), room.clone())?
    else {
        return Err(io::Error::other("a folder keeps its scratch files itself"));
    };
    // Others write meanwhile: the room is looked at again and again.
    while io::copy(&mut (&origin).take(COPY_BYTES), &mut &*file)? > 0 {
        room.check(0)?;
    }
    publish(&file, path, part)?.keep();
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
        let made = match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            made => made.and_then(|()| sync_folder(folder.parent().unwrap_or(root))),
        };
        match made {
            // Removed again by another writer that gave up, or by a process that starts: the caller tries again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            made => made?,
        }
    }
    Ok(())
}

/// Removes a folder with all it holds; one that is not there counts as removed.
fn remove_folder(folder: &Path) -> io::Result<()> {
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

/// Syncs a folder, so that the names in it survive a power cut.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
