//! A file: a named byte sequence that a task produced, or that it delivered.

use std::fmt;

use connectors::{Digests, Receipt};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{TaskId, Token};

/// Where a file's bytes are kept: one folder a task, in it one an attempt, in it one entry a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobKey(String);

impl BlobKey {
    /// The place of the `number`th file (from 1) of one attempt.
    pub fn new(task: TaskId, token: Token, number: u32) -> Self {
        Self(format!("{task}/{:016x}/{number}", token.0))
    }

    /// As it was stored in a row.
    pub fn from_row(text: String) -> Self {
        Self(text)
    }

    /// Whether it belongs to that attempt.
    pub fn is_of(&self, task: TaskId, token: Token) -> bool {
        self.0.strip_prefix(&format!("{task}/{:016x}/", token.0)).is_some()
    }

    /// Relative path below the file store's root, with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A file of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Safe name, as shown.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// Digests of the bytes.
    pub digests: Digests,
    /// Media type.
    pub content_type: String,
    /// Where the bytes are kept; none for a file that was delivered elsewhere.
    pub blob: Option<BlobKey>,
    /// Set on files of `export/url`.
    pub download: Option<Download>,
    /// Set on files that were delivered elsewhere.
    pub receipt: Option<Receipt>,
}

impl File {
    /// What marks its bytes for a client that asks again: the MD5 where it is known, as for all that upload forms bring,
    /// else the SHA-256.
    pub fn mark(&self) -> &[u8] {
        self.digests.md5.as_ref().map_or(&self.digests.sha256[..], |md5| &md5[..])
    }
}

/// How a file of `export/url` may be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Download {
    /// Show it in the browser instead of saving it.
    pub inline: bool,
    /// The link dies then.
    pub expires_at: Timestamp,
}
