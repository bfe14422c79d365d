//! The mark in a file store that says which database its files belong to: whoever removes what no row names must not take the
//! rows of another database for it.

use super::{Error, Files, Place};

/// What the mark is called. No task has such a name, so that nothing here takes it for a file.
pub(super) const NAME: &str = "consign-database";
/// Bytes that are read of a mark.
pub(super) const BYTES_MAX: u64 = 1024;

impl Files {
    /// The number of the database in the mark; none where there is no mark. Whatever else stands there is given as it is: it is
    /// not ours.
    ///
    /// # Errors
    /// [`Error::Disk`] and [`Error::Store`].
    pub async fn owner(&self) -> Result<Option<String>, Error> {
        let bytes = match &self.place {
            Place::Folder(folder) => folder.read_mark().await?,
            Place::Bucket(bucket) => bucket.read_mark().await?,
        };
        Ok(bytes.map(|bytes| {
            let text = String::from_utf8_lossy(&bytes);
            text.split_whitespace().next().unwrap_or_default().to_owned()
        }))
    }

    /// Marks the files as those of a database.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::Disk`] and [`Error::Store`].
    pub async fn mark(&self, database: &str) -> Result<(), Error> {
        let text = format!(
            "{database}\nThese files belong to the Consign database of this number. It names them: what it does not name is removed.\n"
        );
        match &self.place {
            Place::Folder(folder) => folder.write_mark(text).await,
            Place::Bucket(bucket) => bucket.write_mark(text).await,
        }
    }

    /// Where the mark is, for people.
    pub fn mark_place(&self) -> String {
        match &self.place {
            Place::Folder(folder) => folder.root().join(NAME).display().to_string(),
            Place::Bucket(bucket) => format!("the object {}", bucket.mark_name()),
        }
    }
}
