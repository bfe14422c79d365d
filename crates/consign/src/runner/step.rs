//! One attempt of one task: from the claim to the transition that ends it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use connectors::Retry;
use futures_util::FutureExt as _;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::field::{Empty, display};
use tracing::{Instrument as _, Span, error_span};

use super::ahead::Ahead;
use super::journal::TaskJournal;
use super::meter::{self, TaskMeter};
use super::{Runner, Running, inputs, retry, search};
use crate::error::{Code, TaskError};
use crate::id::{TaskId, Token};
use crate::model::Task;
use crate::operations::context::{self, Bounds, Context, HeadStart};
use crate::operations::{self, Entry, Outcome, RawArgs};
use crate::store::{Applied, Claim, Result};
use crate::telemetry::metrics::{Held, LeaseLoss};
use crate::telemetry::traces;

/// How often a running attempt asks whether its lease still holds, should a hint be lost.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Pause before the end of a task is written again, when the store did not take it.
const STORE_PAUSE: Duration = Duration::from_millis(500);
/// Tries to give a lease back while the server stops; the next start takes it back anyway.
const GIVE_BACK_TRIES_STOPPING: u32 = 3;
/// The highest progress before the end.
const PERCENT_MAX: u8 = 99;

/// Starts working on a claimed task.
pub(super) fn start(runner: &Runner, claim: Claim) {
    let percent = Arc::new(AtomicU8::new(0));
    let cancel = CancellationToken::new();
    let id = claim.task.id;
    let running = Running { token: claim.token, percent: Arc::clone(&percent), cancel: cancel.clone() };
    runner.running().insert(id, running);
    let (runner, attempts) = (runner.clone(), runner.shared.attempts.clone());
    let span = span_of(&claim.task);
    let work = async move {
        let slot = Slot { runner: &runner, id, _held: Held::of(&runner.tools().metrics.slots_used) };
        attempt(&runner, claim, percent, cancel).await;
        drop(slot);
    };
    attempts.spawn(work.instrument(span));
}

/// What every line of the log says that belongs to an attempt, whatever level is logged; and the trace of its job, or of a
/// task of its own.
fn span_of(task: &Task) -> Span {
    let (job, operation) = (task.job_id.map(display), task.operation.as_str());
    let span = error_span!("attempt", job, task = %task.id, operation, attempt = task.attempt, user = task.user_id.0, outcome = Empty);
    traces::begin(&span, task.job_id.map_or(task.id.0, |job| job.0), operation);
    span
}

/// Frees the slot of a task, however its attempt ends.
struct Slot<'a> {
    runner: &'a Runner,
    id: TaskId,
    _held: Held,
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.runner.running().remove(&self.id);
        self.runner.shared.slot_freed.notify_one();
    }
}

/// How an attempt ended.
enum End {
    Done(std::result::Result<Outcome, TaskError>),
    /// The lease is lost or to be given back.
    Cancelled,
}

/// What became of the end of an attempt.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Recorded {
    /// It is the task's end, and the files are its files.
    Kept,
    /// Nobody will ask for its files.
    Dropped,
    /// The attempt was stopped before its end could be written.
    Not,
}

async fn attempt(runner: &Runner, claim: Claim, percent: Arc<AtomicU8>, cancel: CancellationToken) {
    let (id, token, number) = (claim.task.id, claim.token, claim.task.attempt);
    let started_at = claim.task.started_at;
    let operation = claim.task.operation.clone();
    let ahead = Ahead::of(runner, id, token);
    let began = Instant::now();
    let end = {
        // What panics inside an operation is this program's fault, and must cost one task only.
        let watch = meter::watch(&runner.tools().metrics, &operation);
        let work = connectors::retry::watched(watch, work(runner, claim, percent, &cancel, ahead.clone()));
        let work = AssertUnwindSafe(work).catch_unwind();
        tokio::select! {
            biased;
            () = lost(runner, id, token, &cancel) => End::Cancelled,
            () = too_long(runner, started_at) => End::Done(Err(too_long_error(runner))),
            result = work => End::Done(result.unwrap_or_else(|_| {
                Err(TaskError::new(Code::Internal, "Something in the server went wrong; its log says what."))
            })),
        }
    };
    let outcome = match &end {
        End::Done(Ok(_)) => "finished",
        End::Done(Err(error)) => error.code.wire(),
        End::Cancelled => Code::Cancelled.wire(),
    };
    Span::current().record("outcome", outcome);
    runner.tools().metrics.attempted(&operation, outcome, began.elapsed());
    if let Some(ahead) = &ahead {
        ahead.seal(if let End::Done(Ok(outcome)) = &end { Some(outcome) } else { None }).await;
    }
    connectors::fail_point!("runner.worked");
    let recorded = match end {
        End::Done(result) => {
            if let Err(error) = &result
                && next_retry(runner, number, error) != Retry::Never
            {
                runner.tools().metrics.task_retried(&operation, error.code);
            }
            record(runner, id, token, number, result, &cancel).await
        }
        End::Cancelled => Recorded::Not,
    };
    if let Some(ahead) = &ahead {
        ahead.recorded(recorded == Recorded::Kept).await;
    }
    if recorded == Recorded::Not {
        give_back(runner, id, token).await;
    }
    // A file store that does not answer must not hold up a stop.
    let clear_up = async {
        if recorded != Recorded::Kept {
            discard(runner, id, token).await;
        } else if number > 1 {
            discard_earlier(runner, id).await;
        }
    };
    runner.shared.stopping.run_until_cancelled(clear_up).await;
}

/// Removes the files of an attempt, unless they are the task's: an end whose answer was lost is told as stale when it
/// is written again.
async fn discard(runner: &Runner, id: TaskId, token: Token) {
    let tools = runner.tools();
    let named = tools.store.blobs(&[id]).await;
    if named.is_ok_and(|tasks| !tasks.iter().flat_map(|(_, _, blobs)| blobs).any(|blob| blob.is_of(id, token)))
        && let Err(error) = tools.files.remove_attempt(id, token).await
    {
        tracing::warn!(error = &error as &dyn std::error::Error, "files of a lost attempt stay until the next search");
    }
}

/// Removes what earlier attempts of a finished task left: those that died between their last byte and their end.
async fn discard_earlier(runner: &Runner, id: TaskId) {
    let blobs = runner.tools().store.blobs(&[id]).await;
    for (id, _, blobs) in blobs.into_iter().flatten() {
        if let Err(error) = search::keep_only(runner, id, &blobs).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "files of an earlier attempt stay until the next search"
            );
        }
    }
}

/// Gives the lease back if it still holds. A session that lives keeps the leases of tasks that nobody works on any
/// more, so this does not give up before the store has answered.
async fn give_back(runner: &Runner, id: TaskId, token: Token) {
    let mut tries = 0;
    while let Err(error) = runner.tools().store.give_back(id, token, runner.tools().clock.now()).await.map(drop) {
        tracing::warn!(task = %id, error = &error as &dyn std::error::Error, "the task is not given back yet");
        tries += 1;
        if runner.is_stopping() && tries >= GIVE_BACK_TRIES_STOPPING {
            return;
        }
        sleep(STORE_PAUSE).await;
    }
    connectors::fail_point!("runner.given_back");
}

/// Ends when the attempt must stop: it was cancelled here, or its lease does not hold any more.
async fn lost(runner: &Runner, id: TaskId, token: Token, cancel: &CancellationToken) {
    let store = &runner.tools().store;
    let mut changes = store.hints().watch(id.0);
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = changes.changed() => {},
            () = sleep(LOOK_AGAIN_AFTER) => {},
        }
        // A store that does not answer says nothing about the lease; fencing takes care of that.
        if matches!(store.holds(id, token).await, Ok(false)) {
            return;
        }
    }
}

async fn too_long(runner: &Runner, started_at: Option<crate::clock::Timestamp>) {
    let limit = runner.tools().config.limits.task_timeout.0;
    let spent = started_at.map_or(Duration::ZERO, |started| runner.tools().clock.now().since(started));
    sleep(limit.saturating_sub(spent)).await;
}

fn too_long_error(runner: &Runner) -> TaskError {
    let limit = runner.tools().config.limits.task_timeout;
    TaskError::new(Code::Timeout, format!("The task took longer than {limit}, the limit of this server."))
}

/// Runs the operation.
async fn work(
    runner: &Runner,
    claim: Claim,
    percent: Arc<AtomicU8>,
    cancel: &CancellationToken,
    ahead: Option<Arc<Ahead>>,
) -> std::result::Result<Outcome, TaskError> {
    let (entry, args) = open(runner, &claim.task.operation, &claim.payload)?;
    let ahead = ahead.map(|ahead| ahead as Arc<dyn context::Ahead>);
    let context = Context { ahead, ..context(runner, claim, percent, cancel).await? };
    entry.run(args, context).await
}

/// Finds the operation and opens its arguments.
pub(super) fn open(
    runner: &Runner,
    operation: &str,
    payload: &[u8],
) -> std::result::Result<(&'static Entry, RawArgs), TaskError> {
    let entry = operations::find(operation).ok_or_else(|| {
        TaskError::new(Code::Unsupported, format!("This version of the server has no operation `{operation}`."))
    })?;
    let unreadable = || {
        TaskError::new(
            Code::Internal,
            "The task's arguments cannot be decrypted; the server's secret_key has changed since it was created.",
        )
    };
    let plain = runner.tools().vault.open(payload).map_err(|error| unreadable().because(error))?;
    let mut args: RawArgs = serde_json::from_slice(&plain).map_err(|error| unreadable().because(error))?;
    args.retain(|name, value| !operations::prepare::OWN_MEMBERS.contains(&name.as_str()) && *value != Value::Null);
    Ok((entry, args))
}

async fn context(
    runner: &Runner,
    claim: Claim,
    percent: Arc<AtomicU8>,
    cancel: &CancellationToken,
) -> std::result::Result<Context, TaskError> {
    let tools = runner.tools();
    let files_max = tools.config.limits.files_per_task_max as usize;
    let inputs = inputs::open(&tools.files, claim.inputs, files_max).await?;
    let limits = &tools.config.limits;
    Ok(Context {
        task_id: claim.task.id,
        token: claim.token,
        inputs,
        files: tools.files.clone(),
        network: tools.network.clone(),
        journal: Arc::new(TaskJournal {
            store: Arc::clone(&tools.store),
            id: claim.task.id,
            token: claim.token,
            clock: tools.clock.clone(),
            cancel: cancel.clone(),
        }),
        open: claim.open,
        ahead: None,
        head_start: runner.head_starts().remove(&claim.task.id).map(|begun| begun as Arc<dyn HeadStart>),
        meter: Arc::new(TaskMeter { metrics: Arc::clone(&tools.metrics), operation: claim.task.operation }),
        report: Arc::new(move |now| percent.store(now.min(PERCENT_MAX), Ordering::Relaxed)),
        clock: tools.clock.clone(),
        bounds: Bounds {
            file_bytes_max: limits.file_bytes_max.as_u64(),
            files_max,
            files_at_once: tools.config.transfer.files_at_once.max(1) as usize,
            link_lifetime: tools.config.retention.0,
        },
    })
}

/// Writes the end of an attempt down.
///
/// A store that does not take it is asked again until the lease is lost: the work is done, only its record is missing.
async fn record(
    runner: &Runner,
    id: TaskId,
    token: Token,
    number: u32,
    result: std::result::Result<Outcome, TaskError>,
    cancel: &CancellationToken,
) -> Recorded {
    if let Err(error) = &result {
        let cause = error as &dyn std::error::Error;
        tracing::info!(task = %id, code = error.code.wire(), attempt = number, error = cause, "attempt failed");
    }
    loop {
        let began = Instant::now();
        let written = transition(runner, id, token, number, &result).await;
        if written.is_ok() {
            runner.tools().metrics.stored("end", began.elapsed());
        }
        match written {
            Ok(Applied::Done) if result.is_ok() => return Recorded::Kept,
            Ok(Applied::Done) => return Recorded::Dropped,
            Ok(Applied::Stale) => {
                runner.tools().metrics.lease_lost(LeaseLoss::StaleResult);
                tracing::info!(task = %id, "the result came too late and is dropped");
                return Recorded::Dropped;
            }
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "the end of a task is not written"),
        }
        tokio::select! {
            () = cancel.cancelled() => return Recorded::Not,
            () = sleep(STORE_PAUSE) => {},
        }
    }
}

async fn transition(
    runner: &Runner,
    id: TaskId,
    token: Token,
    number: u32,
    result: &std::result::Result<Outcome, TaskError>,
) -> Result<Applied> {
    let tools = runner.tools();
    let now = tools.clock.now();
    let error = match result {
        Ok(outcome) => {
            let applied = tools.store.finish(id, token, &outcome.files, now).await;
            connectors::fail_point!("runner.finished");
            return applied;
        }
        Err(error) => error,
    };
    match next_retry(runner, number, error) {
        Retry::Later(asked) => {
            let until = runner.time().await?.plus(retry::pause(number, asked));
            let applied = tools.store.delay(id, token, until, now).await;
            connectors::fail_point!("runner.delayed");
            applied
        }
        Retry::Never => {
            let applied = tools.store.fail(id, token, error.code.wire(), &error.message, now).await;
            connectors::fail_point!("runner.failed");
            applied
        }
    }
}

/// Whether a task is tried again after this attempt: an error may pass, but attempts are counted.
fn next_retry(runner: &Runner, number: u32, error: &TaskError) -> Retry {
    if number < runner.tools().config.limits.attempts_max { error.retry } else { Retry::Never }
}
