//! Operations that deliver files.

use super::Entry;

mod deliver;
pub mod naming;

pub use naming::Naming;

/// All exports.
pub(super) const ALL: &[Entry] = &[];
