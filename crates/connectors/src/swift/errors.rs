//! From a refusal of Keystone or Swift to our error: what happened, what to do about it, and their own words.

use serde::Deserialize;

use super::{DELETE, FIND_PROJECT, LIST, PREPARE, READ, READ_MANIFEST, REMOVE_SEGMENTS, STAT, STAT_CONTAINER};
use crate::error::{Error, Kind, ProviderAnswer, Retry, covered};
use crate::http::Reply;
use crate::retry;
use crate::secret::Secret;

/// Swift's own status for too many requests, from before 429 was common.
///
/// # Source
/// Swift, `ratelimit` middleware.
const RATE_LIMITED: u16 = 498;
/// Swift's own status for a client that stopped sending.
const CLIENT_DISCONNECT: u16 = 499;

/// What was asked and of whom, for the sentence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) action: &'static str,
    pub(super) container: &'a str,
    pub(super) object: Option<&'a str>,
    pub(super) host: &'a str,
}

/// Keystone's error, in both versions of the API.
#[derive(Debug, Default, Deserialize)]
struct Said {
    error: Words,
}

#[derive(Debug, Default, Deserialize)]
struct Words {
    title: Option<String>,
    message: Option<String>,
}

/// The HTTP status of an error, or 0.
pub(super) fn status(error: &Error) -> u16 {
    error.answer.as_ref().and_then(|answer| answer.status).unwrap_or_default()
}

/// Makes the error of an answer of Keystone that is not a success.
pub(super) fn of_keystone(
    action: &'static str,
    host: &str,
    is_project_named: bool,
    reply: &Reply,
    secrets: &[Secret],
) -> Error {
    let Words { title, message } = serde_json::from_slice::<Said>(&reply.body).unwrap_or_default().error;
    let message = message.map(|message| covered(&message, secrets)).filter(|message| !message.is_empty());
    let (kind, sentence) = match reply.status.as_u16() {
        300..=399 => (Kind::InvalidRequest, elsewhere("auth_url", host, reply)),
        401 if reply.headers.contains_key("openstack-auth-receipt") => (
            Kind::InvalidCredentials,
            format!("{host} asks for a second factor, which a server has not; use an application credential"),
        ),
        401 if action == FIND_PROJECT => (Kind::AccessDenied, format!("the user may use no project at {host}")),
        401 if is_project_named => (
            Kind::InvalidCredentials,
            format!(
                "{host} refused the log-in; check `username` and `password` (or the application credential), \
                 `user_domain_name`, and that the user has a role on the project"
            ),
        ),
        401 => (
            Kind::InvalidCredentials,
            format!(
                "{host} refused the log-in; check `username`, `password` and `user_domain_name`, or the application credential"
            ),
        ),
        403 => (Kind::AccessDenied, with(format!("{host} does not let this user log in"), message)),
        404 | 410 => (Kind::InvalidRequest, format!("there is no Keystone at {host}; check `auth_url`")),
        408 => (Kind::Timeout, format!("{host} waited too long for the request")),
        413 | 429 | RATE_LIMITED => (Kind::Throttled, format!("{host} asks to slow down")),
        500.. => (Kind::Unavailable, format!("Keystone at {host} failed")),
        _ if message.is_none() => {
            let sentence = format!("{host} refused the log-in without saying why; check that `auth_url` is a Keystone");
            (Kind::InvalidRequest, sentence)
        }
        _ => (Kind::InvalidRequest, with(format!("{host} refused the log-in"), message)),
    };
    finish(Error::new(kind, action, sentence), reply, title.as_deref(), secrets)
}

/// Makes the error of an answer of Swift that is not a success.
pub(super) fn of_swift(asked: Asked<'_>, reply: &Reply, secrets: &[Secret]) -> Error {
    let Asked { action, container, host, .. } = asked;
    let message = Some(covered(&text_of(&reply.body), secrets)).filter(|message| !message.is_empty());
    let (kind, sentence) = match reply.status.as_u16() {
        300..=399 => (Kind::Protocol, elsewhere("region", host, reply)),
        401 => (Kind::InvalidCredentials, format!("{host} refuses the token that Keystone has just given")),
        403 => (Kind::AccessDenied, denied(asked)),
        404 | 410 => missing(asked),
        408 | CLIENT_DISCONNECT => (Kind::Timeout, format!("{host} waited too long for the bytes")),
        411 => (Kind::Protocol, format!("{host} asks for a length, which was sent; is there a proxy in between?")),
        413 if message.as_deref().is_some_and(|text| text.to_ascii_lowercase().contains("quota")) => (
            Kind::NoSpace,
            format!("a quota of the container `{container}` or its account is used up; make room, or have it raised"),
        ),
        413 => (Kind::TooLarge, with(format!("the object is larger than {host} takes"), message)),
        416 => (Kind::InvalidRequest, "the object is shorter than what was asked for".to_owned()),
        422 => (Kind::IntegrityMismatch, "the bytes did not arrive as they were sent".to_owned()),
        429 | RATE_LIMITED => (Kind::Throttled, format!("{host} asks to slow down")),
        501 | 405 => (Kind::Unsupported, with(format!("{host} cannot do this"), message)),
        507 => (Kind::NoSpace, format!("{host} has no space left")),
        200..=299 | 409 | 425 | 500.. => (Kind::Unavailable, with(format!("{host} failed"), message)),
        _ => (Kind::InvalidRequest, with(format!("{host} refused the request"), message)),
    };
    finish(Error::new(kind, action, sentence), reply, None, secrets)
}

/// Adds the status, the id of the request, and the pause that was asked for, and covers what may be repeated.
fn finish(error: Error, reply: &Reply, code: Option<&str>, secrets: &[Secret]) -> Error {
    let fit = |text: &str| Some(covered(text, secrets)).filter(|text| !text.is_empty());
    let request_id = reply.header("x-openstack-request-id").or_else(|| reply.header("x-trans-id"));
    let mut error = error.answered(ProviderAnswer {
        status: Some(reply.status.as_u16()),
        code: code.and_then(fit),
        request_id: request_id.and_then(fit),
    });
    if error.is_transient() {
        error.retry = Retry::Later(retry::after(&reply.headers));
    }
    error.without(secrets)
}

fn denied(Asked { action, container, .. }: Asked<'_>) -> String {
    let needs = match action {
        STAT | READ | READ_MANIFEST | LIST | STAT_CONTAINER => "read from",
        DELETE | REMOVE_SEGMENTS => "delete from",
        PREPARE => "make",
        _ => "write to",
    };
    format!(
        "access to the container `{container}` was denied; give the user a role that may {needs} it (mostly `member`), or \
         an entry in the container's access list"
    )
}

fn missing(Asked { action, container, object, host }: Asked<'_>) -> (Kind, String) {
    match object {
        Some(object) if matches!(action, STAT | READ | READ_MANIFEST | DELETE | REMOVE_SEGMENTS) => {
            (Kind::NotFound, format!("there is no object `{object}` in the container `{container}`"))
        }
        Some(_) | None => (
            Kind::ContainerNotFound,
            format!(
                "the container `{container}` does not exist at {host}; check `container`, `region` and the project"
            ),
        ),
    }
}

fn elsewhere(argument: &str, host: &str, reply: &Reply) -> String {
    let host_of = |text: &str| Some(url::Url::parse(text).ok()?.origin().ascii_serialization());
    match reply.header("location").and_then(host_of) {
        Some(origin) => format!("{host} sends elsewhere, to {origin}; check `{argument}`"),
        None => format!("{host} sends elsewhere; check `{argument}`"),
    }
}

/// Adds the other side's own message to a sentence.
fn with(sentence: String, message: Option<String>) -> String {
    match message {
        Some(message) => format!("{sentence}: {message}"),
        None => sentence,
    }
}

/// The words of a body: Swift answers with small pages of HTML, or with plain text.
fn text_of(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let mut words = String::new();
    let mut in_tag = false;
    for c in text.chars() {
        match c {
            '<' => in_tag = true,
            '>' if in_tag => {
                in_tag = false;
                words.push(' ');
            }
            _ if in_tag => {}
            c => words.push(c),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::swift::{LOG_IN, STORE};

    fn swift(action: &'static str, status: u16, body: &str) -> Error {
        let asked = Asked { action, container: "c", object: Some("o"), host: "swift.example" };
        let headers = [("x-trans-id", "tx1"), ("retry-after", "7"), ("x-openstack-request-id", "req-1")];
        of_swift(asked, &Reply::of(status, &headers, body.to_owned()), &[])
    }

    #[test]
    fn every_refusal_of_swift_has_its_kind() {
        for (status, body, kind) in [
            (401, "", Kind::InvalidCredentials),
            (403, "", Kind::AccessDenied),
            (404, "", Kind::ContainerNotFound),
            (408, "", Kind::Timeout),
            (411, "", Kind::Protocol),
            (413, "<h1>Too Large</h1>", Kind::TooLarge),
            (413, "Upload exceeds quota.", Kind::NoSpace),
            (422, "", Kind::IntegrityMismatch),
            (429, "", Kind::Throttled),
            (498, "", Kind::Throttled),
            (499, "", Kind::Timeout),
            (501, "", Kind::Unsupported),
            (503, "", Kind::Unavailable),
            (507, "", Kind::NoSpace),
            (409, "", Kind::Unavailable),
            (400, "", Kind::InvalidRequest),
            (302, "", Kind::Protocol),
        ] {
            let error = swift(STORE, status, body);
            assert_eq!(error.kind, kind, "{status}");
            assert_eq!(error.answer.as_ref().unwrap().request_id.as_deref(), Some("req-1"));
            let pause = if error.is_transient() { Retry::Later(Some(Duration::from_secs(7))) } else { Retry::Never };
            assert_eq!(error.retry, pause, "{status}");
        }
        assert_eq!(swift(STAT, 404, "").kind, Kind::NotFound);
    }

    #[test]
    fn a_page_of_html_becomes_a_sentence() {
        let page = "<html><h1>Bad Request</h1><p>Metadata name\r\ntoo long.</p></html>";
        assert_eq!(
            swift(STORE, 400, page).detail,
            "swift.example refused the request: Bad Request Metadata name too long"
        );
        assert!(swift(STORE, 400, &"x".repeat(5000)).detail.len() < 400);
    }

    #[test]
    fn every_refusal_of_keystone_says_what_to_check() {
        let keystone = |status, extra: &[(&str, &str)], named, body: &str| {
            of_keystone(LOG_IN, "k.example", named, &Reply::of(status, extra, body.to_owned()), &[])
        };
        let body =
            r#"{"error": {"code": 401, "title": "Unauthorized", "message": "The request requires authentication."}}"#;
        let error = keystone(401, &[("x-openstack-request-id", "req-2")], false, body);
        assert_eq!((error.kind, error.retry), (Kind::InvalidCredentials, Retry::Never));
        let answer = error.answer.unwrap();
        assert_eq!((answer.code.as_deref(), answer.request_id.as_deref()), (Some("Unauthorized"), Some("req-2")));
        assert!(keystone(401, &[], true, body).detail.contains("role on the project"));
        assert!(
            keystone(401, &[("openstack-auth-receipt", "r")], false, body).detail.contains("application credential")
        );
        let moved = keystone(301, &[("location", "https://k2.example/v3?token=x")], false, "");
        assert!(moved.detail.ends_with("to https://k2.example; check `auth_url`"), "{}", moved.detail);
        assert_eq!(keystone(503, &[], false, "").kind, Kind::Unavailable);
        assert_eq!(keystone(429, &[], false, "").kind, Kind::Throttled);
        let refused = keystone(400, &[], false, r#"{"error": {"message": "Expecting to find domain in user."}}"#);
        assert!(refused.detail.ends_with("refused the log-in: Expecting to find domain in user"), "{}", refused.detail);
    }
}
