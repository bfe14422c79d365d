//! The body of a request: of known length, sent in frames, and a sign of life each time the connection takes one.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::source::ByteStream;

/// Bytes handed to the connection at once: small enough that a slow line shows signs of life within the idle timeout.
const FRAME_BYTES: usize = 128 * 1024;

/// A request body of known length: in memory, sent in frames without being copied, or from a stream.
#[derive(Default)]
pub struct Body {
    rest: Bytes,
    stream: Option<ByteStream>,
    /// What the stream still has to bring.
    stream_bytes: u64,
    activity: Option<Activity>,
}

impl Body {
    /// A body of no bytes.
    pub fn empty() -> Self {
        Self::default()
    }

    /// A body of exactly `size` bytes that are produced while it is sent. A stream that brings more or less breaks
    /// the request.
    pub fn stream(size: u64, stream: ByteStream) -> Self {
        Self { stream: Some(stream), stream_bytes: size, ..Self::default() }
    }

    /// Says so each time the connection takes some of it.
    pub(super) fn watched(self, activity: Activity) -> Self {
        Self { activity: Some(activity), ..self }
    }

    /// Takes the next bytes of the stream in; `None` when there are no more.
    fn poll_stream(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<()>>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        let wrong = || Error::new(Kind::Local, "sending the request", "the body has another length than announced");
        match std::task::ready!(stream.as_mut().poll_next(context)) {
            Some(Ok(bytes)) => Poll::Ready(Some(match self.stream_bytes.checked_sub(bytes.len() as u64) {
                Some(left) => {
                    self.stream_bytes = left;
                    self.rest = bytes;
                    Ok(())
                }
                None => Err(wrong()),
            })),
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None if self.stream_bytes > 0 => Poll::Ready(Some(Err(wrong()))),
            None => Poll::Ready(None),
        }
    }
}

impl<T: Into<Bytes>> From<T> for Body {
    fn from(bytes: T) -> Self {
        Self { rest: bytes.into(), ..Self::default() }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("bytes", &(self.rest.len() as u64 + self.stream_bytes)).finish_non_exhaustive()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        if let Some(activity) = &self.activity {
            activity.touch();
        }
        while self.rest.is_empty() {
            match std::task::ready!(self.poll_stream(context)) {
                Some(Ok(())) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let length = self.rest.len().min(FRAME_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.stream_bytes == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64 + self.stream_bytes)
    }
}

/// When the connection last took a byte.
#[derive(Clone, Debug)]
pub(super) struct Activity {
    began: Instant,
    last_ms: Arc<AtomicU64>,
}

impl Activity {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), last_ms: Arc::default() }
    }

    fn touch(&self) {
        let elapsed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(elapsed, Ordering::Relaxed);
    }

    pub(super) fn last(&self) -> Instant {
        self.began + Duration::from_millis(self.last_ms.load(Ordering::Relaxed))
    }
}
