//! What an operation gets to work with.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use connectors::{ByteStream, Journal, Network, OpenUpload, Progress, Source};

use crate::clock::Clock;
use crate::error::TaskError;
use crate::files::{Files, name};
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
    /// Takes progress from 0 to 99.
    pub report: Arc<dyn Fn(u8) + Send + Sync>,
    /// The time.
    pub clock: Clock,
    /// Bounds.
    pub bounds: Bounds,
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

impl Context {
    /// Keeps a stream as this task's `number`th output file (from 1), and reports progress if `size`, the length that
    /// was announced, is known. The name is made safe; without a media type, the name suggests one.
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
        self.save_as_part(number, name, content_type, size, stream, &progress).await
    }

    /// As [`Self::save`], for one of several files that share a [`Self::progress`].
    ///
    /// # Errors
    /// As [`Self::save`].
    pub async fn save_as_part(
        &self,
        number: u32,
        name: &str,
        content_type: Option<&str>,
        size: Option<u64>,
        stream: ByteStream,
        progress: &Progress,
    ) -> Result<File, TaskError> {
        let key = BlobKey::new(self.task_id, self.token, number);
        let received = self.files.receive(&key, stream, size, self.bounds.file_bytes_max, progress).await?;
        let name = name::safe(name);
        Ok(File {
            content_type: content_type.map_or_else(|| name::content_type(&name), str::to_owned),
            name,
            size: received.size,
            digests: received.digests,
            blob: Some(key),
            download: None,
            receipt: None,
        })
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

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("task_id", &self.task_id).field("token", &self.token).finish_non_exhaustive()
    }
}
