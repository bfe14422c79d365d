//! What an operation gets to work with.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;
use tracing::{Instrument as _, debug_span};

use connectors::retry::{self, Watch};
use connectors::{ByteStream, Journal, Kind, Network, OpenUpload, Progress, Receipt, Source, WholeDigest};
use futures_util::future::BoxFuture;

use crate::clock::Clock;
use crate::error::TaskError;
use crate::files::{Arriving, Files, Whole, name};
use crate::id::{TaskId, Token};
use crate::model::{BlobKey, File};

/// Progress while a task runs: 100 comes with its end.
const PERCENT_RUNNING_MAX: u8 = 99;

/// Everything that one attempt of a task may touch.
pub struct Context {
    /// The task.
    pub task_id: TaskId,
    /// The attempt: its output files are kept apart from those of other attempts.
    pub token: Token,
    /// The files of its inputs, in the order of `input`, then of files.
    pub inputs: Vec<InputFile>,
    /// Where output files are kept.
    pub files: Files,
    /// The guarded network.
    pub network: Network,
    /// Where uploads are written down before they are opened.
    pub journal: Arc<dyn Journal>,
    /// Uploads that earlier attempts left open.
    pub open: Vec<OpenUpload>,
    /// Is told of the file of an import while it arrives.
    pub ahead: Option<Arc<dyn Ahead>>,
    /// What was sent of the input before this task began.
    pub head_start: Option<Arc<dyn HeadStart>>,
    /// Is told what is moved.
    pub meter: Arc<dyn Meter>,
    /// Takes progress from 0 to 99.
    pub report: Arc<dyn Fn(u8) + Send + Sync>,
    /// The time.
    pub clock: Clock,
    /// Bounds.
    pub bounds: Bounds,
}

/// A file that came in or went out, or did not.
#[derive(Clone, Copy, Debug)]
pub struct Transfer<'a> {
    /// The other side; none if the file came with the task.
    pub host: Option<&'a str>,
    /// It came in, or else went out.
    pub is_import: bool,
    /// Its length in bytes, if all of it was moved.
    pub size_bytes: Option<u64>,
    /// How long that took.
    pub took: Duration,
}

/// Is told what an attempt moves.
pub trait Meter: Send + Sync {
    /// A transfer ended.
    fn moved(&self, transfer: &Transfer<'_>);

    /// A request of a transfer from or to this host is made again.
    fn repeated(&self, host: &str, reason: Kind);
}

/// Sends a file on while it arrives, if somebody waits for it.
pub trait Ahead: Send + Sync {
    /// The only file of this task begins to arrive.
    fn begin(&self, coming: Coming);
}

/// A file that begins to arrive.
#[derive(Debug)]
pub struct Coming {
    /// What it will be called.
    pub name: String,
    /// The media type that it will have.
    pub content_type: String,
    /// Its bytes, as far as they have come.
    pub arriving: Arriving,
    /// Says that it is whole.
    pub whole: Whole,
}

/// An upload that began while its file was still arriving.
#[async_trait]
pub trait HeadStart: Send + Sync {
    /// Goes on with it under this task's lease, if it is one of this file to this name and stands well, once there is a slot
    /// of its host. If not, it is stopped, and holds nothing when this returns.
    ///
    /// # Cancel safety
    /// Dropping this future, or the one that it gives, stops the upload.
    async fn go_on(
        &self,
        target: &str,
        file: &File,
        journal: &Arc<dyn Journal>,
        progress: &Progress,
    ) -> Option<Sending>;
}

/// An upload on its way.
pub type Sending = BoxFuture<'static, connectors::Result<Receipt>>;

/// Counts nothing.
#[derive(Clone, Copy, Debug)]
pub struct NoMeter;

impl Meter for NoMeter {
    fn moved(&self, _: &Transfer<'_>) {}

    fn repeated(&self, _: &str, _: Kind) {}
}

/// Bounds of one task.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Largest file that an import takes, in bytes.
    pub file_bytes_max: u64,
    /// Files of one task at the most.
    pub files_max: usize,
    /// Files of one task that are moved at once.
    pub files_at_once: usize,
    /// How long a link of `export/url` lives.
    pub link_lifetime: Duration,
}

/// A file to work on.
#[derive(Clone, Debug)]
pub struct InputFile {
    /// The file.
    pub file: File,
    /// Its bytes.
    pub source: Arc<dyn Source>,
}

/// A file that comes in, and what its source says of it.
pub struct Incoming<'a> {
    /// What it is called there.
    pub name: &'a str,
    /// Its media type.
    pub content_type: Option<&'a str>,
    /// Its length in bytes.
    pub size: Option<u64>,
    /// A digest of all its bytes.
    pub digest: Option<WholeDigest>,
    /// No other file comes with it.
    pub is_only: bool,
    /// Its bytes.
    pub stream: ByteStream,
}

impl Context {
    /// Keeps a stream as this task's `number`th output file (from 1), and reports progress if `size`, the length that
    /// was announced, is known. The name is made safe; without a media type that says something, the name suggests one.
    ///
    /// # Errors
    /// `FILE_TOO_LARGE`, `STORAGE_FULL`, and the stream's own error. Nothing is left behind then.
    pub async fn save(
        &self,
        number: u32,
        name: &str,
        content_type: Option<&str>,
        size: Option<u64>,
        stream: ByteStream,
    ) -> Result<File, TaskError> {
        let progress = size.map_or_else(Progress::default, |size| self.progress(size));
        self.save_part(number, Incoming { name, content_type, size, digest: None, is_only: true, stream }, &progress)
            .await
    }

    /// As [`Self::save`], for one of several files that share a [`Self::progress`].
    ///
    /// # Errors
    /// As [`Self::save`]; `INTEGRITY_MISMATCH` when the bytes do not have the digest that was announced.
    pub async fn save_part(&self, number: u32, incoming: Incoming<'_>, progress: &Progress) -> Result<File, TaskError> {
        let Incoming { name, content_type, size, digest, is_only, stream } = incoming;
        let key = BlobKey::new(self.task_id, self.token, number);
        let limit_bytes = self.bounds.file_bytes_max;
        let name = name::safe(name);
        let content_type = name::media_type(&name, content_type);
        let scratch = self.files.scratch_for(&key, size, limit_bytes).await?;
        if let (Some(ahead), Some(size), true) = (&self.ahead, size, is_only) {
            let (arriving, whole) = scratch.arriving(size);
            ahead.begin(Coming { name: name.clone(), content_type: content_type.clone(), arriving, whole });
        }
        let received = self.files.fill(scratch, stream, size, limit_bytes, progress, digest.as_ref()).await?;
        Ok(File {
            content_type,
            name,
            size: received.size,
            digests: received.digests,
            blob: Some(key),
            download: None,
            receipt: None,
        })
    }

    /// Moves one file from or to a host, and tells the meter how that went and what of it was repeated.
    ///
    /// # Errors
    /// Those of the transfer.
    pub(in crate::operations) async fn metered<F>(
        &self,
        host: Option<&str>,
        is_import: bool,
        transfer: F,
    ) -> Result<File, TaskError>
    where
        F: Future<Output = Result<File, TaskError>> + Send,
    {
        let began = Instant::now();
        let transfer = transfer.instrument(debug_span!("transfer", host, is_import));
        let moved = match host {
            Some(host) => retry::watched(self.watch(host), transfer).await,
            None => transfer.await,
        };
        let size_bytes = moved.as_ref().ok().map(|file| file.size);
        self.meter.moved(&Transfer { host, is_import, size_bytes, took: began.elapsed() });
        moved
    }

    /// Tells the meter of requests to a host that are made again.
    fn watch(&self, host: &str) -> Watch {
        let (meter, host) = (Arc::clone(&self.meter), host.to_owned());
        Arc::new(move |reason| meter.repeated(&host, reason))
    }

    /// Counts towards `total_bytes` and reports percents as they rise; never back, even if bytes are sent again.
    pub fn progress(&self, total_bytes: u64) -> Progress {
        let report = Arc::clone(&self.report);
        let highest = AtomicU8::new(0);
        Progress::reporting(move |bytes| {
            let percent = percent(bytes, total_bytes);
            if highest.fetch_max(percent, Ordering::Relaxed) < percent {
                report(percent);
            }
        })
    }
}

fn percent(bytes: u64, total_bytes: u64) -> u8 {
    let percent = u128::from(bytes) * 100 / u128::from(total_bytes.max(1));
    u8::try_from(percent).unwrap_or(u8::MAX).min(PERCENT_RUNNING_MAX)
}

impl fmt::Debug for Incoming<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").field("name", &self.name).field("size", &self.size).finish_non_exhaustive()
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("task_id", &self.task_id).field("token", &self.token).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use connectors::Error;
    use futures_util::{StreamExt as _, stream};

    use super::*;
    use crate::error::Code;
    use crate::operations::testing::Bench;

    #[derive(Default)]
    struct Told(Mutex<Vec<(String, Kind)>>);

    impl Meter for Told {
        fn moved(&self, _: &Transfer<'_>) {}

        fn repeated(&self, host: &str, reason: Kind) {
            self.0.lock().unwrap().push((host.to_owned(), reason));
        }
    }

    #[tokio::test]
    async fn what_a_transfer_repeats_is_told_with_its_host() {
        let (bench, told) = (Bench::new().await, Arc::new(Told::default()));
        let task = Context { meter: Arc::<Told>::clone(&told), ..bench.context(&[]) };
        for (host, kind) in [(Some("h.test"), Kind::Throttled), (None, Kind::Timeout)] {
            let fails = |_: u32| async move { Err::<File, _>(Error::new(kind, "trying", "it did not work")) };
            let transfer = async { Ok(retry::request(2, fails).await?) };
            let error = task.metered(host, false, transfer).await.unwrap_err();
            assert_eq!(error.code, Code::from(kind));
        }
        assert_eq!(*told.0.lock().unwrap(), [("h.test".to_owned(), Kind::Throttled)]);
    }

    fn ten_pieces() -> ByteStream {
        stream::iter((0..10).map(|_| Ok(Bytes::from_static(b"0123456789")))).boxed()
    }

    #[tokio::test]
    async fn a_saved_file_gets_a_safe_name_a_media_type_and_percents() {
        let bench = Bench::new().await;
        let task = bench.context(&[]);
        let file = task.save(1, "../../etc/photo.png", None, Some(100), ten_pieces()).await.unwrap();
        assert_eq!((file.name.as_str(), file.content_type.as_str(), file.size), ("photo.png", "image/png", 100));
        assert_eq!(bench.reported(), [10, 20, 30, 40, 50, 60, 70, 80, 90, 99]);
        let file = task.save(2, "noname", Some("text/x-own"), None, ten_pieces()).await.unwrap();
        assert_eq!(file.content_type, "text/x-own");
        assert_eq!(bench.read(&file).await.len(), 100);
        assert_eq!(bench.kept(), 2);
    }

    #[tokio::test]
    async fn what_cannot_be_saved_has_a_code_and_leaves_nothing() {
        let mut bench = Bench::new().await;
        bench.bounds.file_bytes_max = 99;
        let task = bench.context(&[]);
        let too_large = task.save(1, "a", None, None, ten_pieces()).await.unwrap_err();
        assert_eq!(too_large.code, Code::FileTooLarge);
        let cut = task.save(1, "a", None, Some(99), ten_pieces().take(9).boxed()).await.unwrap_err();
        assert_eq!(cut.code, Code::RemoteUnreachable);
        assert_eq!(bench.kept(), 0);
    }

    #[tokio::test]
    async fn progress_never_goes_back() {
        let bench = Bench::new().await;
        let progress = bench.context(&[]).progress(10);
        progress.add(5);
        progress.take_back(4);
        progress.add(2);
        progress.add(7);
        assert_eq!(bench.reported(), [50, 99]);
    }
}
