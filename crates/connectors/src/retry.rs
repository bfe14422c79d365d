//! Trying a request again: how often, after how long.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName};
use rand::Rng as _;
use tracing::Instrument as _;

use crate::clock;
use crate::error::{Error, Kind, Result, Retry};
use crate::http::header;

/// The first pause. 200 ms: long enough for a dropped connection to be replaced, short enough to go unnoticed.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
/// The longest pause of our own; a provider's `Retry-After` may ask for more, up to [`PAUSE_ASKED_MAX`].
const PAUSE_MAX: Duration = Duration::from_secs(20);
/// The longest `Retry-After` that is waited for inside a transfer.
const PAUSE_ASKED_MAX: Duration = Duration::from_mins(2);

/// Is told why something is tried again.
pub type Watch = Arc<dyn Fn(Kind) + Send + Sync>;

tokio::task_local! {
    static WATCH: Watch;
}

/// Tells `watch` of every repetition inside `work`, after whoever watches already.
pub async fn watched<T>(watch: Watch, work: impl Future<Output = T>) -> T {
    let watch: Watch = match WATCH.try_with(Arc::clone) {
        Ok(outer) => Arc::new(move |kind: Kind| {
            outer(kind);
            watch(kind);
        }),
        Err(_) => watch,
    };
    WATCH.scope(watch, work).await
}

/// Work that goes on in a task of its own, and still belongs to what began it: to its watch and its span.
pub(crate) fn carried<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let watch = WATCH.try_with(Arc::clone).ok();
    async move {
        match watch {
            Some(watch) => WATCH.scope(watch, work).await,
            None => work.await,
        }
    }
    .in_current_span()
}

/// Says that something is tried again because of an error of this kind.
pub(crate) fn note(kind: Kind) {
    // Nobody has to watch.
    let _ = WATCH.try_with(|watch| watch(kind));
}

/// The pause before try number `next` (the first repetition is 2): exponential with full jitter, but never less than
/// what the provider asked for.
pub fn pause(next: u32, asked: Option<Duration>) -> Duration {
    let doubled = PAUSE_FIRST.saturating_mul(1_u32.checked_shl(next.saturating_sub(2)).unwrap_or(u32::MAX));
    let jittered = doubled.min(PAUSE_MAX).mul_f64(rand::rng().random_range(0.5..=1.0));
    asked.map_or(jittered, |asked| asked.min(PAUSE_ASKED_MAX).max(jittered))
}

/// The pause that an answer asks for with `Retry-After`: in seconds, or up to a date of the other side's own clock, where
/// it shows that clock.
///
/// # Source
/// RFC 9110, 10.2.3.
pub fn after(headers: &HeaderMap) -> Option<Duration> {
    if let Some(seconds) = header(headers, RETRY_AFTER.as_str()).and_then(|text| text.trim().parse().ok()) {
        return Some(Duration::from_secs(seconds));
    }
    let now = date(headers, &DATE).unwrap_or_else(clock::now);
    date(headers, &RETRY_AFTER)?.duration_since(now).ok()
}

/// The date in a header.
pub(crate) fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(header(headers, name.as_str())?).ok()
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
        note(error.kind);
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_watches_is_told_of_each_repetition_and_its_reason() {
        let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
        let told = Arc::clone(&seen);
        let watch: Watch = Arc::new(move |kind| told.lock().unwrap().push(kind));
        let fails = |kind| async move { Err::<(), _>(Error::new(kind, "trying", "it did not work")) };
        let inner = async {
            let _ = request(3, |_| fails(Kind::Throttled)).await;
            let apart = carried(async move { request(2, |_| fails(Kind::Timeout)).await });
            let _ = tokio::spawn(apart).await.unwrap();
            let _ = request(3, |_| fails(Kind::NotFound)).await;
        };
        watched(Arc::clone(&watch), inner).await;
        assert_eq!(*seen.lock().unwrap(), [Kind::Throttled, Kind::Throttled, Kind::Timeout]);
        seen.lock().unwrap().clear();
        let inner = watched(Arc::clone(&watch), async { request(2, |_| fails(Kind::Timeout)).await });
        let _ = watched(watch, inner).await;
        assert_eq!(*seen.lock().unwrap(), [Kind::Timeout; 2], "one inside another, and each is told");
        let _ = request(2, |_| fails(Kind::Throttled)).await;
        assert_eq!(seen.lock().unwrap().len(), 2, "what is not watched is not told");
    }

    fn asked(fields: &[(&'static str, &str)]) -> Option<Duration> {
        after(&fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect())
    }

    #[test]
    fn a_pause_is_asked_for_in_seconds_or_up_to_a_date() {
        assert_eq!(asked(&[("retry-after", " 120 ")]), Some(Duration::from_mins(2)));
        // The other side's clock counts, where it is shown.
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(asked(&[date, ("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")]), Some(Duration::from_secs(10)));
        let later = httpdate::fmt_http_date(clock::now() + Duration::from_mins(1));
        let pause = asked(&[("retry-after", &later)]).unwrap();
        assert!((50..=60).contains(&pause.as_secs()), "{pause:?}");
        for none in ["soon", "-1", "", "Sun, 06 Nov 1994 08:49:27 GMT"] {
            assert_eq!(asked(&[date, ("retry-after", none)]), None, "{none}");
        }
        assert_eq!(asked(&[("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")]), None, "it is over");
        assert_eq!(asked(&[]), None);
    }
}
