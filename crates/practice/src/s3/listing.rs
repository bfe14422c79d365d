//! Pages through the keys of a bucket in the order of their bytes, with memory bounded by the page.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::io;
use std::path::Path;

use s3s::{S3Error, S3Result};

use super::name;
use super::objects::Objects;

/// Longest page, as at the original service.
pub(super) const PAGE_MAX: usize = 1000;

/// What to list.
#[derive(Clone, Debug, Default)]
pub(super) struct Query {
    pub bucket: String,
    pub prefix: String,
    /// Keys that share their text from the prefix up to this are one entry.
    pub delimiter: Option<String>,
    /// Only keys after this one.
    pub start_after: Option<String>,
    /// Only entries after this one, the last of the page before.
    pub resume_after: Option<String>,
    pub limit: usize,
}

/// One page.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Keys with what is known of them, and common prefixes with `None`.
    pub entries: Vec<(String, Option<Listed>)>,
    pub is_truncated: bool,
}

/// An object in a page.
#[derive(Debug)]
pub(super) struct Listed {
    pub attributes: Metadata,
    pub etag: String,
}

/// Lists one page.
pub(super) fn page(objects: &Objects, query: &Query) -> S3Result<Page> {
    let bucket = objects.bucket(&query.bucket)?;
    let limit = query.limit.min(PAGE_MAX);
    if limit == 0 {
        return Ok(Page::default());
    }
    // The smallest entries so far, one more than the page to learn whether it is the last.
    let mut smallest = BTreeMap::new();
    walk(&bucket, &bucket, &mut |key, path| {
        if let Some((name, is_object)) = entry(query, key) {
            smallest.insert(name, is_object.then(|| path.to_path_buf()));
            if smallest.len() > limit + 1 {
                smallest.pop_last();
            }
        }
    })
    .map_err(S3Error::internal_error)?;

    let is_truncated = smallest.len() > limit;
    let mut entries = Vec::with_capacity(limit.min(smallest.len()));
    for (name, path) in smallest.into_iter().take(limit) {
        let Some(path) = path else {
            entries.push((name, None));
            continue;
        };
        // An object that was deleted since it was seen is left out.
        if let Ok(attributes) = fs::metadata(path) {
            let etag = objects.etag(&query.bucket, &name, &attributes);
            entries.push((name, Some(Listed { attributes, etag })));
        }
    }
    Ok(Page { entries, is_truncated })
}

/// Gives the entry that a key belongs to: itself (`true`) or a common prefix; `None` when it is not asked for.
fn entry(query: &Query, key: String) -> Option<(String, bool)> {
    let tail = key.strip_prefix(query.prefix.as_str())?;
    if query.start_after.as_ref().is_some_and(|after| key <= *after) {
        return None;
    }
    let delimiter = query.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
    let common = delimiter.and_then(|delimiter| {
        let end = tail.find(delimiter)? + delimiter.len();
        Some(key[..query.prefix.len() + end].to_owned())
    });
    let is_object = common.is_none();
    let name = common.unwrap_or(key);
    let is_after = query.resume_after.as_ref().is_none_or(|after| name > *after);
    is_after.then_some((name, is_object))
}

/// Visits every object below a folder. Folders are the beginnings of long names; others are none of ours.
fn walk(folder: &Path, bucket: &Path, visit: &mut impl FnMut(String, &Path)) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // Its last object was deleted meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if name::is_continued(&path) {
                walk(&path, bucket, visit)?;
            }
        } else if kind.is_file()
            && let Some(key) = path.strip_prefix(bucket).ok().and_then(name::decode)
        {
            visit(key, &path);
        }
    }
    Ok(())
}
