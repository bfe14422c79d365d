//! Finding and removing files by the names that they begin with, a page at a time.

use std::str::FromStr as _;
use std::sync::{MutexGuard, PoisonError};

use connectors::store::{Ask, Page};
use connectors::{Error as StoreError, Kind};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::super::Error;
use super::Bucket;
use crate::id::{TaskId, Token};

/// Entries of a page. Tests turn pages more often.
const PAGE: usize = if cfg!(test) { 3 } else { 1000 };
/// Objects that are deleted at once.
const DELETIONS_AT_ONCE: usize = 16;

/// A listing of tasks that stopped somewhere.
#[derive(Debug)]
pub(super) struct Listing {
    /// The last task that was told.
    told: Option<TaskId>,
    /// Tasks behind it that came with the same page.
    tasks: Vec<TaskId>,
    /// How to go on.
    ask: Ask,
    is_over: bool,
}

impl Bucket {
    /// The tasks that have files here: those that sort right after `after`, in order. Whoever asks for those behind the last
    /// ones that were told gets them from where the listing stopped: not every storage can begin in the middle, and there the
    /// search through a hundred thousand tasks would turn each page hundreds of times.
    pub(in super::super) async fn list_tasks(&self, after: Option<TaskId>, limit: usize) -> Result<Vec<TaskId>, Error> {
        let prefix = &self.settings.prefix;
        let stopped = self.listing().take().filter(|listing| after.is_some() && listing.told == after);
        let mut listing = stopped.unwrap_or_else(|| Listing::begin(prefix, after));
        while listing.tasks.len() < limit && !listing.is_over {
            let page = self.settings.store.page(&listing.ask).await?;
            let found = folders(&page, prefix, |name| TaskId::from_str(name).ok());
            listing.tasks.extend(found.into_iter().filter(|task| after.is_none_or(|after| *task > after)));
            listing.is_over = !turn(&mut listing.ask, page)?;
        }
        listing.tasks.sort_unstable();
        let behind = listing.tasks.split_off(limit.min(listing.tasks.len()));
        let tasks = std::mem::replace(&mut listing.tasks, behind);
        listing.told = tasks.last().copied();
        *self.listing() = Some(listing);
        Ok(tasks)
    }

    fn listing(&self) -> MutexGuard<'_, Option<Listing>> {
        self.listing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The attempts of a task that have files here, in no order.
    pub(in super::super) async fn attempts(&self, task: TaskId) -> Result<Vec<Token>, Error> {
        let prefix = self.below(task, None);
        let mut ask = Ask { prefix: prefix.clone(), folders: true, limit: PAGE, ..Ask::default() };
        let mut attempts = Vec::new();
        loop {
            let page = self.settings.store.page(&ask).await?;
            attempts.extend(folders(&page, &prefix, |name| i64::from_str_radix(name, 16).ok().map(Token)));
            if !turn(&mut ask, page)? {
                return Ok(attempts);
            }
        }
    }

    /// Removes all files of a task, or of one attempt. What is gone already counts as removed.
    pub(in super::super) async fn remove(&self, task: TaskId, token: Option<Token>) -> Result<(), Error> {
        let mut ask = Ask { prefix: self.below(task, token), limit: PAGE, ..Ask::default() };
        loop {
            let mut page = self.settings.store.page(&ask).await?;
            let names = std::mem::take(&mut page.names);
            let deletions: Vec<_> = names.iter().map(|name| self.settings.store.delete(name)).collect();
            stream::iter(deletions).buffer_unordered(DELETIONS_AT_ONCE).try_collect::<()>().await?;
            if !turn(&mut ask, page)? {
                return Ok(());
            }
        }
    }
}

impl Listing {
    fn begin(prefix: &str, after: Option<TaskId>) -> Self {
        let ask = Ask {
            prefix: prefix.to_owned(),
            folders: true,
            // Behind all that begins with the task and a slash: a naught is what comes next.
            after: after.map(|task| format!("{prefix}{task}0")),
            mark: None,
            limit: PAGE,
        };
        Self { told: None, tasks: Vec::new(), ask, is_over: false }
    }
}

/// What the folders of a page are called, as far as that can be read.
fn folders<T>(page: &Page, prefix: &str, read: impl Fn(&str) -> Option<T>) -> Vec<T> {
    let names = page.folders.iter().filter_map(|folder| folder.strip_prefix(prefix)?.strip_suffix('/'));
    names.filter_map(read).collect()
}

/// Asks for the next page; false when there is none.
fn turn(ask: &mut Ask, page: Page) -> Result<bool, Error> {
    if page.next.is_some() && page.next == ask.mark {
        let detail = "the listing does not come to an end";
        return Err(StoreError::new(Kind::Protocol, "listing the file store", detail).into());
    }
    ask.mark = page.next;
    Ok(ask.mark.is_some())
}
