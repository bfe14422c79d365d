//! Refusals as Google writes them, and what becomes of them.

use std::time::Duration;

use super::*;

fn asked(action: &'static str) -> Asked<'static> {
    let (bucket, host, client_email) = ("bkt", "gcs.example", "me@project");
    Asked { action, bucket, host, object: Some("k"), client_email }
}

fn error(action: &'static str, status: u16, reason: &str, message: &str) -> Error {
    let first = serde_json::json!({"domain": "global", "reason": reason, "message": message});
    let body = serde_json::json!({"error": {"code": status, "message": message, "errors": [first]}}).to_string();
    refusal(asked(action), &Reply::of(status, &[("x-guploader-uploadid", "R1")], body), &[])
}

#[test]
fn every_reason_has_its_kind() {
    let mismatch = "Provided CRC32C \"AAAAAA==\" doesn't match calculated CRC32C \"Zn6Cvg==\".";
    for (action, status, reason, message, kind) in [
        (STORE, 400, "invalid", mismatch, Kind::IntegrityMismatch),
        (STORE, 400, "invalid", "Invalid bucket name", Kind::InvalidRequest),
        (STORE, 400, "userProjectMissing", "", Kind::InvalidRequest),
        (STAT, 401, "authError", "Invalid Credentials", Kind::InvalidCredentials),
        (STAT, 401, "required", "Login Required.", Kind::InvalidCredentials),
        (STORE, 403, "forbidden", "", Kind::AccessDenied),
        (STORE, 403, "insufficientPermissions", "", Kind::AccessDenied),
        (STORE, 403, "retentionPolicyNotMet", "", Kind::AccessDenied),
        (STORE, 403, "objectUnderActiveHold", "", Kind::AccessDenied),
        (STORE, 403, "accountDisabled", "", Kind::AccessDenied),
        (STORE, 403, "usageLimits.accessNotConfigured", "", Kind::AccessDenied),
        (STORE, 403, "rateLimitExceeded", "", Kind::Throttled),
        (STORE, 403, "userRateLimitExceeded", "", Kind::Throttled),
        (STORE, 403, "quotaExceeded", "", Kind::NoSpace),
        (STORE, 403, "sslRequired", "", Kind::InvalidRequest),
        (STORE, 404, "notFound", "The specified bucket does not exist.", Kind::ContainerNotFound),
        (STAT, 404, "notFound", "The specified bucket does not exist.", Kind::ContainerNotFound),
        (STAT, 404, "notFound", "No such object: bkt/k", Kind::NotFound),
        (SEND, 404, "notFound", "", Kind::NotFound),
        (LIST, 404, "notFound", "", Kind::ContainerNotFound),
        (STORE, 412, "conditionNotMet", "", Kind::InvalidRequest),
        (STORE, 412, "orgPolicyConstraintFailed", "", Kind::AccessDenied),
        (STORE, 413, "uploadTooLarge", "", Kind::TooLarge),
        (STORE, 429, "rateLimitExceeded", "", Kind::Throttled),
        (STORE, 429, "unheard", "", Kind::Throttled),
        (STORE, 400, "CloudKmsDisabledKey", "", Kind::InvalidRequest),
        (STORE, 503, "backendError", "", Kind::Unavailable),
        (STORE, 500, "unheard", "", Kind::Unavailable),
    ] {
        let error = error(action, status, reason, message);
        assert_eq!(error.kind, kind, "{reason}: {error}");
        assert!(error.to_string().ends_with(&format!("status {status}, code {reason}, request R1)")), "{error}");
    }
}

#[test]
fn the_missing_permission_is_named() {
    let said = |right: &str| format!("me@project does not have {right} access to the Google Cloud Storage object.");
    let create = error(STORE, 403, "forbidden", &said("storage.objects.create"));
    assert!(
        create.detail.contains("grant me@project storage.objects.create (role Storage Object Creator)"),
        "{create}"
    );
    let replace = error(SEND, 403, "forbidden", &said("storage.objects.delete"));
    assert!(replace.detail.contains("an object `k` already") && replace.detail.contains("Object User"), "{replace}");
    let get = error(READ, 403, "forbidden", "Forbidden");
    assert!(get.detail.contains("storage.objects.get (role Storage Object Viewer)"), "{get}");
    let other = error(STORE, 403, "forbidden", "The billing account is closed.");
    assert!(other.detail.ends_with(": The billing account is closed"), "{other}");
}

#[test]
fn an_answer_that_says_nothing_still_makes_a_sentence() {
    for (kind, body) in [("text/html", "<html>Bad</html>"), ("application/xml", "<Error/>"), ("application/json", "[]")]
    {
        let error = refusal(asked(STORE), &Reply::of(400, &[("content-type", kind)], body), &[]);
        assert!(error.detail.contains("check that `endpoint` is a Google Cloud Storage service"), "{error}");
    }
    let line =
        refusal(asked(SEND), &Reply::of(400, &[("content-type", "text/html; charset=utf-8")], "Bad offset.\n"), &[]);
    assert_eq!(line.detail, "gcs.example refused the request: Bad offset");
    let pause = refusal(asked(SEND), &Reply::of(503, &[("retry-after", "7")], ""), &[]);
    assert_eq!(pause.retry, Retry::Later(Some(Duration::from_secs(7))));
}

/// Also where the message is cut in the middle of it, and where the id of the request is the session's.
#[test]
fn what_is_secret_is_not_repeated() {
    let session = format!("https://gcs.example/upload?upload_id={}", "s".repeat(400));
    let secrets = [session.as_str().into(), "s".repeat(400).into()];
    let body = format!("{{\"error\": {{\"message\": \"no such upload: {session}\"}}}}");
    let id = "s".repeat(400);
    let error = refusal(asked(SEND), &Reply::of(400, &[("x-guploader-uploadid", &id)], body), &secrets);
    assert!(!format!("{error:?}").contains("sss"), "{error:?}");
    assert_eq!(error.answer.unwrap().request_id, None);

    let assertion = Secret::from(format!("{}.{}", "a".repeat(400), "b".repeat(400)));
    let body = format!("{{\"error\": \"invalid_grant\", \"error_description\": \"Bad: {}\"}}", assertion.expose());
    let error = token_refusal("oauth", &Reply::of(400, &[], body), &assertion);
    assert!(!error.detail.contains("aaa") && !error.detail.contains("bbb"), "{error}");
}

#[test]
fn refused_tokens_say_what_to_check() {
    let error = |status: u16, code: &str, description: &str| {
        let body = serde_json::json!({"error": code, "error_description": description}).to_string();
        token_refusal("oauth", &Reply::of(status, &[], body), &Secret::from("x.y"))
    };
    for (status, code, description, kind, expected) in [
        (400, "invalid_grant", "Invalid JWT Signature.", Kind::InvalidCredentials, "`private_key` is not"),
        (400, "invalid_grant", "Invalid grant: account not found", Kind::InvalidCredentials, "check `client_email`"),
        (400, "invalid_grant", "Token must be … in a reasonable timeframe.", Kind::InvalidRequest, "the clock"),
        (401, "invalid_client", "disabled", Kind::InvalidCredentials, "disabled"),
        (429, "", "", Kind::Throttled, "slow down"),
        (503, "", "", Kind::Unavailable, "failed"),
        (404, "", "", Kind::InvalidRequest, "check `token_uri`"),
    ] {
        let error = error(status, code, description);
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.detail.contains(expected), "{error}");
    }
}
