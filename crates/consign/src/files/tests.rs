//! The file store: what it keeps, what it refuses, what it leaves behind.

use std::future::Future as _;
use std::os::unix::fs::MetadataExt as _;
use std::task::{Context, Waker};

use bytes::Bytes;
use connectors::Kind;
use futures_util::{StreamExt as _, stream as streams};

use super::*;
use crate::clock::Timestamp;
use crate::id::Token;

const LIMIT_BYTES: u64 = 64 * 1024 * 1024;

struct Store {
    files: Files,
    folder: tempfile::TempDir,
}

impl Store {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { files: Files::open(folder.path()).await.unwrap(), folder }
    }

    async fn receive(&self, key: &BlobKey, stream: ByteStream, announced: Option<u64>) -> Result<Received, Error> {
        self.files.receive(key, stream, announced, LIMIT_BYTES, &Progress::default()).await
    }

    /// All paths below the root.
    fn left(&self) -> Vec<PathBuf> {
        below(self.folder.path())
    }
}

fn below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            found.push(path.clone());
            if path.is_dir() {
                open.push(path);
            }
        }
    }
    found
}

fn task() -> TaskId {
    TaskId::new(Timestamp(0))
}

fn key() -> BlobKey {
    BlobKey::new(task(), Token(5), 1)
}

fn stream_of(bytes: &[u8], piece: usize) -> ByteStream {
    let pieces: Vec<_> = bytes.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    streams::iter(pieces).boxed()
}

fn broken_after(bytes: &[u8]) -> ByteStream {
    let cut = connectors::Error::new(Kind::Unreachable, "reading", "the connection broke");
    stream_of(bytes, 1000).chain(streams::iter([Err(cut)])).boxed()
}

fn row(received: Received) -> File {
    File {
        name: "a".to_owned(),
        size: received.size,
        digests: received.digests,
        content_type: "text/plain".to_owned(),
        blob: None,
        download: None,
        receipt: None,
    }
}

#[tokio::test]
async fn what_is_received_is_hashed_and_can_be_read_anywhere() {
    let store = Store::new().await;
    let key = key();
    let received = store.receive(&key, stream_of(b"123456789", 2), Some(9)).await.unwrap();
    assert_eq!(received.size, 9);
    assert_eq!(hex::encode(received.digests.md5), "25f9e794323b453885f5181f1b624d0b");
    let sha256 = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";
    assert_eq!(hex::encode(received.digests.sha256), sha256);
    assert_eq!(received.digests.crc32c, 0xE306_9283);
    let source = store.files.source(&key, &row(received)).await.unwrap();
    assert_eq!(source.read_at(3, 4).await.unwrap(), "4567");
    assert_eq!(source.read_at(6, 4).await.unwrap_err().kind, Kind::Local);
}

#[tokio::test]
async fn many_batches_arrive_in_order() {
    let store = Store::new().await;
    let bytes: Vec<u8> = (0..5_000_003_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
    for piece in [700, 65_536, 3_000_000] {
        let key = key();
        let received = store.receive(&key, stream_of(&bytes, piece), None).await.unwrap();
        let source = store.files.source(&key, &row(received)).await.unwrap();
        assert_eq!(source.read_at(0, bytes.len()).await.unwrap(), bytes);
        let again = hashing::of_file(Arc::new(fs::File::open(store.files.path(&key)).unwrap())).await.unwrap();
        assert_eq!(again, received);
    }
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    let store = Store::new().await;
    let key = key();
    let received = store.receive(&key, stream_of(b"", 1), None).await.unwrap();
    assert_eq!((received.size, received.digests.crc32c), (0, 0));
    assert_eq!(store.files.source(&key, &row(received)).await.unwrap().read_at(0, 0).await.unwrap(), "");
}

#[tokio::test]
async fn what_is_too_long_truncated_or_cut_leaves_nothing() {
    let store = Store::new().await;
    let bytes = vec![1; 3_000_000];
    let progress = Progress::default();
    let limited = store.files.receive(&key(), stream_of(&bytes, 9_000), None, 2_999_999, &progress).await;
    assert!(matches!(limited, Err(Error::TooLarge { limit_bytes: 2_999_999 })), "{limited:?}");
    let announced = store.files.receive(&key(), streams::pending().boxed(), Some(3), 2, &progress).await;
    assert!(matches!(announced, Err(Error::TooLarge { limit_bytes: 2 })), "{announced:?}");
    for wrong in [2_999_999, 3_000_001] {
        let error = store.receive(&key(), stream_of(&bytes, 9_000), Some(wrong)).await.unwrap_err();
        assert!(matches!(error, Error::WrongLength { announced_bytes, .. } if announced_bytes == wrong), "{error:?}");
    }
    let cut = store.receive(&key(), broken_after(&bytes), None).await.unwrap_err();
    assert!(matches!(cut, Error::Stream(error) if error.kind == Kind::Unreachable));
    assert_eq!(store.left(), Vec::<PathBuf>::new());
}

/// Stops a transfer after every number of polls, so also while it is being published.
#[test]
fn what_is_dropped_leaves_nothing() {
    let mut published = false;
    // The last round goes on to the end.
    for polls in (0..60).chain([usize::MAX]) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let store = runtime.block_on(Store::new());
        let entered = runtime.enter();
        let bytes = vec![7; 2_500_000];
        let (key, progress) = (key(), Progress::default());
        let receiving = store.files.receive(&key, stream_of(&bytes, 100_000), None, LIMIT_BYTES, &progress);
        let mut receiving = Box::pin(receiving);
        let mut context = Context::from_waker(Waker::noop());
        let done = (0..polls).any(|_| {
            std::thread::sleep(std::time::Duration::from_micros(300));
            receiving.as_mut().poll(&mut context).is_ready()
        });
        drop(receiving);
        drop(entered);
        // Waits for what the pool is doing.
        drop(runtime);
        if done {
            published = true;
            assert_eq!(store.left().len(), 3, "task, attempt, file");
        } else {
            assert_eq!(store.left(), Vec::<PathBuf>::new(), "after {polls} polls");
        }
    }
    assert!(published, "some run must get to its end");
}

#[tokio::test]
async fn a_full_disk_is_told_apart() {
    let full = Arc::new(fs::File::options().write(true).open("/dev/full").unwrap());
    let full = Writer::new(full, Room::told(|| u64::MAX));
    let bytes = vec![1; 3_000_000];
    let poured = stream::pour(stream_of(&bytes, 9_000), full, None, LIMIT_BYTES, &Progress::default()).await;
    let error = poured.unwrap_err();
    assert!(matches!(error, Error::Full(_)), "{error:?}");
    let error = TaskError::from(error);
    assert_eq!(error.code, Code::StorageFull);
    assert_eq!(error.retry, connectors::Retry::Later(None));
    let quota = Error::from(io::Error::from(io::ErrorKind::QuotaExceeded));
    assert!(matches!(quota, Error::Full(_)));
}

/// A disk of its own would need a mount; this one counts what really lies in the folder.
#[tokio::test]
async fn what_does_not_fit_beside_the_database_is_refused_and_leaves_nothing() {
    const DISK_BYTES: u64 = check::FREE_BYTES_MIN + 4 * 1024 * 1024;
    let mut store = Store::new().await;
    let root = store.folder.path().to_owned();
    store.files.room = Room::told(move || {
        let lies = |path: &PathBuf| path.metadata().map_or(0, |meta| if meta.is_file() { meta.len() } else { 0 });
        DISK_BYTES - below(&root).iter().map(lies).sum::<u64>()
    });
    let is_full = |error: &Error| matches!(error, Error::Full(_));
    let bytes = vec![1; 5 * 1024 * 1024];
    let announced = store.receive(&key(), streams::pending().boxed(), Some(bytes.len() as u64)).await;
    assert!(announced.is_err_and(|error| is_full(&error)), "before a byte came");
    let poured = store.receive(&key(), stream_of(&bytes, 9_000), None).await;
    assert!(poured.is_err_and(|error| is_full(&error)), "in the middle");
    let scratch = store.files.scratch(&key()).await.unwrap();
    let written = bytes.chunks(64 * 1024).try_for_each(|piece| io::Write::write_all(&mut scratch.writer(), piece));
    assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(scratch.file().metadata().unwrap().len() <= 4 * 1024 * 1024);
    drop(scratch);
    assert_eq!(store.left(), Vec::<PathBuf>::new());
    store.files.check().await.unwrap();
    store.receive(&key(), stream_of(&bytes[..4 * 1024 * 1024], 9_000), None).await.unwrap();
    store.files.room = Room::told(|| check::FREE_BYTES_MIN - 1);
    assert!(store.files.scratch(&key()).await.is_err_and(|error| is_full(&error)));
    assert!(store.receive(&key(), stream_of(b"", 1), None).await.is_err_and(|error| is_full(&error)));
    assert!(store.files.check().await.is_err_and(|error| is_full(&error)));
}

#[tokio::test]
async fn an_input_is_open_only_while_it_is_read() {
    let store = Store::new().await;
    let key = key();
    let received = store.receive(&key, stream_of(b"123456789", 9), None).await.unwrap();
    let input = store.files.input(&key, &row(received)).await.unwrap();
    assert_eq!(input.read_at(3, 4).await.unwrap(), "4567");
    assert_eq!(input.read_at(6, 4).await.unwrap_err().kind, Kind::Local);
    let path = store.files.path(&key);
    let open = fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == path));
    assert_eq!(open.count(), 0);
    fs::write(&path, "12345678").unwrap();
    assert!(matches!(store.files.input(&key, &row(received)).await, Err(Error::Disk(_))));
    fs::remove_file(&path).unwrap();
    assert!(matches!(store.files.input(&key, &row(received)).await, Err(Error::Disk(_))));
}

#[tokio::test]
async fn a_restart_clears_what_a_crash_left_but_not_what_another_process_writes() {
    let store = Store::new().await;
    let (kept, lost, live) = (key(), key(), key());
    store.receive(&kept, stream_of(b"kept", 4), None).await.unwrap();
    let scratch = store.files.scratch(&live).await.unwrap();
    let folder = store.files.path(&lost).parent().unwrap().to_owned();
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("1.part"), "half").unwrap();

    let again = Files::open(store.folder.path()).await.unwrap();
    assert!(!folder.parent().unwrap().exists(), "the crashed attempt is gone with its folders");
    assert!(again.path(&kept).exists());
    again.publish_scratch(scratch).await.unwrap();
    assert!(again.path(&live).exists());
}

#[tokio::test]
async fn scratch_is_hashed_when_it_is_published_and_gone_when_it_is_dropped() {
    let store = Store::new().await;
    drop(store.files.scratch(&key()).await.unwrap());
    assert_eq!(store.left(), Vec::<PathBuf>::new());
    let key = key();
    let scratch = store.files.scratch(&key).await.unwrap();
    io::Write::write_all(&mut scratch.writer(), b"123456789").unwrap();
    let received = store.files.publish_scratch(scratch).await.unwrap();
    assert_eq!((received.size, received.digests.crc32c), (9, 0xE306_9283));
}

#[tokio::test]
async fn a_link_shares_the_bytes_and_outlives_its_origin() {
    let store = Store::new().await;
    let (from_task, to_task) = (task(), task());
    let (from, to) = (BlobKey::new(from_task, Token(1), 1), BlobKey::new(to_task, Token(2), 1));
    let received = store.receive(&from, stream_of(b"bytes", 5), None).await.unwrap();
    // Twice, as a task may be run again.
    store.files.link(&from, &to).await.unwrap();
    store.files.link(&from, &to).await.unwrap();
    let inode = |key| fs::metadata(store.files.path(key)).unwrap().ino();
    assert_eq!(inode(&from), inode(&to));
    store.files.remove_task(from_task).await.unwrap();
    store.files.remove_task(from_task).await.unwrap();
    let source = store.files.source(&to, &row(received)).await.unwrap();
    assert_eq!(source.read_at(0, 5).await.unwrap(), "bytes");

    let left = store.left();
    let several = vec![(to.clone(), key()), (from, key())];
    assert!(matches!(store.files.link_all(several).await, Err(Error::Disk(_))), "one origin is gone");
    assert_eq!(store.left(), left);
}

#[tokio::test]
async fn where_no_link_can_be_made_the_bytes_are_copied() {
    let store = Store::new().await;
    let (from, to) = (key(), key());
    store.receive(&from, stream_of(b"bytes", 5), None).await.unwrap();
    let copy = |room: &Room| local::copy(store.folder.path(), &store.files.path(&from), &store.files.path(&to), room);
    let full = copy(&Room::told(|| check::FREE_BYTES_MIN + 4)).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert!(!store.files.path(&to).exists());
    copy(&Room::told(|| check::FREE_BYTES_MIN + 5)).unwrap();
    assert_eq!(fs::read(store.files.path(&to)).unwrap(), b"bytes");
    assert!(local::cannot_link(&io::Error::from(io::ErrorKind::CrossesDevices)));
}

#[tokio::test]
async fn a_kept_file_that_shrank_is_not_served() {
    let store = Store::new().await;
    let key = key();
    let received = store.receive(&key, stream_of(b"bytes", 5), None).await.unwrap();
    fs::write(store.files.path(&key), "byte").unwrap();
    assert!(matches!(store.files.source(&key, &row(received)).await, Err(Error::Disk(_))));
}

#[tokio::test]
async fn losing_attempts_can_be_found_and_removed() {
    let store = Store::new().await;
    let mut tasks = [task(), task()];
    tasks.sort_unstable();
    for token in [1, i64::MAX] {
        for task in tasks {
            store.receive(&BlobKey::new(task, Token(token), 1), stream_of(b"x", 1), None).await.unwrap();
        }
    }
    assert_eq!(store.files.list_tasks(None, 9).await.unwrap(), tasks);
    assert_eq!(store.files.list_tasks(Some(tasks[0]), 9).await.unwrap(), tasks[1..]);
    assert_eq!(store.files.list_tasks(None, 1).await.unwrap(), tasks[..1]);
    store.files.remove_attempt(tasks[0], Token(1)).await.unwrap();
    store.files.remove_attempt(tasks[0], Token(1)).await.unwrap();
    assert_eq!(store.files.attempts(tasks[0]).await.unwrap(), [Token(i64::MAX)]);
    assert_eq!(store.files.attempts(task()).await.unwrap(), []);
}
