//! Takes tasks on: as many as there are free slots, whenever there may be some.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Runner, step};
use crate::store::ClaimRequest;

/// The safety net below the hints: how long a task that nobody announced can wait.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Pause before a claim that had to leave something out is made again; it doubles as long as that is so. Most often another
/// process is just ending a task of the same job.
const LEFT_OUT_PAUSE_MIN: Duration = Duration::from_millis(20);

/// The longest of these pauses: somebody may be stopped in the middle of a transaction for seconds, and others ask as well.
const LEFT_OUT_PAUSE_MAX: Duration = Duration::from_millis(500);

/// Claims until it is cancelled. A claim takes all that can be taken, so that there is nothing more until a hint comes, or
/// a slot is free; what happens during a claim is not missed. What it leaves out, because others are changing it, nobody
/// announces: it is asked for again soon.
pub(super) async fn run(runner: Runner) {
    let mut pause = LEFT_OUT_PAUSE_MIN;
    loop {
        claim(&runner).await;
        let hints = runner.tools().store.hints();
        let has_left_out = hints.take_left_out();
        if !has_left_out {
            pause = LEFT_OUT_PAUSE_MIN;
        }
        let patience = if has_left_out { pause } else { LOOK_AGAIN_AFTER };
        let something = async {
            tokio::select! {
                () = hints.ready() => {},
                () = runner.shared.slot_freed.notified() => {},
            }
        };
        // A timeout here is the safety net, not a failure.
        if timeout(patience, something).await.is_err() {
            pause = (pause * 2).min(LEFT_OUT_PAUSE_MAX);
        }
    }
}

/// Claims once, as many tasks as there are free slots.
async fn claim(runner: &Runner) {
    let tools = runner.tools();
    let slots =
        tools.config.limits.tasks_running_max.saturating_sub(u32::try_from(runner.running_count()).unwrap_or(u32::MAX));
    if slots == 0 || runner.is_stopping() || !runner.may_work() {
        return;
    }
    let request = ClaimRequest {
        session: runner.session(),
        tasks_max: slots,
        per_user_max: tools.config.limits.tasks_per_user_max,
        now: tools.clock.now(),
    };
    let began = Instant::now();
    match tools.store.claim(&request).await {
        Ok(claims) => {
            tools.metrics.stored("claim", began.elapsed());
            let now = tools.clock.now();
            if !claims.is_empty() {
                connectors::fail_point!("runner.claimed");
            }
            for claim in claims {
                if let Some(ready_at) = claim.ready_at {
                    tools.metrics.claimed(now.since(ready_at));
                }
                step::start(runner, claim);
            }
        }
        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "tasks cannot be claimed"),
    }
}
