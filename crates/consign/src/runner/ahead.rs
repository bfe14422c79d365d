//! Head starts: the parts of a file are sent to its destination while the file still arrives.
//!
//! The export that waits for an import is nobody's yet. Who holds the import's lease may write the export's lines of the
//! ledger ([`crate::store::Ledger`]), and so begin its upload; nothing of that is visible. When the import ends well, the
//! upload is *sealed*: its line gets the digest of the file, under the same lease. Whoever claims the export then goes on with
//! it: this process with the very transfer that is under way, another one as after a crash. An upload that was not sealed
//! fits no file; the next attempt, or the abort of what an ended task left, clears it away.
//!
//! An upload never shows its object before the export was claimed: [`Whole::say`] comes from [`HeadStart::go_on`].

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use connectors::{Digests, Error, Journal, Kind, OpenUpload, Part, Progress, Put, Receipt, Result, Retry, Source as _};
use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::journal::TaskJournal;
use super::{Runner, meter, step};
use crate::files::{Arriving, Whole};
use crate::id::{TaskId, Token};
use crate::model::{File, Follower};
use crate::operations::context::{self, Coming, HeadStart, Sending};
use crate::operations::storage::Destination;
use crate::operations::{Outcome, RawArgs};

/// How long a sealed upload waits to be gone on with in this process.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(10);

/// What an import's attempt sends ahead.
pub(super) struct Ahead {
    runner: Runner,
    id: TaskId,
    token: Token,
    begun: Mutex<Option<Arc<Begun>>>,
}

impl Ahead {
    /// Of a task that was just claimed, if the settings want head starts.
    pub(super) fn of(runner: &Runner, id: TaskId, token: Token) -> Option<Arc<Self>> {
        let ahead = || Arc::new(Self { runner: runner.clone(), id, token, begun: Mutex::default() });
        runner.tools().config.transfer.overlap.then(ahead)
    }

    /// The attempt has ended, and that is not recorded yet: seals what was sent of its file, or stops sending.
    pub(super) async fn seal(&self, outcome: Option<&Outcome>) {
        let Some(begun) = self.begun() else { return };
        let file = outcome.and_then(|outcome| <&[File; 1]>::try_from(outcome.files.as_slice()).ok());
        let sealed = match file {
            Some([file]) => begun.seal(&self.runner, self.token, file).await,
            None => None,
        };
        match sealed {
            Some(follower) => drop(self.runner.head_starts().insert(follower, begun)),
            None => begun.stop().await,
        }
    }

    /// The end of the attempt is recorded: the export can be claimed, unless it is not the task's end.
    pub(super) async fn recorded(&self, is_kept: bool) {
        let Some(begun) = self.begun() else { return };
        let Some(follower) = begun.sealed.get().map(|(follower, _)| *follower) else { return };
        let runner = self.runner.clone();
        if !is_kept {
            runner.head_starts().remove(&follower);
            begun.stop().await;
            return;
        }
        let (stop, loops) = (runner.shared.stop.clone(), runner.shared.loops.clone());
        loops.spawn(stop.run_until_cancelled_owned(async move {
            tokio::time::sleep(HAND_OVER_WITHIN).await;
            runner.head_starts().remove(&follower);
        }));
    }

    fn begun(&self) -> Option<Arc<Begun>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl context::Ahead for Ahead {
    fn begin(&self, Coming { name, content_type, arriving, whole }: Coming) {
        let state = Arc::new(State::default());
        let sending = Upload {
            runner: self.runner.clone(),
            import: (self.id, self.token),
            name,
            content_type,
            arriving,
            state: Arc::clone(&state),
        };
        let sending = AbortOnDropHandle::new(tokio::spawn(sending.send().in_current_span()));
        let begun = Begun { state, whole, sending: Mutex::new(Some(sending)), sealed: OnceLock::new() };
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(begun));
    }
}

/// A head start that somebody may go on with.
pub(super) struct Begun {
    state: Arc<State>,
    whole: Whole,
    sending: Mutex<Option<AbortOnDropHandle<Option<Result<Receipt>>>>>,
    /// The task that it is for, and the digests of what is sent.
    sealed: OnceLock<(TaskId, Digests)>,
}

impl Begun {
    /// Writes down which file this is an upload of. From now on, who claims the task writes its lines.
    async fn seal(&self, runner: &Runner, token: Token, file: &File) -> Option<TaskId> {
        let follower = *self.state.follower.get()?;
        self.state.holder.send_replace(None);
        let open = OpenUpload { sha256: hex::encode(file.digests.sha256), ..self.state.open()? };
        let tools = runner.tools();
        if !matches!(tools.store.ledger_open(follower, token, &open, tools.clock.now()).await, Ok(true)) {
            return None;
        }
        connectors::fail_point!("ahead.sealed");
        self.sealed.set((follower, file.digests)).ok().map(|()| follower)
    }

    /// Stops sending, and returns when nothing is sent any more.
    async fn stop(&self) {
        let sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sending) = sending {
            sending.abort();
            let _ = sending.await;
        }
    }
}

impl HeadStart for Begun {
    fn go_on(&self, target: &str, file: &File, journal: &Arc<dyn Journal>, progress: &Progress) -> Option<Sending> {
        let (_, digests) = self.sealed.get().filter(|(_, digests)| *digests == file.digests)?;
        self.state.open().filter(|open| open.target == target)?;
        let sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        // It cannot have ended well: the file was not said to be whole.
        if sending.is_finished() {
            return None;
        }
        self.state.hand_over(journal, progress);
        self.whole.say(*digests);
        connectors::fail_point!("ahead.handed_over");
        let receipt = sending.map(|sent| match sent {
            Ok(Some(receipt)) => receipt,
            Ok(None) | Err(_) => Err(stopped()),
        });
        Some(receipt.boxed())
    }
}

fn stopped() -> Error {
    Error::new(Kind::Local, "sending the file", "the transfer was stopped").retrying(Retry::Later(None))
}

/// What a transfer and those who own it know of it.
#[derive(Debug, Default)]
struct State {
    /// The task that it is for, once there is one.
    follower: OnceLock<TaskId>,
    /// Who writes the ledger; nobody between the end of the import and the claim of the export.
    holder: watch::Sender<Option<Arc<dyn Journal>>>,
    /// What is open, with all parts that are acknowledged.
    open: Mutex<Option<OpenUpload>>,
    sent: OnceLock<Progress>,
    /// The progress of the task that has taken it over.
    shown: OnceLock<Progress>,
}

impl State {
    fn open(&self) -> Option<OpenUpload> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, change: impl FnOnce(&mut Option<OpenUpload>)) {
        change(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn hand_over(&self, journal: &Arc<dyn Journal>, progress: &Progress) {
        let _ = self.shown.set(progress.clone());
        progress.add(self.sent.get().map_or(0, Progress::bytes).saturating_sub(progress.bytes()));
        self.holder.send_replace(Some(Arc::clone(journal)));
    }
}

/// One transfer: finds out whether there is somebody to send to, and sends.
struct Upload {
    runner: Runner,
    /// The task that receives the file, and its lease.
    import: (TaskId, Token),
    name: String,
    content_type: String,
    arriving: Arriving,
    state: Arc<State>,
}

impl Upload {
    /// Sends. Nothing when there is nobody to send to, or not in this way.
    async fn send(self) -> Option<Result<Receipt>> {
        let Self { runner, import: (id, token), name, content_type, arriving, state } = self;
        let tools = runner.tools();
        let Follower { id: follower, operation, payload, open } = tools.store.follower(id, token).await.ok()??;
        let (entry, args) = step::open(&runner, &operation, &payload).ok()?;
        let Destination { connector, naming } = entry.destination(args.clone(), &tools.network)?.ok()?;
        let name = naming.names([name.as_str()]).ok()?.pop()?.target;
        if !connector.begins_early(arriving.size()) || name.len() > connector.capability().name_bytes_max {
            return None;
        }
        for earlier in open {
            clear(&runner, follower, entry, args.clone(), earlier).await?;
        }
        let _slot = tools.network.hosts.take(&connector.host()).await;
        let _ = state.follower.set(follower);
        state.holder.send_replace(Some(Arc::new(TaskJournal {
            store: Arc::clone(&tools.store),
            id: follower,
            token,
            clock: tools.clock.clone(),
            cancel: CancellationToken::new(),
        })));
        let put = Put {
            name,
            source: Arc::new(arriving),
            content_type,
            journal: Arc::new(Relay(Arc::clone(&state))),
            resume: None,
            progress: reporting(&state),
            memory: tools.network.memory.share(),
        };
        let watch = meter::watch(&tools.metrics, &operation);
        let sent = connectors::retry::watched(watch, connector.put(put)).await;
        if let (Err(error), None) = (&sent, state.shown.get()) {
            tracing::debug!(export = %follower, error = error as &dyn std::error::Error, "a head start has ended");
            // The task is gone, or its file is not coming: nobody else may know of what was opened just now.
            if let Some(open) = state.open().filter(|_| error.kind == Kind::Local)
                && let Err(error) = connector.abort(&open).await
            {
                tracing::debug!(error = &error as &dyn std::error::Error, "its upload is aborted later");
            }
        }
        Some(sent)
    }
}

/// Aborts what an earlier attempt of the import sent ahead: its file may have been another.
async fn clear(
    runner: &Runner,
    follower: TaskId,
    entry: &crate::operations::Entry,
    args: RawArgs,
    earlier: OpenUpload,
) -> Option<()> {
    let (tools, target) = (runner.tools(), earlier.target.clone());
    entry.abort(args, earlier, tools.network.clone()).await.ok()?;
    let struck = tools.store.ledger_close(follower, &target).await.ok();
    connectors::fail_point!("ahead.cleared");
    struck
}

/// Counts what is sent, and shows it once somebody has taken the transfer over.
fn reporting(state: &Arc<State>) -> Progress {
    let weak = Arc::downgrade(state);
    let progress = Progress::reporting(move |bytes| {
        if let Some(shown) = weak.upgrade().as_ref().and_then(|state| state.shown.get()) {
            shown.add(bytes.saturating_sub(shown.bytes()));
        }
    });
    let _ = state.sent.set(progress.clone());
    progress
}

/// Writes lines through whoever may write them now, and waits while that is nobody.
#[derive(Debug)]
struct Relay(Arc<State>);

/// What is to be written.
#[derive(Clone, Copy)]
enum Line<'a> {
    Opened(&'a OpenUpload),
    Part(&'a str, u32, &'a Part),
    Closed(&'a str),
}

impl Relay {
    async fn write(&self, line: Line<'_>) -> Result<()> {
        let mut holder = self.0.holder.subscribe();
        loop {
            let journal = holder.wait_for(Option::is_some).await.map_err(|_| stopped())?.clone();
            let Some(journal) = journal else { continue };
            let written = match line {
                Line::Opened(open) => journal.opened(open).await,
                Line::Part(target, number, part) => journal.part(target, number, part).await,
                Line::Closed(target) => journal.closed(target).await,
            };
            // It may have been refused because the right to write has passed on: then the next one writes it.
            if written.is_ok() || !holder.has_changed().unwrap_or(false) {
                return written;
            }
        }
    }
}

#[async_trait]
impl Journal for Relay {
    async fn opened(&self, open: &OpenUpload) -> Result<()> {
        self.0.note(|noted| *noted = Some(open.clone()));
        self.write(Line::Opened(open)).await
    }

    async fn part(&self, target: &str, number: u32, part: &Part) -> Result<()> {
        self.0.note(|noted| {
            noted.as_mut().map(|open| open.parts.insert(number, part.clone()));
        });
        self.write(Line::Part(target, number, part)).await
    }

    async fn closed(&self, target: &str) -> Result<()> {
        self.0.note(|noted| *noted = None);
        self.write(Line::Closed(target)).await
    }
}
