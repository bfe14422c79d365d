//! An S3 server over TLS that keeps names and lengths and throws the bytes away: what is left is the client's cost.
//!
//! It takes what both sides send (objects in one piece and in parts, CRC32C or MD5), and answers the checksums that it
//! is told without looking at the bytes; it checks no signature. Downloads are one block of random bytes over and over.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, LAST_MODIFIED, RANGE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Size of the block that downloads repeat.
const BLOCK_BYTES: usize = 1024 * 1024;
/// Size of a piece of an answer.
const PIECE_BYTES: usize = 64 * 1024;
/// Headers of a creation that come back with the object.
const KEPT: &str = "x-amz-meta-";
/// The checksum that Consign sends.
const CRC32C: &str = "x-amz-checksum-crc32c";

/// The running server.
#[derive(Debug)]
pub(super) struct NullSink {
    addr: SocketAddr,
    ca_file: PathBuf,
}

#[derive(Debug, Default)]
struct State {
    objects: HashMap<String, Object>,
    /// Open uploads by their id, which is the path and a number.
    uploads: HashMap<String, Upload>,
    block: Bytes,
}

#[derive(Clone, Debug, Default)]
struct Object {
    size: u64,
    etag: String,
    headers: HeaderMap,
}

#[derive(Debug, Default)]
struct Upload {
    headers: HeaderMap,
    parts: std::collections::BTreeMap<u32, Part>,
}

#[derive(Debug)]
struct Part {
    size: u64,
    crc32c: Option<HeaderValue>,
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

impl NullSink {
    /// Starts the server; the certificate that it is known by is written into `folder`.
    ///
    /// # Errors
    /// When it cannot listen, or the certificate not be written.
    pub(super) async fn start(folder: &Path) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        let ca_file = folder.join("null-sink.pem");
        std::fs::write(&ca_file, made.cert.pem())?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let addr = listener.local_addr()?;
        let block = Bytes::from(testkit::bytes::pattern(3, BLOCK_BYTES));
        let state = Arc::new(Mutex::new(State { block, ..State::default() }));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
                tokio::spawn(async move {
                    let _ = socket.set_nodelay(true);
                    let Ok(stream) = acceptor.accept(socket).await else { return };
                    let service = service_fn(move |request| answer(Arc::clone(&state), request));
                    // A client that goes away is none of a sink's business.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Self { addr, ca_file })
    }

    pub(super) fn endpoint(&self) -> String {
        format!("https://{}", self.addr)
    }

    pub(super) fn ca_file(&self) -> &Path {
        &self.ca_file
    }
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Answer> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let asked = |name: &str| {
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let (parts, mut body) = request.into_parts();
    let mut received = 0;
    while let Some(frame) = body.frame().await {
        received += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let upload = asked("uploadId").map(|id| id.replace("%2F", "/"));
    match (parts.method, upload) {
        (Method::PUT, Some(id)) => {
            let number: u32 = asked("partNumber").context("partNumber")?.parse()?;
            let crc32c = parts.headers.get(CRC32C).cloned();
            let upload = state.uploads.get_mut(&id).context("no such upload")?;
            upload.parts.insert(number, Part { size: received, crc32c: crc32c.clone() });
            stored(&parts.headers, crc32c)
        }
        (Method::PUT, None) => {
            let object = Object { size: received, etag: etag_of(&parts.headers), headers: kept(&parts.headers) };
            state.objects.insert(path, object);
            stored(&parts.headers, parts.headers.get(CRC32C).cloned())
        }
        (Method::POST, None) => {
            let id = format!("{path}.{}", state.uploads.len());
            let xml =
                format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>");
            state.uploads.insert(id, Upload { headers: kept(&parts.headers), ..Upload::default() });
            text(StatusCode::OK, xml)
        }
        (Method::POST, Some(id)) => {
            let upload = state.uploads.remove(&id).context("no such upload")?;
            let (object, xml) = completed(upload);
            state.objects.insert(path, object);
            text(StatusCode::OK, xml)
        }
        (Method::GET | Method::HEAD, _) => match state.objects.get(&path) {
            Some(object) => shown(object, &parts.headers, &state.block),
            None => text(StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>".to_owned()),
        },
        (Method::DELETE, _) => text(StatusCode::NO_CONTENT, String::new()),
        (_, _) => text(StatusCode::METHOD_NOT_ALLOWED, String::new()),
    }
}

/// The MD5 that the client told, as an `ETag`; where it told none, something that does not look like one.
fn etag_of(headers: &HeaderMap) -> String {
    let told = headers.get("content-md5").and_then(|md5| STANDARD.decode(md5.as_bytes()).ok());
    told.map_or_else(|| "none".to_owned(), hex::encode)
}

fn kept(headers: &HeaderMap) -> HeaderMap {
    let kept = headers.iter().filter(|(name, _)| name.as_str().starts_with(KEPT));
    kept.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn stored(headers: &HeaderMap, crc32c: Option<HeaderValue>) -> Result<Answer> {
    let mut answer = text(StatusCode::OK, String::new())?;
    answer.headers_mut().insert(ETAG, format!("\"{}\"", etag_of(headers)).parse()?);
    if let Some(crc32c) = crc32c {
        answer.headers_mut().insert(CRC32C, crc32c);
    }
    Ok(answer)
}

/// An object of the parts, its checksum composed of theirs.
fn completed(upload: Upload) -> (Object, String) {
    let count = upload.parts.len();
    let crcs: Option<Vec<Vec<u8>>> =
        upload.parts.values().map(|part| STANDARD.decode(part.crc32c.as_ref()?.as_bytes()).ok()).collect();
    let checksum = crcs.map_or_else(String::new, |crcs| {
        let composed = STANDARD.encode(crc_fast::crc32_iscsi(&crcs.concat()).to_be_bytes());
        format!("<ChecksumCRC32C>{composed}-{count}</ChecksumCRC32C><ChecksumType>COMPOSITE</ChecksumType>")
    });
    let etag = format!("none-{count}");
    let size = upload.parts.values().map(|part| part.size).sum();
    let xml =
        format!("<CompleteMultipartUploadResult><ETag>\"{etag}\"</ETag>{checksum}</CompleteMultipartUploadResult>");
    (Object { size, etag, headers: upload.headers }, xml)
}

fn shown(object: &Object, headers: &HeaderMap, block: &Bytes) -> Result<Answer> {
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok()).and_then(|range| range.strip_prefix("bytes="));
    let (start, end) = match range.and_then(|range| range.split_once('-')) {
        Some((start, "")) => (start.parse()?, object.size),
        Some((start, last)) => (start.parse()?, (last.parse::<u64>()? + 1).min(object.size)),
        None => (0, object.size),
    };
    let block = block.clone();
    let pieces = stream::unfold(start, move |at: u64| {
        let piece = (at < end).then(|| {
            let from = usize::try_from(at % BLOCK_BYTES as u64).unwrap_or_default();
            let room = PIECE_BYTES.min(BLOCK_BYTES - from);
            let length = room.min(usize::try_from(end - at).unwrap_or(room));
            (Ok(Frame::data(block.slice(from..from + length))), at + length as u64)
        });
        std::future::ready(piece)
    });
    let mut answer = Response::new(http_body_util::BodyExt::boxed(StreamBody::new(pieces)));
    if range.is_some() {
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {start}-{}/{}", end.saturating_sub(1), object.size);
        answer.headers_mut().insert(CONTENT_RANGE, range.parse()?);
    }
    let told = answer.headers_mut();
    told.extend(object.headers.clone());
    told.insert(ETAG, format!("\"{}\"", object.etag).parse()?);
    told.insert(LAST_MODIFIED, HeaderValue::from_static("Mon, 05 Jan 2026 09:00:00 GMT"));
    told.insert(CONTENT_LENGTH, (end - start).into());
    Ok(answer)
}

fn text(status: StatusCode, text: String) -> Result<Answer> {
    Ok(Response::builder().status(status).body(Full::new(Bytes::from(text)).boxed())?)
}
