//! From Google's refusal to our error: what happened, what to do about it, and Google's own words.

use serde_json::Value;

use super::{CREATE, DELETE, LIST, READ, SEND, STAT, STORE, TOKEN};
use crate::error::{Error, Kind, ProviderAnswer, Retry, covered};
use crate::http::Reply;
use crate::retry;
use crate::secret::Secret;

/// A longer text that is no JSON is a page, not a message.
const LINE_BYTES_MAX: usize = 600;

/// What was asked and of whom, for the sentence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) action: &'static str,
    pub(super) bucket: &'a str,
    pub(super) host: &'a str,
    pub(super) object: Option<&'a str>,
    pub(super) client_email: &'a str,
}

/// Google's words.
#[derive(Debug, Default)]
struct Said {
    reason: Option<String>,
    message: String,
}

/// Makes the error of an answer that is not a success.
pub(super) fn refusal(asked: Asked<'_>, reply: &Reply, secrets: &[Secret]) -> Error {
    let said = said(reply, secrets);
    let status = reply.status.as_u16();
    let (kind, sentence) = said
        .reason
        .as_deref()
        .and_then(|reason| by_reason(reason, status, asked, &said))
        .unwrap_or_else(|| by_status(status, asked, &said));
    finish(Error::new(kind, asked.action, sentence), reply, &said, secrets)
}

/// Makes the error of a token that was not issued by `host`.
///
/// # Source
/// RFC 6749, section 5.2; Google Identity, "Using OAuth 2.0 for Server to Server Applications", "JWT error codes".
pub(super) fn token_refusal(host: &str, reply: &Reply, assertion: &Secret) -> Error {
    // Whoever has the last part of it has the others too.
    let signature = assertion.expose().rsplit('.').next().unwrap_or_default();
    let secrets = [assertion.clone(), signature.into()];
    let said = said(reply, &secrets);
    let message = said.message.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let (kind, sentence) = match (reply.status.as_u16(), said.reason.as_deref()) {
        (_, Some("invalid_grant")) if has(&["timeframe", "short-lived", "too early", "expired"]) => (
            Kind::InvalidRequest,
            format!(
                "the clock of this server differs too much from the clock of {host}; set this server's clock right"
            ),
        ),
        (_, Some("invalid_grant")) if has(&["signature"]) => (
            Kind::InvalidCredentials,
            "`private_key` is not, or no longer, a key of the service account `client_email`; make a new key for it"
                .to_owned(),
        ),
        (_, Some("invalid_grant")) if has(&["account", "email"]) => (
            Kind::InvalidCredentials,
            "there is no such service account, or it is disabled; check `client_email`".to_owned(),
        ),
        (429, _) | (_, Some("rate_limit_exceeded")) => (Kind::Throttled, format!("{host} asks to slow down")),
        (408 | 500.., _) | (_, Some("temporarily_unavailable" | "internal_failure")) => {
            (Kind::Unavailable, words(format!("{host} failed"), &said))
        }
        (400 | 401 | 403, Some(_)) => (
            Kind::InvalidCredentials,
            words(
                format!("{host} gives this service account no access token; check `client_email` and `private_key`"),
                &said,
            ),
        ),
        _ => (Kind::InvalidRequest, format!("{host} does not issue access tokens; check `token_uri`")),
    };
    finish(Error::new(kind, TOKEN, sentence), reply, &said, &secrets)
}

/// The HTTP status of an error, or 0.
pub(super) fn status(error: &Error) -> u16 {
    error.answer.as_ref().and_then(|answer| answer.status).unwrap_or_default()
}

/// Whether a session is no longer open, or never was. 499 is what a session answers when, and after, it is cancelled.
///
/// # Source
/// Cloud Storage documentation, "Perform resumable uploads", "Cancel an upload", and "Resumable uploads", "Handling
/// errors".
pub(super) fn is_gone(error: &Error) -> bool {
    matches!(status(error), 404 | 410 | 499)
}

fn finish(error: Error, reply: &Reply, said: &Said, secrets: &[Secret]) -> Error {
    // The id of a request to a session may be the session's own: then it is no id to pass on.
    let is_secret = |id: &&str| secrets.iter().any(|secret| secret.expose().contains(*id));
    let mut error = error.answered(ProviderAnswer {
        status: Some(reply.status.as_u16()),
        code: said.reason.as_deref().map(|reason| covered(reason, secrets)),
        request_id: reply.header("x-guploader-uploadid").filter(|id| !is_secret(id)).map(|id| covered(id, secrets)),
    });
    if error.is_transient() {
        error.retry = Retry::Later(retry::after(&reply.headers));
    }
    error.without(secrets)
}

/// Reads an error's body: the API's form, the token endpoint's, or a line of text.
fn said(reply: &Reply, secrets: &[Secret]) -> Said {
    let fit = |text: &str| covered(text, secrets);
    let string = |value: &Value| value.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    let Ok(json) = serde_json::from_slice::<Value>(&reply.body) else {
        let kind = reply.header("content-type").unwrap_or_default();
        let text = String::from_utf8_lossy(&reply.body);
        // The service's upload path answers some faults in plain text, and calls it HTML.
        let is_line = kind.starts_with("text/") && text.len() <= LINE_BYTES_MAX && !text.contains('<');
        return Said { reason: None, message: if is_line { fit(&text) } else { String::new() } };
    };
    let error = &json["error"];
    if let Some(reason) = string(error) {
        return Said { reason: Some(reason), message: fit(json["error_description"].as_str().unwrap_or_default()) };
    }
    let first = &error["errors"][0];
    let message = string(&error["message"]).or_else(|| string(&first["message"])).unwrap_or_default();
    Said { reason: string(&first["reason"]).or_else(|| string(&error["status"])), message: fit(&message) }
}

/// # Source
/// Cloud Storage documentation, "HTTP status and error codes for JSON".
fn by_reason(reason: &str, status: u16, asked: Asked<'_>, said: &Said) -> Option<(Kind, String)> {
    let Asked { bucket, host, object, .. } = asked;
    let object = object.unwrap_or_default();
    let message = said.message.as_str();
    Some(match reason {
        "authError" | "lockedDomainExpired" => return None,
        "required" if status == 401 => return None,
        "invalid" | "badRequest" | "required" | "invalidArgument" | "INVALID_ARGUMENT"
            if message.contains("doesn't match calculated") =>
        {
            (Kind::IntegrityMismatch, "the bytes did not arrive as they were sent".to_owned())
        }
        "insufficientPermissions" | "ACCESS_TOKEN_SCOPE_INSUFFICIENT" => (
            Kind::AccessDenied,
            words("the access token of this service account does not extend to Cloud Storage".to_owned(), said),
        ),
        "retentionPolicyNotMet" | "objectUnderActiveHold" => (
            Kind::AccessDenied,
            words(
                format!(
                    "the object `{object}` may not be replaced or deleted yet: a retention policy or a hold protects \
                     it; choose another name, or wait until its time has passed"
                ),
                said,
            ),
        ),
        "rateLimitExceeded" | "userRateLimitExceeded" | "usageLimits.rateLimitExceeded" | "RESOURCE_EXHAUSTED" => {
            (Kind::Throttled, words(format!("{host} asks to slow down"), said))
        }
        "quotaExceeded" | "dailyLimitExceeded" => {
            (Kind::NoSpace, words(format!("a quota of the project of the bucket `{bucket}` is used up"), said))
        }
        "userProjectMissing" | "userProjectInvalid" | "authenticationRequiredRequesterPays" => (
            Kind::InvalidRequest,
            format!("the bucket `{bucket}` lets the requester pay, which is not supported; switch Requester Pays off"),
        ),
        "accountDisabled" | "userProjectAccountProblem" => (
            Kind::AccessDenied,
            words(format!("the project of the bucket `{bucket}`, or its billing account, is disabled"), said),
        ),
        "accessNotConfigured" | "usageLimits.accessNotConfigured" | "SERVICE_DISABLED" => (
            Kind::AccessDenied,
            "the Cloud Storage API is not switched on in the project of the service account; switch it on".to_owned(),
        ),
        "orgPolicyConstraintFailed" => {
            (Kind::AccessDenied, words("a policy of the organisation forbids this".to_owned(), said))
        }
        "sslRequired" => (Kind::InvalidRequest, format!("{host} wants TLS; let `endpoint` begin with https://")),
        "uploadTooLarge" => (Kind::TooLarge, words(format!("the object is larger than {host} takes"), said)),
        "uploadBrokenConnection" => (Kind::Unreachable, format!("the connection to {host} broke")),
        "backendError" | "internalError" | "gatewayTimeout" | "conflict" | "UNAVAILABLE" => {
            (Kind::Unavailable, words(format!("{host} failed"), said))
        }
        _ if reason.to_ascii_lowercase().starts_with("cloudkms") => {
            (Kind::InvalidRequest, words(format!("the encryption key of the bucket `{bucket}` cannot be used"), said))
        }
        _ => return None,
    })
}

fn by_status(status: u16, asked: Asked<'_>, said: &Said) -> (Kind, String) {
    let host = asked.host;
    let kind = match status {
        401 => {
            let sentence =
                format!("{host} does not accept the access token; `endpoint` and `token_uri` must belong together");
            return (Kind::InvalidCredentials, sentence);
        }
        403 => return (Kind::AccessDenied, denied(asked, said)),
        404 | 410 => return missing(asked, said),
        408 => Kind::Timeout,
        413 => Kind::TooLarge,
        429 => Kind::Throttled,
        501 => Kind::Unsupported,
        507 => Kind::NoSpace,
        425 | 500.. => Kind::Unavailable,
        300..=399 => {
            let sentence =
                format!("{host} sends this request elsewhere, and redirects are not followed; check `endpoint`");
            return (Kind::InvalidRequest, sentence);
        }
        _ => Kind::InvalidRequest,
    };
    let sentence = if !said.message.is_empty() {
        words(format!("{host} refused the request"), said)
    } else if said.reason.is_some() || !matches!(kind, Kind::InvalidRequest) {
        format!("{host} refused the request")
    } else {
        format!(
            "{host} refused the request without saying why; check that `endpoint` is a Google Cloud Storage service"
        )
    };
    (kind, sentence)
}

fn missing(Asked { bucket, host, object, action, .. }: Asked<'_>, said: &Said) -> (Kind, String) {
    let is_of_bucket = matches!(action, STORE | CREATE | LIST) || said.message.contains("bucket does not exist");
    if is_of_bucket {
        let sentence = format!("the bucket `{bucket}` does not exist at {host}; check `bucket`");
        return (Kind::ContainerNotFound, sentence);
    }
    match (action, object) {
        (STAT | READ | DELETE, Some(object)) => {
            (Kind::NotFound, format!("there is no object `{object}` in the bucket `{bucket}`"))
        }
        _ => (Kind::NotFound, "the upload is no longer open at the service".to_owned()),
    }
}

fn denied(asked: Asked<'_>, said: &Said) -> String {
    let Asked { bucket, object, action, client_email, .. } = asked;
    let is_upload = matches!(action, STORE | CREATE | SEND);
    match permission(&said.message) {
        Some("storage.objects.delete") if is_upload => format!(
            "there is an object `{}` already in the bucket `{bucket}`, and {client_email} may not replace it; grant it \
             storage.objects.delete (role Storage Object User), or choose another name",
            object.unwrap_or_default()
        ),
        Some(named) => granting(asked, named),
        None if said.message.is_empty() || said.message == "Forbidden" => granting(asked, needed(action)),
        None => words(granting(asked, needed(action)), said),
    }
}

fn granting(Asked { bucket, client_email, .. }: Asked<'_>, permission: &str) -> String {
    let role = match permission {
        "storage.objects.create" => " (role Storage Object Creator)",
        "storage.objects.get" | "storage.objects.list" => " (role Storage Object Viewer)",
        "storage.objects.delete" => " (role Storage Object User)",
        _ => "",
    };
    format!(
        "access to the bucket `{bucket}` was denied; grant {client_email} {permission}{role} on it, or check `bucket`"
    )
}

/// Finds `storage.objects.create` in Google's sentence.
fn permission(message: &str) -> Option<&str> {
    let mut words = message.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    words
        .find(|word| word.starts_with("storage.") && word.len() > "storage.".len())
        .map(|word| word.trim_end_matches('.'))
}

/// The permission that an action needs.
fn needed(action: &str) -> &'static str {
    match action {
        STAT | READ => "storage.objects.get",
        LIST => "storage.objects.list",
        DELETE => "storage.objects.delete",
        _ => "storage.objects.create",
    }
}

/// Adds the provider's own message to a sentence.
fn words(sentence: String, said: &Said) -> String {
    if said.message.is_empty() { sentence } else { format!("{sentence}: {}", said.message) }
}

#[cfg(test)]
mod tests;
