//! Whose the files in the file store are: a database that does not know them would take all of them for left-overs.
//!
//! Each database has a number of its own, which goes with its state wherever that is moved, and the file store has a mark with
//! the number ([`Files::owner`]).

use std::fmt;

use crate::files::{self, Files};
use crate::store::{self, Store};

/// Name of the number of a database, among the numbers that processes agree on.
const NUMBER: &str = "database";
/// Tasks with files that are looked up in a database that the mark does not speak of.
const SAMPLE: usize = 500;

/// Whose the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This database's, as the mark says, or as there are none yet, or as it knows some of them.
    Ours,
    /// Another database's.
    Foreign(Stranger),
}

/// Why files are taken for another database's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// The number of this database.
    own: String,
    /// What the mark says, where there is one.
    theirs: Option<String>,
    /// Where the mark is.
    place: String,
}

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The database fails.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The file store fails.
    #[error(transparent)]
    Files(#[from] files::Error),
}

/// Says whose the files are; nothing is changed in the file store.
///
/// # Errors
/// [`Failure`], when either cannot be asked.
pub async fn of(store: &dyn Store, files: &Files) -> Result<Ownership, Failure> {
    judge(store, files).await.map(|(ownership, _)| ownership)
}

/// As [`of`], and marks files without a mark that are ours.
///
/// # Errors
/// [`Failure`], when either cannot be asked, or the mark cannot be written.
pub async fn claim(store: &dyn Store, files: &Files) -> Result<Ownership, Failure> {
    let (ownership, unmarked) = judge(store, files).await?;
    if let Some(own) = unmarked.filter(|_| ownership == Ownership::Ours) {
        files.mark(&own).await?;
        tracing::info!(database = own, "the file store is marked as this database's");
    }
    Ok(ownership)
}

/// Whose the files are, and this database's number where they have no mark.
async fn judge(store: &dyn Store, files: &Files) -> Result<(Ownership, Option<String>), Failure> {
    let number = store.agree_on(NUMBER, rand::random()).await?;
    let own = format!("{number:016x}");
    let foreign = |own, theirs| Ownership::Foreign(Stranger { own, theirs, place: files.mark_place() });
    match files.owner().await? {
        Some(theirs) if theirs == own => return Ok((Ownership::Ours, None)),
        Some(theirs) => return Ok((foreign(own, Some(theirs)), None)),
        None => {}
    }
    let found = files.list_tasks(None, SAMPLE).await?;
    let is_known = found.is_empty() || !store.blobs(&found).await?.is_empty();
    let ownership = if is_known { Ownership::Ours } else { foreign(own.clone(), None) };
    Ok((ownership, Some(own)))
}

impl fmt::Display for Stranger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { own, theirs, place } = self;
        match theirs {
            Some(theirs) => write!(
                f,
                "the file store belongs to another database: its mark ({place}) names {theirs}, this database is {own}. "
            )?,
            None => write!(
                f,
                "the file store has no mark ({place}), and this database, {own}, knows none of its files, so that it would \
                 remove all of them. "
            )?,
        }
        write!(
            f,
            "Check database_url and files_url; read a saved state in with `consign import-state` before the first start; to \
             begin anew, empty the file store. If its files are to belong to this database all the same, write {own} into the mark"
        )
    }
}
