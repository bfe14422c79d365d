//! Tries a destination before it is relied on: a small file is written there with the task's own arguments, read back
//! and deleted, step by step.
//!
//! Start with [`Trials`], which bounds how many run at once; `probe` has the steps, [`report`] their shape. A trial goes
//! the way of an export: the same connector, the same guard, the same words for what fails.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use connectors::Network;
use serde_json::{Map, Value};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::storage::Destination;
use super::{Entry, RawArgs, named};
use crate::error::{ApiError, ApiResult, Code, Faults, TaskError};
use crate::id::UserId;
use probe::{CLEANING_TIMEOUT, Probe};

mod probe;
pub mod report;

pub use report::{Name, Report, Status, Step};

/// Trials that one process runs at once.
const AT_ONCE_MAX: usize = 16;
/// Trials that one user runs at once.
const PER_USER_MAX: usize = 2;
/// When to come back if there are too many.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// Tries of one request: somebody waits for the answer.
const TRIES_MAX: u32 = 2;
/// Members of a task that say nothing of its destination.
const OTHER_MEMBERS: [&str; 3] = ["name", "input", "ignore_error"];

/// An export whose destination is to be tried.
#[derive(Clone)]
pub struct Subject {
    entry: &'static Entry,
    args: RawArgs,
    warnings: Vec<String>,
}

impl Subject {
    /// Takes a task as it stands in a job.
    ///
    /// # Errors
    /// Every fault of its arguments, as when the task were made; an operation that is no export to a storage.
    pub fn read(mut task: Map<String, Value>) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        for member in OTHER_MEMBERS {
            task.shift_remove(member);
        }
        let Some(entry) = named(task.shift_remove("operation"), &mut faults) else { return Err(faults) };
        if !entry.has_destination() {
            faults.add("operation", format!("{} has no destination to test: name an export to a storage.", entry.name));
            return Err(faults);
        }
        let warnings = entry.prepare(&mut task)?;
        Ok(Self { entry, args: task, warnings })
    }

    /// The name of the operation.
    pub fn operation(&self) -> &'static str {
        self.entry.name
    }

    /// Whether every argument is known to the operation.
    pub fn is_without_warnings(&self) -> bool {
        self.warnings.is_empty()
    }
}

/// Shows the operation only: arguments hold credentials.
impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("operation", &self.entry.name).finish_non_exhaustive()
    }
}

/// Runs trials, a bounded number at once. Cheap to clone; clones share their bounds.
#[derive(Clone, Debug)]
pub struct Trials {
    network: Network,
    turns: Turns,
    cleaning: TaskTracker,
}

/// Trials under way, by user.
type Turns = Arc<Mutex<HashMap<UserId, usize>>>;

/// The right to run one trial, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    user: UserId,
    turns: Turns,
}

impl Trials {
    /// Runs trials over this network.
    pub fn new(mut network: Network) -> Self {
        network.limits.tries = network.limits.tries.min(TRIES_MAX);
        Self { network, turns: Turns::default(), cleaning: TaskTracker::new() }
    }

    /// Lets a user run one more trial.
    ///
    /// # Errors
    /// [`Code::TooManyRequests`] when the user, or all users together, run as many as may be.
    pub fn admit(&self, user: UserId) -> ApiResult<Turn> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let own = turns.get(&user).copied().unwrap_or_default();
        if own >= PER_USER_MAX || turns.values().sum::<usize>() >= AT_ONCE_MAX {
            let message = "Too many destinations are being tested; wait as long as Retry-After says.";
            return Err(ApiError::new(Code::TooManyRequests, message).after(RETRY_AFTER));
        }
        turns.insert(user, own + 1);
        Ok(Turn { user, turns: Arc::clone(&self.turns) })
    }

    /// Tries a destination. Takes a minute at the most, whatever the other side does.
    ///
    /// # Cancel safety
    /// When dropped, the test file is deleted by a task of its own; [`Self::settle`] waits for it.
    pub async fn run(&self, subject: Subject) -> Report {
        let Subject { entry, args, warnings } = subject;
        let permissions = entry.permissions(args.clone());
        // `Subject::read` takes nothing else.
        let nowhere = || Err(TaskError::new(Code::Unsupported, "This operation has no destination."));
        let probed = match entry.destination(args, &self.network).unwrap_or_else(nowhere) {
            Ok(Destination { connector, naming }) => {
                let slots = self.network.hosts.clone();
                Probe::new(connector, &naming, permissions.as_ref()).run(slots, self.cleaning.clone()).await
            }
            Err(error) => Probe::failed(error),
        };
        let ok = probed.steps.iter().all(|step| !step.needed || step.status == Status::Ok);
        Report {
            operation: entry.name,
            ok,
            steps: probed.steps,
            left_behind: probed.left_behind,
            permissions,
            warnings,
        }
    }

    /// Waits until the test files of cancelled trials are deleted, for a bounded time.
    pub async fn settle(&self) {
        self.cleaning.close();
        if timeout(CLEANING_TIMEOUT, self.cleaning.wait()).await.is_err() {
            tracing::warn!("a test file may have stayed at its destination");
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = turns.get_mut(&self.user) {
            *own -= 1;
            if *own == 0 {
                turns.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests;
