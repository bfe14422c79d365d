//! Where jobs get their files from: a small HTTP server inside the benchmark that makes up what it is asked for.
//!
//! - `/bytes/N`: N bytes that do not compress: the block of [`content`] again and again
//! - `/seen/NAME`: one byte; when it was asked for is remembered
//! - `/hold`: never ends
//! - `/bucket`: as much of S3 as an import or export of many small objects needs; `/bucket/COUNT/SIZE/…` holds COUNT objects

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::bench::content::{self, BLOCK_BYTES};

/// Size of a piece of an answer.
const PIECE_BYTES: usize = 256 * 1024;
/// Pause between two bytes of an answer that never ends.
const HOLD_PAUSE: Duration = Duration::from_secs(5);
/// The checksum that an export sends.
const CRC32C: &str = "x-amz-checksum-crc32c";
/// Objects of a page of a listing, as of S3.
const PAGE: u64 = 1000;

/// The running server.
#[derive(Debug)]
pub(super) struct Origin {
    addr: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    block: Bytes,
    seen: Mutex<HashMap<String, Instant>>,
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

impl Origin {
    /// Listens on an address of loopback.
    ///
    /// # Errors
    /// When it cannot.
    pub(super) async fn start(address: &str) -> Result<Self> {
        let listener = TcpListener::bind((address, 0)).await?;
        let addr = listener.local_addr()?;
        let state = Arc::new(State { block: content::block(), ..State::default() });
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                tokio::spawn(async move {
                    let _ = socket.set_nodelay(true);
                    let service = service_fn(move |request| answer(Arc::clone(&state), request));
                    // A client that goes away is none of the origin's business.
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Ok(Self { addr, state })
    }

    /// The address of something on it.
    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.addr)
    }

    /// The arguments of a task that imports so many objects of that size.
    pub(super) fn bucket_import(&self, count: u64, size: u64) -> Value {
        json!({ "operation": "import/s3", "endpoint": self.url("").trim_end_matches('/'), "bucket": "bucket", "region": "default",
            "key_prefix": format!("{count}/{size}/"), "access_key_id": "bench", "secret_access_key": "bench" })
    }

    /// The arguments of a task that exports its input files.
    pub(super) fn bucket_export(&self, input: &str) -> Value {
        json!({ "operation": "export/s3", "input": input, "endpoint": self.url("").trim_end_matches('/'), "bucket": "bucket",
            "region": "default", "key_prefix": "out/", "access_key_id": "bench", "secret_access_key": "bench" })
    }

    /// When `/seen/NAME` was asked for first.
    pub(super) fn seen(&self, name: &str) -> Option<Instant> {
        self.state.seen.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Answer> {
    let (head, mut body) = request.into_parts();
    while let Some(frame) = body.frame().await {
        frame?;
    }
    let path = head.uri.path().trim_start_matches('/').to_owned();
    let query = head.uri.query().unwrap_or_default();
    if let Some(size) = path.strip_prefix("bytes/") {
        return Ok(bytes_of(&state.block, size.parse()?));
    }
    if let Some(name) = path.strip_prefix("seen/") {
        let mut seen = state.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.entry(name.to_owned()).or_insert_with(Instant::now);
        return Ok(bytes_of(&state.block, 1));
    }
    if path == "hold" {
        let drops = stream::unfold(0_u32, |count| async move {
            tokio::time::sleep(if count == 0 { Duration::ZERO } else { HOLD_PAUSE }).await;
            Some((Ok(Frame::data(Bytes::from_static(b"."))), count.saturating_add(1)))
        });
        return Ok(Response::new(http_body_util::BodyExt::boxed(StreamBody::new(drops))));
    }
    let path = path.strip_prefix("bucket").map(|path| path.trim_start_matches('/')).context("no such place")?;
    match head.method {
        Method::PUT => {
            // Small objects come whole. The checksum is given back unseen: what an export costs is measured, not checked.
            let mut answer = Response::builder().header("etag", "\"none\"");
            if let Some(sum) = head.headers.get(CRC32C) {
                answer = answer.header(CRC32C, sum);
            }
            Ok(answer.body(whole(Bytes::new()))?)
        }
        Method::GET if path.is_empty() => Ok(Response::new(whole(Bytes::from(listing(query)?)))),
        _ => {
            let size = path.split('/').nth(1).context("no size")?.parse()?;
            let mut answer = bytes_of(&state.block, size);
            answer.headers_mut().insert("etag", "\"none\"".parse()?);
            answer.headers_mut().insert("last-modified", "Mon, 05 Jan 2026 09:00:00 GMT".parse()?);
            if head.method == Method::HEAD {
                *answer.body_mut() = whole(Bytes::new());
            } else if head.headers.contains_key("range") {
                // Objects are smaller than any part.
                *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
                answer.headers_mut().insert("content-range", format!("bytes 0-{}/{size}", size - 1).parse()?);
            }
            Ok(answer)
        }
    }
}

fn whole(bytes: Bytes) -> BoxBody<Bytes, Infallible> {
    Full::new(bytes).boxed()
}

fn bytes_of(block: &Bytes, size: u64) -> Answer {
    let block = block.clone();
    let pieces = stream::unfold(0_u64, move |at| {
        let piece = (at < size).then(|| {
            let from = usize::try_from(at % BLOCK_BYTES as u64).unwrap_or_default();
            let room = PIECE_BYTES.min(BLOCK_BYTES - from);
            let length = room.min(usize::try_from(size - at).unwrap_or(room));
            (Ok(Frame::data(block.slice(from..from + length))), at + length as u64)
        });
        std::future::ready(piece)
    });
    let mut answer = Response::new(http_body_util::BodyExt::boxed(StreamBody::new(pieces)));
    answer.headers_mut().insert("content-length", size.into());
    answer.headers_mut().insert("content-type", http::HeaderValue::from_static("application/octet-stream"));
    answer
}

/// A page of a listing; the prefix says how many objects there are, and of which size: `COUNT/SIZE/`.
fn listing(query: &str) -> Result<String> {
    let asked = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.replace("%2F", "/")).next()
    };
    let prefix = asked("prefix").context("prefix")?;
    let mut parts = prefix.split('/');
    let mut number = || parts.next().unwrap_or_default().parse::<u64>();
    let (count, size) = (number()?, number()?);
    let from: u64 = asked("continuation-token").map_or(Ok(0), |token| token.parse())?;
    let to = (from + PAGE).min(count);
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult>");
    for number in from..to {
        let _ = write!(
            xml,
            "<Contents><Key>{prefix}file-{number:06}.txt</Key><Size>{size}</Size><ETag>&quot;none&quot;</ETag>\
             <LastModified>2026-01-05T09:00:00.000Z</LastModified></Contents>"
        );
    }
    if to < count {
        let _ = write!(xml, "<IsTruncated>true</IsTruncated><NextContinuationToken>{to}</NextContinuationToken>");
    } else {
        xml.push_str("<IsTruncated>false</IsTruncated>");
    }
    xml.push_str("</ListBucketResult>");
    Ok(xml)
}
