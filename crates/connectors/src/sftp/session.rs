//! One SFTP session: its requests with our errors, our watch over its silence, and what the server can do.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use russh::ChannelStream;
use russh::client::{self, Handle};
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::client::{Config as SftpConfig, RawSftpSession};
use russh_sftp::protocol::{FileAttributes, OpenFlags, Packet, StatusCode, Version};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use super::errors::{self, Step};
use super::login::{Seen, Watcher};
use super::{Account, IN_FLIGHT_BYTES, PACKETS_IN_FLIGHT_MIN};
use crate::error::{Error, Kind, Result};

/// Payload of a write or read where the server told its limits: 255 KiB, what OpenSSH takes.
const PACKET_BYTES_MAX: u64 = 261_120;
/// The same where it told none. The protocol promises no more, and some servers damage larger writes.
const PACKET_BYTES_SAFE: u64 = 32_768;
/// What a packet holds beside its payload, and some.
const PACKET_OVERHEAD_BYTES: u64 = 1024;
/// The library's own timeout, out of the way: it counts from when a request is queued, so that it would end a slow but
/// steady transfer. A day.
const REQUEST_TIMEOUT_SECS: u64 = 24 * 3600;
/// What is being done when the SFTP server is greeted.
const STARTING: &str = "starting SFTP";
/// Bits of a file's mode that tell its type, and the type of a plain file and of a link.
const TYPE_MASK: u32 = 0o170_000;
const TYPE_FILE: u32 = 0o100_000;
const TYPE_LINK: u32 = 0o120_000;

/// A session that is logged in.
pub(super) struct Session {
    raw: RawSftpSession,
    ssh: Option<Handle<Watcher>>,
    seen: Arc<Seen>,
    extensions: Extensions,
    peer: String,
    user: String,
    /// Where relative paths begin, absolute.
    home: String,
    /// Payload of one write or read.
    pub(super) packet_bytes: usize,
    /// Shared by all writes, so that memory stays bounded however many files are under way.
    pub(super) in_flight: Arc<Semaphore>,
    idle_timeout: Duration,
    /// When the server last answered anything.
    heard: Mutex<Instant>,
    is_broken: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct Extensions {
    posix_rename: bool,
    fsync: bool,
    statvfs: bool,
    limits: bool,
}

impl Extensions {
    fn of(version: &Version) -> Self {
        let has = |name: &str| version.extensions.contains_key(name);
        Self {
            posix_rename: has("posix-rename@openssh.com"),
            fsync: has("fsync@openssh.com"),
            statvfs: has("statvfs@openssh.com"),
            limits: has("limits@openssh.com"),
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("peer", &self.peer)
            .field("extensions", &self.extensions)
            .finish_non_exhaustive()
    }
}

/// What kind of thing a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// A plain file, or something that the server does not tell from one.
    File {
        /// Length in bytes, if the server tells.
        size: Option<u64>,
        /// When it was last changed, in seconds since 1970, if the server tells.
        modified: Option<u32>,
    },
    /// A symbolic link, only seen in listings.
    Link,
    /// A directory, a device and the like.
    Other,
}

impl From<&FileAttributes> for Entry {
    fn from(attributes: &FileAttributes) -> Self {
        match attributes.permissions.map(|mode| mode & TYPE_MASK) {
            None | Some(0 | TYPE_FILE) => Self::File { size: attributes.size, modified: attributes.mtime },
            Some(TYPE_LINK) => Self::Link,
            Some(_) => Self::Other,
        }
    }
}

impl Session {
    /// Greets the SFTP server and learns what it can do.
    ///
    /// # Errors
    /// [`Kind::Protocol`] when what answers is not an SFTP server; the connection's, when that ended meanwhile.
    pub(super) async fn start(
        ssh: Handle<Watcher>,
        stream: ChannelStream<client::Msg>,
        account: &Account,
        seen: Arc<Seen>,
    ) -> Result<Self> {
        let settings = SftpConfig {
            // Answers to reads hold a whole payload.
            max_packet_len: u32::try_from(PACKET_BYTES_MAX + PACKET_OVERHEAD_BYTES).unwrap_or(u32::MAX),
            request_timeout_secs: REQUEST_TIMEOUT_SECS,
            ..SftpConfig::default()
        };
        let raw = RawSftpSession::new_with_config(stream, settings);
        let peer = account.peer();
        let version = raw.init().await.map_err(|error| {
            let explained = if seen.has_ended() {
                seen.lost(STARTING, &peer)
            } else {
                let detail = format!(
                    "{peer} does not answer like an SFTP server; a log-in script of the user {} may print text",
                    account.config.username
                );
                Error::new(Kind::Protocol, STARTING, detail)
            };
            explained.because(error.to_string())
        })?;
        let mut session = Self {
            raw,
            ssh: Some(ssh),
            seen,
            extensions: Extensions::of(&version),
            user: account.config.username.clone(),
            home: "/".to_owned(),
            packet_bytes: 0,
            in_flight: Arc::new(Semaphore::new(PACKETS_IN_FLIGHT_MIN)),
            idle_timeout: account.config.limits.idle_timeout,
            heard: Mutex::new(Instant::now()),
            is_broken: AtomicBool::new(false),
            peer,
        };
        session.packet_bytes = usize::try_from(session.packet_limit().await?).unwrap_or(usize::MAX);
        let packets = IN_FLIGHT_BYTES / session.packet_bytes.max(1);
        session.in_flight.add_permits(packets.saturating_sub(PACKETS_IN_FLIGHT_MIN));
        let step = Step::new("asking for the login directory", "find", "");
        let home = session.ask(session.raw.realpath("."), step).await?;
        if let Some(home) = home.files.into_iter().next() {
            session.home = home.filename;
        }
        Ok(session)
    }

    async fn packet_limit(&self) -> Result<u64> {
        if !self.extensions.limits {
            return Ok(PACKET_BYTES_SAFE);
        }
        let limits = match self.ask(self.raw.limits(), Step::new("asking for limits", "tell the limits of", "")).await {
            Ok(limits) => limits,
            Err(error) if matches!(error.kind, Kind::Unsupported | Kind::Unavailable) => return Ok(PACKET_BYTES_SAFE),
            Err(error) => return Err(error),
        };
        // Zero means: not told.
        let told =
            [limits.max_read_len, limits.max_write_len, limits.max_packet_len.saturating_sub(PACKET_OVERHEAD_BYTES)];
        let least = told.into_iter().filter(|bytes| *bytes > 0).min();
        Ok(least.map_or(PACKET_BYTES_SAFE, |bytes| bytes.min(PACKET_BYTES_MAX)))
    }

    /// Whether a new session is needed.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed) || self.ssh.as_ref().is_none_or(Handle::is_closed)
    }

    /// The host key's fingerprint, `SHA256:…`.
    pub(super) fn host_key(&self) -> Option<String> {
        self.seen.fingerprint()
    }

    /// The absolute path of a name.
    pub(super) fn absolute(&self, name: &str) -> String {
        if name.starts_with('/') { name.to_owned() } else { super::path::join(&self.home, name) }
    }

    /// Whether the server replaces files in one step.
    pub(super) fn replaces(&self) -> bool {
        self.extensions.posix_rename
    }

    fn heard(&self) -> Instant {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for an answer, as long as the server answers anything at all now and then.
    async fn ask<T>(
        &self,
        request: impl Future<Output = std::result::Result<T, SftpError>>,
        step: Step<'_>,
    ) -> Result<T> {
        let mut request = pin!(request);
        let begun = Instant::now();
        let answer = loop {
            let since = self.heard().max(begun);
            match timeout_at(since + self.idle_timeout, &mut request).await {
                Ok(answer) => break answer,
                Err(_) if self.heard() > since => {}
                Err(_) => break Err(SftpError::Timeout),
            }
        };
        match answer {
            Ok(_) | Err(SftpError::Status(_)) => {
                *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            }
            Err(_) => self.is_broken.store(true, Ordering::Relaxed),
        }
        answer.map_err(|error| self.explain(&error, step))
    }

    fn explain(&self, error: &SftpError, step: Step<'_>) -> Error {
        if let SftpError::Status(status) = error {
            return errors::refused(status, step, &self.user, self.seen.secrets());
        }
        let peer = &self.peer;
        let explained = if errors::is_lost(error) {
            self.seen.lost(step.action, peer)
        } else if matches!(error, SftpError::Timeout) {
            let detail = format!("{peer} did not answer for {} s", self.idle_timeout.as_secs());
            Error::new(Kind::Timeout, step.action, detail)
        } else {
            Error::new(Kind::Protocol, step.action, format!("{peer} gave an answer that makes no sense"))
        };
        explained.because(error.to_string())
    }

    /// Opens a file.
    pub(super) async fn open(self: &Arc<Self>, path: &str, flags: OpenFlags, step: Step<'_>) -> Result<OpenFile> {
        let opened = self.ask(self.raw.open(path, flags, FileAttributes::default()), step).await?;
        Ok(OpenFile { session: Arc::clone(self), handle: opened.handle, is_closed: false })
    }

    /// Makes one directory.
    pub(super) async fn make_directory(&self, path: &str) -> Result<()> {
        let step = Step::new("making the directory", "make the directory", path);
        self.ask(self.raw.mkdir(path, FileAttributes::default()), step).await.map(drop)
    }

    /// Tells what a path names, links followed.
    pub(super) async fn stat(&self, path: &str) -> Result<Entry> {
        let found = self.ask(self.raw.stat(path), Step::new("looking at the file", "look at", path)).await?;
        Ok(Entry::from(&found.attrs))
    }

    /// Removes a file; one that is not there counts as removed.
    pub(super) async fn remove(&self, path: &str) -> Result<()> {
        match self.ask(self.raw.remove(path), Step::new("removing the file", "remove", path)).await {
            Err(error) if error.kind != Kind::NotFound => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Renames a file. What is at the new name is in the way on most servers.
    pub(super) async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let step = Step::new("renaming the file", "give a file the name", to);
        self.ask(self.raw.rename(from, to), step).await.map(drop)
    }

    /// Renames a file and replaces what is at the new name, in one step.
    pub(super) async fn rename_over(&self, from: &str, to: &str) -> Result<()> {
        let step = Step::new("replacing the file", "replace", to);
        let both: Vec<u8> = [from, to].into_iter().flat_map(string).collect();
        self.done(self.raw.extended("posix-rename@openssh.com", both), step).await
    }

    /// Sends an extended request that is answered with a status.
    async fn done(
        &self,
        request: impl Future<Output = std::result::Result<Packet, SftpError>>,
        step: Step<'_>,
    ) -> Result<()> {
        let answer = async {
            let Packet::Status(status) = request.await? else { return Err(SftpError::UnexpectedPacket) };
            if status.status_code == StatusCode::Ok { Ok(()) } else { Err(SftpError::Status(status)) }
        };
        self.ask(answer, step).await
    }

    /// Lists a directory, at most `limit` entries beside `.` and `..`.
    pub(super) async fn entries(self: &Arc<Self>, path: &str, limit: usize) -> Result<Vec<(String, Entry)>> {
        let step = Step::new("listing the directory", "list", path);
        let shown = if path.is_empty() { "." } else { path };
        let opened = self.ask(self.raw.opendir(shown), step).await?;
        let directory = OpenFile { session: Arc::clone(self), handle: opened.handle, is_closed: false };
        let mut found = Vec::new();
        loop {
            let batch = async {
                match self.raw.readdir(directory.handle.as_str()).await {
                    Err(SftpError::Status(status)) if status.status_code == StatusCode::Eof => Ok(None),
                    other => other.map(|batch| Some(batch.files)),
                }
            };
            let Some(batch) = self.ask(batch, step).await? else { break };
            let named = batch.into_iter().filter(|file| file.filename != "." && file.filename != "..");
            found.extend(named.map(|file| (file.filename, Entry::from(&file.attrs))));
            if found.len() > limit {
                break;
            }
        }
        directory.close(step).await?;
        Ok(found)
    }

    /// Bytes that are free for the user where `path` is, if the server tells.
    pub(super) async fn free_bytes(&self, path: &str) -> Option<u64> {
        if !self.extensions.statvfs {
            return None;
        }
        let step = Step::new("asking for free space", "tell the free space of", path);
        let found = self.ask(self.raw.statvfs(path), step).await.ok()?;
        Some(found.blocks_avail.saturating_mul(found.fragment_size))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Says goodbye, so that the server need not wait to find out. Without a runtime the socket just closes.
        if let (Some(ssh), Ok(runtime)) = (self.ssh.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move {
                if let Err(error) = ssh.disconnect(russh::Disconnect::ByApplication, "", "en").await {
                    tracing::debug!(%error, "the connection was closed already");
                }
            });
        }
    }
}

/// A file or directory that is open at the server, and closed there when dropped.
#[derive(Debug)]
pub(super) struct OpenFile {
    session: Arc<Session>,
    handle: String,
    is_closed: bool,
}

impl OpenFile {
    /// Writes all of `data`, which is not copied if nobody else holds it.
    pub(super) async fn write(&self, offset: u64, data: Bytes, step: Step<'_>) -> Result<()> {
        let Self { session, handle, .. } = self;
        session.ask(session.raw.write(handle.as_str(), offset, data.into()), step).await.map(drop)
    }

    /// Reads `length` bytes or fewer; nothing at the end.
    pub(super) async fn read(&self, offset: u64, length: u32, step: Step<'_>) -> Result<Vec<u8>> {
        let Self { session, handle, .. } = self;
        let read = async {
            match session.raw.read(handle.as_str(), offset, length).await {
                Ok(data) => Ok(data.data),
                Err(SftpError::Status(status)) if status.status_code == StatusCode::Eof => Ok(Vec::new()),
                Err(error) => Err(error),
            }
        };
        session.ask(read, step).await
    }

    /// Length in bytes, if the server tells.
    pub(super) async fn size(&self, step: Step<'_>) -> Result<Option<u64>> {
        let Self { session, handle, .. } = self;
        Ok(session.ask(session.raw.fstat(handle.as_str()), step).await?.attrs.size)
    }

    /// Puts the bytes on stable storage, where the server can.
    pub(super) async fn sync(&self, step: Step<'_>) -> Result<()> {
        let Self { session, handle, .. } = self;
        if !session.extensions.fsync {
            return Ok(());
        }
        match session.done(session.raw.extended("fsync@openssh.com", string(handle).collect()), step).await {
            Err(error) if error.kind != Kind::Unsupported => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Closes it and waits for the server's word.
    pub(super) async fn close(mut self, step: Step<'_>) -> Result<()> {
        self.is_closed = true;
        let Self { session, handle, .. } = &self;
        session.ask(session.raw.close(handle.as_str()), step).await.map(drop)
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if self.is_closed || self.session.is_broken() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (session, handle) = (Arc::clone(&self.session), std::mem::take(&mut self.handle));
            runtime.spawn(async move {
                let step = Step::new("closing the file", "close", "");
                if let Err(error) = session.ask(session.raw.close(handle), step).await {
                    tracing::debug!(%error, "an open file was left to the server");
                }
            });
        }
    }
}

/// A string as the protocol writes it: length, bytes.
fn string(text: &str) -> impl Iterator<Item = u8> {
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    length.to_be_bytes().into_iter().chain(text.bytes())
}
