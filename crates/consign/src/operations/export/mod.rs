//! Operations that deliver files.

use super::Entry;

/// All exports.
pub(super) const ALL: &[Entry] = &[];
