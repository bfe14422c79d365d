//! Gives a finished temporary file its name, in one step where the server can.
//!
//! OpenSSH and its kin replace a file in one step (`posix-rename@openssh.com`). Where that is refused, the protocol's
//! own rename is tried, which on most servers works only while nothing has that name. If something has, it is moved
//! aside, the new file takes its name, and then the old one is removed. Should that break off in the middle,
//! [`restore`] puts the old file back: its name aside follows from the temporary one, which the journal holds.

use super::path;
use super::session::{Entry, Session};
use crate::error::{Error, Kind, Result};
use crate::transfer::OpenUpload;

const REPLACING: &str = "replacing the file";

/// Renames `temporary` to `target`, replacing what is there. Returns what the client should know.
///
/// # Errors
/// Any; then `target` names what it named before, or [`restore`] sees to it.
pub(super) async fn publish(session: &Session, temporary: &str, target: &str) -> Result<Option<String>> {
    if session.replaces() {
        match session.rename_over(temporary, target).await {
            Err(error) if is_refusal(&error) => {}
            done => return done.map(|()| None),
        }
    }
    let refused = match session.rename(temporary, target).await {
        Err(error) if is_refusal(&error) => error,
        done => return done.map(|()| None),
    };
    match session.stat(target).await {
        Ok(Entry::File { .. } | Entry::Link) => {}
        Ok(Entry::Other) => {
            let detail = format!("`{target}` is a directory, so no file can have that name");
            return Err(Error::new(Kind::InvalidRequest, REPLACING, detail));
        }
        Err(_) => return Err(refused),
    }
    replace_in_steps(session, temporary, target).await.map(Some)
}

fn is_refusal(error: &Error) -> bool {
    matches!(error.kind, Kind::Unsupported | Kind::Unavailable)
}

async fn replace_in_steps(session: &Session, temporary: &str, target: &str) -> Result<String> {
    let aside = path::aside(temporary);
    session.rename(target, &aside).await?;
    if let Err(error) = session.rename(temporary, target).await {
        if let Err(second) = session.rename(&aside, target).await {
            tracing::warn!(error = %second, "the old file could not be put back yet");
        }
        return Err(error);
    }
    let note = "the server cannot replace a file in one step: for a moment there was none under this name";
    match session.remove(&aside).await {
        Ok(()) => Ok(note.to_owned()),
        Err(error) if error.is_transient() => Err(error),
        Err(_) => Ok(format!("{note}, and the old one could not be removed and is now `{aside}`")),
    }
}

/// Ends a replacement in steps that broke off: puts the old file back, or removes it if the new one is in its place.
///
/// # Errors
/// The transport's.
pub(super) async fn restore(session: &Session, open: &OpenUpload) -> Result<()> {
    let aside = path::aside(&open.handle);
    match session.stat(&aside).await {
        Ok(_) => {}
        Err(error) if error.kind == Kind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    match session.stat(&open.target).await {
        Ok(_) => session.remove(&aside).await,
        Err(error) if error.kind == Kind::NotFound => session.rename(&aside, &open.target).await,
        Err(error) => Err(error),
    }
}
