//! From a provider's refusal to our error: what happened, what to do about it, and the provider's own words.

use http::StatusCode;

use crate::error::{Error, Kind, ProviderAnswer, Retry, covered};
use crate::http::Reply;
use crate::retry;
use crate::secret::Secret;
use crate::xml::{ErrorBody, read_error};

/// What was asked and of whom, for the sentence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) action: &'static str,
    pub(super) bucket: &'a str,
    pub(super) host: &'a str,
    pub(super) key: Option<&'a str>,
}

/// Makes the error of an answer that is not a success.
pub(super) fn refusal(asked: Asked<'_>, reply: &Reply, secrets: &[Secret]) -> Error {
    let fit = |text: &str| Some(covered(text, secrets)).filter(|text| !text.is_empty());
    let mut said = read_error(&reply.body).unwrap_or_default();
    said.message = said.message.as_deref().and_then(fit);
    said.region = reply.header("x-amz-bucket-region").or(said.region.as_deref()).and_then(fit);
    said.endpoint = said.endpoint.as_deref().and_then(fit);
    let code = said.code.take().map(|code| code.trim().to_owned()).filter(|code| !code.is_empty());
    let request_id = reply.header("x-amz-request-id").or(said.request_id.as_deref()).and_then(fit);
    let (kind, sentence) = code
        .as_deref()
        .and_then(|code| by_code(code, asked, &said))
        .unwrap_or_else(|| by_status(reply.status, asked, &said, code.is_some()));
    let mut error = Error::new(kind, asked.action, sentence).answered(ProviderAnswer {
        status: Some(reply.status.as_u16()),
        code: code.as_deref().and_then(fit),
        request_id,
    });
    if error.is_transient() {
        error.retry = Retry::Later(retry::after(&reply.headers));
    }
    error.without(secrets)
}

/// The provider's code of an error, or nothing.
pub(super) fn code(error: &Error) -> &str {
    error.answer.as_ref().and_then(|answer| answer.code.as_deref()).unwrap_or_default()
}

/// The HTTP status of an error, or 0.
pub(super) fn status(error: &Error) -> u16 {
    error.answer.as_ref().and_then(|answer| answer.status).unwrap_or_default()
}

/// Codes with which a service says that it wants the bucket in the host name.
///
/// # Source
/// Error lists of Alibaba OSS, Tencent COS and Volcengine TOS.
pub(super) fn wants_virtual_host(error: &Error) -> bool {
    matches!(code(error), "SecondLevelDomainForbidden" | "PathStyleDomainForbidden" | "InvalidPathAccess")
        || (matches!(status(error), 400 | 403) && error.detail.to_ascii_lowercase().contains("virtual host"))
}

/// Whether a service insists on a hash of the body in the signature.
pub(super) fn wants_signed_payload(error: &Error) -> bool {
    code(error) == "XAmzContentSHA256Mismatch"
        || (matches!(status(error), 400 | 403) && error.detail.contains("UNSIGNED-PAYLOAD"))
}

/// Whether a service may have refused a request for its checksum header alone.
pub(super) fn may_refuse_checksum(error: &Error) -> bool {
    let is_vague = matches!(
        code(error),
        "" | "InvalidArgument" | "InvalidRequest" | "InvalidHeader" | "NotImplemented" | "UnsupportedArgument"
    );
    status(error) == 501 || (status(error) == 400 && is_vague)
}

fn by_code(code: &str, asked: Asked<'_>, said: &ErrorBody) -> Option<(Kind, String)> {
    let Asked { bucket, host, key, .. } = asked;
    let key = key.unwrap_or_default();
    Some(match code {
        "NoSuchBucket" => (
            Kind::ContainerNotFound,
            format!("the bucket `{bucket}` does not exist at {host}; check `bucket`, `region` and `endpoint`"),
        ),
        "NoSuchKey" => (Kind::NotFound, format!("there is no object `{key}` in the bucket `{bucket}`")),
        "NoSuchUpload" => (Kind::NotFound, "the upload is no longer open at the service".to_owned()),
        "PermanentRedirect"
        | "TemporaryRedirect"
        | "Redirect"
        | "AuthorizationHeaderMalformed"
        | "IllegalLocationConstraintException"
        | "IncorrectEndpoint" => (Kind::InvalidRequest, elsewhere(asked, said)),
        "RequestTimeTooSkewed" | "RequestExpired" | "RequestNotYetValid" => (
            Kind::InvalidRequest,
            format!(
                "the clock of this server differs too much from the clock of {host}; set this server's clock right"
            ),
        ),
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "TooManyRequests"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "Throttling"
        | "ThrottlingException"
        | "BandwidthLimitExceeded" => (Kind::Throttled, format!("{host} asks to slow down")),
        "RequestTimeout" => (Kind::Timeout, format!("{host} waited too long for the bytes")),
        "InternalError" | "ServiceUnavailable" | "OperationAborted" | "ConditionalRequestConflict" => {
            (Kind::Unavailable, words(format!("{host} failed"), said))
        }
        "BadDigest"
        | "InvalidDigest"
        | "XAmzContentSHA256Mismatch"
        | "XAmzContentChecksumMismatch"
        | "IncompleteBody"
        | "ChecksumMismatch" => (Kind::IntegrityMismatch, "the bytes did not arrive as they were sent".to_owned()),
        "EntityTooLarge" | "MaxMessageLengthExceeded" => {
            (Kind::TooLarge, words(format!("the object is larger than {host} takes"), said))
        }
        "QuotaExceeded"
        | "XMinioStorageFull"
        | "StorageFull"
        | "InsufficientStorage"
        | "ServiceQuotaExceededException" => {
            (Kind::NoSpace, words(format!("there is no space left in the bucket `{bucket}`"), said))
        }
        "NotImplemented" => (Kind::Unsupported, words(format!("{host} does not know one of the arguments"), said)),
        "AccessControlListNotSupported" => {
            (Kind::InvalidRequest, format!("the bucket `{bucket}` does not take ACLs; leave `acl` out"))
        }
        "InvalidBucketName" => (Kind::InvalidRequest, format!("`{bucket}` is not a name that a bucket can have")),
        "KeyTooLongError" => (Kind::InvalidRequest, "the key is longer than 1,024 bytes".to_owned()),
        "MetadataTooLarge" => (Kind::InvalidRequest, "`metadata` is larger than the 2 KB that S3 takes".to_owned()),
        "InvalidTag" => (Kind::InvalidRequest, words("a tag of `tagging` was refused".to_owned(), said)),
        _ => return of_credentials(code, asked).or_else(|| of_keys(code, said)),
    })
}

fn of_credentials(code: &str, asked: Asked<'_>) -> Option<(Kind, String)> {
    let Asked { bucket, host, action, .. } = asked;
    Some(match code {
        "InvalidAccessKeyId" | "AuthFailure" => (
            Kind::InvalidCredentials,
            format!("{host} does not know this access key; check `access_key_id` and `endpoint`"),
        ),
        "SignatureDoesNotMatch" => {
            (Kind::InvalidCredentials, format!("{host} refused the signature; check `secret_access_key`"))
        }
        "ExpiredToken" | "TokenRefreshRequired" | "InvalidToken" | "InvalidSecurity" => (
            Kind::InvalidCredentials,
            "the temporary credentials are expired or do not belong together; get new ones and set `session_token`"
                .to_owned(),
        ),
        "AccessDenied" | "Forbidden" | "AllAccessDisabled" | "AccountProblem" | "InvalidObjectState" => {
            (Kind::AccessDenied, denied(bucket, action))
        }
        _ => return None,
    })
}

fn of_keys(code: &str, said: &ErrorBody) -> Option<(Kind, String)> {
    let is_key_management = code.starts_with("KMS");
    is_key_management.then(|| (Kind::InvalidRequest, words("the encryption key cannot be used".to_owned(), said)))
}

fn denied(bucket: &str, action: &str) -> String {
    format!(
        "access to the bucket `{bucket}` was denied; check the credentials and that they may do this ({})",
        permission(action)
    )
}

/// The permission that an action needs.
fn permission(action: &str) -> &'static str {
    match action {
        super::STAT | super::READ => "s3:GetObject",
        super::LIST => "s3:ListBucket",
        super::DELETE => "s3:DeleteObject",
        super::ABORT => "s3:AbortMultipartUpload",
        super::LIST_PARTS => "s3:ListMultipartUploadParts",
        super::LIST_UPLOADS => "s3:ListBucketMultipartUploads",
        _ => "s3:PutObject, and s3:PutObjectAcl or s3:PutObjectTagging where `acl` or `tagging` is set",
    }
}

fn elsewhere(Asked { bucket, host, .. }: Asked<'_>, said: &ErrorBody) -> String {
    let region = said.region.as_deref().or_else(|| said.message.as_deref().and_then(expected_region));
    match (region, said.endpoint.as_deref()) {
        (Some(region), _) => {
            format!("the bucket `{bucket}` is in another region; set `region` to {region}")
        }
        (None, Some(endpoint)) => {
            format!("the bucket `{bucket}` is not at {host}; set `endpoint` to {endpoint}")
        }
        (None, None) => words(format!("the bucket `{bucket}` is not at {host}; check `region` and `endpoint`"), said),
    }
}

/// Finds `eu-west-1` in "the region 'us-east-1' is wrong; expecting 'eu-west-1'".
fn expected_region(message: &str) -> Option<&str> {
    message.split_once("expecting '")?.1.split_once('\'').map(|(region, _)| region)
}

fn by_status(status: StatusCode, asked: Asked<'_>, said: &ErrorBody, is_coded: bool) -> (Kind, String) {
    let Asked { bucket, host, key, action } = asked;
    let kind = match status.as_u16() {
        300..=399 => return (Kind::InvalidRequest, elsewhere(asked, said)),
        401 => Kind::InvalidCredentials,
        403 => return (Kind::AccessDenied, denied(bucket, action)),
        404 if key.is_some() && !is_coded => {
            return (
                Kind::NotFound,
                format!("there is no object `{}` in the bucket `{bucket}`", key.unwrap_or_default()),
            );
        }
        404 | 410 => Kind::NotFound,
        408 => Kind::Timeout,
        413 => Kind::TooLarge,
        429 => Kind::Throttled,
        501 => Kind::Unsupported,
        507 => Kind::NoSpace,
        200..=299 | 409 | 425 | 500.. => Kind::Unavailable,
        _ => Kind::InvalidRequest,
    };
    let sentence = if said.message.is_some() {
        words(format!("{host} refused the request"), said)
    } else if is_coded {
        format!("{host} refused the request")
    } else {
        format!(
            "{host} refused the request without saying why; check that `endpoint` is an S3 service and `region` its region"
        )
    };
    (kind, sentence)
}

/// Adds the provider's own message to a sentence.
fn words(sentence: String, said: &ErrorBody) -> String {
    match &said.message {
        Some(message) => format!("{sentence}: {message}"),
        None => sentence,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn error(status: u16, headers: &[(&str, &str)], body: &str) -> Error {
        let asked = Asked { action: "storing the object", bucket: "bkt", host: "s3.example", key: Some("k") };
        refusal(asked, &Reply::of(status, headers, body.to_owned()), &[])
    }

    fn coded(status: u16, code: &str, rest: &str) -> Error {
        error(status, &[], &format!("<Error><Code>{code}</Code>{rest}</Error>"))
    }

    #[test]
    fn kinds_follow_code_before_status() {
        for (status, code, kind) in [
            (404, "NoSuchBucket", Kind::ContainerNotFound),
            (404, "NoSuchKey", Kind::NotFound),
            (403, "SignatureDoesNotMatch", Kind::InvalidCredentials),
            (403, "RequestTimeTooSkewed", Kind::InvalidRequest),
            (403, "Unheard", Kind::AccessDenied),
            (400, "RequestTimeout", Kind::Timeout),
            (400, "BadDigest", Kind::IntegrityMismatch),
            (400, "KMS.DisabledException", Kind::InvalidRequest),
            (200, "InternalError", Kind::Unavailable),
            (503, "SlowDown", Kind::Throttled),
            (503, "Unheard", Kind::Unavailable),
            (501, "NotImplemented", Kind::Unsupported),
        ] {
            let error = coded(status, code, "");
            assert_eq!(error.kind, kind, "{code}");
            assert_eq!(error.answer.unwrap().code.as_deref(), Some(code));
        }
    }

    #[test]
    fn the_right_region_is_named() {
        let by_body = coded(400, "AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>");
        let by_header = error(301, &[("x-amz-bucket-region", "eu-west-1")], "");
        let by_message =
            coded(400, "AuthorizationHeaderMalformed", "<Message>'x' is wrong; expecting 'eu-west-1'</Message>");
        for error in [by_body, by_header, by_message] {
            assert!(error.detail.ends_with("set `region` to eu-west-1"), "{}", error.detail);
            assert!(!error.is_transient());
        }
        let by_endpoint = coded(301, "PermanentRedirect", "<Endpoint>bkt.s3.example</Endpoint>");
        assert!(by_endpoint.detail.contains("set `endpoint` to bkt.s3.example"));
    }

    #[test]
    fn an_answer_that_says_nothing_still_makes_a_sentence() {
        for body in ["", "<html><body>Bad Request</body></html>", "{\"error\":1}"] {
            let error = error(400, &[("x-amz-request-id", "R1")], body);
            assert!(error.detail.contains("check that `endpoint` is an S3 service"), "{}", error.detail);
            assert_eq!(error.answer.unwrap().request_id.as_deref(), Some("R1"));
        }
    }

    #[test]
    fn the_pause_that_was_asked_for_is_kept() {
        let seconds = error(503, &[("retry-after", "7")], "");
        assert_eq!(seconds.retry, Retry::Later(Some(Duration::from_secs(7))));
        assert_eq!(error(400, &[("retry-after", "7")], "").retry, Retry::Never);
    }

    #[test]
    fn a_providers_message_is_one_bounded_line() {
        let error = coded(400, "Odd", &format!("<Message>line\none.{}</Message>", "x".repeat(1000)));
        assert!(error.detail.contains("line one."));
        assert!(error.detail.len() < 400);
    }
}
