//! The steps of a trial, in their order, and the tidying up behind it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use connectors::memory::{MemoryJournal, MemorySource};
use connectors::{
    Budget, Connector, Error, HostSlot, HostSlots, Kind, OpenUpload, Progress, Put, Receipt, Result, Source as _,
};
use futures_util::TryStreamExt as _;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::report::{Name, Status, Step};
use crate::error::TaskError;
use crate::operations::export::Naming;
use crate::operations::export::naming::TEST_FILE;
use crate::operations::permissions::Permissions;

/// The unit of the times below; tests are not patient.
const SECOND: Duration = if cfg!(test) { Duration::from_millis(10) } else { Duration::from_secs(1) };
/// The time for one step.
const STEP_TIMEOUT: Duration = SECOND.saturating_mul(25);
/// The time for all steps but tidying up.
const STEPS_TIMEOUT: Duration = SECOND.saturating_mul(45);
/// The time for tidying up; together with [`STEPS_TIMEOUT`] a minute.
pub(super) const CLEANING_TIMEOUT: Duration = SECOND.saturating_mul(15);
/// What the test file holds.
const CONTENT: &str = "Consign tests this destination. This file may be deleted.\n";
/// Objects that a listing may yield: more are as good, for then it is allowed.
const LISTED_MAX: usize = 100;
/// The id of an upload that no service has open: whoever may abort uploads is told that it is gone.
const NO_UPLOAD: &str = "consign-test";
/// What connectors say that they are doing before they send anything.
const CONNECTING: &str = "connecting";
const ARGUMENTS_OK: &str = "The arguments can be used.";
const CREDENTIALS_OK: &str = "The credentials are accepted.";
const CREDENTIALS_UNKNOWN: &str = "Whether the credentials are right is not known: nothing was allowed with them.";
const LIST_OK: &str = "The folder can be listed.";

/// What the steps found.
#[derive(Debug, Default)]
pub(super) struct Probed {
    pub(super) steps: Vec<Step>,
    pub(super) left_behind: Option<String>,
}

/// One trial of one destination.
pub(super) struct Probe<'a> {
    connector: Arc<dyn Connector>,
    permissions: Option<&'a Permissions>,
    /// Full name of the test file.
    name: String,
    /// What stands before it.
    folder: String,
    source: Arc<MemorySource>,
    journal: Arc<MemoryJournal>,
    end: Instant,
    found: Probed,
}

impl<'a> Probe<'a> {
    pub(super) fn new(connector: Arc<dyn Connector>, naming: &Naming, permissions: Option<&'a Permissions>) -> Self {
        let name = format!("{}{TEST_FILE}{:016x}.txt", naming.start(), rand::random::<u64>());
        let folder = name.rfind('/').map_or_else(String::new, |slash| name[..=slash].to_owned());
        Self {
            connector,
            permissions,
            name,
            folder,
            source: Arc::new(MemorySource::new(CONTENT)),
            journal: Arc::default(),
            end: Instant::now() + STEPS_TIMEOUT,
            found: Probed::default(),
        }
    }

    /// What is found of a destination that cannot even be made of its arguments.
    pub(super) fn failed(error: TaskError) -> Probed {
        let refused = Step::failed(Name::Arguments, error);
        let steps = Name::ALL.map(|name| if name == Name::Arguments { refused.clone() } else { Step::skipped(name) });
        Probed { steps: without_untried_extras(steps.into(), None), left_behind: None }
    }

    /// Goes through the steps.
    ///
    /// # Cancel safety
    /// When dropped, what was written is deleted by a task of the tracker.
    pub(super) async fn run(mut self, slots: HostSlots, cleaning: TaskTracker) -> Probed {
        let slot = self.slot(&slots).await;
        let mut litter = self.litter(cleaning);
        let written = match slot {
            Ok(_) => self.bounded("storing the test file", self.put()).await,
            Err(error) => Err(error),
        };
        match written {
            Ok(receipt) => {
                self.passed(&receipt);
                self.further().await;
                let deleted = litter.clear().await;
                self.deleted(deleted, &receipt);
            }
            Err(error) => {
                let may_have_arrived = may_have_arrived(&error);
                self.refused(error).await;
                if !may_have_arrived && self.journal.open(&self.name).is_none() {
                    litter.is_armed = false;
                } else if let Err(error) = litter.clear().await
                    && may_have_arrived
                {
                    self.found.left_behind = Some(self.name.clone());
                    self.found.steps.push(Step::refused(Name::Delete, error, self.permissions));
                }
            }
        }
        self.complete()
    }

    /// Waits for a place among the transfers with this host.
    async fn slot(&self, slots: &HostSlots) -> Result<HostSlot> {
        let host = self.connector.host();
        timeout(STEP_TIMEOUT, slots.take(&host)).await.map_err(|elapsed| {
            let detail = format!("too many transfers with {host} are under way here; try again in a moment");
            Error::new(Kind::Timeout, CONNECTING, detail).because(elapsed)
        })
    }

    fn litter(&self, cleaning: TaskTracker) -> Litter {
        Litter {
            connector: Arc::clone(&self.connector),
            journal: Arc::clone(&self.journal),
            name: self.name.clone(),
            cleaning,
            is_armed: true,
        }
    }

    fn put(&self) -> impl Future<Output = Result<Receipt>> + Send + use<> {
        let put = Put {
            name: self.name.clone(),
            source: Arc::<MemorySource>::clone(&self.source),
            content_type: "text/plain".to_owned(),
            journal: Arc::<MemoryJournal>::clone(&self.journal),
            resume: None,
            progress: Progress::default(),
            memory: Budget::default().share(),
        };
        let connector = Arc::clone(&self.connector);
        async move { connector.put(put).await }
    }

    /// Notes the steps that a successful write proves.
    fn passed(&mut self, receipt: &Receipt) {
        let host = self.connector.host();
        let key = receipt.host_key.as_ref().map(|key| format!(" with the host key {key}")).unwrap_or_default();
        let note = receipt.note.as_ref().map(|note| format!(" {note}")).unwrap_or_default();
        self.found.steps.extend([
            Step::ok(Name::Arguments, ARGUMENTS_OK),
            Step::ok(Name::Connect, format!("{host} answers{key}.")),
            Step::ok(Name::Credentials, CREDENTIALS_OK),
            Step::ok(Name::Write, format!("{} arrived, proved by {}.{note}", receipt.location, receipt.verified)),
        ]);
    }

    /// Notes at which step a write was refused, and those before it that it proves. Services answer wrong credentials,
    /// too, with a denied write; only something that they may do proves them.
    async fn refused(&mut self, error: Error) {
        let at = step_of(&error);
        let mut credentials =
            Step { message: Some(CREDENTIALS_UNKNOWN.to_owned()), ..Step::skipped(Name::Credentials) };
        if at == Name::Write && !error.is_transient() {
            let listed = self.bounded("listing the folder", self.list()).await;
            if listed.is_ok() {
                credentials = Step::ok(Name::Credentials, CREDENTIALS_OK);
                self.note(Name::List, listed.map(|()| LIST_OK));
            }
        }
        let host = self.connector.host();
        let before =
            [Step::ok(Name::Arguments, ARGUMENTS_OK), Step::ok(Name::Connect, format!("{host} answers.")), credentials];
        self.found.steps.extend(before.into_iter().take_while(|step| step.step != at));
        self.found.steps.push(Step::refused(at, error, self.permissions));
    }

    /// What an export can do without.
    async fn further(&mut self) {
        if self.takes_a_right(Name::Replace) {
            let replaced = self.bounded("replacing the test file", self.put()).await;
            self.note(Name::Replace, replaced.map(|_| "A file of the same name is replaced."));
        }
        if self.takes_a_right(Name::Abort) {
            let open = OpenUpload {
                target: self.name.clone(),
                handle: NO_UPLOAD.to_owned(),
                sha256: String::new(),
                part_bytes: 1,
                parts: std::collections::BTreeMap::new(),
            };
            let aborted = self.bounded("aborting an upload", self.connector.abort(&open)).await;
            self.note(Name::Abort, aborted.map(|()| "An upload that fails can be cleared away."));
        }
        let looked = self.bounded("looking at the test file", self.look()).await;
        self.note(Name::Stat, looked.map(|()| "The test file has the right size."));
        let read = self.bounded("reading the test file", self.read()).await;
        self.note(Name::Read, read.map(|()| "Every byte of the test file came back."));
        let listed = self.bounded("listing the folder", self.list()).await;
        self.note(Name::List, listed.map(|()| LIST_OK));
    }

    fn takes_a_right(&self, step: Name) -> bool {
        self.permissions.is_some_and(|permissions| !permissions.of(step).is_empty())
    }

    async fn look(&self) -> Result<()> {
        let size = self.connector.stat(&self.name).await?.size;
        let differs =
            || Error::new(Kind::IntegrityMismatch, "looking at the test file", "its size is not what was sent");
        if size == self.source.size() { Ok(()) } else { Err(differs()) }
    }

    async fn read(&self) -> Result<()> {
        let pieces = self.connector.read(&self.name, 0..self.source.size()).await?;
        let bytes: Vec<_> = pieces.try_collect().await?;
        let differs = || Error::new(Kind::IntegrityMismatch, "reading the test file", "it is not what was sent");
        if bytes.concat() == CONTENT.as_bytes() { Ok(()) } else { Err(differs()) }
    }

    async fn list(&self) -> Result<()> {
        match self.connector.list(&self.folder, LISTED_MAX).await {
            Err(error) if error.kind != Kind::TooMany => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn deleted(&mut self, deleted: Result<()>, receipt: &Receipt) {
        if deleted.is_err() {
            self.found.left_behind = Some(self.name.clone());
        }
        let versions = "The test file is gone; the bucket keeps its version.";
        let message = if receipt.version.is_some() { versions } else { "The test file is gone." };
        self.note(Name::Delete, deleted.map(|()| message));
    }

    fn note(&mut self, step: Name, outcome: Result<&'static str>) {
        self.found.steps.push(match outcome {
            Ok(message) => Step::ok(step, message),
            Err(error) => Step::refused(step, error, self.permissions),
        });
    }

    /// Adds the steps that were not tried.
    fn complete(self) -> Probed {
        let Probed { steps, left_behind } = self.found;
        let all = Name::ALL.map(|name| {
            let found = steps.iter().find(|step| step.step == name);
            found.cloned().unwrap_or_else(|| Step::skipped(name))
        });
        Probed { steps: without_untried_extras(all.into(), self.permissions), left_behind }
    }

    /// Gives work the time of a step, or what is left of the whole.
    async fn bounded<T>(&self, action: &'static str, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let time = STEP_TIMEOUT.min(self.end.saturating_duration_since(Instant::now()));
        bounded(time, action, work).await
    }
}

async fn bounded<T>(time: Duration, action: &'static str, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
    timeout(time, work).await.unwrap_or_else(|elapsed| {
        let detail = format!("no answer came within {} s", time.as_secs().max(1));
        Err(Error::new(Kind::Timeout, action, detail).because(elapsed))
    })
}

/// Leaves out steps that would not have been tried here at all.
fn without_untried_extras(mut steps: Vec<Step>, permissions: Option<&Permissions>) -> Vec<Step> {
    let takes_a_right = |step: Name| permissions.is_some_and(|permissions| !permissions.of(step).is_empty());
    steps.retain(|step| {
        let is_by_right = matches!(step.step, Name::Replace | Name::Abort);
        step.status != Status::Skipped || !is_by_right || takes_a_right(step.step)
    });
    steps
}

/// The step that an error of a write belongs to: what answers nothing was not reached.
fn step_of(error: &Error) -> Name {
    let is_answered = error.answer.is_some();
    match error.kind {
        Kind::InvalidRequest if !is_answered => Name::Arguments,
        Kind::HostNotAllowed | Kind::HostNotFound | Kind::TlsRefused | Kind::HostKeyMismatch => Name::Connect,
        Kind::Unreachable | Kind::Timeout | Kind::Protocol if !is_answered => Name::Connect,
        Kind::InvalidCredentials => Name::Credentials,
        Kind::Unreachable
        | Kind::Timeout
        | Kind::Protocol
        | Kind::InvalidRequest
        | Kind::AccessDenied
        | Kind::ContainerNotFound
        | Kind::NotFound
        | Kind::TooLarge
        | Kind::TooMany
        | Kind::NoSpace
        | Kind::Throttled
        | Kind::Unavailable
        | Kind::IntegrityMismatch
        | Kind::Unsupported
        | Kind::Local => Name::Write,
    }
}

/// Whether the test file may be there although its write failed.
fn may_have_arrived(error: &Error) -> bool {
    error.is_transient() && error.action != CONNECTING && error.kind != Kind::HostNotFound
}

/// What a trial may leave at its destination. Dropped before it is cleared, it is cleared in the background: the client
/// went away, but its bucket is still there.
struct Litter {
    connector: Arc<dyn Connector>,
    journal: Arc<MemoryJournal>,
    name: String,
    cleaning: TaskTracker,
    is_armed: bool,
}

impl Litter {
    async fn clear(&mut self) -> Result<()> {
        let cleared = self.clearing().await;
        self.is_armed = false;
        cleared
    }

    fn clearing(&self) -> impl Future<Output = Result<()>> + Send + use<> {
        let (connector, journal, name) = (Arc::clone(&self.connector), Arc::clone(&self.journal), self.name.clone());
        bounded(CLEANING_TIMEOUT, "deleting the test file", async move {
            let aborted = match journal.open(&name) {
                Some(open) => connector.abort(&open).await,
                None => Ok(()),
            };
            connector.delete(&name).await.and(aborted)
        })
    }
}

impl Drop for Litter {
    fn drop(&mut self) {
        if self.is_armed && Handle::try_current().is_ok() {
            let clearing = self.clearing();
            self.cleaning.spawn(async move {
                if let Err(error) = clearing.await {
                    tracing::warn!(%error, "the test file of a trial that was broken off may have stayed");
                }
            });
        }
    }
}
