//! Whose the files in the file store are: a database that does not know them would take all of them for left-overs.
//!
//! Each database has a number of its own, which goes with its state wherever that is moved, and the file store has a mark with
//! the number ([`Files::owner`]).

use std::collections::BTreeSet;
use std::fmt;

use crate::files::{self, Files};
use crate::id::TaskId;
use crate::store::{self, Store};

/// Name of the number of a database, among the numbers that processes agree on.
const NUMBER: &str = "database";
/// Tasks with files that are looked up in one go, in a database that the mark does not speak of.
const SAMPLE: usize = 500;
/// Samples that are looked at before files are another database's: the oldest may all be of tasks that are gone.
const SAMPLES_MAX: usize = 20;
/// Tasks that are gone and whose files are still to be removed: as many as are looked at.
const TRASH_MAX: u32 = 10_000;

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
    let ownership = if is_known(store, files).await? { Ownership::Ours } else { foreign(own.clone(), None) };
    Ok((ownership, Some(own)))
}

/// Whether the database knows a task that has files, or none has any.
async fn is_known(store: &dyn Store, files: &Files) -> Result<bool, Failure> {
    let trash: BTreeSet<TaskId> = store.trash(TRASH_MAX).await?.into_iter().collect();
    let (mut after, mut is_empty) = (None, true);
    for _ in 0..SAMPLES_MAX {
        let mut found = files.list_tasks(after, SAMPLE).await?;
        let Some(&last) = found.last() else { return Ok(is_empty) };
        after = Some(last);
        // What a killed trial of the file store has left says nothing.
        found.retain(|id| !is_of_a_trial(*id));
        is_empty &= found.is_empty();
        let is_trash = found.iter().any(|id| trash.contains(id));
        if is_trash || (!found.is_empty() && !store.blobs(&found).await?.is_empty()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether it names no task: the file store is tried as tasks of time 0.
fn is_of_a_trial(id: TaskId) -> bool {
    id.0.get_timestamp().is_some_and(|time| time.to_unix() == (0, 0))
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use connectors::Progress;
    use futures_util::stream;

    use super::*;
    use crate::clock::Timestamp;
    use crate::id::Token;
    use crate::model::BlobKey;
    use crate::store::MemoryStore;
    use crate::store::contract::Scene;

    async fn keep(files: &Files, id: TaskId) {
        let (key, bytes) = (BlobKey::new(id, Token::random(), 1), Box::pin(stream::iter([Ok("kept".into())])));
        files.receive(&key, bytes, None, 100, &Progress::default()).await.unwrap();
    }

    #[tokio::test]
    async fn files_are_ours_when_any_of_them_is_known_or_was() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path()).await.unwrap();
        let scene = Scene::new(Arc::new(MemoryStore::new())).await;
        let is_ours = async || of(&*scene.store, &files).await.unwrap() == Ownership::Ours;
        assert!(is_ours().await, "there are none");
        keep(&files, TaskId::new(Timestamp(0))).await;
        assert!(is_ours().await, "a trial has left them");
        // More than one sample, before all that is known.
        for _ in 0..=SAMPLE {
            std::fs::create_dir(folder.path().join(TaskId::new(scene.now()).to_string())).unwrap();
        }
        assert!(!is_ours().await, "nobody knows them");
        scene.wait(1);
        let made = scene.job("a").await;
        assert!(!is_ours().await, "it has none");
        keep(&files, made.task("a")).await;
        assert!(is_ours().await);
        assert!(scene.store.delete_task(scene.user, made.task("a"), scene.now()).await.unwrap());
        assert!(is_ours().await, "it is still to be removed");
        scene.store.trash_emptied(&[made.task("a")]).await.unwrap();
        assert!(!is_ours().await);
    }
}
