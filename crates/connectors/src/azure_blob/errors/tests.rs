//! The table of refusals, without a server.

use std::time::Duration;

use super::*;
use crate::azure_blob::Config;
use crate::secret::Secret;

fn credentials(sas: Option<&str>) -> Credentials {
    let key = sas.is_none().then(|| Secret::new("AAAA"));
    let config = Config { account: "acct".to_owned(), key, sas: sas.map(Secret::from), ..Config::default() };
    Credentials::new(&config).unwrap()
}

fn error(status: u16, sas: Option<&str>, headers: &[(&str, &str)], body: &str) -> Error {
    let credentials = &credentials(sas);
    let asked =
        Asked { action: super::super::STORE, container: "box", host: "b.example", name: Some("n"), credentials };
    refusal(asked, &Reply::of(status, headers, body.to_owned()), &[])
}

fn coded(status: u16, sas: Option<&str>, code: &str, detail: &str) -> Error {
    let body = format!(
        "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>Words of the service.\nRequestId:R\nTime:T</Message>\
         <AuthenticationErrorDetail>{detail}</AuthenticationErrorDetail></Error>"
    );
    error(status, sas, &[], &body)
}

#[test]
fn kinds_follow_code_before_status() {
    for (status, code, kind) in [
        (404, "ContainerNotFound", Kind::ContainerNotFound),
        (404, "ResourceNotFound", Kind::ContainerNotFound),
        (404, "BlobNotFound", Kind::NotFound),
        (403, "AuthenticationFailed", Kind::InvalidCredentials),
        (403, "KeyBasedAuthenticationNotPermitted", Kind::InvalidCredentials),
        (403, "AuthorizationFailure", Kind::AccessDenied),
        (403, "AuthorizationSourceIPMismatch", Kind::AccessDenied),
        (403, "AccountIsDisabled", Kind::AccessDenied),
        (412, "LeaseIdMissing", Kind::AccessDenied),
        (409, "BlobImmutableDueToPolicy", Kind::AccessDenied),
        (409, "InvalidBlobType", Kind::AccessDenied),
        (400, "Md5Mismatch", Kind::IntegrityMismatch),
        (400, "InvalidBlockList", Kind::NotFound),
        (400, "InvalidResourceName", Kind::InvalidRequest),
        (400, "InvalidMetadata", Kind::InvalidRequest),
        (413, "RequestBodyTooLarge", Kind::TooLarge),
        (503, "ServerBusy", Kind::Throttled),
        (500, "OperationTimedOut", Kind::Timeout),
        (500, "Unheard", Kind::Unavailable),
        (403, "Unheard", Kind::AccessDenied),
        (409, "Unheard", Kind::InvalidRequest),
    ] {
        let error = coded(status, None, code, "");
        assert_eq!(error.kind, kind, "{code}");
        assert_eq!(error.answer.unwrap().code.as_deref(), Some(code));
        assert!(!error.detail.contains("RequestId"), "{}", error.detail);
    }
}

/// Answers to HEAD have no body.
#[test]
fn the_code_in_the_head_is_enough() {
    let error = error(404, None, &[("x-ms-error-code", "BlobNotFound"), ("x-ms-request-id", "R1")], "");
    assert_eq!((error.kind, error.detail.as_str()), (Kind::NotFound, "there is no blob `n` in the container `box`"));
    assert_eq!(error.answer.unwrap().request_id.as_deref(), Some("R1"));
}

#[test]
fn what_a_token_lacks_is_said() {
    let few = coded(403, Some("sp=rl&sig=canary"), "AuthorizationPermissionMismatch", "");
    assert!(few.detail.contains("it has the permissions `rl`, and this needs `w`"), "{}", few.detail);
    for code in ["AuthenticationFailed", "AuthorizationFailure"] {
        let old = coded(403, Some("se=2020-01-02T03:04:05Z&sig=canary"), code, "");
        assert_eq!(old.kind, Kind::InvalidCredentials);
        assert!(old.detail.contains("expired at 2020-01-02T03:04:05Z"), "{}", old.detail);
    }
    let detail = "Signature not valid in the specified time frame: Start [x] - Expiry [y] - Current [z]";
    let early = coded(403, Some("si=policy&sig=canary"), "AuthenticationFailed", detail);
    assert!(early.detail.contains("not valid yet"), "{}", early.detail);
    let wrong = coded(403, Some("sig=canary"), "AuthenticationFailed", "Signature did not match");
    assert!(wrong.detail.contains("check that `sas_token` is complete"), "{}", wrong.detail);
}

#[test]
fn a_wrong_clock_is_told_from_a_wrong_key() {
    let clock = coded(403, None, "AuthenticationFailed", "Request date header too old: 'x'");
    assert!(clock.detail.contains("clock") && clock.kind == Kind::InvalidRequest, "{clock:?}");
    let key = coded(403, None, "AuthenticationFailed", "The MAC signature found in the HTTP request is not the same");
    assert!(key.detail.contains("check `storage_account`, `storage_access_key`"), "{}", key.detail);
}

#[test]
fn an_answer_that_says_nothing_still_makes_a_sentence() {
    for body in ["", "<html><body>Bad Request</body></html>", "{\"error\":1}"] {
        let error = error(400, None, &[], body);
        assert!(error.detail.contains("check that `endpoint` is an Azure Blob service"), "{}", error.detail);
    }
}

#[test]
fn the_pause_that_was_asked_for_is_kept() {
    let seconds = error(503, None, &[("retry-after", "7")], "");
    assert_eq!(seconds.retry, Retry::Later(Some(Duration::from_secs(7))));
    assert_eq!(error(400, None, &[("retry-after", "7")], "").retry, Retry::Never);
}
