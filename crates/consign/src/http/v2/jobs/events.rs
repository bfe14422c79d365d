//! `GET /v2/jobs/{id}/events`: what happened to a job and its tasks, and what happens, as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::time::{Instant, timeout_at};

use crate::auth;
use crate::error::{ApiError, ApiResult, Code};
use crate::http::AppState;
use crate::http::body::{View, no_content};
use crate::http::extract::{By, Id, Query, admit, bearer};
use crate::http::live::{Event, EventId, JobFollower, Seat};
use crate::id::JobId;
use crate::model::Scope;

/// How long clients should wait before they connect again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Answers with a stream that ends after the end of the job. With `Last-Event-ID`, as clients send it that lost their
/// connection, or `last_event_id` in the query, it goes on after that event; after the last one there is nothing: 204,
/// at which clients stop connecting again.
///
/// # Errors
/// `NOT_FOUND`, `UNAVAILABLE`.
pub async fn handler(
    State(state): State<AppState>,
    By(caller): By,
    view: View,
    Id(id): Id<JobId>,
    query: Query,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let unauthenticated = || ApiError::new(Code::Unauthenticated, "Unauthenticated.");
    let key_hash = auth::hash(bearer(&headers).ok_or_else(unauthenticated)?);
    let seat = state.live.stream()?;
    let header = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    // What is no id of ours cannot have been the last one: then everything is told.
    let after: Option<EventId> = header.or_else(|| query.get("last_event_id")).and_then(|text| text.parse().ok());
    let mut follower = JobFollower::of_log(&state, caller.id(), id, after).await?;
    let first = follower.next().await?;
    if after.is_some_and(|after| first.last().is_some_and(|event| event.is_end_of_job() && event.id == Some(after))) {
        return Ok(no_content());
    }
    let periods = state.live.periods;
    let check_at = Instant::now() + periods.key_check;
    let telling = Telling { state, view, key_hash, check_at, follower, queue: first.into(), seat };
    let hello = stream::iter([Ok::<_, Infallible>(Sent::default().retry(RETRY_AFTER))]);
    let told = stream::unfold(telling, async |mut telling| {
        let event = telling.next().await?;
        Some((Ok(event), telling))
    });
    let stream = futures_util::StreamExt::chain(hello, told);
    let mut response = Sse::new(stream).keep_alive(KeepAlive::new().interval(periods.keep_alive)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    // Proxies that collect answers before they pass them on would hold events back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// A stream that is being told.
struct Telling {
    state: AppState,
    view: View,
    key_hash: [u8; 32],
    check_at: Instant,
    follower: JobFollower,
    queue: VecDeque<Event>,
    #[expect(dead_code, reason = "it is free again when the stream is dropped")]
    seat: Seat,
}

impl Telling {
    /// The next event; nothing when the job has ended or is gone, the key holds no more, or the server stops.
    async fn next(&mut self) -> Option<Sent> {
        while self.queue.is_empty() {
            let news = tokio::select! {
                news = timeout_at(self.check_at, self.follower.next()) => news,
                () = self.state.stopping.cancelled() => return None,
            };
            match news {
                Ok(Ok(events)) if events.is_empty() => return None,
                Ok(Ok(events)) => self.queue = events.into(),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a stream of events ends");
                    return None;
                }
                Err(_) => {
                    admit(&self.state, &self.key_hash, Scope::TaskRead).await.ok()?;
                    self.check_at = Instant::now() + self.state.live.periods.key_check;
                }
            }
        }
        let event = self.queue.pop_front()?;
        let sent = Sent::default().event(event.name).data(event.data(&self.view));
        Some(match event.id {
            Some(id) => sent.id(id.to_string()),
            None => sent,
        })
    }
}
