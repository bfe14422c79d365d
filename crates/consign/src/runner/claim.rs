//! Takes tasks on: as many as there are free slots, whenever there may be some.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Runner, step};
use crate::store::ClaimRequest;

/// The safety net below the hints: how long a task that nobody announced can wait.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Claims until it is cancelled.
pub(super) async fn run(runner: Runner) {
    loop {
        let taken = claim(&runner).await;
        if taken == 0 {
            let hints = runner.tools().store.hints();
            let something = async {
                tokio::select! {
                    () = hints.ready() => {},
                    () = runner.shared.slot_freed.notified() => {},
                }
            };
            // A timeout here is the safety net, not a failure.
            let _ = timeout(LOOK_AGAIN_AFTER, something).await;
        }
    }
}

/// Claims once; returns how many tasks were taken on.
async fn claim(runner: &Runner) -> usize {
    let tools = runner.tools();
    let slots =
        tools.config.limits.tasks_running_max.saturating_sub(u32::try_from(runner.running_count()).unwrap_or(u32::MAX));
    if slots == 0 || runner.is_stopping() || !runner.may_work() {
        return 0;
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
            let (taken, now) = (claims.len(), tools.clock.now());
            if taken > 0 {
                connectors::fail_point!("runner.claimed");
            }
            for claim in claims {
                if let Some(ready_at) = claim.ready_at {
                    tools.metrics.claimed(now.since(ready_at));
                }
                step::start(runner, claim);
            }
            taken
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "tasks cannot be claimed");
            0
        }
    }
}
