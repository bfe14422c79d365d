//! A body that breaks and goes on: only where the server proves that it is still the same file.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_RANGE, DATE, ETAG, HeaderMap, HeaderValue, LAST_MODIFIED};

use super::{ACTION, PartWanted, Target, Web, protocol, shown};
use crate::error::{Error, Kind, Result, Retry};
use crate::http::Answer;
use crate::retry::{self, date};
use crate::source::ByteStream;

/// Times that one file's broken body is resumed. With pauses of up to 20 s it bridges some minutes.
const RESUMES_MAX: u32 = 20;

/// A body on its way, and what it takes to ask for its rest.
pub(super) struct Transfer {
    web: Web,
    target: Target,
    validator: Option<HeaderValue>,
    etag: Option<HeaderValue>,
    total: Option<u64>,
    received: u64,
    /// Bytes that the server repeats although it was asked for the rest.
    skip: u64,
    resumes: u32,
    answer: Option<Answer>,
}

impl Transfer {
    /// Takes over the open answer of `target`, whose head had `headers`.
    pub(super) fn new(web: Web, target: Target, headers: &HeaderMap, answer: Answer) -> Self {
        Self {
            web,
            target,
            validator: validator(headers),
            etag: headers.get(ETAG).cloned(),
            total: answer.size(),
            received: 0,
            skip: 0,
            resumes: 0,
            answer: Some(answer),
        }
    }

    /// Where the bytes come from.
    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// The bytes up to the end of the file, across as many answers as it takes.
    pub(super) fn stream(self) -> ByteStream {
        Box::pin(futures_util::stream::try_unfold(self, |mut transfer| async move {
            Ok(transfer.next().await?.map(|chunk| (chunk, transfer)))
        }))
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            let broken = match self.receive().await {
                Ok(chunk) => return Ok(chunk),
                Err(error) => error,
            };
            self.answer = None;
            if !broken.is_transient() || !self.resume(&broken).await? {
                return Err(broken);
            }
        }
    }

    /// The next bytes of the open answer that were not handed out before; none at the end of the file.
    async fn receive(&mut self) -> Result<Option<Bytes>> {
        let from = shown(&self.target.url);
        let Some(answer) = &mut self.answer else { return Err(cut(&from)) };
        while let Some(mut chunk) = answer.chunk().await? {
            let repeated = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
            drop(chunk.split_to(repeated));
            self.skip -= repeated as u64;
            self.received += chunk.len() as u64;
            if self.total.is_some_and(|total| self.received > total) {
                return Err(protocol(format!("{from} sends more bytes than it promised")));
            }
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
        if self.total.is_some_and(|total| self.received < total) { Err(cut(&from)) } else { Ok(None) }
    }

    /// Opens an answer with the rest, if the file can be resumed; `Ok(false)` if it cannot.
    async fn resume(&mut self, broken: &Error) -> Result<bool> {
        let Some(validator) = self.validator.clone() else { return Ok(false) };
        let part = PartWanted { from: self.received, validator };
        while self.resumes < RESUMES_MAX {
            self.resumes += 1;
            let Retry::Later(asked) = broken.retry else { return Ok(false) };
            retry::note(broken.kind);
            tokio::time::sleep(retry::pause(self.resumes.min(self.web.tries) + 1, asked)).await;
            tracing::debug!(error = %broken, received_bytes = self.received, "download is resumed");
            match self.web.follow(self.target.clone(), Some(&part)).await {
                Ok((target, response)) => {
                    self.accept(&response)?;
                    self.target = target;
                    self.answer = Some(response.into_body());
                    return Ok(true);
                }
                Err(error) if error.is_transient() => {}
                // A one-time address, say: the whole download may still succeed when it starts anew.
                Err(_) => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Checks that an answer goes on with the same file, and where.
    fn accept(&mut self, response: &http::Response<Answer>) -> Result<()> {
        let headers = response.headers();
        let same = self.etag.is_none() || headers.get(ETAG).is_none() || headers.get(ETAG) == self.etag.as_ref();
        let changed = || {
            let detail = format!("{} changed while it was downloaded", shown(&self.target.url));
            Error::new(Kind::IntegrityMismatch, ACTION, detail)
        };
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let (start, total) = content_range(headers)
                .ok_or_else(|| protocol(format!("{} sent a part without its range", shown(&self.target.url))))?;
            let fits = start <= self.received && (total.is_none() || self.total.is_none() || total == self.total);
            if !same || !fits {
                return Err(changed());
            }
            self.skip = self.received - start;
            self.total = self.total.or(total);
            return Ok(());
        }
        // The whole file again: either it changed, or this server knows no ranges.
        let proven = self.etag.is_some() && self.validator == self.etag && headers.get(ETAG) == self.etag.as_ref();
        if !proven || response.body().size() != self.total {
            return Err(changed());
        }
        self.skip = self.received;
        Ok(())
    }
}

fn cut(from: &str) -> Error {
    Error::new(Kind::Unreachable, ACTION, format!("{from} ended before all bytes had arrived"))
}

/// The mark that makes `If-Range` safe: a strong `ETag`, or a date that a second change within its second would show.
///
/// # Source
/// RFC 9110, 8.8.2.2 and 13.1.5.
fn validator(headers: &HeaderMap) -> Option<HeaderValue> {
    if let Some(etag) = headers.get(ETAG) {
        return etag.as_bytes().starts_with(b"\"").then(|| etag.clone());
    }
    let modified = headers.get(LAST_MODIFIED)?;
    let age = date(headers, &DATE)?.duration_since(date(headers, &LAST_MODIFIED)?).ok()?;
    (age >= Duration::from_secs(1)).then(|| modified.clone())
}

/// The start and, where told, the total of `Content-Range: bytes 5-9/10`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let value = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.parse().ok()?;
    Some((start, total.parse().ok()))
}
