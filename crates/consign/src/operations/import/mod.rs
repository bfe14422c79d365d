//! Operations that bring files in.

use super::Entry;

/// All imports.
pub(super) const ALL: &[Entry] = &[];
