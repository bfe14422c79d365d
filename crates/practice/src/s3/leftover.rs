//! Reads what a refused request still sends. A server that answers early and closes the connection makes many clients
//! see a broken pipe instead of the answer; S3 itself reads on.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::EXPECT;
use hyper::{Request, Response};
use s3s::service::S3Service;
use tokio::time::timeout;

/// Bytes that are read of a refused body; who sends more may see a broken pipe.
const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Time for that.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers a request, and reads what is left of its body when the answer is a refusal.
pub(super) async fn answer(
    service: S3Service,
    request: Request<Incoming>,
) -> Result<Response<s3s::Body>, s3s::HttpError> {
    // Reading would ask for a body that the client keeps until it is asked for.
    let is_asked_for = !request.headers().contains_key(EXPECT);
    let (head, body) = request.into_parts();
    let body = Lent(Arc::new(Mutex::new(body)));
    let answer = service.call(Request::from_parts(head, s3s::Body::http_body_unsync(body.clone()))).await?;
    let is_refusal = answer.status().is_client_error() || answer.status().is_server_error();
    if is_refusal && is_asked_for {
        // However far it came: the answer is the same.
        let _ = timeout(PATIENCE, read_on(body)).await;
    }
    Ok(answer)
}

async fn read_on(mut body: Lent) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, |bytes| bytes.len() as u64);
        if read > BYTES_MAX {
            return;
        }
    }
}

/// A body that can still be read once whoever had it let go of it.
#[derive(Clone)]
struct Lent(Arc<Mutex<Incoming>>);

impl Lent {
    fn body(&self) -> MutexGuard<'_, Incoming> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut *self.body()).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
    }
}
