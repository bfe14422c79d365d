//! The file store in a folder: what is particular about disks.

use std::fs;
use std::future::Future as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::task::{Context, Waker};
use std::time::Duration;

use futures_util::{StreamExt as _, stream as streams};

use super::*;
use crate::files::folder;
use crate::files::stream::Terms;

/// Far longer than it takes to write a batch.
const SOON: Duration = Duration::from_secs(20);

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

    /// Where a file is.
    fn path(&self, key: &BlobKey) -> PathBuf {
        self.folder.path().join(key.as_str())
    }

    /// All paths below the root.
    fn left(&self) -> Vec<PathBuf> {
        below(self.folder.path())
    }
}

pub(super) fn below(root: &Path) -> Vec<PathBuf> {
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

#[tokio::test]
async fn many_batches_arrive_in_order() {
    let store = Store::new().await;
    let bytes: Vec<u8> = (0..5_000_003_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect();
    for piece in [700, 65_536, 3_000_000] {
        let key = key();
        let received = store.receive(&key, stream_of(&bytes, piece), None).await.unwrap();
        let source = store.files.source(&key, &row(received)).await.unwrap();
        assert_eq!(source.read_at(0, bytes.len()).await.unwrap(), bytes);
        let again = hashing::of_file(Arc::new(fs::File::open(store.path(&key)).unwrap())).await.unwrap();
        // Of a file that is here its MD5 is computed when somebody asks for it.
        let without = Digests { md5: None, ..received.digests };
        assert_eq!(again, Received { digests: without, ..received });
    }
}

/// Whoever reads along is told of all that lies in the file, even if nothing ever follows.
#[tokio::test]
async fn a_full_batch_is_told_though_its_sender_falls_silent() {
    let store = Store::new().await;
    let scratch = store.files.scratch(&key()).await.unwrap();
    let (arriving, _whole) = scratch.arriving(LIMIT_BYTES);
    let terms = Terms { announced_bytes: None, limit_bytes: LIMIT_BYTES, with_md5: false };
    // Six pieces are a batch of 1,200,000 bytes; the rest is not one.
    let silent = stream_of(&vec![7; 2_200_000], 200_000).chain(streams::pending()).boxed();
    let progress = Progress::default();
    let told = async { tokio::time::timeout(SOON, arriving.arrived(1_200_000)).await };
    tokio::select! {
        told = told => told.expect("a batch that is written is told").unwrap(),
        poured = stream::pour(silent, scratch.writer(), terms, &progress) => panic!("it ended: {poured:?}"),
    }
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
            std::thread::sleep(Duration::from_micros(300));
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
    let terms = Terms { announced_bytes: None, limit_bytes: LIMIT_BYTES, with_md5: true };
    let poured = stream::pour(stream_of(&bytes, 9_000), full, terms, &Progress::default()).await;
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
    store.files.ping().await.unwrap();
    store.receive(&key(), stream_of(&bytes[..4 * 1024 * 1024], 9_000), None).await.unwrap();
    store.files.room = Room::told(|| check::FREE_BYTES_MIN - 1);
    assert!(store.files.scratch(&key()).await.is_err_and(|error| is_full(&error)));
    assert!(store.receive(&key(), stream_of(b"", 1), None).await.is_err_and(|error| is_full(&error)));
    assert!(store.files.ping().await.is_err_and(|error| is_full(&error)));
}

#[tokio::test]
async fn an_input_is_open_only_while_it_is_read() {
    let store = Store::new().await;
    let key = key();
    let received = store.receive(&key, stream_of(b"123456789", 9), None).await.unwrap();
    let input = store.files.input(&key, &row(received)).await.unwrap();
    assert_eq!(input.read_at(3, 4).await.unwrap(), "4567");
    assert_eq!(input.read_at(6, 4).await.unwrap_err().kind, Kind::Local);
    let path = store.path(&key);
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
    let folder = store.path(&lost).parent().unwrap().to_owned();
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("1.part"), "half").unwrap();

    let again = Files::open(store.folder.path()).await.unwrap();
    assert!(!folder.parent().unwrap().exists(), "the crashed attempt is gone with its folders");
    assert!(store.path(&kept).exists());
    again.publish_scratch(scratch).await.unwrap();
    assert!(store.path(&live).exists());
}

/// A file is no crash's left-over between its making and its lock, nor while a process that starts looks at it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn starts_beside_writers_take_nothing_from_them() {
    let store = Store::new().await;
    let root = store.folder.path().to_owned();
    let starting = tokio::spawn(async move {
        loop {
            Files::open(&root).await.unwrap();
        }
    });
    let mut written = 0;
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let owner = task();
        let key = BlobKey::new(owner, Token(5), 1);
        let scratch = store.files.scratch(&key).await.unwrap();
        store.files.publish_scratch(scratch).await.unwrap();
        assert!(store.path(&key).exists());
        store.files.remove_task(owner).await.unwrap();
        written += 1;
    }
    starting.abort();
    assert!(written > 10, "{written}");
}

#[tokio::test]
async fn a_link_shares_the_bytes_and_outlives_its_origin() {
    let store = Store::new().await;
    let (from_task, to_task) = (task(), task());
    let (from, to) = (BlobKey::new(from_task, Token(1), 1), BlobKey::new(to_task, Token(2), 1));
    let received = store.receive(&from, stream_of(b"bytes", 5), None).await.unwrap();
    // Twice, as a task may be run again.
    store.files.link(&from, &to, received.digests).await.unwrap();
    store.files.link(&from, &to, received.digests).await.unwrap();
    let inode = |key| fs::metadata(store.path(key)).unwrap().ino();
    assert_eq!(inode(&from), inode(&to));
    store.files.remove_task(from_task).await.unwrap();
    store.files.remove_task(from_task).await.unwrap();
    let source = store.files.source(&to, &row(received)).await.unwrap();
    assert_eq!(source.read_at(0, 5).await.unwrap(), "bytes");

    let left = store.left();
    let several = [to.clone(), from].map(|from| Link { from, to: key(), digests: received.digests });
    assert!(matches!(store.files.link_all(several.into()).await, Err(Error::Disk(_))), "one origin is gone");
    assert_eq!(store.left(), left);
}

#[tokio::test]
async fn where_no_link_can_be_made_the_bytes_are_copied() {
    let store = Store::new().await;
    let (from, to) = (key(), key());
    store.receive(&from, stream_of(b"bytes", 5), None).await.unwrap();
    let copy = |room: &Room| folder::copy(store.folder.path(), &store.path(&from), &store.path(&to), room);
    let full = copy(&Room::told(|| check::FREE_BYTES_MIN + 4)).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert!(!store.path(&to).exists());
    copy(&Room::told(|| check::FREE_BYTES_MIN + 5)).unwrap();
    assert_eq!(fs::read(store.path(&to)).unwrap(), b"bytes");
    assert!(folder::cannot_link(&io::Error::from(io::ErrorKind::CrossesDevices)));
}

#[tokio::test]
async fn a_kept_file_that_shrank_is_not_served() {
    let store = Store::new().await;
    let key = key();
    let received = store.receive(&key, stream_of(b"bytes", 5), None).await.unwrap();
    fs::write(store.path(&key), "byte").unwrap();
    assert!(matches!(store.files.source(&key, &row(received)).await, Err(Error::Disk(_))));
}
