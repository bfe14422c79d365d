//! What happened, in the order in which it was noticed: one line of JSON an event, in memory and in a file.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::jobs::Spec;
use crate::schedule::Kind;

/// A status of a job or task on the wire, in the order in which they follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Accepted.
    Waiting,
    /// Being worked on.
    Processing,
    /// Ended well.
    Finished,
    /// Ended badly.
    Error,
}

impl Status {
    /// Whether nothing comes after it.
    pub fn is_terminal(self) -> bool {
        self >= Self::Finished
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Milliseconds since the run began.
    pub at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What runs, and where.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// Repeats the schedule and the jobs.
    pub seed: u64,
    /// What was typed.
    pub command: String,
    /// The program and its version.
    pub program: String,
    /// Processor, memory and system.
    pub machine: String,
    /// The processes, and what they share.
    pub fleet: String,
    /// How paths are cut.
    pub network: String,
    /// Whether uploads may begin while their import arrives.
    pub overlap: bool,
    /// How many tasks of one user may run at once, in all processes together.
    pub per_user_max: u64,
    /// How many tasks of one process may run at once.
    pub per_process_max: u64,
}

/// Whose tasks are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Whose {
    /// One user's, in all processes together.
    User,
    /// One session's, which is one start of a process.
    Process,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The run began.
    Began(Setup),
    /// A fault began. Its number is its place in the schedule.
    Fault {
        /// Its place in the schedule.
        number: usize,
        /// What.
        kind: Kind,
        /// To whom.
        target: String,
    },
    /// The fault was taken back; a process that was killed has been started again.
    Healed {
        /// Its place in the schedule.
        number: usize,
    },
    /// What was struck says that it is ready.
    Ready {
        /// The fault's place in the schedule.
        number: usize,
    },
    /// Requests that a fault failed, of those to one destination or to the file store.
    Spoilt {
        /// The fault's place in the schedule.
        number: usize,
        /// To whom.
        place: String,
        /// How many.
        requests: u64,
    },
    /// A fault could not be done.
    Skipped {
        /// What.
        kind: Kind,
        /// Why.
        why: String,
    },
    /// A client did not do what it is there for: it gave up, or panicked.
    GaveUp {
        /// Why.
        why: String,
    },
    /// A process ended although nobody told it to; it was started again.
    Died {
        /// Which.
        process: String,
        /// How.
        how: String,
    },
    /// A request was answered, or failed.
    Call {
        /// What was asked: `create`, `show` …
        action: String,
        /// The tag of the job that it is about.
        tag: Option<String>,
        /// When it began, in milliseconds since the run began.
        began_ms: u64,
        /// The status of the answer.
        status: Option<u16>,
        /// Why there was none.
        error: Option<String>,
    },
    /// A job is about to be asked for.
    Asked {
        /// What it is.
        spec: Spec,
    },
    /// A job was acknowledged with 201.
    Accepted {
        /// The tag of its [`Spec`].
        tag: String,
        /// Its id.
        job: String,
    },
    /// A client saw a status for the first time, or another one than before.
    Seen {
        /// Who looked.
        client: String,
        /// The tag of the job.
        tag: String,
        /// The name of the task; none is the job itself.
        task: Option<String>,
        /// What was seen.
        status: Status,
        /// The code of an error.
        code: Option<String>,
    },
    /// A job or a task of it is about to be cancelled.
    Cancelling {
        /// The tag of the job.
        tag: String,
    },
    /// A job is about to be deleted.
    Deleting {
        /// Its tag.
        tag: String,
    },
    /// The deletion was acknowledged.
    Deleted {
        /// Its tag.
        tag: String,
    },
    /// The receiver heard of a job.
    Heard {
        /// The job's tag.
        tag: String,
        /// `job.finished` or `job.failed`.
        name: String,
        /// Whether the signatures were right.
        is_genuine: bool,
    },
    /// More tasks were running than ever before.
    Running {
        /// Of whom.
        whose: Whose,
        /// How many.
        count: u64,
    },
    /// The running tasks were counted so often.
    Counted {
        /// How often.
        times: u64,
    },
    /// So many uploads were seen open at a destination while their task still waited for its import.
    Ahead {
        /// How many.
        uploads: u64,
    },
    /// Uploads that killed processes left open in the file store, before its search was to find them.
    Abandoned {
        /// How many.
        uploads: u64,
    },
    /// The last fault was taken back.
    Calm,
    /// No job is expected to change any more.
    Settled,
    /// A job as it was shown in the end.
    Final {
        /// Its tag.
        tag: String,
        /// Its status; none when it is not there.
        status: Option<Status>,
    },
    /// A job in the list of all jobs, in the end.
    Listed {
        /// Its tag.
        tag: String,
        /// Its id.
        job: String,
    },
    /// What lies at a destination in the end.
    Delivered {
        /// Which destination.
        place: String,
        /// Under which name.
        name: String,
        /// SHA-256 of all bytes, in lower-case hex.
        sha256: String,
    },
    /// Something that should be gone was still there when it had to be.
    LeftOver {
        /// Where.
        place: String,
        /// What.
        what: String,
    },
}

/// The history of a run.
#[derive(Debug)]
pub struct History {
    began: Instant,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    entries: Vec<Entry>,
    file: BufWriter<File>,
}

impl History {
    /// Begins a history that is also written to a file.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn begin(file: &Path) -> Result<Self> {
        let file = File::create(file).with_context(|| file.display().to_string())?;
        let written = Mutex::new(Written { entries: Vec::new(), file: BufWriter::new(file) });
        Ok(Self { began: Instant::now(), written })
    }

    /// Milliseconds since it began.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes what happened.
    pub fn note(&self, event: Event) {
        let mut written = self.written();
        let entry = Entry { at_ms: self.now_ms(), event };
        // What cannot be written to the file is still in memory, which is what is checked.
        if let Ok(line) = serde_json::to_string(&entry) {
            writeln!(written.file, "{line}").ok();
        }
        written.entries.push(entry);
    }

    /// All so far.
    pub fn entries(&self) -> Vec<Entry> {
        let mut written = self.written();
        written.file.flush().ok();
        written.entries.clone()
    }

    /// Looks at all that was noted so far.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&[Entry]) -> T) -> T {
        look(&self.written().entries)
    }

    /// Whether this was noted so far.
    pub(crate) fn any(&self, is: impl Fn(&Event) -> bool) -> bool {
        self.written().entries.iter().any(|entry| is(&entry.event))
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Reads a history from its file.
///
/// # Errors
/// When it cannot be read, or a line is no event.
pub fn read(file: &Path) -> Result<Vec<Entry>> {
    let lines = BufReader::new(File::open(file).with_context(|| file.display().to_string())?).lines();
    lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}
