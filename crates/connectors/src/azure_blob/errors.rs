//! From a refusal of the service to our error: what happened, what to do about it, and the service's own words.

use http::StatusCode;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::credentials::Credentials;
use crate::clock::now;
use crate::error::{Error, Kind, ProviderAnswer, Retry, covered};
use crate::http::Reply;
use crate::retry;
use crate::secret::Secret;
use crate::xml::{ErrorBody, read_error};

/// What was asked and of whom, for the sentence.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) action: &'static str,
    pub(super) container: &'a str,
    pub(super) host: &'a str,
    pub(super) name: Option<&'a str>,
    pub(super) credentials: &'a Credentials,
}

/// Makes the error of an answer that is not a success.
pub(super) fn refusal(asked: Asked<'_>, reply: &Reply, secrets: &[Secret]) -> Error {
    let fit = |text: &str| Some(covered(text, secrets)).filter(|text| !text.is_empty());
    let mut said = read_error(&reply.body).unwrap_or_default();
    // The lines after the first one repeat id and time of the request.
    said.message = said.message.as_deref().and_then(|message| message.trim().lines().next()).and_then(fit);
    let code = reply.header("x-ms-error-code").or(said.code.as_deref()).and_then(fit);
    let (kind, sentence) = code
        .as_deref()
        .and_then(|code| by_code(code, asked, &said))
        .unwrap_or_else(|| by_status(reply.status, asked, &said, code.is_some()));
    let mut error = Error::new(kind, asked.action, sentence).answered(ProviderAnswer {
        status: Some(reply.status.as_u16()),
        code,
        request_id: reply.header("x-ms-request-id").and_then(fit),
    });
    if error.is_transient() {
        error.retry = Retry::Later(retry::after(&reply.headers));
    }
    error.without(secrets)
}

/// The service's code of an error, or nothing.
fn code(error: &Error) -> &str {
    error.answer.as_ref().and_then(|answer| answer.code.as_deref()).unwrap_or_default()
}

/// Whether a commit failed because the service no longer has all the blocks.
pub(super) fn is_block_lost(error: &Error) -> bool {
    matches!(code(error), "InvalidBlockList" | "InvalidBlockId")
}

/// Whether a blob is not the version that was asked for.
pub(super) fn is_other_version(error: &Error) -> bool {
    code(error) == "ConditionNotMet"
}

/// # Source
/// Azure documentation, "Blob Storage error codes" and "Common REST API error codes".
fn by_code(code: &str, asked: Asked<'_>, said: &ErrorBody) -> Option<(Kind, String)> {
    of_credentials(code, asked, said)
        .or_else(|| of_things(code, asked))
        .or_else(|| of_states(code, asked))
        .or_else(|| of_traffic(code, asked, said))
        .or_else(|| of_arguments(code, asked, said))
}

fn of_credentials(code: &str, asked: Asked<'_>, said: &ErrorBody) -> Option<(Kind, String)> {
    let host = asked.host;
    if let ("AuthenticationFailed" | "AuthorizationFailure", Some(sentence)) = (code, expired(asked.credentials)) {
        return Some((Kind::InvalidCredentials, sentence));
    }
    Some(match code {
        "AuthenticationFailed" | "InvalidAuthenticationInfo" | "NoAuthenticationInformation" => {
            unauthenticated(asked, said)
        }
        "KeyBasedAuthenticationNotPermitted" => (
            Kind::InvalidCredentials,
            "the account does not take its keys; use a `sas_token` that a user delegated".to_owned(),
        ),
        "AuthorizationFailure" => (
            Kind::AccessDenied,
            format!("{host} refused the request; check the credentials, and that the account's firewall lets this server in"),
        ),
        "AuthorizationPermissionMismatch" | "InsufficientAccountPermissions" => (Kind::AccessDenied, denied(asked)),
        "AuthorizationResourceTypeMismatch" => (
            Kind::AccessDenied,
            "the SAS token is not for this kind of resource; make one for objects (`srt=o`), and for containers (`srt=co`) \
             where they are listed"
                .to_owned(),
        ),
        "AuthorizationServiceMismatch" => {
            (Kind::AccessDenied, "the SAS token is not for blobs; make one for the service `b`".to_owned())
        }
        "AuthorizationSourceIPMismatch" => (
            Kind::AccessDenied,
            "the SAS token is not for the address of this server; add that address to the token's range".to_owned(),
        ),
        "AuthorizationProtocolMismatch" => {
            (Kind::AccessDenied, "the SAS token is for HTTPS only; use an `endpoint` with https://".to_owned())
        }
        "AccountIsDisabled" | "ContainerDisabled" => {
            (Kind::AccessDenied, format!("the storage account or the container at {host} is disabled; enable it first"))
        }
        "PublicAccessNotPermitted" => (Kind::AccessDenied, "the account takes no requests without credentials".to_owned()),
        _ => return None,
    })
}

fn of_things(code: &str, Asked { container, host, name, .. }: Asked<'_>) -> Option<(Kind, String)> {
    Some(match code {
        "ContainerNotFound" | "ContainerBeingDeleted" => (
            Kind::ContainerNotFound,
            format!("the container `{container}` does not exist at {host}; check `container` and `storage_account`"),
        ),
        "ResourceNotFound" => (
            Kind::ContainerNotFound,
            format!(
                "there is no such account or container at {host}; check `storage_account`, `container` and `endpoint`"
            ),
        ),
        "BlobNotFound" => (Kind::NotFound, not_found(name, container)),
        _ => return None,
    })
}

/// What another has done to the blob or the container.
fn of_states(code: &str, Asked { action, .. }: Asked<'_>) -> Option<(Kind, String)> {
    let sentence = match code {
        "LeaseIdMissing"
        | "LeaseIdMismatchWithBlobOperation"
        | "LeaseIdMismatchWithContainerOperation"
        | "LeaseAlreadyPresent" => "somebody holds a lease on the blob; break the lease, or use another name",
        "BlobImmutableDueToPolicy" | "ImmutabilityPolicyViolation" => {
            "a policy of the container keeps the blob as it is; use another name"
        }
        "BlobImmutableDueToLegalHold" | "ContainerImmutableDueToLegalHold" => {
            "a legal hold keeps the blob as it is; use another name"
        }
        "BlobAlreadyExists" | "UnauthorizedBlobOverwrite" => {
            "there is a blob of this name, and the credentials may not replace it; use another name, or a SAS token that \
             may write (`w`)"
        }
        "InvalidBlobType" | "ResourceTypeMismatch" => {
            "there is a page or append blob, or a folder, of this name; remove it, or use another name"
        }
        "BlobIsSealed" => "the blob is sealed; remove it, or use another name",
        "BlobArchived" | "BlobBeingRehydrated" => "the blob is archived; bring it back to an online tier first",
        "SnapshotsPresent" => "the blob has snapshots; remove them first",
        "InvalidBlobOrBlock" if action == super::SEND_BLOCK => {
            "another program left an unfinished upload under this name; use another name, or wait until it expires after a week"
        }
        _ => return None,
    };
    Some((Kind::AccessDenied, sentence.to_owned()))
}

fn of_traffic(code: &str, Asked { host, .. }: Asked<'_>, said: &ErrorBody) -> Option<(Kind, String)> {
    Some(match code {
        "ServerBusy" | "TooManyRequests" | "IngressLimitExceeded" => {
            (Kind::Throttled, format!("{host} asks to slow down"))
        }
        "OperationTimedOut" | "RequestTimeout" => (Kind::Timeout, format!("{host} took too long")),
        "InternalError" | "PendingCopyOperation" | "OperationInProgress" => {
            (Kind::Unavailable, words(format!("{host} failed"), said))
        }
        "InvalidBlockList" | "InvalidBlockId" => {
            (Kind::NotFound, "the service no longer has all blocks of the upload".to_owned())
        }
        "Md5Mismatch" | "Crc64Mismatch" | "InvalidMd5" | "IncompleteBody" => {
            (Kind::IntegrityMismatch, "the bytes did not arrive as they were sent".to_owned())
        }
        "RequestBodyTooLarge" | "RequestEntityTooLarge" | "BlockCountExceedsLimit" | "BlobTooLarge" => {
            (Kind::TooLarge, words(format!("the blob is larger than {host} takes"), said))
        }
        "AccountQuotaExceeded" | "InsufficientStorage" => {
            (Kind::NoSpace, words(format!("there is no space left at {host}"), said))
        }
        "NotImplemented" | "FeatureNotSupportedForAccount" | "UnsupportedHeader" => {
            (Kind::Unsupported, words(format!("{host} cannot do this"), said))
        }
        _ => return None,
    })
}

fn of_arguments(code: &str, Asked { container, .. }: Asked<'_>, said: &ErrorBody) -> Option<(Kind, String)> {
    let sentence = match code {
        "InvalidResourceName" => format!(
            "`{container}` is not a name that a container can have (lower-case letters, digits and single hyphens), or the \
             name of the blob is none"
        ),
        "OutOfRangeInput" | "InvalidUri" => words(
            format!("the name of the container `{container}` or of the blob is too long, too short or malformed"),
            said,
        ),
        "InvalidMetadata" | "EmptyMetadataKey" | "MetadataTooLarge" => words(
            "`metadata` was refused: keys are letters, digits and underscores, and all together are at most 8 KiB"
                .to_owned(),
            said,
        ),
        _ => return None,
    };
    Some((Kind::InvalidRequest, sentence))
}

fn unauthenticated(asked: Asked<'_>, said: &ErrorBody) -> (Kind, String) {
    let host = asked.host;
    let detail = said.authentication_error_detail.as_deref().unwrap_or_default();
    if detail.contains("date header") {
        let sentence = format!(
            "the clock of this server differs too much from the clock of {host}; set this server's clock right"
        );
        return (Kind::InvalidRequest, sentence);
    }
    let sentence = match asked.credentials {
        Credentials::Key { .. } => {
            format!("{host} refused the signature; check `storage_account`, `storage_access_key` and `endpoint`")
        }
        Credentials::Sas(_) if detail.contains("time frame") => {
            "the SAS token has expired or is not valid yet; get a new one and set `sas_token`".to_owned()
        }
        Credentials::Sas(_) => format!(
            "{host} refused the SAS token; check that `sas_token` is complete and for this account and container"
        ),
    };
    (Kind::InvalidCredentials, sentence)
}

/// The sentence for a token that has come to its end.
fn expired(credentials: &Credentials) -> Option<String> {
    let Credentials::Sas(sas) = credentials else { return None };
    let ends = sas.ends.filter(|ends| *ends <= OffsetDateTime::from(now()))?;
    Some(format!("the SAS token expired at {}; get a new one and set `sas_token`", ends.format(&Rfc3339).ok()?))
}

fn denied(Asked { action, container, credentials, .. }: Asked<'_>) -> String {
    let needed = match action {
        super::STAT | super::READ | super::LIST_BLOCKS => "`r`",
        super::LIST => "`l`",
        super::DELETE => "`d`",
        _ => "`w`",
    };
    match credentials {
        Credentials::Sas(sas) => match &sas.permissions {
            Some(permissions) => {
                format!(
                    "the SAS token may not do this: it has the permissions `{permissions}`, and this needs {needed}"
                )
            }
            None => format!("the SAS token may not do this; its policy must give it {needed}"),
        },
        Credentials::Key { .. } => format!("access to the container `{container}` was denied"),
    }
}

fn not_found(name: Option<&str>, container: &str) -> String {
    format!("there is no blob `{}` in the container `{container}`", name.unwrap_or_default())
}

fn by_status(status: StatusCode, asked: Asked<'_>, said: &ErrorBody, is_coded: bool) -> (Kind, String) {
    let Asked { host, name, container, .. } = asked;
    let kind = match status.as_u16() {
        401 => Kind::InvalidCredentials,
        403 | 412 => Kind::AccessDenied,
        404 if name.is_some() && !is_coded => return (Kind::NotFound, not_found(name, container)),
        404 | 410 => Kind::NotFound,
        408 => Kind::Timeout,
        413 => Kind::TooLarge,
        429 => Kind::Throttled,
        501 => Kind::Unsupported,
        507 => Kind::NoSpace,
        200..=299 | 425 | 500.. => Kind::Unavailable,
        _ => Kind::InvalidRequest,
    };
    let sentence = if said.message.is_some() {
        words(format!("{host} refused the request"), said)
    } else if kind == Kind::Unavailable {
        format!("{host} failed")
    } else if is_coded {
        format!("{host} refused the request")
    } else {
        format!(
            "{host} refused the request without saying why; check that `endpoint` is an Azure Blob service, with the account \
             in its path where the service wants it there"
        )
    };
    (kind, sentence)
}

/// Adds the service's own message to a sentence.
fn words(sentence: String, said: &ErrorBody) -> String {
    match &said.message {
        Some(message) => format!("{sentence}: {message}"),
        None => sentence,
    }
}

#[cfg(test)]
mod tests;
