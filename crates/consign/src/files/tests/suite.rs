//! The cases that every kind of place must pass.

use std::path::PathBuf;
use std::time::Duration;

use connectors::WholeDigest;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, TryStreamExt as _, stream as streams};

use super::*;

/// Larger than two parts of an upload.
const LARGE_BYTES: usize = 12 * 1024 * 1024 + 7;
/// How long what is dropped may take to vanish. Twice the time after which it is cleared away again, and some.
const VANISH_TIME_MAX: Duration = Duration::from_secs(20);

/// A file store, and a look behind it.
pub(super) struct Place {
    pub(super) files: Files,
    /// All names that lie there, unfinished uploads included.
    pub(super) left: Box<dyn Fn() -> BoxFuture<'static, Vec<String>> + Send + Sync>,
    /// Whether a request may be at work for longer than what was dropped is cleared away. What it then makes is found by the
    /// search for files that no row names.
    pub(super) is_slow: bool,
}

impl Place {
    async fn receive(&self, key: &BlobKey, bytes: &[u8]) -> Received {
        let stream = stream_of(bytes, 100_000);
        self.files.receive(key, stream, None, LIMIT_BYTES, &Progress::default()).await.unwrap()
    }

    async fn read(&self, key: &BlobKey, received: Received) -> Bytes {
        let source = self.files.source(key, &row(received)).await.unwrap();
        source.read_at(0, usize::try_from(received.size).unwrap()).await.unwrap()
    }

    /// What the runner's search does, where no row names any file.
    async fn search(&self) {
        for task in self.files.list_tasks(None, 1000).await.unwrap() {
            self.files.remove_task(task).await.unwrap();
        }
    }

    async fn is_empty_in_the_end(&self, why: &str) {
        let end = tokio::time::Instant::now() + VANISH_TIME_MAX;
        loop {
            let left = (self.left)().await;
            if left.is_empty() {
                return;
            }
            // Not before what is dropped has had its time to be cleared away.
            if self.is_slow && tokio::time::Instant::now() + VANISH_TIME_MAX / 2 > end {
                self.search().await;
            }
            assert!(tokio::time::Instant::now() < end, "{why}: {left:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// All cases, one after the other, each in an empty place.
pub(super) async fn all(place: &Place) {
    small_files(place).await;
    large_file(place).await;
    refused(place).await;
    dropped(place).await;
    scratch(place).await;
    links(place).await;
    missing(place).await;
    lists(place).await;
    place.files.ping().await.unwrap();
    place.files.probe().await.unwrap();
    assert_eq!((place.left)().await, Vec::<String>::new());
    mark(place).await;
}

/// Says whose the files are, and is none of them.
async fn mark(place: &Place) {
    let files = &place.files;
    assert_eq!(files.owner().await.unwrap(), None);
    for number in ["00000000000000aa", "00000000000000bb", "00000000000000bb"] {
        files.mark(number).await.unwrap();
        assert_eq!(files.owner().await.unwrap().as_deref(), Some(number));
    }
    assert_eq!(files.list_tasks(None, 9).await.unwrap(), []);
    let left = (place.left)().await;
    assert!(left.len() == 1 && left[0].ends_with("consign-database"), "{left:?}");
}

pub(super) fn bytes(length: usize) -> Vec<u8> {
    (0..u32::try_from(length).unwrap()).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[2]).collect()
}

async fn small_files(place: &Place) {
    let (key, empty) = (key(), key());
    let received = place
        .files
        .receive(&key, stream_of(b"123456789", 2), Some(9), LIMIT_BYTES, &Progress::default())
        .await
        .unwrap();
    assert_eq!(received.size, 9);
    assert_eq!(hex::encode(received.digests.md5.unwrap()), "25f9e794323b453885f5181f1b624d0b");
    let sha256 = "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225";
    assert_eq!(hex::encode(received.digests.sha256), sha256);
    assert_eq!(received.digests.crc32c, 0xE306_9283);
    for source in [place.files.source(&key, &row(received)).await, place.files.input(&key, &row(received)).await] {
        let source = source.unwrap();
        assert_eq!((source.size(), source.digests()), (9, received.digests));
        assert_eq!(source.read_at(3, 4).await.unwrap(), "4567");
        assert_eq!(source.read_at(6, 4).await.unwrap_err().kind, Kind::Local);
    }
    let received = place.receive(&empty, b"").await;
    assert_eq!((received.size, received.digests.crc32c), (0, 0));
    assert_eq!(place.read(&empty, received).await, "");
    // MD5 is for those who need it.
    let right = Digests::of(b"123456789");
    let proofs = [None, Some(WholeDigest::Crc32c(right.crc32c)), right.md5.map(WholeDigest::Md5)];
    for (proof, has_md5) in proofs.into_iter().zip([false, false, true]) {
        let (stream, progress) = (stream_of(b"123456789", 2), Progress::default());
        let received = place.files.receive_proven(&key, stream, None, LIMIT_BYTES, &progress, proof.as_ref());
        let received = received.await.unwrap();
        assert_eq!(received.digests, Digests { md5: right.md5.filter(|_| has_md5), ..right });
    }
    clean(place).await;
}

/// Sent in parts, and read by many at once.
async fn large_file(place: &Place) {
    let (key, bytes) = (key(), bytes(LARGE_BYTES));
    let received = place.receive(&key, &bytes).await;
    assert_eq!(received.digests, Digests::of(&bytes));
    assert!(place.read(&key, received).await == bytes);
    let source = place.files.source(&key, &row(received)).await.unwrap();
    let readings = (0..100).map(|n| {
        let (source, bytes) = (Arc::clone(&source), &bytes);
        async move {
            let (from, length) = (n * 97_003, 65_537 + n);
            assert!(source.read_at(from as u64, length).await.unwrap() == bytes[from..from + length], "{n}");
        }
    });
    streams::iter(readings).buffer_unordered(100).collect::<()>().await;
    clean(place).await;
}

async fn refused(place: &Place) {
    let bytes = bytes(LARGE_BYTES);
    let size = bytes.len() as u64;
    let progress = Progress::default();
    let receive = |stream, announced, limit| {
        let (files, progress) = (place.files.clone(), progress.clone());
        async move { files.receive(&key(), stream, announced, limit, &progress).await }
    };
    let limited = receive(stream_of(&bytes, 90_000), None, size - 1).await;
    assert!(matches!(limited, Err(Error::TooLarge { limit_bytes }) if limit_bytes == size - 1), "{limited:?}");
    let announced = receive(streams::pending().boxed(), Some(3), 2).await;
    assert!(matches!(announced, Err(Error::TooLarge { limit_bytes: 2 })), "{announced:?}");
    for wrong in [size - 1, size + 1] {
        let error = receive(stream_of(&bytes, 90_000), Some(wrong), LIMIT_BYTES).await.unwrap_err();
        assert!(matches!(error, Error::WrongLength { announced_bytes, .. } if announced_bytes == wrong), "{error:?}");
    }
    let cut = receive(broken_after(&bytes), None, LIMIT_BYTES).await.unwrap_err();
    assert!(matches!(cut, Error::Stream(error) if error.kind == Kind::Unreachable));
    let other = WholeDigest::Crc32c(7);
    let stream = stream_of(&bytes, 90_000);
    let altered = place.files.receive_proven(&key(), stream, None, LIMIT_BYTES, &progress, Some(&other)).await;
    assert!(matches!(altered, Err(Error::Stream(error)) if error.kind == Kind::IntegrityMismatch));
    assert_eq!((place.left)().await, Vec::<String>::new());
}

/// A transfer is stopped at many moments: while it comes in, while it is sent, while it is published.
async fn dropped(place: &Place) {
    let bytes = bytes(LARGE_BYTES);
    let began = std::time::Instant::now();
    place.receive(&key(), &bytes).await;
    let whole = began.elapsed();
    clean(place).await;
    for step in 1..=12 {
        let (task, progress) = (task(), Progress::default());
        let key = BlobKey::new(task, Token(5), 1);
        let receiving = place.files.receive(&key, stream_of(&bytes, 100_000), None, LIMIT_BYTES, &progress);
        if tokio::time::timeout(whole * step / 10, receiving).await.is_ok() {
            place.files.remove_task(task).await.unwrap();
        }
    }
    place.is_empty_in_the_end("dropped").await;
    // A request may have been at work when its sender was gone.
    tokio::time::sleep(Duration::from_secs(3)).await;
    place.is_empty_in_the_end("dropped for good").await;
}

async fn scratch(place: &Place) {
    drop(place.files.scratch(&key()).await.unwrap());
    assert_eq!((place.left)().await, Vec::<String>::new());
    let key = key();
    let scratch = place.files.scratch(&key).await.unwrap();
    io::Write::write_all(&mut scratch.writer(), b"123456789").unwrap();
    let received = place.files.publish_scratch(scratch).await.unwrap();
    assert_eq!((received.size, received.digests.crc32c), (9, 0xE306_9283));
    assert_eq!(place.read(&key, received).await, "123456789");
    clean(place).await;
}

async fn links(place: &Place) {
    let (from_task, to_task) = (task(), task());
    let (from, to) = (BlobKey::new(from_task, Token(1), 1), BlobKey::new(to_task, Token(2), 1));
    let bytes = bytes(LARGE_BYTES);
    let received = place.receive(&from, &bytes).await;
    // Twice, as a task may be run again.
    place.files.link(&from, &to, received.digests).await.unwrap();
    place.files.link(&from, &to, received.digests).await.unwrap();
    place.files.remove_task(from_task).await.unwrap();
    place.files.remove_task(from_task).await.unwrap();
    assert!(place.read(&to, received).await == bytes);
    let left = (place.left)().await;
    // More than are copied at once, so that some are done when the last one fails.
    let link = |from: &BlobKey, to| Link { from: from.clone(), to, digests: received.digests };
    let mut several: Vec<_> = (0..10).map(|_| link(&to, key())).collect();
    several.push(link(&from, key()));
    let error = place.files.link_all(several).await.unwrap_err();
    assert!(matches!(error, Error::Disk(_)), "one origin is gone: {error:?}");
    assert_eq!((place.left)().await, left);
    let many: Vec<_> = (1..=20).map(|number| link(&to, BlobKey::new(from_task, Token(3), number))).collect();
    place.files.link_all(many.clone()).await.unwrap();
    assert!(place.read(&many[19].to, received).await == bytes);
    clean(place).await;
}

async fn missing(place: &Place) {
    let (key, none) = (key(), key());
    let received = place.receive(&key, b"bytes").await;
    let longer = Received { size: 6, ..received };
    for (key, received) in [(&none, received), (&key, longer)] {
        assert!(matches!(place.files.source(key, &row(received)).await, Err(Error::Disk(_))));
        match place.files.input(key, &row(received)).await {
            Ok(source) => {
                let read = source.read_at(0, usize::try_from(received.size).unwrap()).await;
                assert_eq!(read.unwrap_err().kind, Kind::Local);
            }
            Err(error) => assert!(matches!(error, Error::Disk(_)), "{error:?}"),
        }
    }
    let open = place.files.input(&key, &row(received)).await.unwrap();
    clean(place).await;
    let error = open.read_at(0, 5).await.unwrap_err();
    assert_eq!((error.kind, error.is_transient()), (Kind::Local, false));
}

/// In many pages, as tests have small ones.
async fn lists(place: &Place) {
    let mut tasks: Vec<TaskId> = (0..8).map(|_| task()).collect();
    tasks.sort_unstable();
    let keys = tasks.iter().flat_map(|task| {
        [1, i64::MAX].into_iter().flat_map(move |token| (1..=4).map(move |n| BlobKey::new(*task, Token(token), n)))
    });
    let received = streams::iter(keys).map(|key| async move { place.receive(&key, b"x").await });
    received.buffer_unordered(8).collect::<Vec<_>>().await;
    let files = &place.files;
    assert_eq!(files.list_tasks(None, 9).await.unwrap(), tasks);
    assert_eq!(files.list_tasks(Some(tasks[0]), 9).await.unwrap(), tasks[1..]);
    assert_eq!(files.list_tasks(Some(tasks[2]), 2).await.unwrap(), tasks[3..5]);
    assert_eq!(files.list_tasks(Some(tasks[7]), 2).await.unwrap(), []);
    assert_eq!(files.list_tasks(None, 1).await.unwrap(), tasks[..1]);
    files.remove_attempt(tasks[0], Token(1)).await.unwrap();
    files.remove_attempt(tasks[0], Token(1)).await.unwrap();
    assert_eq!(files.attempts(tasks[0]).await.unwrap(), [Token(i64::MAX)]);
    assert_eq!(files.attempts(tasks[1]).await.unwrap().len(), 2);
    assert_eq!(files.attempts(task()).await.unwrap(), []);
    files.remove_task(tasks[1]).await.unwrap();
    assert_eq!(files.list_tasks(None, 2).await.unwrap(), [tasks[0], tasks[2]]);
    clean(place).await;
}

async fn clean(place: &Place) {
    let tasks = place.files.list_tasks(None, 1000).await.unwrap();
    let removals = tasks.iter().map(|task| place.files.remove_task(*task)).collect::<Vec<_>>();
    streams::iter(removals).buffer_unordered(8).try_collect::<()>().await.unwrap();
    assert_eq!((place.left)().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_passes() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_owned();
    let left = move || -> BoxFuture<'static, Vec<String>> {
        let found = folder::below(&root);
        Box::pin(async move { found.iter().map(|path: &PathBuf| path.display().to_string()).collect() })
    };
    all(&Place { files: Files::open(folder.path()).await.unwrap(), left: Box::new(left), is_slow: false }).await;
}
