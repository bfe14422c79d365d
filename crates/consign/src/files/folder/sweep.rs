//! Finding what should not be there, in a folder.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use super::super::{Error, blocking};
use super::{Folder, PART};
use crate::id::{TaskId, Token};

impl Folder {
    /// The tasks that have files here: those that sort right after `after`, in order.
    pub(in super::super) async fn list_tasks(&self, after: Option<TaskId>, limit: usize) -> Result<Vec<TaskId>, Error> {
        let root = self.root();
        let mut tasks: Vec<TaskId> =
            blocking(move || Ok(names(&root)?.iter().filter_map(|name| TaskId::from_str(name).ok()).collect())).await?;
        tasks.retain(|task| after.is_none_or(|after| *task > after));
        tasks.sort_unstable();
        tasks.truncate(limit);
        Ok(tasks)
    }

    /// The attempts of a task that have files here, in no order.
    pub(in super::super) async fn attempts(&self, task: TaskId) -> Result<Vec<Token>, Error> {
        let folder = self.root.join(task.to_string());
        let read = |name: &String| i64::from_str_radix(name, 16).ok().map(Token);
        blocking(move || Ok(names(&folder)?.iter().filter_map(read).collect())).await
    }
}

/// Removes half-written files that no process holds, and the folders that are empty then. Others that are empty are left: somebody
/// may have made them for a file that comes next.
pub(super) fn clear_parts(root: &Path) -> io::Result<()> {
    for task in names(root)?.iter().filter(|name| TaskId::from_str(name).is_ok()) {
        let task = root.join(task);
        let mut is_cleared = false;
        for attempt in folders(&task)? {
            let mut parts = names(&attempt)?;
            parts.retain(|name| name.ends_with(PART));
            let cleared = parts.iter().map(|name| clear_part(&attempt.join(name))).collect::<io::Result<Vec<_>>>()?;
            if cleared.contains(&true) {
                ignore_full_or_gone(fs::remove_dir(&attempt))?;
                is_cleared = true;
            }
        }
        if is_cleared {
            ignore_full_or_gone(fs::remove_dir(&task))?;
        }
    }
    Ok(())
}

/// Whether it was nobody's, and was removed.
fn clear_part(part: &Path) -> io::Result<bool> {
    let file = match File::open(part) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    match file.try_lock() {
        Ok(()) => match fs::remove_file(part) {
            // Published or given up since it was opened.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true),
        },
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn ignore_full_or_gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => Ok(()),
        other => other,
    }
}

/// The names in a folder that are text; none if it is gone.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    entries
        .map(|entry| Ok(entry?.file_name()))
        .filter_map(|name| name.map(|name| name.into_string().ok()).transpose())
        .collect()
}

fn folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = names(folder)?.into_iter().map(|name| folder.join(name));
    Ok(paths.filter(|path| path.is_dir()).collect())
}
