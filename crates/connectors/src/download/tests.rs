//! Reads that break, change and dawdle, from a storage that does as it is told.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::BytesMut;

use super::*;
use crate::budget::{Budget, Usage};
use crate::contract::bytes;
use crate::transfer::{Capability, OpenUpload, Put, Receipt};

/// Small ranges, three at once.
fn limits() -> Limits {
    Limits { part_bytes: 1000, parts_in_flight: 3, tries: 3, ..Limits::default() }
}

/// What happens to one read.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It breaks behind so many bytes.
    Breaks(usize, Retry),
    /// It ends there as if nothing were missing.
    Ends(usize),
    /// It brings a byte more than it should.
    Overflows,
}

/// A storage with one object.
#[derive(Debug)]
struct Storage {
    content: Bytes,
    is_parallel: bool,
    /// Of the reads to come, by the byte that they start at or later.
    fates: Mutex<VecDeque<(u64, Fate)>>,
    looks: Mutex<VecDeque<(u64, &'static str)>>,
    reads: Mutex<Vec<Range<u64>>>,
    active: Arc<AtomicUsize>,
    active_most: AtomicUsize,
    is_held: Arc<AtomicBool>,
}

impl Storage {
    fn new(length: usize) -> Self {
        Self {
            content: bytes(length, 1),
            is_parallel: true,
            fates: Mutex::default(),
            looks: Mutex::default(),
            reads: Mutex::default(),
            active: Arc::default(),
            active_most: AtomicUsize::new(0),
            is_held: Arc::default(),
        }
    }

    fn fate(&self, start: u64, fate: Fate) {
        self.fates.lock().unwrap().push_back((start, fate));
    }

    fn described(&self, digest: Option<WholeDigest>) -> Described {
        Described { object: Self::object(self.content.len() as u64, "mark"), digest }
    }

    fn object(size: u64, mark: &str) -> Object {
        Object { name: "o".to_owned(), size, etag: Some(mark.to_owned()), content_type: None }
    }

    fn reads(&self) -> Vec<Range<u64>> {
        self.reads.lock().unwrap().clone()
    }
}

struct Active(Arc<AtomicUsize>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn broken(retry: Retry) -> Error {
    Error::new(Kind::Unreachable, "reading", "it was told to break").retrying(retry)
}

fn never<T>() -> Result<T> {
    Err(Error::new(Kind::Unsupported, "testing", "not asked for"))
}

#[async_trait]
impl Connector for Storage {
    fn capability(&self) -> Capability {
        unreachable!("nobody asks")
    }

    fn host(&self) -> String {
        String::new()
    }

    async fn put(&self, _: Put) -> Result<Receipt> {
        never()
    }

    async fn stat(&self, _: &str) -> Result<Object> {
        let (size, mark) = self.looks.lock().unwrap().pop_front().unwrap_or((self.content.len() as u64, "mark"));
        if mark == "gone" {
            return Err(Error::new(Kind::NotFound, "looking", "it is gone"));
        }
        Ok(Self::object(size, mark))
    }

    async fn read(&self, _: &str, range: Range<u64>) -> Result<ByteStream> {
        self.reads.lock().unwrap().push(range.clone());
        let active = self.active.fetch_add(1, Ordering::SeqCst) + 1;
        self.active_most.fetch_max(active, Ordering::SeqCst);
        let active = Active(Arc::clone(&self.active));
        let fate = {
            let mut fates = self.fates.lock().unwrap();
            let place = fates.iter().position(|(start, _)| range.contains(start) || range.start == *start);
            place.and_then(|place| fates.remove(place)).map(|(_, fate)| fate)
        };
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        let whole = self.content.slice(range);
        let mut chunks: Vec<Result<Bytes>> = match fate {
            None => vec![Ok(whole.slice(..whole.len() / 3)), Ok(Bytes::new()), Ok(whole.slice(whole.len() / 3..))],
            Some(Fate::Breaks(at, retry)) => vec![Ok(whole.slice(..at)), Err(broken(retry))],
            Some(Fate::Ends(at)) => vec![Ok(whole.slice(..at))],
            Some(Fate::Overflows) => vec![Ok([&whole[..], b"x"].concat().into())],
        };
        chunks.reverse();
        let is_held = Arc::clone(&self.is_held);
        Ok(Box::pin(stream::unfold((chunks, active, is_held), |(mut chunks, active, is_held)| async move {
            while is_held.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            chunks.pop().map(|chunk| (chunk, (chunks, active, is_held)))
        })))
    }

    fn reads_side_by_side(&self) -> bool {
        self.is_parallel
    }

    async fn list(&self, _: &str, _: usize) -> Result<Vec<Object>> {
        never()
    }

    async fn delete(&self, _: &str) -> Result<()> {
        never()
    }

    async fn abort(&self, _: &OpenUpload) -> Result<()> {
        never()
    }
}

fn open(storage: &Arc<Storage>, digest: Option<WholeDigest>) -> ByteStream {
    let connector: Arc<dyn Connector> = Arc::<Storage>::clone(storage);
    whole(&connector, &storage.described(digest), &limits(), Budget::default().share())
}

async fn read(storage: &Arc<Storage>) -> Result<BytesMut> {
    open(storage, None).try_collect().await
}

/// Both ways of reading, each with its own storage.
fn both(length: usize) -> [Arc<Storage>; 2] {
    [true, false].map(|is_parallel| Arc::new(Storage { is_parallel, ..Storage::new(length) }))
}

#[tokio::test]
async fn all_bytes_come_in_order_whatever_the_length() {
    for length in [0, 1, 2, 999, 1000, 1001, 3000, 10_007] {
        for storage in both(length) {
            assert!(read(&storage).await.unwrap() == storage.content, "{length}");
            let expected = if storage.is_parallel { length.div_ceil(1000) } else { length.min(1) };
            assert_eq!(storage.reads().len(), expected, "{length}");
        }
    }
}

#[tokio::test]
async fn as_many_ranges_are_read_ahead_as_may_be_in_flight() {
    let storage = Arc::new(Storage::new(10_000));
    storage.is_held.store(true, Ordering::SeqCst);
    let mut bytes = open(&storage, None);
    let waited = tokio::time::timeout(Duration::from_millis(100), bytes.next()).await;
    assert!(waited.is_err() && storage.reads().len() == 3, "{:?}", storage.reads());
    storage.is_held.store(false, Ordering::SeqCst);
    // Nobody asks for more than the first range: the fourth must wait, however long it takes.
    assert_eq!(bytes.next().await.unwrap().unwrap().len(), 1000);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(storage.reads().len(), 3);
    let rest: BytesMut = bytes.try_collect().await.unwrap();
    assert_eq!(rest.len(), 9000);
    assert_eq!((storage.reads().len(), storage.active_most.load(Ordering::SeqCst)), (10, 3));
}

#[tokio::test]
async fn transfers_that_share_little_memory_all_get_done() {
    // Not even one range, one and a bit, three.
    for total_bytes in [700, 1300, 3000] {
        let budget = Budget::new(total_bytes);
        let storages: Vec<_> = (0..10).flat_map(|_| both(10_007)).collect();
        let reads = storages.iter().map(|storage| {
            let (budget, connector): (_, Arc<dyn Connector>) = (budget.clone(), Arc::<Storage>::clone(storage));
            let bytes = whole(&connector, &storage.described(None), &limits(), budget.share());
            // What is larger than the budget comes alone: a read that is not made of ranges.
            let most = total_bytes.max(10_007);
            bytes.inspect_ok(move |_| assert!(budget.usage().held_bytes <= most)).try_collect::<BytesMut>()
        });
        let all = tokio::time::timeout(Duration::from_mins(1), futures_util::future::join_all(reads)).await;
        for (storage, read) in storages.iter().zip(all.expect("they wait for each other")) {
            assert!(read.unwrap() == storage.content);
        }
        assert_eq!(budget.usage(), Usage { total_bytes, held_bytes: 0, waiting: 0 });
    }
}

#[tokio::test]
async fn no_more_is_read_ahead_than_there_is_memory_for() {
    let storage = Arc::new(Storage::new(10_000));
    storage.is_held.store(true, Ordering::SeqCst);
    let budget = Budget::new(5000);
    let connector: Arc<dyn Connector> = Arc::<Storage>::clone(&storage);
    let mut bytes = whole(&connector, &storage.described(None), &limits(), budget.share());
    assert!(tokio::time::timeout(Duration::from_millis(100), bytes.next()).await.is_err());
    assert_eq!(storage.reads().len(), 2, "of three that may be in flight: half of the memory is for others");
    assert_eq!((budget.usage().held_bytes, budget.usage().waiting), (2000, 1));
    drop(bytes);
    assert_eq!((budget.usage().held_bytes, budget.usage().waiting), (0, 0));
}

#[tokio::test]
async fn who_loses_interest_stops_the_reads() {
    let storage = Arc::new(Storage::new(10_000));
    storage.is_held.store(true, Ordering::SeqCst);
    let mut bytes = open(&storage, None);
    assert!(tokio::time::timeout(Duration::from_millis(50), bytes.next()).await.is_err());
    assert_eq!(storage.active.load(Ordering::SeqCst), 3);
    drop(bytes);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(storage.active.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_breaks_goes_on_behind_the_last_byte() {
    for storage in both(2500) {
        storage.fate(1000, Fate::Breaks(if storage.is_parallel { 100 } else { 1100 }, Retry::Later(None)));
        storage.fate(1100, Fate::Ends(50));
        assert!(read(&storage).await.unwrap() == storage.content);
        let end = if storage.is_parallel { 2000 } else { 2500 };
        let again: Vec<_> = storage.reads().into_iter().filter(|range| range.start % 1000 > 0).collect();
        assert_eq!(again, [1100..end, 1150..end]);
    }
}

#[tokio::test]
async fn progress_gives_new_tries_and_a_standstill_uses_them_up() {
    let storage = Arc::new(Storage::new(900));
    for at in 0..12 {
        storage.fate(at * 10, Fate::Breaks(10, Retry::Later(None)));
    }
    assert!(read(&storage).await.unwrap() == storage.content);
    assert_eq!(storage.reads().len(), 13);

    let storage = Arc::new(Storage::new(900));
    for _ in 0..12 {
        storage.fate(10, Fate::Breaks(0, Retry::Later(None)));
    }
    assert_eq!(read(&storage).await.unwrap_err().kind, Kind::Unreachable);
    assert_eq!(storage.reads().len(), 3, "tries");

    let storage = Arc::new(Storage::new(900));
    for at in 0..100 {
        storage.fate(at, Fate::Breaks(1, Retry::Later(None)));
    }
    assert_eq!(read(&storage).await.unwrap_err().kind, Kind::Unreachable, "not for ever");
    assert_eq!(storage.reads().len(), BREAKS_MAX as usize + 1);
}

#[tokio::test]
async fn the_pause_that_was_asked_for_is_kept() {
    let storage = Arc::new(Storage::new(900));
    storage.fate(0, Fate::Breaks(10, Retry::Later(Some(Duration::from_secs(1)))));
    let began = Instant::now();
    read(&storage).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_will_not_get_better_is_not_tried_again() {
    for storage in both(2500) {
        storage.fate(0, Fate::Breaks(10, Retry::Never));
        assert_eq!(read(&storage).await.unwrap_err().to_string(), broken(Retry::Never).to_string());
        assert!(storage.reads().iter().filter(|range| range.start < 1000).count() == 1);
        let storage = Arc::new(Storage { is_parallel: storage.is_parallel, ..Storage::new(2500) });
        storage.fate(0, Fate::Overflows);
        assert_eq!(read(&storage).await.unwrap_err().kind, Kind::Protocol);
    }
}

#[tokio::test]
async fn an_object_that_changed_meanwhile_is_refused() {
    for (size, mark) in [(2500, "other"), (2501, "mark"), (2500, "gone")] {
        for storage in both(2500) {
            storage.looks.lock().unwrap().push_back((size, mark));
            let error = read(&storage).await.unwrap_err();
            assert!(error.kind == Kind::IntegrityMismatch && error.is_transient(), "{error:?}");
            assert_eq!(error.detail, "`o` was changed while it was read");
        }
    }
    // Who has a digest compares that, and saves the look.
    let storage = Arc::new(Storage::new(2500));
    storage.looks.lock().unwrap().push_back((1, "other"));
    let digest = WholeDigest::Crc32c(0);
    let all: BytesMut = open(&storage, Some(digest)).try_collect().await.unwrap();
    assert_eq!(all.len(), 2500);
}

#[test]
fn digests_are_compared_each_with_its_own() {
    let digests = Digests::of(b"x");
    for digest in [
        WholeDigest::Md5(digests.md5.unwrap()),
        WholeDigest::Sha256(digests.sha256),
        WholeDigest::Crc32c(digests.crc32c),
    ] {
        assert!(digest.fits(&digests) && !digest.fits(&Digests::of(b"y")), "{digest:?}");
    }
}
