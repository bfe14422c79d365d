//! The contract that every connector keeps, as a suite that its tests run against a real server.
//!
//! A connector's test makes a [`Fixture`] and calls [`all`], or the functions one by one. Each function leaves the
//! storage as it found it, apart from objects under `fixture.prefix`.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::TryStreamExt as _;

use crate::error::Kind;
use crate::memory::{MemoryJournal, MemorySource};
use crate::source::Source;
use crate::transfer::{Limits, OpenUpload, Progress, Put, Receipt};
use crate::{Connector, Result};

/// A storage to check, and what is particular about it.
pub struct Fixture {
    /// Reaches the storage with credentials that may do everything.
    pub connector: Box<dyn Connector>,
    /// Reaches it with a wrong secret.
    pub wrong_secret: Option<Box<dyn Connector>>,
    /// Names a bucket, container or directory that does not exist and is not made by `put`.
    pub missing_container: Option<Box<dyn Connector>>,
    /// What all names of the suite begin with; ends with `/`, holds nothing yet.
    pub prefix: String,
    /// The limits that the connectors above were made with.
    pub limits: Limits,
    /// Names are opaque keys: `a//b`, `/a` and `a/../b` are names like any other. False for a file system.
    pub names_are_keys: bool,
    /// Size of the large object, mostly [`large_bytes`].
    pub large_bytes: usize,
}

impl fmt::Debug for Fixture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fixture").field("connector", &self.connector).finish_non_exhaustive()
    }
}

/// Runs the whole suite.
///
/// # Panics
/// When the connector breaks the contract.
pub async fn all(fixture: &Fixture) {
    round_trips(fixture).await;
    large_object_round_trips(fixture).await;
    ranges_are_exact(fixture).await;
    overwrites_whole(fixture).await;
    keeps_names(fixture).await;
    keeps_content_type(fixture).await;
    lists_by_prefix(fixture).await;
    missing_object_is_not_found(fixture).await;
    wrong_secret_is_refused(fixture).await;
    missing_container_is_named(fixture).await;
    twice_leaves_the_same(fixture).await;
    interrupted_leaves_the_old_object(fixture).await;
    resumes_from_the_journal(fixture).await;
    other_bytes_are_not_resumed(fixture).await;
}

/// Size of the large object: 40 MiB, or the mebibytes that `CONSIGN_TEST_LARGE_MIB` names.
#[expect(clippy::disallowed_methods, reason = "a setting of the tests, not of the program")]
pub fn large_bytes() -> usize {
    let mebibytes = std::env::var("CONSIGN_TEST_LARGE_MIB").ok().and_then(|text| text.parse().ok());
    mebibytes.unwrap_or(40_usize) * 1024 * 1024
}

/// Bytes without a pattern that a part boundary could hide in, the same for the same `seed`.
pub fn bytes(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = BytesMut::with_capacity(length + 8);
    while out.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(length);
    out.freeze()
}

/// Stores `source` under `name` with a fresh journal, and checks that the journal is empty and the count right after.
///
/// # Errors
/// The connector's.
///
/// # Panics
/// When something stays in the journal, or progress is not the size.
pub async fn put(connector: &dyn Connector, name: &str, source: &Arc<MemorySource>) -> Result<Receipt> {
    let journal = Arc::new(MemoryJournal::default());
    let progress = Progress::default();
    let put = request(name, source, &journal, &progress, None);
    let receipt = connector.put(put).await?;
    assert_eq!(journal.open(name), None, "{name}: the journal still holds an upload that is complete");
    assert_eq!(progress.bytes(), source.size(), "{name}: progress is not the size");
    assert!(["crc32c", "md5", "sha256", "size"].contains(&receipt.verified.as_str()), "{receipt:?}");
    Ok(receipt)
}

/// Builds a [`Put`] of the suite.
pub fn request(
    name: &str,
    source: &Arc<MemorySource>,
    journal: &Arc<MemoryJournal>,
    progress: &Progress,
    resume: Option<OpenUpload>,
) -> Put {
    Put {
        name: name.to_owned(),
        source: Arc::<MemorySource>::clone(source),
        content_type: "application/x-contract".to_owned(),
        journal: Arc::<MemoryJournal>::clone(journal),
        resume,
        progress: progress.clone(),
    }
}

/// Reads a whole object.
///
/// # Errors
/// The connector's.
pub async fn get(connector: &dyn Connector, name: &str) -> Result<Bytes> {
    let size = connector.stat(name).await?.size;
    if size == 0 {
        return Ok(Bytes::new());
    }
    collect(connector, name, 0..size).await
}

async fn collect(connector: &dyn Connector, name: &str, range: std::ops::Range<u64>) -> Result<Bytes> {
    let all: BytesMut = connector.read(name, range).await?.try_collect().await?;
    Ok(all.freeze())
}

async fn round_trip(fixture: &Fixture, name: &str, length: usize) {
    let connector = fixture.connector.as_ref();
    let source = Arc::new(MemorySource::new(bytes(length, length as u64)));
    let receipt = put(connector, name, &source).await.unwrap_or_else(|error| fail(name, &error));
    assert!(!receipt.location.is_empty(), "{name}: the receipt names no location");
    let found = get(connector, name).await.unwrap_or_else(|error| fail(name, &error));
    assert!(found == *source.bytes(), "{name}: {length} bytes were sent, {} came back or others", found.len());
    connector.delete(name).await.unwrap_or_else(|error| fail(name, &error));
    let error = connector.stat(name).await.expect_err("a deleted object is gone");
    assert_eq!(error.kind, Kind::NotFound, "{error:?}");
    connector.delete(name).await.unwrap_or_else(|error| fail(name, &error));
}

#[expect(clippy::panic, reason = "a suite ends a broken test by panicking, with the connector's whole error")]
fn fail(name: &str, error: &crate::Error) -> ! {
    panic!("{name}: {error:?}")
}

/// What goes in comes out: nothing, a byte, and around the size of a part.
///
/// # Panics
/// When it does not.
pub async fn round_trips(fixture: &Fixture) {
    let part = usize::try_from(fixture.limits.part_bytes).expect("a part fits into memory");
    for length in [0, 1, part - 1, part, part + 1, 2 * part] {
        round_trip(fixture, &format!("{}size/{length}", fixture.prefix), length).await;
    }
}

/// A large object comes back whole.
///
/// # Panics
/// When it does not.
pub async fn large_object_round_trips(fixture: &Fixture) {
    round_trip(fixture, &format!("{}large", fixture.prefix), fixture.large_bytes).await;
}

/// A range holds exactly its bytes.
///
/// # Panics
/// When it does not.
pub async fn ranges_are_exact(fixture: &Fixture) {
    let connector = fixture.connector.as_ref();
    let name = format!("{}ranges", fixture.prefix);
    let source = Arc::new(MemorySource::new(bytes(100_000, 7)));
    put(connector, &name, &source).await.unwrap_or_else(|error| fail(&name, &error));
    for range in [0..1, 0..100_000, 99_999..100_000, 33_000..66_001] {
        let found = collect(connector, &name, range.clone()).await.unwrap_or_else(|error| fail(&name, &error));
        let expected = source.read_at(range.start, usize::try_from(range.end - range.start).expect("small")).await;
        assert!(found == expected.expect("the range lies within"), "{range:?}: other bytes came back");
    }
    connector.delete(&name).await.unwrap_or_else(|error| fail(&name, &error));
}

/// A second object under the same name replaces the first, shorter or longer.
///
/// # Panics
/// When it does not.
pub async fn overwrites_whole(fixture: &Fixture) {
    let connector = fixture.connector.as_ref();
    let name = format!("{}overwritten", fixture.prefix);
    let part = usize::try_from(fixture.limits.part_bytes).expect("a part fits into memory");
    for length in [1000, part + 5, 10] {
        let source = Arc::new(MemorySource::new(bytes(length, 11)));
        put(connector, &name, &source).await.unwrap_or_else(|error| fail(&name, &error));
        let found = get(connector, &name).await.unwrap_or_else(|error| fail(&name, &error));
        assert!(found == *source.bytes(), "{name}: {} bytes came back for {length}", found.len());
    }
    connector.delete(&name).await.unwrap_or_else(|error| fail(&name, &error));
}

/// Names arrive byte for byte.
///
/// # Panics
/// When an object is stored under another name.
pub async fn keeps_names(fixture: &Fixture) {
    let mut names: Vec<String> = [
        "a b  c.txt",
        "ünï 日本語 e\u{301} 🦀.bin",
        "100%.txt",
        "%41%2F.txt",
        "a+b&c=d;e,f@g:h$i.txt",
        "q?x=1#y.txt",
        "'quoted' \"twice\" (x) [y] {z} <w> |^`~!*.txt",
        ".hidden",
        "deep/er/and/deeper.txt",
    ]
    .into_iter()
    .map(|name| format!("{}{name}", fixture.prefix))
    .collect();
    if fixture.names_are_keys {
        names.extend(["a//b", "a/../b", "./c", "d\\e", "f/"].map(|name| format!("{}{name}", fixture.prefix)));
        names.push(format!("/{}leading", fixture.prefix));
        names.push(format!("//{}leading", fixture.prefix));
    }
    names.push(long_name(&fixture.prefix, fixture.connector.capability().name_bytes_max.min(1024)));
    for name in &names {
        keeps_name(fixture, name).await;
    }
}

async fn keeps_name(fixture: &Fixture, name: &str) {
    let connector = fixture.connector.as_ref();
    let source = Arc::new(MemorySource::new(name.as_bytes().to_vec()));
    put(connector, name, &source).await.unwrap_or_else(|error| fail(name, &error));
    let found = get(connector, name).await.unwrap_or_else(|error| fail(name, &error));
    assert!(found == *source.bytes(), "{name}: other bytes came back");
    let folder = &name[..=name.trim_end_matches('/').rfind('/').expect("the prefix ends with a slash")];
    let listed = connector.list(folder, 1000).await.unwrap_or_else(|error| fail(name, &error));
    assert!(listed.iter().any(|object| object.name == name), "{name:?} is not in {listed:?}");
    connector.delete(name).await.unwrap_or_else(|error| fail(name, &error));
}

/// A name of exactly `length` bytes whose segments fit any file system.
fn long_name(prefix: &str, length: usize) -> String {
    let mut name = prefix.to_owned();
    while name.len() < length {
        name.push(if name.len() % 200 == 199 && name.len() + 1 < length { '/' } else { 'n' });
    }
    name
}

/// The media type is kept, where the storage keeps one.
///
/// # Panics
/// When it is not.
pub async fn keeps_content_type(fixture: &Fixture) {
    let connector = fixture.connector.as_ref();
    if !connector.capability().keeps_content_type {
        return;
    }
    let part = usize::try_from(fixture.limits.part_bytes).expect("a part fits into memory");
    for length in [3, part + 1] {
        let name = format!("{}typed-{length}", fixture.prefix);
        put(connector, &name, &Arc::new(MemorySource::new(bytes(length, 3)))).await.unwrap_or_else(|e| fail(&name, &e));
        let object = connector.stat(&name).await.unwrap_or_else(|error| fail(&name, &error));
        assert_eq!(object.content_type.as_deref(), Some("application/x-contract"), "{name}");
        assert_eq!(object.size, length as u64);
        connector.delete(&name).await.unwrap_or_else(|error| fail(&name, &error));
    }
}

/// A listing holds what begins with the prefix, in the order of names, and refuses to be cut.
///
/// # Panics
/// When it does not.
pub async fn lists_by_prefix(fixture: &Fixture) {
    let connector = fixture.connector.as_ref();
    let folder = format!("{}listed/", fixture.prefix);
    let names: Vec<String> = ["a", "b", "c"].iter().map(|name| format!("{folder}{name}")).collect();
    for name in &names {
        let source = Arc::new(MemorySource::new(name.as_bytes().to_vec()));
        put(connector, name, &source).await.unwrap_or_else(|error| fail(name, &error));
    }
    let found = connector.list(&folder, 3).await.unwrap_or_else(|error| fail(&folder, &error));
    assert_eq!(found.iter().map(|object| object.name.clone()).collect::<Vec<_>>(), names);
    assert!(found.iter().all(|object| object.size == folder.len() as u64 + 1), "{found:?}");
    let error = connector.list(&folder, 2).await.expect_err("three objects are more than two");
    assert_eq!(error.kind, Kind::TooMany, "{error:?}");
    for name in &names {
        connector.delete(name).await.unwrap_or_else(|error| fail(name, &error));
    }
}

/// What is not there is [`Kind::NotFound`].
///
/// # Panics
/// When another error comes.
pub async fn missing_object_is_not_found(fixture: &Fixture) {
    let name = format!("{}missing", fixture.prefix);
    let error = fixture.connector.stat(&name).await.expect_err("there is no such object");
    assert_eq!(error.kind, Kind::NotFound, "{error:?}");
    match fixture.connector.read(&name, 0..1).await {
        Err(error) => assert_eq!(error.kind, Kind::NotFound, "{error:?}"),
        Ok(stream) => {
            let error = stream.try_collect::<BytesMut>().await.expect_err("there is no such object");
            assert_eq!(error.kind, Kind::NotFound, "{error:?}");
        }
    }
}

/// A wrong secret is refused as such, at once and not as a transient fault.
///
/// # Panics
/// When another error comes.
pub async fn wrong_secret_is_refused(fixture: &Fixture) {
    let Some(connector) = &fixture.wrong_secret else { return };
    let name = format!("{}refused", fixture.prefix);
    let part = usize::try_from(fixture.limits.part_bytes).expect("a part fits into memory");
    for length in [1, part, part + 1] {
        let source = Arc::new(MemorySource::new(bytes(length, 5)));
        let error = put(connector.as_ref(), &name, &source).await.expect_err("a wrong secret");
        assert!(matches!(error.kind, Kind::InvalidCredentials | Kind::AccessDenied), "{length}: {error:?}");
        assert!(!error.is_transient(), "{length}: {error:?}");
        let error = fixture.connector.stat(&name).await.expect_err("nothing was stored");
        assert_eq!(error.kind, Kind::NotFound, "{error:?}");
    }
}

/// A missing bucket is told apart from a missing object, whatever the size of what is sent.
///
/// # Panics
/// When another error comes.
pub async fn missing_container_is_named(fixture: &Fixture) {
    let Some(connector) = &fixture.missing_container else { return };
    let part = usize::try_from(fixture.limits.part_bytes).expect("a part fits into memory");
    for length in [1, part + 1] {
        let source = Arc::new(MemorySource::new(bytes(length, 5)));
        let error = put(connector.as_ref(), "x", &source).await.expect_err("there is no such container");
        assert_eq!(error.kind, Kind::ContainerNotFound, "{error:?}");
        assert!(!error.is_transient(), "{error:?}");
    }
}

/// Doing it again leaves one object, the same.
///
/// # Panics
/// When it does not.
pub async fn twice_leaves_the_same(fixture: &Fixture) {
    let connector = fixture.connector.as_ref();
    let folder = format!("{}twice/", fixture.prefix);
    let name = format!("{folder}object");
    let part = usize::try_from(fixture.limits.part_bytes).expect("a part fits into memory");
    let source = Arc::new(MemorySource::new(bytes(part + 100, 13)));
    for _ in 0..2 {
        put(connector, &name, &source).await.unwrap_or_else(|error| fail(&name, &error));
        let listed = connector.list(&folder, 10).await.unwrap_or_else(|error| fail(&name, &error));
        assert_eq!(listed.len(), 1, "{listed:?}");
        let found = get(connector, &name).await.unwrap_or_else(|error| fail(&name, &error));
        assert!(found == *source.bytes(), "{name}: other bytes came back");
    }
    connector.delete(&name).await.unwrap_or_else(|error| fail(&name, &error));
}

/// Interrupts an upload of `parts` parts in its last one and returns the journal.
async fn interrupt(fixture: &Fixture, name: &str, data: &Bytes) -> Arc<MemoryJournal> {
    let journal = Arc::new(MemoryJournal::default());
    let source = Arc::new(MemorySource::new(data.clone()).failing_from(data.len() as u64 - 1));
    let put = request(name, &source, &journal, &Progress::default(), None);
    let error = fixture.connector.put(put).await.expect_err("the source fails in its last byte");
    assert_eq!(error.kind, Kind::Local, "{error:?}");
    journal
}

fn large(fixture: &Fixture, seed: u64) -> Bytes {
    let parts = u64::try_from(fixture.limits.parts_in_flight).expect("a small number") + 3;
    bytes(usize::try_from(fixture.limits.part_bytes * parts + 17).expect("fits into memory"), seed)
}

/// An interrupted upload leaves what was there before; [`Connector::abort`] clears the rest away and is repeatable.
///
/// # Panics
/// When it does not.
pub async fn interrupted_leaves_the_old_object(fixture: &Fixture) {
    let connector = fixture.connector.as_ref();
    let folder = format!("{}interrupted/", fixture.prefix);
    let name = format!("{folder}object");
    let old = Arc::new(MemorySource::new(bytes(1000, 17)));
    put(connector, &name, &old).await.unwrap_or_else(|error| fail(&name, &error));
    let journal = interrupt(fixture, &name, &large(fixture, 19)).await;
    let found = get(connector, &name).await.unwrap_or_else(|error| fail(&name, &error));
    assert!(found == *old.bytes(), "{name}: half an object is visible");
    let open = journal.open(&name).expect("the journal knows what is open");
    for _ in 0..2 {
        connector.abort(&open).await.unwrap_or_else(|error| fail(&name, &error));
    }
    let listed = connector.list(&folder, 10).await.unwrap_or_else(|error| fail(&name, &error));
    assert_eq!(listed.len(), 1, "something is left beside the object: {listed:?}");
    connector.delete(&name).await.unwrap_or_else(|error| fail(&name, &error));
}

/// An interrupted upload goes on where it stood, and anew when it is gone.
///
/// # Panics
/// When it does not.
pub async fn resumes_from_the_journal(fixture: &Fixture) {
    let connector = fixture.connector.as_ref();
    let name = format!("{}resumed", fixture.prefix);
    let data = large(fixture, 23);
    for is_gone in [false, true] {
        let journal = interrupt(fixture, &name, &data).await;
        let open = journal.open(&name).expect("the journal knows what is open");
        if is_gone {
            connector.abort(&open).await.unwrap_or_else(|error| fail(&name, &error));
        }
        let source = Arc::new(MemorySource::new(data.clone()));
        let progress = Progress::default();
        let put = request(&name, &source, &journal, &progress, Some(open));
        connector.put(put).await.unwrap_or_else(|error| fail(&name, &error));
        assert_eq!(journal.open(&name), None, "the journal still holds the upload");
        assert_eq!(progress.bytes(), data.len() as u64, "progress is not the size");
        let resumed = source.read_bytes() < data.len() as u64;
        assert_eq!(resumed, connector.capability().resumes && !is_gone, "{} bytes were read", source.read_bytes());
        let found = get(connector, &name).await.unwrap_or_else(|error| fail(&name, &error));
        assert!(found == data, "{name}: other bytes came back");
        connector.delete(&name).await.unwrap_or_else(|error| fail(&name, &error));
    }
}

/// An upload of other bytes is not gone on with.
///
/// # Panics
/// When it is.
pub async fn other_bytes_are_not_resumed(fixture: &Fixture) {
    let connector = fixture.connector.as_ref();
    let name = format!("{}other", fixture.prefix);
    let journal = interrupt(fixture, &name, &large(fixture, 29)).await;
    let open = journal.open(&name).expect("the journal knows what is open");
    let source = Arc::new(MemorySource::new(large(fixture, 31)));
    let put = request(&name, &source, &journal, &Progress::default(), Some(open.clone()));
    connector.put(put).await.unwrap_or_else(|error| fail(&name, &error));
    let found = get(connector, &name).await.unwrap_or_else(|error| fail(&name, &error));
    assert!(found == *source.bytes(), "{name}: other bytes came back");
    connector.abort(&open).await.unwrap_or_else(|error| fail(&name, &error));
    connector.delete(&name).await.unwrap_or_else(|error| fail(&name, &error));
}
