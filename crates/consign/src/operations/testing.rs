//! What the tests of operations share: a file store in a temporary folder, a clock that stands still, a destination
//! in memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use connectors::egress::Guard;
use connectors::memory::MemoryJournal;
use connectors::{
    ByteStream, Capability, Connector, Error, Kind, Limits, Network, Object, OpenUpload, Progress, Put, Receipt,
    Result, http,
};
use futures_util::{StreamExt as _, stream};
use serde_json::Value;

use super::context::{Bounds, NoMeter};
use super::{Context, InputFile, Operation, Outcome, prepare};
use crate::clock::{Clock, Timestamp};
use crate::error::TaskError;
use crate::files::{Files, name};
use crate::id::{TaskId, Token};
use crate::model::{BlobKey, File};

/// The time of all tests: 2026-01-05 09:00:00 UTC.
pub(crate) const NOW: Timestamp = Timestamp(1_767_603_600_000_000);

/// The guarded network, with a way to this machine.
pub(crate) fn network() -> Network {
    network_with(Limits::default())
}

/// As [`network`], with other limits.
pub(crate) fn network_with(limits: Limits) -> Network {
    let guard = Guard::new(["127.0.0.0/8".parse().unwrap()]);
    Network::new(guard, http::tls_config(&[]).unwrap(), limits, 4)
}

/// A place for one task to run in, several times if need be.
pub(crate) struct Bench {
    pub(crate) files: Files,
    pub(crate) bounds: Bounds,
    pub(crate) open: Vec<OpenUpload>,
    task_id: TaskId,
    reported: Arc<Mutex<Vec<u8>>>,
    folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            files: Files::open(folder.path()).await.unwrap(),
            bounds: Bounds {
                file_bytes_max: 1 << 30,
                files_max: 100,
                files_at_once: 4,
                link_lifetime: Duration::from_hours(24),
            },
            open: Vec::new(),
            task_id: TaskId::new(NOW),
            reported: Arc::default(),
            folder,
        }
    }

    /// A file that another task produced.
    pub(crate) async fn input(&self, name: &str, bytes: &[u8]) -> InputFile {
        let pieces = bytes.chunks(1 << 20).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect::<Vec<_>>();
        self.input_from(name, stream::iter(pieces).boxed()).await
    }

    pub(crate) async fn input_from(&self, name: &str, bytes: ByteStream) -> InputFile {
        let key = BlobKey::new(TaskId::new(NOW), Token::random(), 1);
        let received = self.files.receive(&key, bytes, None, u64::MAX, &Progress::default()).await.unwrap();
        let file = File {
            name: name.to_owned(),
            size: received.size,
            digests: received.digests,
            content_type: name::content_type(name),
            blob: Some(key.clone()),
            download: None,
            receipt: None,
        };
        InputFile { source: self.files.source(&key, &file).await.unwrap(), file }
    }

    /// A new attempt of the task.
    pub(crate) fn context(&self, inputs: &[InputFile]) -> Context {
        let reported = Arc::clone(&self.reported);
        Context {
            task_id: self.task_id,
            token: Token::random(),
            inputs: inputs.to_vec(),
            files: self.files.clone(),
            network: Network::new(Guard::new([]), http::tls_config(&[]).unwrap(), Limits::default(), 4),
            journal: Arc::new(MemoryJournal::default()),
            open: self.open.clone(),
            ahead: None,
            head_start: None,
            meter: Arc::new(NoMeter),
            report: Arc::new(move |percent| reported.lock().unwrap().push(percent)),
            clock: Clock::manual(NOW),
            bounds: self.bounds,
        }
    }

    /// Runs an operation as the server would, with arguments as a client sends them.
    pub(crate) async fn run<O: Operation>(
        &self,
        args: Value,
        inputs: &[InputFile],
    ) -> std::result::Result<Outcome, TaskError> {
        let Value::Object(mut args) = args else { panic!("arguments are an object") };
        prepare::prepare::<O>(&mut args, &prepare::schema_of::<O>()).unwrap();
        O::run(prepare::read::<O>(args).unwrap(), self.context(inputs)).await
    }

    /// Runs an operation twice, as after a crash, and proves that both runs end the same and leave the same behind,
    /// as told by `look`.
    pub(crate) async fn twice<O: Operation, T: PartialEq + std::fmt::Debug>(
        &self,
        args: Value,
        inputs: &[InputFile],
        look: impl Fn() -> T,
    ) -> Outcome {
        let without_keys = |outcome: &Outcome| -> Vec<File> {
            outcome.files.iter().map(|file| File { blob: None, ..file.clone() }).collect()
        };
        let first = self.run::<O>(args.clone(), inputs).await.unwrap();
        let left = look();
        let second = self.run::<O>(args, inputs).await.unwrap();
        assert_eq!(without_keys(&first), without_keys(&second));
        assert_eq!(left, look());
        second
    }

    /// Percents in the order in which they were reported.
    pub(crate) fn reported(&self) -> Vec<u8> {
        self.reported.lock().unwrap().clone()
    }

    /// All bytes of a kept file.
    pub(crate) async fn read(&self, file: &File) -> Bytes {
        let source = self.files.source(file.blob.as_ref().unwrap(), file).await.unwrap();
        source.read_at(0, usize::try_from(file.size).unwrap()).await.unwrap()
    }

    /// Where a kept file is.
    pub(crate) fn path(&self, file: &File) -> std::path::PathBuf {
        self.folder.path().join(file.blob.as_ref().unwrap().as_str())
    }

    /// How many files the task has left in the store, half-written ones included.
    pub(crate) fn kept(&self) -> usize {
        let Ok(attempts) = std::fs::read_dir(self.folder.path().join(self.task_id.to_string())) else { return 0 };
        attempts.map(|attempt| std::fs::read_dir(attempt.unwrap().path()).unwrap().count()).sum()
    }
}

/// A destination in memory. It fails for names that [`Self::fail`] was told, and never ends for those with `hang` in
/// them.
#[derive(Debug, Default)]
pub(crate) struct MemoryConnector {
    objects: Mutex<BTreeMap<String, Bytes>>,
    failures: Mutex<BTreeMap<String, Kind>>,
    /// Uploads that are going on now.
    pub(crate) active: AtomicUsize,
    /// The most that ever went on at once.
    pub(crate) active_most: AtomicUsize,
    /// Uploads that were offered something to go on with.
    pub(crate) resumed: AtomicUsize,
}

impl MemoryConnector {
    pub(crate) fn fail(&self, name: &str, kind: Kind) {
        self.failures.lock().unwrap().insert(name.to_owned(), kind);
    }

    /// What it holds.
    pub(crate) fn objects(&self) -> BTreeMap<String, Bytes> {
        self.objects.lock().unwrap().clone()
    }
}

struct Active<'a>(&'a AtomicUsize);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Connector for MemoryConnector {
    fn capability(&self) -> Capability {
        Capability {
            resumes: false,
            aborts: true,
            names_are_keys: true,
            keeps_dot_segments: true,
            has_containers: false,
            checks_single_put: false,
            can_throttle: false,
            keeps_content_type: false,
            verifies_by: "size",
            name_bytes_max: 64,
            object_bytes_max: 4096,
        }
    }

    fn host(&self) -> String {
        "memory".to_owned()
    }

    async fn put(&self, put: Put) -> Result<Receipt> {
        let now = self.active.fetch_add(1, Ordering::SeqCst) + 1;
        self.active_most.fetch_max(now, Ordering::SeqCst);
        let _active = Active(&self.active);
        if put.resume.is_some() {
            self.resumed.fetch_add(1, Ordering::SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        let failure = self.failures.lock().unwrap().get(&put.name).copied();
        if let Some(kind) = failure {
            return Err(Error::new(kind, "storing the file", "it was told to fail"));
        }
        if put.name.contains("hang") {
            std::future::pending::<()>().await;
        }
        let size = put.source.size();
        let bytes = put.source.read_at(0, usize::try_from(size).unwrap()).await?;
        self.objects.lock().unwrap().insert(put.name.clone(), bytes);
        put.progress.add(size);
        Ok(Receipt { location: format!("memory://{}", put.name), verified: "size".to_owned(), ..Receipt::default() })
    }

    async fn stat(&self, name: &str) -> Result<Object> {
        Err(Error::new(Kind::Unsupported, "looking", name))
    }

    async fn read(&self, name: &str, _range: Range<u64>) -> Result<ByteStream> {
        Err(Error::new(Kind::Unsupported, "reading", name))
    }

    async fn list(&self, _prefix: &str, _limit: usize) -> Result<Vec<Object>> {
        Ok(Vec::new())
    }

    async fn delete(&self, _name: &str) -> Result<()> {
        Ok(())
    }

    async fn abort(&self, _open: &OpenUpload) -> Result<()> {
        Ok(())
    }
}
