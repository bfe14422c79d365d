//! Answers the SFTP requests of one channel, version 3 with OpenSSH's extensions.
//!
//! `russh-sftp` asks for one request after the other; files stay open as plain files and all that blocks runs on threads
//! that may.

use std::collections::HashMap;
use std::fs::{self, File as Opened, FileTimes, OpenOptions, Permissions, ReadDir};
use std::io;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh_sftp::extensions::{FSYNC, FsyncExtension, LIMITS, LimitsExtension};
use russh_sftp::protocol::{
    Attrs, Data, ExtendedReply, File, FileAttributes, Handle, Name, OpenFlags, Packet, Status, StatusCode, Version,
};
use russh_sftp::server::{Handler, StatusReply};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::Deserialize;

use super::{PACKET_BYTES_MAX, place};

/// Files and folders open at once.
const HANDLES_MAX: usize = 256;
/// Longest piece that is read or written at once: a packet without its head, as at OpenSSH's server.
const DATA_BYTES_MAX: u32 = PACKET_BYTES_MAX - 1024;
/// Names in one answer to a listing: at 255 bytes twice each, well inside a packet.
const NAMES_MAX: usize = 100;
/// Renames in place of what is there, in one step.
const POSIX_RENAME: &str = "posix-rename@openssh.com";

/// The payload of [`POSIX_RENAME`].
#[derive(Deserialize)]
struct RenamePaths {
    oldpath: String,
    newpath: String,
}

/// What a handle stands for.
enum Open {
    File(Arc<Opened>),
    /// `None` while a thread reads from it.
    Folder(Option<ReadDir>),
}

/// One SFTP channel.
pub(super) struct SftpSession {
    root: PathBuf,
    open: HashMap<String, Open>,
    opened: u64,
}

impl SftpSession {
    /// Makes a session in which `root`, a canonical path, is `/`.
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, open: HashMap::new(), opened: 0 }
    }

    fn keep(&mut self, id: u32, open: Open) -> Handle {
        self.opened += 1;
        let handle = self.opened.to_string();
        self.open.insert(handle.clone(), open);
        Handle { id, handle }
    }

    fn check_room(&self) -> Result<(), StatusReply> {
        if self.open.len() < HANDLES_MAX {
            return Ok(());
        }
        Err(StatusCode::Failure.with_message("too many open files; close some first"))
    }

    fn file(&self, handle: &str) -> Result<Arc<Opened>, StatusReply> {
        match self.open.get(handle) {
            Some(Open::File(file)) => Ok(Arc::clone(file)),
            Some(Open::Folder(_)) | None => Err(bad_handle()),
        }
    }

    /// Runs something that blocks where it may; it gets the folder.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StatusReply> {
        let root = self.root.clone();
        let done = tokio::task::spawn_blocking(move || work(&root)).await;
        done.map_err(|_| StatusReply::new(StatusCode::Failure))?.map_err(|error| status(&error))
    }
}

impl Handler for SftpSession {
    type Error = StatusReply;

    fn unimplemented(&self) -> StatusReply {
        StatusCode::OpUnsupported.with_message("the practice server does not know this request")
    }

    async fn init(&mut self, _version: u32, _extensions: HashMap<String, String>) -> Result<Version, StatusReply> {
        let mut version = Version::new();
        for (name, revision) in [(POSIX_RENAME, "1"), (LIMITS, "1"), (FSYNC, "1")] {
            version.extensions.insert(name.to_owned(), revision.to_owned());
        }
        Ok(version)
    }

    async fn open(
        &mut self,
        id: u32,
        filename: String,
        pflags: OpenFlags,
        _attrs: FileAttributes,
    ) -> Result<Handle, StatusReply> {
        self.check_room()?;
        let file = self
            .blocking(move |root| {
                let path = place::follow(root, &filename)?;
                let file = OpenOptions::from(pflags).open(path)?;
                // A pipe or device would block or never end.
                if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::PermissionDenied.into()) }
            })
            .await?;
        Ok(self.keep(id, Open::File(Arc::new(file))))
    }

    async fn close(&mut self, id: u32, handle: String) -> Result<Status, StatusReply> {
        self.open.remove(&handle).map(|_| ok(id)).ok_or_else(bad_handle)
    }

    async fn read(&mut self, id: u32, handle: String, offset: u64, len: u32) -> Result<Data, StatusReply> {
        let file = self.file(&handle)?;
        let data = self
            .blocking(move |_| {
                let mut data = vec![0; len.min(DATA_BYTES_MAX) as usize];
                let length = file.read_at(&mut data, offset)?;
                data.truncate(length);
                Ok(data)
            })
            .await?;
        if data.is_empty() && len > 0 { Err(StatusReply::new(StatusCode::Eof)) } else { Ok(Data { id, data }) }
    }

    async fn write(&mut self, id: u32, handle: String, offset: u64, data: Vec<u8>) -> Result<Status, StatusReply> {
        let file = self.file(&handle)?;
        self.blocking(move |_| file.write_all_at(&data, offset)).await?;
        Ok(ok(id))
    }

    async fn stat(&mut self, id: u32, path: String) -> Result<Attrs, StatusReply> {
        let found = self.blocking(move |root| fs::metadata(place::follow(root, &path)?)).await?;
        Ok(Attrs { id, attrs: FileAttributes::from(&found) })
    }

    async fn lstat(&mut self, id: u32, path: String) -> Result<Attrs, StatusReply> {
        let found = self.blocking(move |root| fs::symlink_metadata(place::entry(root, &path)?)).await?;
        Ok(Attrs { id, attrs: FileAttributes::from(&found) })
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Result<Attrs, StatusReply> {
        let file = self.file(&handle)?;
        let found = self.blocking(move |_| file.metadata()).await?;
        Ok(Attrs { id, attrs: FileAttributes::from(&found) })
    }

    async fn setstat(&mut self, id: u32, path: String, attrs: FileAttributes) -> Result<Status, StatusReply> {
        self.blocking(move |root| {
            let path = place::follow(root, &path)?;
            let file = OpenOptions::new().read(true).write(attrs.size.is_some()).open(path)?;
            set_attributes(&file, &attrs)
        })
        .await?;
        Ok(ok(id))
    }

    async fn fsetstat(&mut self, id: u32, handle: String, attrs: FileAttributes) -> Result<Status, StatusReply> {
        let file = self.file(&handle)?;
        self.blocking(move |_| set_attributes(&file, &attrs)).await?;
        Ok(ok(id))
    }

    async fn opendir(&mut self, id: u32, path: String) -> Result<Handle, StatusReply> {
        self.check_room()?;
        let folder = self.blocking(move |root| fs::read_dir(place::follow(root, &path)?)).await?;
        Ok(self.keep(id, Open::Folder(Some(folder))))
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Result<Name, StatusReply> {
        let Some(Open::Folder(folder)) = self.open.get_mut(&handle) else { return Err(bad_handle()) };
        let mut entries = folder.take().ok_or_else(|| StatusReply::new(StatusCode::Eof))?;
        let (entries, files) = self
            .blocking(move |_| {
                let mut files = Vec::new();
                for entry in entries.by_ref().take(NAMES_MAX) {
                    let entry = entry?;
                    // What was removed meanwhile is left out.
                    if let Ok(found) = entry.metadata() {
                        files.push(File::new(entry.file_name().to_string_lossy(), FileAttributes::from(&found)));
                    }
                }
                Ok((entries, files))
            })
            .await?;
        if files.is_empty() {
            return Err(StatusReply::new(StatusCode::Eof));
        }
        if let Some(open) = self.open.get_mut(&handle) {
            *open = Open::Folder(Some(entries));
        }
        Ok(Name { id, files })
    }

    async fn mkdir(&mut self, id: u32, path: String, _attrs: FileAttributes) -> Result<Status, StatusReply> {
        self.blocking(move |root| fs::create_dir(place::entry(root, &path)?)).await?;
        Ok(ok(id))
    }

    async fn rmdir(&mut self, id: u32, path: String) -> Result<Status, StatusReply> {
        self.blocking(move |root| fs::remove_dir(below(root, &path)?)).await?;
        Ok(ok(id))
    }

    async fn remove(&mut self, id: u32, filename: String) -> Result<Status, StatusReply> {
        self.blocking(move |root| fs::remove_file(below(root, &filename)?)).await?;
        Ok(ok(id))
    }

    async fn rename(&mut self, id: u32, oldpath: String, newpath: String) -> Result<Status, StatusReply> {
        self.blocking(move |root| {
            // As version 3 has it: what is there is never replaced.
            let (from, to) = (below(root, &oldpath)?, below(root, &newpath)?);
            Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
        })
        .await?;
        Ok(ok(id))
    }

    async fn realpath(&mut self, id: u32, path: String) -> Result<Name, StatusReply> {
        Ok(Name { id, files: vec![File::dummy(place::absolute(&path))] })
    }

    async fn extended(&mut self, id: u32, request: String, data: Vec<u8>) -> Result<Packet, StatusReply> {
        match request.as_str() {
            POSIX_RENAME => {
                let paths: RenamePaths = payload(data)?;
                self.blocking(move |root| fs::rename(below(root, &paths.oldpath)?, below(root, &paths.newpath)?))
                    .await?;
                Ok(Packet::Status(ok(id)))
            }
            FSYNC => {
                let fsync: FsyncExtension = payload(data)?;
                let file = self.file(&fsync.handle)?;
                self.blocking(move |_| file.sync_all()).await?;
                Ok(Packet::Status(ok(id)))
            }
            LIMITS => {
                let limits = LimitsExtension {
                    max_packet_len: u64::from(PACKET_BYTES_MAX),
                    max_read_len: u64::from(DATA_BYTES_MAX),
                    max_write_len: u64::from(DATA_BYTES_MAX),
                    max_open_handles: HANDLES_MAX as u64,
                };
                let data = russh_sftp::ser::to_bytes(&limits).map_err(|_| StatusReply::new(StatusCode::Failure))?;
                Ok(Packet::ExtendedReply(ExtendedReply { id, data: data.to_vec() }))
            }
            _ => Err(self.unimplemented()),
        }
    }
}

/// Finds an entry other than the top, which nobody may remove or rename.
fn below(root: &Path, path: &str) -> io::Result<PathBuf> {
    let path = place::entry(root, path)?;
    if path == root { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(path) }
}

/// Sets length, permissions and times; owners are accepted and left as they are.
fn set_attributes(file: &Opened, attrs: &FileAttributes) -> io::Result<()> {
    if let Some(size_bytes) = attrs.size {
        file.set_len(size_bytes)?;
    }
    if let Some(mode) = attrs.permissions {
        file.set_permissions(Permissions::from_mode(mode & 0o777))?;
    }
    if let (Ok(accessed), Ok(modified)) = (attrs.accessed(), attrs.modified()) {
        file.set_times(FileTimes::new().set_accessed(accessed).set_modified(modified))?;
    }
    Ok(())
}

fn payload<T: serde::de::DeserializeOwned>(data: Vec<u8>) -> Result<T, StatusReply> {
    russh_sftp::de::from_bytes(&mut data.into()).map_err(|_| StatusReply::new(StatusCode::BadMessage))
}

fn ok(id: u32) -> Status {
    Status { id, status_code: StatusCode::Ok, error_message: "Ok".to_owned(), language_tag: "en".to_owned() }
}

fn bad_handle() -> StatusReply {
    StatusCode::Failure.with_message("this handle is not open")
}

/// Tells a client what went wrong, without a path of this machine.
fn status(error: &io::Error) -> StatusReply {
    let kind = error.kind();
    if kind == io::ErrorKind::NotFound {
        StatusReply::new(StatusCode::NoSuchFile)
    } else if kind == io::ErrorKind::PermissionDenied || kind == io::ErrorKind::ReadOnlyFilesystem {
        StatusReply::new(StatusCode::PermissionDenied)
    } else {
        StatusCode::Failure.with_message(kind.to_string())
    }
}
