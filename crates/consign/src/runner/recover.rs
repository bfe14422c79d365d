//! Puts back what dead processes held, and queues or ends what is due.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Runner;
use super::lease::{HEARTBEAT_EVERY, SESSION_DEAD_AFTER};
use crate::id::{TaskId, Token};
use crate::store::{Expired, Result};

/// How long a lease may be unknown to its own process: longer than it takes from the commit of a claim to its work.
const STRAY_AFTER: Duration = Duration::from_secs(5);

/// Looks until it is cancelled: at every heartbeat, and earlier when something is due earlier.
pub(super) async fn run(runner: Runner) {
    let mut strays = Strays::default();
    loop {
        if let Err(error) = strays.give_back(&runner).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "leases are not looked at");
        }
        let pause = match look(&runner).await {
            Ok(pause) => pause.unwrap_or(HEARTBEAT_EVERY).min(HEARTBEAT_EVERY),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "recovery has to wait");
                HEARTBEAT_EVERY
            }
        };
        sleep(pause.max(Duration::from_millis(50))).await;
    }
}

/// Leases of this process that nothing in it knows of: the answer to the claim was lost, or that to the end. While the
/// process lives nobody else would take them back.
#[derive(Default)]
struct Strays {
    seen: BTreeMap<(TaskId, Token), Instant>,
    looked_at: Option<Instant>,
}

impl Strays {
    async fn give_back(&mut self, runner: &Runner) -> Result<()> {
        let now = Instant::now();
        if self.looked_at.is_some_and(|last| now.duration_since(last) < HEARTBEAT_EVERY) {
            return Ok(());
        }
        self.looked_at = Some(now);
        let tools = runner.tools();
        let held = tools.store.leases(runner.session()).await?;
        let strays: BTreeMap<_, _> = held
            .into_iter()
            .filter(|(id, token)| runner.running().get(id).is_none_or(|running| running.token != *token))
            .map(|lease| (lease, self.seen.get(&lease).copied().unwrap_or(now)))
            .collect();
        for (&(id, token), &since) in &strays {
            if now.duration_since(since) >= STRAY_AFTER {
                tracing::warn!(task = %id, "a lease that nobody here knows of is given back");
                // Stale is as good: then somebody has taken it back.
                let _ = tools.store.give_back(id, token, tools.clock.now()).await?;
                connectors::fail_point!("recover.given_back");
            }
        }
        self.seen = strays;
        Ok(())
    }
}

/// Looks once; returns for how long nothing more is due.
async fn look(runner: &Runner) -> Result<Option<Duration>> {
    let tools = runner.tools();
    let began = Instant::now();
    let now = runner.time().await?;
    let attempts_max = tools.config.limits.attempts_max;
    let mut pauses: Vec<Duration> = Vec::new();
    // A process that lost touch itself must not judge others.
    if runner.may_work() {
        let Expired { tasks: recovered, oldest } =
            tools.store.expire_sessions(now.minus(SESSION_DEAD_AFTER), attempts_max, now).await?;
        tools.metrics.stored("recover", began.elapsed());
        tools.metrics.recovered.inc_by(recovered);
        if recovered > 0 {
            connectors::fail_point!("recover.expired");
            tracing::warn!(tasks = recovered, "took back the tasks of a dead process");
        }
        // Work that nobody does waits no longer than it must: the next look is when the next session would be dead.
        pauses.extend(oldest.map(|seen| seen.plus(SESSION_DEAD_AFTER + Duration::from_millis(1)).since(now)));
    }
    let released = tools.store.release_due(now).await?;
    connectors::fail_point!("recover.released");
    let ended = tools.store.expire_uploads(now).await?;
    connectors::fail_point!("recover.uploads_ended");
    pauses.extend([released, ended].into_iter().flatten().map(|due| due.since(now)));
    Ok(pauses.into_iter().min())
}
