//! Operations that bring files in.

use super::Entry;

mod base64;
mod raw;
mod url;

/// All imports.
pub(super) const ALL: &[Entry] =
    &[Entry::of::<url::ImportUrl>(), Entry::of::<base64::ImportBase64>(), Entry::of::<raw::ImportRaw>()];
