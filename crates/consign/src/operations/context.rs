//! What an operation gets to work with.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use connectors::{ByteStream, Journal, Network, OpenUpload, Source};

use crate::clock::Clock;
use crate::error::TaskError;
use crate::files::Files;
use crate::id::{TaskId, Token};
use crate::model::File;

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
    /// Keeps a stream as this task's next output file. `size` is the length that was announced, if one was.
    ///
    /// # Errors
    /// `FILE_TOO_LARGE`, `STORAGE_FULL`, and the stream's own error. Nothing is left behind then.
    #[expect(clippy::unused_async, reason = "filled in with the file store")]
    pub async fn save(
        &self,
        _number: u32,
        _name: &str,
        _content_type: Option<&str>,
        _size: Option<u64>,
        _stream: ByteStream,
    ) -> Result<File, TaskError> {
        Err(TaskError::new(crate::error::Code::Internal, "not there"))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("task_id", &self.task_id).field("token", &self.token).finish_non_exhaustive()
    }
}
