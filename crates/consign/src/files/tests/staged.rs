//! An object store in memory that does what a test tells it: fails, waits, loses or alters what it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use connectors::store::{Ask, ObjectStore, Page, Shown};
use connectors::{Capability, Connector, Error, Object, OpenUpload, Put, Receipt, Result};
use futures_util::future::BoxFuture;

use super::*;

/// From this size on a file is sent in parts, of an upload that is opened first.
const PART_BYTES: u64 = 8 * 1024 * 1024;

/// What is asked of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Put,
    Stat,
    Read,
    Delete,
    Abort,
    Copy,
    Page,
    AbortOlder,
}

type Cue = dyn Fn(&Staged, Act, &str) -> BoxFuture<'static, Result<()>> + Send + Sync;

/// The store. Its cue is asked before everything that is done.
pub(crate) struct Staged {
    pub(super) objects: Mutex<BTreeMap<String, Bytes>>,
    pub(super) uploads: Mutex<BTreeSet<String>>,
    acts: Mutex<Vec<(Act, String)>>,
    /// Whether a listing can begin in the middle.
    pub(super) begins_anywhere: bool,
    cue: Box<Cue>,
}

impl Staged {
    pub(crate) fn new(
        cue: impl Fn(&Self, Act, &str) -> BoxFuture<'static, Result<()>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            objects: Mutex::default(),
            uploads: Mutex::default(),
            acts: Mutex::default(),
            begins_anywhere: true,
            cue: Box::new(cue),
        }
    }

    /// How often it was asked for this.
    pub(crate) fn count(&self, act: Act) -> usize {
        self.acts.lock().unwrap().iter().filter(|(done, _)| *done == act).count()
    }

    /// Whether this is the object that was put first.
    pub(super) fn is_first(&self, name: &str) -> bool {
        self.acts.lock().unwrap().iter().find(|(act, _)| *act == Act::Put).is_some_and(|(_, first)| first == name)
    }

    /// The names that lie there.
    pub(super) fn names(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }

    async fn ask(&self, act: Act, name: &str) -> Result<()> {
        self.acts.lock().unwrap().push((act, name.to_owned()));
        (self.cue)(self, act, name).await
    }

    fn get(&self, name: &str) -> Result<Bytes> {
        let found = self.objects.lock().unwrap().get(name).cloned();
        found.ok_or_else(|| Error::new(Kind::NotFound, "reading", "there is no such object"))
    }
}

/// A failure of this kind, at once.
pub(super) fn fails(kind: Kind) -> BoxFuture<'static, Result<()>> {
    Box::pin(std::future::ready(Err(Error::new(kind, "acting", "as the test has it"))))
}

/// Nothing out of the ordinary.
pub(crate) fn goes() -> BoxFuture<'static, Result<()>> {
    Box::pin(std::future::ready(Ok(())))
}

impl fmt::Debug for Staged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Staged")
    }
}

#[async_trait]
impl Connector for Staged {
    fn capability(&self) -> Capability {
        Capability {
            resumes: false,
            aborts: true,
            names_are_keys: true,
            keeps_dot_segments: true,
            has_containers: true,
            checks_single_put: true,
            can_throttle: true,
            keeps_content_type: false,
            verifies_by: "size",
            name_bytes_max: 1024,
            object_bytes_max: u64::MAX,
        }
    }

    fn host(&self) -> String {
        "stage".to_owned()
    }

    async fn put(&self, put: Put) -> Result<Receipt> {
        self.ask(Act::Put, &put.name).await?;
        let size = put.source.size();
        if size > PART_BYTES {
            let open = OpenUpload {
                target: put.name.clone(),
                handle: "open".to_owned(),
                sha256: String::new(),
                part_bytes: PART_BYTES,
                parts: BTreeMap::new(),
            };
            self.uploads.lock().unwrap().insert(put.name.clone());
            put.journal.opened(&open).await?;
        }
        let bytes = put.source.read_at(0, usize::try_from(size).unwrap()).await?;
        self.uploads.lock().unwrap().remove(&put.name);
        self.objects.lock().unwrap().insert(put.name, bytes);
        Ok(Receipt::default())
    }

    async fn stat(&self, name: &str) -> Result<Object> {
        self.ask(Act::Stat, name).await?;
        let size = self.get(name)?.len() as u64;
        Ok(Object { name: name.to_owned(), size, etag: None, content_type: None })
    }

    async fn read(&self, name: &str, range: Range<u64>) -> Result<ByteStream> {
        self.ask(Act::Read, name).await?;
        let (bytes, end) = (self.get(name)?, usize::try_from(range.end).unwrap());
        if bytes.len() < end {
            return Err(Error::new(Kind::Protocol, "reading", "another range than was asked for"));
        }
        Ok(stream_of(&bytes[usize::try_from(range.start).unwrap()..end], usize::try_from(PART_BYTES).unwrap()))
    }

    async fn list(&self, _: &str, _: usize) -> Result<Vec<Object>> {
        unreachable!("file stores list pages")
    }

    async fn delete(&self, name: &str) -> Result<()> {
        self.ask(Act::Delete, name).await?;
        self.objects.lock().unwrap().remove(name);
        Ok(())
    }

    async fn abort(&self, open: &OpenUpload) -> Result<()> {
        self.ask(Act::Abort, &open.target).await?;
        self.uploads.lock().unwrap().remove(&open.target);
        Ok(())
    }
}

#[async_trait]
impl ObjectStore for Staged {
    async fn page(&self, ask: &Ask) -> Result<Page> {
        self.ask(Act::Page, &ask.prefix).await?;
        let after = ask.after.as_ref().filter(|_| self.begins_anywhere);
        let from = ask.mark.as_ref().or(after).cloned().unwrap_or_default();
        let entry = |name: &String| {
            let rest = name.strip_prefix(&ask.prefix)?;
            let folder =
                rest.split_once('/').filter(|_| ask.folders).map(|(first, _)| format!("{}{first}/", ask.prefix));
            Some(folder.unwrap_or_else(|| name.clone())).filter(|entry| *entry > from)
        };
        let entries: BTreeSet<String> = self.objects.lock().unwrap().keys().filter_map(entry).collect();
        let is_more = entries.len() > ask.limit;
        let taken: Vec<String> = entries.into_iter().take(ask.limit).collect();
        let next = taken.last().filter(|_| is_more).cloned();
        let (folders, names) = taken.into_iter().partition(|entry| ask.folders && entry.ends_with('/'));
        Ok(Page { names, folders, next })
    }

    async fn copy(&self, from: &str, to: &str) -> Result<()> {
        self.ask(Act::Copy, to).await?;
        let bytes = self.get(from)?;
        self.objects.lock().unwrap().insert(to.to_owned(), bytes);
        Ok(())
    }

    fn signed_link(&self, _: &str, _: &Shown) -> Result<Option<String>> {
        Ok(None)
    }

    async fn abort_older(&self, prefix: &str, _: Duration) -> Result<usize> {
        self.ask(Act::AbortOlder, prefix).await?;
        Ok(0)
    }
}
