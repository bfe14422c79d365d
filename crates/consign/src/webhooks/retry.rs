//! When a delivery that failed is tried again.

use std::time::Duration;

const fn minutes(count: u64) -> Duration {
    Duration::from_mins(count)
}

/// The pauses after the first, second … try. Together a day: a receiver may be down over a night.
const PAUSES: [Duration; 11] = [
    Duration::from_secs(5),
    Duration::from_secs(30),
    minutes(2),
    minutes(10),
    minutes(30),
    minutes(60),
    minutes(120),
    minutes(240),
    minutes(240),
    minutes(360),
    minutes(360),
];
/// The longest pause that a receiver may ask for.
const PAUSE_ASKED_MAX: Duration = Duration::from_hours(6);

/// The pause after failed try number `tries` (from 1), at least what the receiver asked for; none after the last one.
/// Up to a fifth longer than the table says, so that what failed together does not come back together.
pub fn pause(tries: u32, asked: Option<Duration>) -> Option<Duration> {
    let index = usize::try_from(tries.saturating_sub(1)).unwrap_or(usize::MAX);
    let pause = PAUSES.get(index)?.mul_f64(rand::random_range(1.0..=1.2));
    Some(asked.map_or(pause, |asked| asked.min(PAUSE_ASKED_MAX).max(pause)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_fill_a_day_and_end() {
        let all: Duration = PAUSES.iter().sum();
        assert!(all > Duration::from_hours(23) && all < Duration::from_hours(25), "{all:?}");
        assert!(pause(1, None).is_some_and(|pause| pause >= PAUSES[0] && pause <= PAUSES[0] * 2));
        assert!(pause(11, None).is_some());
        assert_eq!(pause(12, Some(Duration::from_secs(1))), None);
        assert_eq!(pause(u32::MAX, None), None);
    }

    #[test]
    fn a_receiver_may_ask_for_more_time_but_not_for_ever() {
        assert_eq!(pause(1, Some(Duration::from_mins(5))), Some(Duration::from_mins(5)));
        assert_eq!(pause(1, Some(Duration::from_hours(90))), Some(PAUSE_ASKED_MAX));
        assert!(pause(4, Some(Duration::from_secs(1))).is_some_and(|pause| pause >= minutes(10)));
    }
}
