//! The one place where errors become answers: `{"message":…,"code":…,"errors":{…}}`, always JSON.

use std::collections::BTreeMap;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use super::body::json;
use crate::error::{ApiError, Code};
use crate::files;
use crate::store;

/// The body of every error.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub struct ErrorBody<'a> {
    /// One sentence that says what to do.
    message: &'a str,
    /// Stable code.
    code: &'a str,
    /// Faults by field, for `INVALID_DATA`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    errors: &'a BTreeMap<String, Vec<String>>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // What is told to come again later has no cause; it is no fault either.
        let is_expected = self.code == Code::WaitTimeout
            || self.code == Code::Unavailable && std::error::Error::source(&self).is_none();
        if status.is_server_error() && !is_expected {
            let cause = std::error::Error::source(&self).map(chain).unwrap_or_default();
            tracing::error!(code = self.code.wire(), message = %self.message, cause, "a request failed");
        }
        let body = ErrorBody { message: &self.message, code: self.code.wire(), errors: &self.faults.0 };
        let mut response = json(status, &body);
        if self.code == Code::Unauthenticated {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(pause) = self.retry_after {
            let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// An error and what lies behind it, for the log.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Unavailable(_) => {
                Self::new(Code::Unavailable, "The database does not answer; try again in a moment.")
                    .after(std::time::Duration::from_secs(2))
            }
            store::Error::DiskFull(_) => {
                Self::new(Code::StorageFull, "The server's disk is full; its operator must make room.")
            }
            store::Error::Broken(_) | store::Error::NewerSchema { .. } => {
                Self::new(Code::Internal, "Something went wrong in the server; its log says what.")
            }
        }
        .because(error)
    }
}

impl From<files::Error> for ApiError {
    fn from(error: files::Error) -> Self {
        match &error {
            files::Error::TooLarge { limit_bytes } => {
                Self::new(Code::PayloadTooLarge, format!("The file is larger than the {limit_bytes} bytes allowed."))
            }
            files::Error::WrongLength { .. } | files::Error::Stream(_) => {
                Self::new(Code::BadRequest, "The upload ended too early; send it again.")
            }
            files::Error::Full(_) => {
                Self::new(Code::StorageFull, "The server's disk is full; its operator must make room.")
            }
            files::Error::Store(_) => {
                Self::new(Code::Unavailable, "The server cannot use its file store at the moment; try again.")
                    .after(std::time::Duration::from_secs(2))
            }
            files::Error::Disk(_) => {
                Self::new(Code::Internal, "The server could not use its own files; its log says why.")
            }
        }
        .because(error)
    }
}

/// A sealed row that this server's key does not open.
pub(super) fn sealed_with_another_key(error: crate::secret::WrongKey) -> ApiError {
    ApiError::new(
        Code::Internal,
        "The server's secret key is not the one this was stored with; its operator must restore it.",
    )
    .because(error)
}
