//! When a task that failed for a passing reason is tried again.

use std::time::Duration;

/// The first pause. 2 s: the requests inside the attempt were already repeated for about as long.
const PAUSE_FIRST: Duration = Duration::from_secs(2);
/// The longest pause of our own.
const PAUSE_MAX: Duration = Duration::from_mins(2);
/// The longest pause that the other side may ask for.
const PAUSE_ASKED_MAX: Duration = Duration::from_mins(10);

/// The pause after failed attempt number `attempt` (from 1): doubling, with jitter, at least what was asked for.
pub(super) fn pause(attempt: u32, asked: Option<Duration>) -> Duration {
    let doubled = PAUSE_FIRST.saturating_mul(1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
    let jittered = doubled.min(PAUSE_MAX).mul_f64(rand::random_range(0.5..=1.0));
    asked.map_or(jittered, |asked| asked.min(PAUSE_ASKED_MAX).max(jittered))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_stay_bounded_and_honour_the_other_side() {
        assert!(pause(1, None) <= PAUSE_FIRST);
        assert!(pause(3, None) >= PAUSE_FIRST * 2);
        assert!(pause(u32::MAX, None) <= PAUSE_MAX);
        assert!(pause(1, Some(Duration::from_secs(30))) >= Duration::from_secs(30));
        assert!(pause(1, Some(Duration::from_hours(9))) <= PAUSE_ASKED_MAX);
    }
}
