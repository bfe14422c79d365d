//! A whole answer in memory, of bounded length.

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};

use super::Answer;
use crate::error::Result;

/// What is read of the body of a refusal.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// Reads an answer to its end.
    ///
    /// # Errors
    /// Those of [`Answer::bytes`].
    pub(crate) async fn read(response: Response<Answer>, limit_bytes: usize) -> Result<Self> {
        let (head, answer) = response.into_parts();
        let body = answer.bytes(limit_bytes).await?;
        Ok(Self { status: head.status, headers: head.headers, body })
    }

    /// Reads an answer that is no success. Should its body be too long, or break off, its head must do.
    pub(crate) async fn refused(response: Response<Answer>) -> Self {
        let (head, answer) = response.into_parts();
        let body = answer.bytes(REFUSAL_BYTES_MAX).await.unwrap_or_default();
        Self { status: head.status, headers: head.headers, body }
    }

    /// The first value of a header, where it is a text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    pub(crate) fn says_true(&self, name: &str) -> bool {
        self.header(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

/// The first value of a header, where it is a text.
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
impl Reply {
    /// An answer as a test writes it down.
    pub(crate) fn of(status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Self {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        Self { status: status.try_into().unwrap(), headers: headers.collect(), body: body.into() }
    }
}
