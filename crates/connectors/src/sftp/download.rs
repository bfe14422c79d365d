//! Reads files and lists directories.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use russh_sftp::protocol::OpenFlags;

use super::errors::Step;
use super::path;
use super::session::{Entry, OpenFile, Session};
use crate::error::{Error, Kind, Result};
use crate::source::ByteStream;
use crate::transfer::Object;

/// Bytes that are asked for ahead: twice the window in which an SSH server may send.
const AHEAD_BYTES: usize = 4 * 1024 * 1024;
const READING: &str = "reading the file";
const LISTING: &str = "listing the directory";

/// Opens a file and reads a range of it, several requests at a time.
///
/// # Errors
/// [`Kind::NotFound`], [`Kind::AccessDenied`] and the transport's; the stream yields what happens later.
pub(super) async fn read(session: Arc<Session>, name: &str, range: Range<u64>) -> Result<ByteStream> {
    let file = Arc::new(session.open(name, OpenFlags::READ, Step::new(READING, "read", name)).await?);
    let name: Arc<str> = name.into();
    let packet_bytes = session.packet_bytes;
    let offsets = range.clone().step_by(packet_bytes);
    let pieces = stream::iter(offsets).map(move |offset| {
        let piece = offset..range.end.min(offset + packet_bytes as u64);
        read_piece(Arc::clone(&file), Arc::clone(&name), piece)
    });
    Ok(pieces.buffered(AHEAD_BYTES.div_ceil(packet_bytes)).boxed())
}

/// Reads exactly the bytes of `piece`; servers may answer with fewer than asked for.
async fn read_piece(file: Arc<OpenFile>, name: Arc<str>, piece: Range<u64>) -> Result<Bytes> {
    let step = Step::new(READING, "read", &name);
    let mut whole = BytesMut::new();
    let mut offset = piece.start;
    while offset < piece.end {
        let length = u32::try_from(piece.end - offset).unwrap_or(u32::MAX);
        let data = file.read(offset, length, step).await?;
        if data.is_empty() || data.len() as u64 > piece.end - offset {
            let detail = format!("`{name}` became shorter while it was read");
            return Err(Error::new(Kind::IntegrityMismatch, READING, detail));
        }
        offset += data.len() as u64;
        if whole.is_empty() && offset == piece.end {
            return Ok(data.into());
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// Tells size and name of one file.
///
/// # Errors
/// [`Kind::NotFound`] when there is none, or a directory.
pub(super) async fn stat(session: &Session, name: &str) -> Result<Object> {
    match session.stat(name).await? {
        Entry::File { size: Some(size), modified } => Ok(object(name.to_owned(), size, modified)),
        Entry::File { size: None, .. } => {
            let detail = format!("the server does not tell the size of `{name}`");
            Err(Error::new(Kind::Protocol, "looking at the file", detail))
        }
        Entry::Link | Entry::Other => {
            Err(Error::new(Kind::NotFound, "looking at the file", format!("`{name}` is a directory, not a file")))
        }
    }
}

/// Lists the files of a directory, links to files too, in the order of names.
///
/// Directories in it are not descended into, and uploads that are under way are not shown.
///
/// # Errors
/// [`Kind::ContainerNotFound`] when there is no such directory, [`Kind::TooMany`].
pub(super) async fn list(session: &Arc<Session>, directory: &str, limit: usize) -> Result<Vec<Object>> {
    let too_many = || {
        let detail = format!("the directory `{directory}` holds more than {limit} files");
        Error::new(Kind::TooMany, LISTING, detail)
    };
    let entries = match session.entries(directory, super::ENTRIES_MAX).await {
        Err(error) if error.kind == Kind::NotFound => {
            let detail = format!("there is no directory `{directory}`");
            return Err(Error::new(Kind::ContainerNotFound, LISTING, detail));
        }
        other => other?,
    };
    if entries.len() > super::ENTRIES_MAX {
        return Err(too_many());
    }
    let named = entries.into_iter().filter(|(base, _)| !path::is_temporary(base));
    let found = stream::iter(named.map(|(base, entry)| with_size(session, path::join(directory, &base), entry)));
    let found: Vec<Option<Object>> = found.buffered(super::FILES_AT_ONCE).try_collect().await?;
    let mut objects: Vec<Object> = found.into_iter().flatten().collect();
    if objects.len() > limit {
        return Err(too_many());
    }
    objects.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(objects)
}

/// Follows links and asks again where the listing told no size. Nothing for what is not a file.
async fn with_size(session: &Session, name: String, entry: Entry) -> Result<Option<Object>> {
    let entry = match entry {
        Entry::Link | Entry::File { size: None, .. } => match session.stat(&name).await {
            Ok(entry) => entry,
            // It points nowhere, or went away meanwhile.
            Err(error) if matches!(error.kind, Kind::NotFound | Kind::AccessDenied) => return Ok(None),
            Err(error) => return Err(error),
        },
        Entry::File { size: Some(_), .. } | Entry::Other => entry,
    };
    Ok(match entry {
        Entry::File { size: Some(size), modified } => Some(object(name, size, modified)),
        Entry::File { size: None, .. } | Entry::Link | Entry::Other => None,
    })
}

/// The time of its last change is all that a server tells of a file's content.
fn object(name: String, size: u64, modified: Option<u32>) -> Object {
    Object { name, size, etag: modified.map(|seconds| seconds.to_string()), content_type: None }
}
