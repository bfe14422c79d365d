//! Operations that deliver files.

use super::Entry;

mod delivery;
mod sftp;

/// All exports.
pub(super) const ALL: &[Entry] = &[Entry::of::<sftp::ExportSftp>()];
