//! Head starts: the parts of a file are sent to its destination while the file still arrives.
//!
//! The export that waits for an import is nobody's yet. Who holds the import's lease may write the export's lines of the
//! ledger ([`crate::store::Ledger`]), and so begin its upload; nothing of that is visible. When the import ends well, the
//! upload is *sealed*: its line gets the digest of the file, under the same lease. Whoever claims the export then goes on with
//! it: this process with the very transfer that is under way, another one as after a crash. An upload that was not sealed
//! fits no file; the next attempt, or the abort of what an ended task left, clears it away.
//!
//! An upload never shows its object before the export was claimed: [`Whole::say`] comes from [`HeadStart::go_on`]. Nor does it
//! keep others from the destination: [`Place`] says when a part may go out.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use connectors::{
    Connector, Digests, Error, Journal, Kind, OpenUpload, Progress, Put, Receipt, Result, Retry, Source as _,
};
use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument as _;

use super::journal::TaskJournal;
use super::{Runner, meter, step};
use crate::files::{Arriving, Whole};
use crate::id::{TaskId, Token};
use crate::model::{self, File, Follower};
use crate::operations::context::{self, Coming, HeadStart, Sending};
use crate::operations::storage::Destination;
use crate::operations::{Outcome, RawArgs};
use crate::store::Store;

mod place;
mod relay;

use place::{Paced, Place};
use relay::Relay;

/// How long a sealed upload waits to be gone on with in this process.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(10);
/// How often it looks meanwhile whether another process has claimed the export, should a hint be lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long after its claim an export is among those that run here, at the most.
const BEGINS_WITHIN: Duration = Duration::from_millis(500);

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
        let handing_over = async move {
            let is_here = || runner.running().contains_key(&follower);
            let _ = timeout(HAND_OVER_WITHIN, gone_elsewhere(&*runner.tools().store, follower, is_here)).await;
            let begun = runner.head_starts().remove(&follower);
            if let Some(begun) = begun {
                tracing::debug!(export = %follower, "a head start is let go: nobody here has gone on with it");
                begun.stop().await;
            }
        };
        let stopping = self.runner.shared.stopping.clone();
        self.runner.shared.hand_overs.spawn(stopping.run_until_cancelled_owned(handing_over));
    }

    fn begun(&self) -> Option<Arc<Begun>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Returns when nobody in this process will begin this task any more: another one runs it, or it has ended.
async fn gone_elsewhere(store: &dyn Store, id: TaskId, is_here: impl Fn() -> bool) {
    let mut changes = store.hints().watch(id.0);
    loop {
        tokio::select! {
            () = changes.changed() => {},
            () = sleep(LOOK_EVERY) => {},
        }
        let Ok(found) = store.blobs(&[id]).await else { continue };
        let state = found.first().map(|(_, state, _)| *state);
        if matches!(state, Some(model::State::Blocked | model::State::Queued | model::State::Delayed)) {
            continue;
        }
        // What was claimed here a moment ago is not among the running ones yet.
        sleep(BEGINS_WITHIN).await;
        if is_here() {
            // Then it takes the head start over, or leaves it: there is nothing more to look for.
            std::future::pending::<()>().await;
        }
        return;
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
        let going = Mutex::new(Some(Going { sending, whole }));
        let begun = Begun { state, going, sealed: OnceLock::new() };
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(begun));
    }
}

/// A head start that somebody may go on with.
pub(super) struct Begun {
    state: Arc<State>,
    going: Mutex<Option<Going>>,
    /// The task that it is for, and the digests of what is sent.
    sealed: OnceLock<(TaskId, Digests)>,
}

/// A transfer under way. In this order: dropped, it is stopped before it can hear that its file is not coming.
struct Going {
    sending: AbortOnDropHandle<Option<Result<Receipt>>>,
    whole: Whole,
}

impl Going {
    /// Stops sending, and returns when nothing is sent any more.
    async fn stop(self) {
        let Self { sending, whole } = self;
        sending.abort();
        let _ = sending.await;
        drop(whole);
    }
}

impl Begun {
    /// Writes down which file this is an upload of. From now on, who claims the task writes its lines.
    async fn seal(&self, runner: &Runner, token: Token, file: &File) -> Option<TaskId> {
        let follower = *self.state.follower.get()?;
        self.state.seal();
        let open = OpenUpload { sha256: hex::encode(file.digests.sha256), ..self.state.open()? };
        if !matches!(runner.tools().store.ledger_seal(follower, token, &open).await, Ok(true)) {
            return None;
        }
        connectors::fail_point!("ahead.sealed");
        self.sealed.set((follower, file.digests)).ok().map(|()| follower)
    }

    fn take(&self) -> Option<Going> {
        self.going.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn stop(&self) {
        if let Some(going) = self.take() {
            going.stop().await;
        }
    }

    /// Whether this file to this name is what `going` sends.
    fn is_of(&self, target: &str, file: &File, going: &Going) -> bool {
        self.sealed.get().is_some_and(|(_, digests)| *digests == file.digests)
            && self.state.open().is_some_and(|open| open.target == target)
            // It cannot have ended well: the file was not said to be whole.
            && !going.sending.is_finished()
    }
}

#[async_trait]
impl HeadStart for Begun {
    async fn go_on(
        &self,
        target: &str,
        file: &File,
        journal: &Arc<dyn Journal>,
        progress: &Progress,
    ) -> Option<Sending> {
        let mut going = self.take()?;
        let Some(place) = self.state.place.get().filter(|_| self.is_of(target, file, &going)) else {
            // It waits for somebody who never comes, with what whoever sends the file now may need.
            going.stop().await;
            return None;
        };
        self.state.hand_over(journal, progress);
        // A part that is under way may fail before there is a slot: then nothing needs one, nor does the error wait for it.
        let failed = tokio::select! {
            biased;
            ended = &mut going.sending => Some(ended),
            () = place.come() => None,
        };
        if failed.is_none() {
            going.whole.say(file.digests);
            connectors::fail_point!("ahead.handed_over");
        }
        let sent = async move {
            let ended = match failed {
                Some(failed) => failed,
                None => going.sending.await,
            };
            match ended {
                Ok(Some(receipt)) => receipt,
                Ok(None) | Err(_) => Err(stopped()),
            }
        };
        Some(sent.boxed())
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
    /// Where it stands at the destination's host, once that is known.
    place: OnceLock<Arc<Place>>,
    sent: OnceLock<Progress>,
    /// The progress of the task that has taken it over.
    shown: OnceLock<Progress>,
}

impl State {
    fn open(&self) -> Option<OpenUpload> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note<T>(&self, change: impl FnOnce(&mut Option<OpenUpload>) -> T) -> T {
        change(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The import has ended: nobody writes the ledger, and no part begins, until somebody has claimed the export.
    fn seal(&self) {
        self.holder.send_replace(None);
        if let Some(place) = self.place.get() {
            place.seal();
        }
    }

    /// What is to be aborted when the file is not coming: nothing once it is sealed, for whoever has claimed the export may
    /// be going on with it.
    fn forsaken(&self) -> Option<OpenUpload> {
        // In this order, so that what is aborted cannot be sealed any more.
        let open = self.note(Option::take);
        open.filter(|_| self.holder.borrow().is_some() && self.shown.get().is_none())
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
            clear(&runner, (follower, token), entry, args.clone(), earlier).await?;
        }
        let (hosts, part_bytes) = (tools.network.hosts.clone(), tools.network.limits.part_bytes);
        let place = state.place.get_or_init(|| Arc::new(Place::new(hosts, connector.host(), part_bytes)));
        let _leaving = place.leaving();
        let source = Arc::new(Paced { arriving, place: Arc::clone(place) });
        // Nothing is opened before a part has come and may go out.
        source.arrived(1).await.ok()?;
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
            source,
            content_type,
            journal: Arc::new(Relay(Arc::clone(&state))),
            resume: None,
            progress: reporting(&state),
            memory: tools.network.memory.share(),
        };
        let watch = meter::watch_host(&tools.metrics, &operation, connector.host());
        let sent = connectors::retry::watched(watch, connector.put(put)).await;
        if let (Err(error), None) = (&sent, state.shown.get()) {
            tracing::debug!(export = %follower, error = error as &dyn std::error::Error, "a head start has ended");
            if error.kind == Kind::Local {
                forsake(&*connector, &state).await;
            }
        }
        Some(sent)
    }
}

/// Aborts what was opened just now: the task is gone, or its file is not coming, and nobody else may know of it.
async fn forsake(connector: &dyn Connector, state: &State) {
    let Some(open) = state.forsaken() else { return };
    if let Err(error) = connector.abort(&open).await {
        tracing::debug!(error = &error as &dyn std::error::Error, "its upload is aborted later");
    }
}

/// Aborts what an earlier attempt of the import sent ahead: its file may have been another.
async fn clear(
    runner: &Runner,
    (follower, token): (TaskId, Token),
    entry: &crate::operations::Entry,
    args: RawArgs,
    earlier: OpenUpload,
) -> Option<()> {
    let (tools, target) = (runner.tools(), earlier.target.clone());
    entry.abort(args, earlier, tools.network.clone()).await.ok()?;
    let struck = tools.store.ledger_close(follower, token, &target).await;
    connectors::fail_point!("ahead.cleared");
    matches!(struck, Ok(true)).then_some(())
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

#[cfg(test)]
mod tests;
