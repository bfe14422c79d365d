//! One attempt at a delivery: the request, what its answer means, and the record of it.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use connectors::http::Body;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Request, StatusCode};
use percent_encoding::percent_decode_str;
use tokio::time::{Instant, timeout};
use url::Url;

use super::{Tools, retry, sign};
use crate::auth;
use crate::clock::Timestamp;
use crate::error::TaskError;
use crate::model::DeliveryAttempt;
use crate::store::{AttemptEnd, Parcel};

/// Time for an attempt, up to the head of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// What is read of an answer, so that its connection can be used again.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Time for that.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest error that is kept, in bytes.
const ERROR_BYTES_MAX: usize = 500;
/// What is said when the server's own key does not open a row.
const SEALED_OTHERWISE: &str =
    "The server's secret key is not the one this was stored with; its operator must restore it.";

/// What came of a request.
struct Answer {
    status: Option<StatusCode>,
    error: Option<String>,
    /// What the receiver asked for with `Retry-After`.
    pause: Option<Duration>,
}

impl Answer {
    fn failed(error: impl Into<String>) -> Self {
        Self { status: None, error: Some(error.into()), pause: None }
    }
}

/// Sends a delivery once and records how that went.
pub(super) async fn attempt(tools: &Tools, parcel: Parcel) {
    let (id, number, tries) = (parcel.id, parcel.number, parcel.tries);
    let (at, began) = (tools.clock.now(), Instant::now());
    let answer = send(tools, parcel, at).await;
    let took = began.elapsed();
    let now = tools.clock.now();
    let end = match answer.status {
        Some(StatusCode::GONE) => AttemptEnd::Gone,
        Some(status) if status.is_success() => AttemptEnd::Delivered,
        Some(_) | None => {
            retry::pause(tries, answer.pause).map_or(AttemptEnd::Failed, |pause| AttemptEnd::Again(now.plus(pause)))
        }
    };
    let outcome = match end {
        AttemptEnd::Delivered => "delivered",
        AttemptEnd::Again(_) => "retried",
        AttemptEnd::Failed => "failed",
        AttemptEnd::Gone => "gone",
    };
    tools.metrics.delivered(outcome, took);
    let status = answer.status.map(|status| status.as_u16());
    tracing::info!(delivery = %id, number, outcome, status, error = answer.error, "a webhook was sent");
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let attempt = DeliveryAttempt { number, at, status, error: answer.error.map(shortened), duration_ms };
    connectors::fail_point!("webhook.sent");
    match tools.store.end_attempt(id, attempt, end, now).await {
        Ok(true) => connectors::fail_point!("webhook.recorded"),
        Ok(false) => tracing::info!(delivery = %id, "the delivery is gone, or somebody else sends it by now"),
        Err(error) => {
            // The lease will run out, and it is sent again.
            tracing::warn!(delivery = %id, error = &error as &dyn std::error::Error, "an attempt is not recorded");
        }
    }
}

async fn send(tools: &Tools, parcel: Parcel, at: Timestamp) -> Answer {
    let request = match request(tools, &parcel, at).await {
        Ok(request) => request,
        Err(error) => return Answer::failed(error),
    };
    let sent = tools.client.send(request, "calling the webhook");
    let response = match timeout(ANSWER_TIMEOUT, sent).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Answer::failed(TaskError::from(error).message),
        Err(_) => {
            let seconds = ANSWER_TIMEOUT.as_secs();
            return Answer::failed(format!("The receiver did not answer within {seconds} s; it must answer at once."));
        }
    };
    let status = response.status();
    let pause = connectors::retry::after(response.headers());
    // The status says it all; what follows is only read so that the connection can be kept.
    let _ = timeout(DRAIN_TIMEOUT, response.into_body().bytes(ANSWER_BYTES_MAX)).await;
    Answer { status: Some(status), error: complaint(status), pause }
}

/// What is wrong with a status that is no success.
fn complaint(status: StatusCode) -> Option<String> {
    let code = status.as_u16();
    if status.is_success() {
        None
    } else if status == StatusCode::GONE {
        Some("The receiver answered 410: it is gone, and told nothing more.".to_owned())
    } else if status.is_redirection() {
        Some(format!("The receiver answered {code}; redirects are not followed, give the address that it leads to."))
    } else {
        Some(format!("The receiver answered {code}; it must answer with 2xx."))
    }
}

async fn request(tools: &Tools, parcel: &Parcel, at: Timestamp) -> Result<Request<Body>, String> {
    let open = |sealed: &[u8]| tools.vault.open(sealed).map_err(|_| SEALED_OTHERWISE.to_owned());
    let url = String::from_utf8(open(&parcel.url)?).map_err(|_| "The address cannot be used.")?;
    let body = open(&parcel.body)?;
    let secret = match &parcel.secret {
        Some(sealed) => open(sealed)?,
        None => open(&own_secret(tools, parcel, at).await?)?,
    };
    let secret = String::from_utf8(secret).map_err(|_| SEALED_OTHERWISE)?;
    let (target, login) = target(&url).ok_or("The address cannot be used.")?;
    let mut request = Request::post(target)
        .header(CONTENT_TYPE, "application/json")
        .header(USER_AGENT, concat!("consign/", env!("CARGO_PKG_VERSION")))
        .header("CloudConvert-Signature", sign::compatible(&secret, &body))
        .header("webhook-id", parcel.id.to_string())
        .header("webhook-timestamp", at.unix_seconds().to_string())
        .header("webhook-signature", sign::standard(&secret, parcel.id, at, &body));
    if let Some(login) = login {
        request = request.header(AUTHORIZATION, login);
    }
    request.body(body.into()).map_err(|_| "The address cannot be used.".to_owned())
}

/// The sealed secret of the webhooks that a user's jobs bring with them, made when it is first needed.
async fn own_secret(tools: &Tools, parcel: &Parcel, at: Timestamp) -> Result<Vec<u8>, String> {
    let fresh = tools.vault.seal(auth::new_signing_secret().as_bytes());
    tools.store.webhook_secret(parcel.receiver.user_id, &fresh, at).await.map_err(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "the secret of a user's webhooks cannot be read");
        "The server's database did not answer; it tries again.".to_owned()
    })
}

/// The address without user info and fragment, and the user info as basic authentication.
fn target(url: &str) -> Option<(String, Option<HeaderValue>)> {
    let mut url = Url::parse(url).ok()?;
    let mut login = None;
    if !url.username().is_empty() || url.password().is_some() {
        let mut plain: Vec<u8> = percent_decode_str(url.username()).collect();
        plain.push(b':');
        plain.extend(percent_decode_str(url.password().unwrap_or_default()));
        let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(plain))).ok()?;
        value.set_sensitive(true);
        login = Some(value);
        url.set_username("").ok()?;
        url.set_password(None).ok()?;
    }
    url.set_fragment(None);
    Some((url.into(), login))
}

fn shortened(mut text: String) -> String {
    if text.len() > ERROR_BYTES_MAX {
        text.truncate(text.floor_char_boundary(ERROR_BYTES_MAX));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_info_becomes_a_login_and_the_rest_stays() {
        let (url, login) = target("https://ann:p%40ss@hook.example.test:8443/a?b=c#d").unwrap();
        assert_eq!(url, "https://hook.example.test:8443/a?b=c");
        assert_eq!(login.unwrap().to_str().unwrap(), "Basic YW5uOnBAc3M=");
        assert_eq!(target("http://hook.example.test/a").unwrap(), ("http://hook.example.test/a".to_owned(), None));
    }

    #[test]
    fn only_2xx_is_no_complaint() {
        assert_eq!(complaint(StatusCode::NO_CONTENT), None);
        for status in [302, 400, 410, 500] {
            assert!(complaint(StatusCode::from_u16(status).unwrap()).unwrap().contains(&status.to_string()));
        }
    }
}
