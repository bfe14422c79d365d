//! Bounds how many jobs and tasks one API key may create in a minute: a token bucket a key, in this process.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::extract::{By, asks_first, drain};
use super::state::AppState;
use crate::clock::Timestamp;
use crate::error::{ApiError, Code};
use crate::id::KeyId;

/// Buckets that are remembered; above it the fullest are forgotten, which only favours their keys.
const BUCKETS_MAX: usize = 10_000;
/// The time in which an empty bucket fills.
const WINDOW: Duration = Duration::from_mins(1);

/// The buckets.
#[derive(Debug)]
pub struct Limiter {
    per_minute: u32,
    buckets: Mutex<HashMap<KeyId, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    filled_at: Timestamp,
}

/// What a key may still do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// It may go on; so many are left.
    Left(u32),
    /// It must wait so long.
    Wait(Duration),
}

impl Limiter {
    /// Allows so many creations in a minute, at once or spread.
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute: per_minute.max(1), buckets: Mutex::default() }
    }

    /// Takes one creation from a key's bucket.
    pub fn take(&self, key: KeyId, now: Timestamp) -> Allowance {
        let full = f64::from(self.per_minute);
        let per_second = full / WINDOW.as_secs_f64();
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(&key) {
            forget_half(&mut buckets, now);
        }
        let bucket = buckets.entry(key).or_insert(Bucket { tokens: full, filled_at: now });
        let gained = now.since(bucket.filled_at).as_secs_f64() * per_second;
        let tokens = (bucket.tokens + gained).min(full);
        *bucket = Bucket { tokens, filled_at: now };
        if tokens < 1.0 {
            return Allowance::Wait(Duration::from_secs_f64((1.0 - tokens) / per_second));
        }
        bucket.tokens = tokens - 1.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it lies between 0 and a u32")]
        Allowance::Left(bucket.tokens as u32)
    }
}

/// Forgets the buckets that were used longest ago: those have filled most.
fn forget_half(buckets: &mut HashMap<KeyId, Bucket>, now: Timestamp) {
    buckets.retain(|_, bucket| now.since(bucket.filled_at) < WINDOW);
    if buckets.len() >= BUCKETS_MAX {
        let mut times: Vec<Timestamp> = buckets.values().map(|bucket| bucket.filled_at).collect();
        let middle = times.len() / 2;
        let median = *times.select_nth_unstable(middle).1;
        buckets.retain(|_, bucket| bucket.filled_at > median);
    }
}

/// Counts a creation and says in the answer what is left.
pub async fn count_creation(State(state): State<AppState>, by: By, request: Request, next: Next) -> Response {
    let (left, mut response) = match state.limiter.take(by.0.key.id, state.clock.now()) {
        Allowance::Left(left) => (left, next.run(request).await),
        Allowance::Wait(pause) => {
            if !asks_first(request.headers()) {
                drain(request.into_body()).await;
            }
            let message = "Too many jobs and tasks were created with this key; wait as long as Retry-After says.";
            (0, ApiError::new(Code::TooManyRequests, message).after(pause).into_response())
        }
    };
    let headers = response.headers_mut();
    headers.insert("x-ratelimit-limit", HeaderValue::from(state.limiter.per_minute));
    headers.insert("x-ratelimit-remaining", HeaderValue::from(left));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_bucket_empties_and_fills_by_time() {
        let (limiter, clock) = (Limiter::new(60), Clock::manual(Timestamp(1_000_000)));
        let key = KeyId::new(clock.now());
        for left in (0..60).rev() {
            assert_eq!(limiter.take(key, clock.now()), Allowance::Left(left));
        }
        assert_eq!(limiter.take(key, clock.now()), Allowance::Wait(Duration::from_secs(1)));
        assert_eq!(limiter.take(KeyId::new(clock.now()), clock.now()), Allowance::Left(59));
        clock.advance(Duration::from_secs(2));
        assert_eq!(limiter.take(key, clock.now()), Allowance::Left(1));
    }

    #[test]
    fn the_number_of_buckets_is_bounded() {
        let (limiter, clock) = (Limiter::new(60), Clock::manual(Timestamp(1_000_000)));
        for _ in 0..BUCKETS_MAX * 2 {
            limiter.take(KeyId::new(clock.now()), clock.now());
            clock.advance(Duration::from_micros(10));
        }
        assert!(limiter.buckets.lock().unwrap().len() <= BUCKETS_MAX);
    }
}
