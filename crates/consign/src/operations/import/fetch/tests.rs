//! Imports from a storage in memory that does as it is told.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connectors::{
    ByteStream, Capability, Digests, Error, OpenUpload, Put, Receipt, Result as Fetched, Retry, WholeDigest,
};
use futures_util::{StreamExt as _, stream};

use super::*;
use crate::operations::testing::{Bench, MemoryConnector};

/// A storage of a few objects. `hang` in a name lets its bytes never come, `broken` lets them break.
#[derive(Debug, Default)]
struct Shelf {
    objects: BTreeMap<String, Bytes>,
    /// What it says of an object, where that is not so.
    sizes: BTreeMap<String, u64>,
    digests: BTreeMap<String, WholeDigest>,
    looks: AtomicUsize,
    active: AtomicUsize,
    active_most: AtomicUsize,
}

impl Shelf {
    fn of(names: &[&str]) -> Self {
        let bytes = |name: &&str| if name.ends_with('/') { Bytes::new() } else { Bytes::from((*name).to_owned()) };
        let objects = names.iter().map(|name| ((*name).to_owned(), bytes(name))).collect();
        Self { objects, ..Self::default() }
    }

    fn object(&self, name: &str, content_type: Option<&str>) -> Fetched<Object> {
        let missing = || Error::new(Kind::NotFound, "looking", format!("there is no `{name}`"));
        let size = self.objects.get(name).ok_or_else(missing)?.len() as u64;
        let size = self.sizes.get(name).copied().unwrap_or(size);
        Ok(Object { name: name.to_owned(), size, etag: None, content_type: content_type.map(str::to_owned) })
    }
}

fn never<T>() -> Fetched<T> {
    Err(Error::new(Kind::Unsupported, "testing", "not asked for"))
}

#[async_trait]
impl Connector for Shelf {
    fn capability(&self) -> Capability {
        Capability { keeps_content_type: true, ..MemoryConnector::default().capability() }
    }

    fn host(&self) -> String {
        "shelf".to_owned()
    }

    async fn put(&self, _: Put) -> Fetched<Receipt> {
        never()
    }

    async fn stat(&self, name: &str) -> Fetched<Object> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.object(name, Some(if name.contains("odd") { "text/x-odd" } else { "binary/octet-stream" }))
    }

    async fn describe(&self, name: &str, _: Option<Object>) -> Fetched<Described> {
        Ok(Described { object: self.stat(name).await?, digest: self.digests.get(name).copied() })
    }

    async fn read(&self, name: &str, range: Range<u64>) -> Fetched<ByteStream> {
        let now = self.active.fetch_add(1, Ordering::SeqCst) + 1;
        self.active_most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.active.fetch_sub(1, Ordering::SeqCst);
        if name.contains("hang") {
            std::future::pending::<()>().await;
        }
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        let bytes = Ok(self.objects[name].slice(range));
        let broken = Err(Error::new(Kind::AccessDenied, "reading", "it was told to break"));
        Ok(stream::iter(if name.contains("broken") { vec![broken] } else { vec![bytes] }).boxed())
    }

    async fn list(&self, prefix: &str, limit: usize) -> Fetched<Vec<Object>> {
        let names: Vec<_> = self.objects.keys().filter(|name| name.starts_with(prefix)).collect();
        if names.len() > limit {
            return Err(Error::new(Kind::TooMany, "listing", "too many"));
        }
        names.into_iter().map(|name| self.object(name, None)).collect()
    }

    async fn delete(&self, _: &str) -> Fetched<()> {
        never()
    }

    async fn abort(&self, _: &OpenUpload) -> Fetched<()> {
        never()
    }
}

fn all(shelf: Shelf, prefix: &str) -> Origin {
    Origin { connector: Arc::new(shelf), wanted: Wanted::All(prefix.to_owned()), filename: None }
}

fn one(shelf: Shelf, name: &str) -> Origin {
    Origin { connector: Arc::new(shelf), wanted: Wanted::One(name.to_owned()), filename: None }
}

fn names(outcome: &Outcome) -> Vec<&str> {
    outcome.files.iter().map(|file| file.name.as_str()).collect()
}

#[tokio::test]
async fn a_prefix_brings_all_its_files_in_the_order_of_names() {
    let bench = Bench::new().await;
    let shelf = Shelf::of(&["in/", "in/b/", "in/b/x.txt", "in/c/x.txt", "in/a.odd", "in/z", "other"]);
    let outcome = bench.context(&[]).fetch(all(shelf, "in/")).await.unwrap();
    assert_eq!(names(&outcome), ["a.odd", "x.txt", "x-2.txt", "z"]);
    let types: Vec<_> = outcome.files.iter().map(|file| file.content_type.as_str()).collect();
    assert_eq!(types, ["text/x-odd", "text/plain", "text/plain", "application/octet-stream"]);
    for (file, bytes) in outcome.files.iter().zip(["in/a.odd", "in/b/x.txt", "in/c/x.txt", "in/z"]) {
        assert_eq!(bench.read(file).await, bytes);
    }
    assert_eq!((bench.kept(), bench.reported().last()), (4, Some(&99)));
    assert!(bench.reported().len() >= 4, "percent moves by bytes: {:?}", bench.reported());
}

#[tokio::test]
async fn some_files_come_at_once() {
    let mut bench = Bench::new().await;
    bench.bounds.files_at_once = 3;
    let shelf = Arc::new(Shelf::of(&["a", "b", "c", "d", "e", "f", "g"]));
    let wanted = Wanted::All(String::new());
    let origin = Origin { connector: Arc::<Shelf>::clone(&shelf), wanted, filename: None };
    assert_eq!(bench.context(&[]).fetch(origin).await.unwrap().files.len(), 7);
    assert_eq!(shelf.active_most.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_single_file_may_get_another_name() {
    let bench = Bench::new().await;
    let named = |origin: Origin| Origin { filename: Some("../new.pdf".to_owned()), ..origin };
    for (origin, expected) in [
        (named(one(Shelf::of(&["x/a.txt"]), "x/a.txt")), vec!["new.pdf"]),
        (named(all(Shelf::of(&["x/", "x/a.txt"]), "x/")), vec!["new.pdf"]),
        (named(all(Shelf::of(&["x/a.txt", "x/b.txt"]), "x/")), vec!["a.txt", "b.txt"]),
        (one(Shelf::of(&["x/folder/"]), "x/folder/"), vec!["folder"]),
    ] {
        assert_eq!(names(&bench.context(&[]).fetch(origin).await.unwrap()), expected);
    }
    let shelf = Arc::new(Shelf::of(&["a"]));
    let origin = Origin { connector: Arc::<Shelf>::clone(&shelf), ..one(Shelf::default(), "a") };
    bench.context(&[]).fetch(origin).await.unwrap();
    assert_eq!(shelf.looks.load(Ordering::SeqCst), 2, "before the first byte, and behind the last");
}

#[tokio::test]
async fn nothing_found_says_what_was_looked_for() {
    let bench = Bench::new().await;
    let fetch = async |origin| bench.context(&[]).fetch(origin).await.unwrap_err();
    for (origin, words) in [
        (all(Shelf::of(&["a"]), "b/"), "no file to import under `b/`"),
        (all(Shelf::of(&["b/", "b/c/"]), "b/"), "only folders without files under `b/`"),
        (one(Shelf::of(&["a"]), "A"), "there is no `A`"),
    ] {
        let error = fetch(origin).await;
        assert_eq!((error.code, error.retry), (Code::FileNotFound, Retry::Never));
        assert!(error.message.to_lowercase().contains(&words.to_lowercase()), "{}", error.message);
    }
}

#[tokio::test]
async fn too_many_and_too_large_are_refused_before_a_byte_comes() {
    let mut bench = Bench::new().await;
    (bench.bounds.files_max, bench.bounds.file_bytes_max) = (2, 10);
    let shelf = || Shelf::of(&["a/", "a/1", "a/2", "a/3", "b/", "b/1", "b/2", "c/hang-and-long"]);
    let fetch = async |origin| bench.context(&[]).fetch(origin).await;
    let error = fetch(all(shelf(), "a/")).await.unwrap_err();
    assert_eq!(error.code, Code::TooManyFiles);
    assert!(error.message.contains("more than 2 files under `a/`"), "{}", error.message);
    assert_eq!(fetch(all(shelf(), "b/")).await.unwrap().files.len(), 2, "a folder is no file");
    let many: Vec<String> = (0..1003).map(|number| format!("{number}/")).collect();
    let many = Shelf::of(&many.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(fetch(all(many, "")).await.unwrap_err().code, Code::TooManyFiles);
    for origin in [all(shelf(), "c/"), one(shelf(), "c/hang-and-long")] {
        let error = fetch(origin).await.unwrap_err();
        assert_eq!(error.code, Code::FileTooLarge);
        assert!(error.message.contains("\"c/hang-and-long\" has 15 bytes"), "{}", error.message);
    }
    bench.bounds.file_bytes_max = u64::MAX;
    let sizes = [("a/hang".to_owned(), u64::MAX / 2), ("b/hang".to_owned(), u64::MAX / 2 + 2)];
    let vast = Shelf { sizes: sizes.into(), ..Shelf::of(&["a/hang", "b/hang"]) };
    let error = bench.context(&[]).fetch(all(vast, "")).await.unwrap_err();
    assert_eq!(error.code, Code::StorageFull, "{error}");
}

#[tokio::test]
async fn a_broken_file_stops_the_others_and_leaves_nothing() {
    let mut bench = Bench::new().await;
    bench.bounds.files_at_once = 2;
    let error = bench.context(&[]).fetch(all(Shelf::of(&["a", "hang", "x-broken"]), "")).await;
    // The broken one comes third: one slot hangs, the other is through with the first.
    let error = error.unwrap_err();
    assert_eq!(error.code, Code::AccessDenied);
    assert!(error.message.starts_with("\"x-broken\" was not imported. "), "{}", error.message);
    assert_eq!(bench.kept(), 0);
}

#[tokio::test]
async fn bytes_that_are_not_what_the_storage_says_are_not_kept() {
    let bench = Bench::new().await;
    let with = |digest| Shelf { digests: [("a".to_owned(), digest)].into(), ..Shelf::of(&["a"]) };
    let right = Digests::of(b"a");
    for digest in
        [WholeDigest::Md5(right.md5.unwrap()), WholeDigest::Sha256(right.sha256), WholeDigest::Crc32c(right.crc32c)]
    {
        bench.context(&[]).fetch(one(with(digest), "a")).await.unwrap();
    }
    assert_eq!(bench.kept(), 3);
    let bench = Bench::new().await;
    let error = bench.context(&[]).fetch(one(with(WholeDigest::Crc32c(1)), "a")).await.unwrap_err();
    assert_eq!((error.code, error.retry), (Code::IntegrityMismatch, Retry::Later(None)));
    assert_eq!(bench.kept(), 0);
}
