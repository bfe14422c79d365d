//! Aborts uploads that nobody will complete, at the destinations where they were left open. A loop of its own: a
//! destination that does not answer must not hold up what is cleaned here, nor what is aborted elsewhere.
//!
//! Every process of a fleet reads the same lines, and takes each for one try before it makes that: the tries of a line are those
//! of all together.

use std::collections::BTreeMap;
use std::time::Duration;

use connectors::Retry;
use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::time::{Instant, timeout};

use super::{Runner, retry, step};
use crate::error::TaskError;
use crate::model::LedgerEntry;

/// Time between looks that nobody asked for: what was put off, or taken by a process that died, waits no longer than this.
const EVERY: Duration = Duration::from_secs(10);
/// Uploads looked at in one go.
const BATCH: u32 = 500;
/// Destinations that are asked at once; each is asked for one upload after the other.
const DESTINATIONS_AT_ONCE: usize = 8;
/// How long a destination is asked in one go; what is left stays due.
const TURN: Duration = Duration::from_mins(1);
/// Longest time to abort one upload.
const ABORT_TIMEOUT: Duration = Duration::from_secs(30);
/// For how long a process takes a line: as long as a try may take, and writing down what came of it.
const TAKEN_FOR: Duration = Duration::from_secs(35);
/// After an upload whose opening nobody heard of was looked for, until it is looked for again.
const UNHEARD_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Tries to abort an upload before it is left to the destination's own clean-up.
const TRIES_MAX: u32 = 20;

const _: () = assert!(ABORT_TIMEOUT.as_millis() < TAKEN_FOR.as_millis());

/// Aborts until it is cancelled.
pub(super) async fn run(runner: Runner) {
    loop {
        let tools = runner.tools();
        match tools.store.ledger_orphans(tools.clock.now(), BATCH).await {
            Ok(orphans) => round(&runner, orphans).await,
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "open uploads have to wait"),
        }
        // A timeout here is the safety net, not a failure.
        let _ = timeout(EVERY, tools.store.hints().aborts()).await;
    }
}

async fn round(runner: &Runner, orphans: Vec<LedgerEntry>) {
    let mut destinations: BTreeMap<String, Vec<LedgerEntry>> = BTreeMap::new();
    for orphan in orphans {
        destinations.entry(host(runner, &orphan)).or_default().push(orphan);
    }
    let turns = stream::iter(destinations);
    turns.for_each_concurrent(DESTINATIONS_AT_ONCE, |(host, orphans)| turn(runner, host, orphans)).await;
}

/// The host that an upload is open at; empty when its arguments do not say.
fn host(runner: &Runner, orphan: &LedgerEntry) -> String {
    let destination = step::open(runner, &orphan.operation, &orphan.payload)
        .ok()
        .and_then(|(entry, args)| entry.destination(args, &runner.tools().network)?.ok());
    destination.map(|destination| destination.connector.host()).unwrap_or_default()
}

/// Aborts what is open at one host. When it fails, so would the next: each that is left counts as tried, and waits for another
/// turn.
async fn turn(runner: &Runner, host: String, orphans: Vec<LedgerEntry>) {
    let began = Instant::now();
    let mut is_failing = false;
    for orphan in orphans {
        if began.elapsed() >= TURN {
            return;
        }
        // The list is old by now: another process may have a line, or may have counted a try of it.
        if !take(runner, &orphan).await {
            continue;
        }
        if is_failing {
            put_off(runner, &orphan, after_failure(&orphan)).await;
        } else {
            is_failing = !abort(runner, &host, orphan).await;
        }
    }
}

/// Takes an upload for one try. A process that is alone has it anyway; what was taken by the one before it must not wait.
async fn take(runner: &Runner, orphan: &LedgerEntry) -> bool {
    let tools = runner.tools();
    if tools.exclusive {
        return true;
    }
    let (now, target) = (tools.clock.now(), &orphan.open.target);
    let until = now.plus(TAKEN_FOR);
    match tools.store.ledger_claim_abort(orphan.task_id, target, orphan.abort_tries, now, until).await {
        Ok(is_taken) => is_taken,
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "an open upload has to wait");
            false
        }
    }
}

/// Aborts one upload at its destination and strikes it out of the ledger. `false` when the destination is at fault.
async fn abort(runner: &Runner, host: &str, orphan: LedgerEntry) -> bool {
    let tools = runner.tools();
    let failure = match timeout(ABORT_TIMEOUT, abort_there(runner, &orphan)).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some((matches!(error.retry, Retry::Never), error.to_string())),
        Err(_) => Some((false, format!("no answer within {} s", ABORT_TIMEOUT.as_secs()))),
    };
    let LedgerEntry { task_id: task, operation, open, .. } = &orphan;
    let tries = orphan.abort_tries + 1;
    let Some((is_of_this_one, error)) = failure else {
        connectors::fail_point!("abort.aborted");
        if open.handle.is_empty() && orphan.abort_tries == 0 {
            // Nobody heard whether it was opened: a request that was still at work in the destination may have opened it since.
            put_off(runner, &orphan, UNHEARD_AGAIN_AFTER).await;
            return true;
        }
        written(tools.store.ledger_aborted(*task, &open.target).await);
        connectors::fail_point!("abort.closed");
        return true;
    };
    let upload = &open.target;
    if tries >= TRIES_MAX {
        tracing::error!(
            %task, operation, host, upload, error,
            "an upload stays open at its destination; remove it there by hand"
        );
        written(tools.store.ledger_aborted(*task, upload).await);
        connectors::fail_point!("abort.given_up");
    } else {
        tracing::warn!(%task, operation, host, upload, error, tries, "an upload could not be aborted yet");
        put_off(runner, &orphan, after_failure(&orphan)).await;
    }
    is_of_this_one
}

async fn abort_there(runner: &Runner, orphan: &LedgerEntry) -> Result<(), TaskError> {
    let (entry, args) = step::open(runner, &orphan.operation, &orphan.payload)?;
    entry.abort(args, orphan.open.clone(), runner.tools().network.clone()).await
}

/// The pause after a try that failed.
fn after_failure(orphan: &LedgerEntry) -> Duration {
    retry::pause(orphan.abort_tries + 1, None)
}

async fn put_off(runner: &Runner, orphan: &LedgerEntry, pause: Duration) {
    let tools = runner.tools();
    let again_at = tools.clock.now().plus(pause);
    let LedgerEntry { task_id, open, abort_tries, .. } = orphan;
    written(tools.store.ledger_abort_failed(*task_id, &open.target, *abort_tries, again_at).await);
    connectors::fail_point!("abort.put_off");
}

fn written(result: crate::store::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(error = &error as &dyn std::error::Error, "the ledger is not written");
    }
}
