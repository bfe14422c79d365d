//! Trying a request again: how often, after how long.

use std::future::Future;
use std::time::Duration;

use rand::Rng as _;

use crate::error::{Error, Result, Retry};

/// The first pause. 200 ms: long enough for a dropped connection to be replaced, short enough to go unnoticed.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
/// The longest pause of our own; a provider's `Retry-After` may ask for more, up to [`PAUSE_ASKED_MAX`].
const PAUSE_MAX: Duration = Duration::from_secs(20);
/// The longest `Retry-After` that is waited for inside a transfer.
const PAUSE_ASKED_MAX: Duration = Duration::from_mins(2);

/// The pause before try number `next` (the first repetition is 2): exponential with full jitter, but never less than
/// what the provider asked for.
pub fn pause(next: u32, asked: Option<Duration>) -> Duration {
    let doubled = PAUSE_FIRST.saturating_mul(1_u32.checked_shl(next.saturating_sub(2)).unwrap_or(u32::MAX));
    let jittered = doubled.min(PAUSE_MAX).mul_f64(rand::rng().random_range(0.5..=1.0));
    asked.map_or(jittered, |asked| asked.min(PAUSE_ASKED_MAX).max(jittered))
}

/// Calls `attempt` up to `tries` times, as long as its error is transient.
///
/// # Errors
/// The last error.
pub async fn request<T, F>(tries: u32, mut attempt: impl FnMut(u32) -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut number = 1;
    loop {
        let error: Error = match attempt(number).await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let Retry::Later(asked) = error.retry else { return Err(error) };
        if number >= tries {
            return Err(error);
        }
        number += 1;
        let wait = pause(number, asked);
        tracing::debug!(error = %error, wait_ms = wait.as_millis(), "request is tried again");
        tokio::time::sleep(wait).await;
    }
}
