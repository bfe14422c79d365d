//! What is sent: made once for all lanes that move as much, and known by its digests.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::lanes::Way;
use super::{FILE_BYTES, files};
use crate::bench::{Bed, content};

/// SHA-256 by name. A file that stands for itself has no name.
pub(super) type Digests = BTreeMap<String, String>;

/// A file, or a folder of many.
#[derive(Clone, Debug)]
pub(super) struct Original {
    pub(super) path: PathBuf,
    pub(super) digests: Digests,
}

/// All that were made.
#[derive(Debug)]
pub(super) struct Originals<'a> {
    bed: &'a Bed,
    made: BTreeMap<PathBuf, Original>,
}

impl<'a> Originals<'a> {
    pub(super) fn new(bed: &'a Bed) -> Self {
        Self { bed, made: BTreeMap::new() }
    }

    /// What a lane of this way and size sends.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn of(&mut self, way: Way, size: u64) -> Result<Original> {
        let name = if way == Way::Many { "originals".to_owned() } else { format!("original-{size}.bin") };
        let path = self.bed.folder.join(name);
        if let Some(original) = self.made.get(&path) {
            return Ok(original.clone());
        }
        if way == Way::Many {
            std::fs::create_dir(&path)?;
            for seed in 0..files(self.bed) {
                let file = path.join(format!("file-{seed:04}.bin"));
                testkit::bytes::write_file(&file, seed as u64, FILE_BYTES as u64)?;
            }
        } else {
            testkit::bytes::write_file(&path, 1, size)?;
        }
        let original = Original { digests: digests(&path)?, path: path.clone() };
        self.made.insert(path, original.clone());
        Ok(original)
    }
}

/// The digests of a file, or of all in a folder.
///
/// # Errors
/// When it cannot be read.
pub(super) fn digests(path: &Path) -> Result<Digests> {
    if !path.is_dir() {
        return Ok(Digests::from([(String::new(), content::sha256_of_file(path)?)]));
    }
    let mut digests = Digests::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        digests.insert(entry.file_name().to_string_lossy().into_owned(), content::sha256_of_file(&entry.path())?);
    }
    Ok(digests)
}
