//! An S3 server over TLS that does as little as it can: what is left is the client's cost.
//!
//! It takes what all sides send (objects in one piece and in parts, CRC32C or MD5), and answers the checksums that it
//! is told without looking at the bytes; it checks no signature. The bytes stay in memory that is used again and again,
//! so that they can be got back and compared: one copy is all that they cost. One that [swallows](NullSink::swallowing)
//! keeps their number only, for objects that no memory would hold: what comes must be the block of [`content`] again and
//! again, and is compared with it; the same comes back.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, ensure};
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

use self::pieces::{between, unchunk};
use crate::bench::content;

mod pieces;

/// Room for what `aws-chunked` puts between the bytes, of which there is a little for each MiB.
const FRAMING_BYTES: usize = 64 * 1024;
/// Headers of a creation that come back with the object.
const KEPT: &str = "x-amz-meta-";
/// Largest body that is swallowed.
const SWALLOWED_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// The checksum that Consign sends.
const CRC32C: &str = "x-amz-checksum-crc32c";

/// The running server.
#[derive(Debug)]
pub(in crate::bench) struct NullSink {
    addr: SocketAddr,
    ca_file: PathBuf,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Object>,
    /// Open uploads by their id, which is the path and a number.
    uploads: HashMap<String, Upload>,
    /// How many uploads there were.
    opened: u64,
    /// Memory of objects that were deleted: touching fresh memory would cost more than all the rest.
    spare: Vec<Vec<u8>>,
    /// What stands for every body where none is kept.
    stand_in: Option<Bytes>,
}

#[derive(Clone, Debug, Default)]
struct Object {
    size: u64,
    etag: String,
    headers: HeaderMap,
    pieces: Vec<Bytes>,
}

#[derive(Debug, Default)]
struct Upload {
    headers: HeaderMap,
    parts: BTreeMap<u32, Part>,
}

#[derive(Debug)]
struct Part {
    bytes: Bytes,
    crc32c: Option<HeaderValue>,
}

impl State {
    /// Memory for so many bytes, empty.
    fn memory(&mut self, size: usize) -> Vec<u8> {
        let fits = |spare: &Vec<u8>| (size..=2 * size).contains(&spare.capacity());
        let found = self.spare.iter().position(fits).map(|place| self.spare.swap_remove(place));
        found.unwrap_or_else(|| Vec::with_capacity(size))
    }

    fn forget(&mut self, path: &str) {
        let forgotten = self.objects.remove(path).unwrap_or_default();
        if self.stand_in.is_some() {
            return;
        }
        for piece in forgotten.pieces {
            let mut memory = Vec::from(piece);
            memory.clear();
            self.spare.push(memory);
        }
    }

    fn put(&mut self, path: String, object: Object) {
        self.forget(&path);
        self.objects.insert(path, object);
    }
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

impl NullSink {
    /// Starts the server; the certificate that it is known by is written into `folder`.
    ///
    /// # Errors
    /// When it cannot listen, or the certificate not be written.
    pub(in crate::bench) async fn start(folder: &Path) -> Result<Self> {
        Self::start_with(folder, State::default()).await
    }

    /// Starts a server that takes only what repeats the block of [`content`], in parts of whole mebibytes (32 at most), and
    /// keeps how much came.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub(in crate::bench) async fn swallowing(folder: &Path) -> Result<Self> {
        let stand_in: Vec<u8> = content::repeated(0, SWALLOWED_BYTES_MAX).flatten().collect();
        let stand_in = Some(stand_in.into());
        Self::start_with(folder, State { stand_in, ..State::default() }).await
    }

    async fn start_with(folder: &Path, state: State) -> Result<Self> {
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
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&shared));
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
        Ok(Self { addr, ca_file, state })
    }

    pub(in crate::bench) fn endpoint(&self) -> String {
        format!("https://{}", self.addr)
    }

    pub(in crate::bench) fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// Shows bytes at an address until they are [withdrawn](Self::withdraw).
    pub(in crate::bench) fn lend(&self, path: &str, bytes: Bytes) -> String {
        let object =
            Object { size: bytes.len() as u64, etag: "lent".to_owned(), pieces: vec![bytes], ..Object::default() };
        locked(&self.state).objects.insert(path.to_owned(), object);
        format!("{}{path}", self.endpoint())
    }

    /// Shows them no longer, and gives their memory back to the machine.
    pub(in crate::bench) fn withdraw(&self, path: &str) {
        locked(&self.state).objects.remove(path);
    }

    /// Takes away what was stored under paths that begin so: SHA-256 by the rest of the path.
    pub(in crate::bench) fn take(&self, begins: &str) -> BTreeMap<String, String> {
        let found: Vec<(String, Vec<Bytes>)> = (locked(&self.state).objects.range(begins.to_owned()..))
            .take_while(|(path, _)| path.starts_with(begins))
            .map(|(path, object)| (path.clone(), object.pieces.clone()))
            .collect();
        // Memory is used again only when nobody else looks at it: the pieces go before the objects.
        let digests: Vec<_> = found.into_iter().map(|(path, pieces)| (path, content::sha256(pieces))).collect();
        let mut state = locked(&self.state);
        for (path, _) in &digests {
            state.forget(path);
        }
        digests.into_iter().map(|(path, sha256)| (path[begins.len()..].to_owned(), sha256)).collect()
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Answer> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let asked = |name: &str| {
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let (parts, body) = request.into_parts();
    // What completes an upload is a list, not the bytes of an object.
    let swallows = parts.method == Method::PUT;
    let received = received(&state, &parts.headers, swallows, body).await?;
    let mut state = locked(&state);
    let upload = asked("uploadId").map(|id| id.replace("%2F", "/"));
    match (parts.method, upload) {
        (Method::PUT, Some(id)) => {
            let number: u32 = asked("partNumber").context("partNumber")?.parse()?;
            let crc32c = parts.headers.get(CRC32C).cloned();
            let upload = state.uploads.get_mut(&id).context("no such upload")?;
            upload.parts.insert(number, Part { bytes: received, crc32c: crc32c.clone() });
            stored(&parts.headers, crc32c)
        }
        (Method::PUT, None) => {
            let (etag, headers) = (etag_of(&parts.headers), kept(&parts.headers));
            let object = Object { size: received.len() as u64, etag, headers, pieces: vec![received] };
            state.put(path, object);
            stored(&parts.headers, parts.headers.get(CRC32C).cloned())
        }
        (Method::POST, None) => {
            state.opened += 1;
            let id = format!("{path}.{}", state.opened);
            let xml =
                format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>");
            state.uploads.insert(id, Upload { headers: kept(&parts.headers), ..Upload::default() });
            text(StatusCode::OK, xml)
        }
        (Method::POST, Some(id)) => {
            let upload = state.uploads.remove(&id).context("no such upload")?;
            let (object, xml) = completed(upload);
            state.put(path, object);
            text(StatusCode::OK, xml)
        }
        (Method::GET, _) if path.matches('/').count() == 1 || path.ends_with('/') => {
            let prefix = asked("prefix").unwrap_or_default().replace("%2F", "/");
            text(StatusCode::OK, listed(&state.objects, &format!("{}/", path.trim_end_matches('/')), &prefix))
        }
        (Method::GET | Method::HEAD, _) => match state.objects.get(&path) {
            Some(object) => shown(object, &parts.headers),
            None => text(StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>".to_owned()),
        },
        (Method::DELETE, _) => {
            state.forget(&path);
            text(StatusCode::NO_CONTENT, String::new())
        }
        (_, _) => text(StatusCode::METHOD_NOT_ALLOWED, String::new()),
    }
}

/// The body of a request, in memory that was used before if there is some.
async fn received(state: &Mutex<State>, headers: &HeaderMap, swallows: bool, mut body: Incoming) -> Result<Bytes> {
    let length = |name: &str| headers.get(name).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    // `aws` sends bodies without a length, and says how long they are inside.
    let size = length("content-length").or_else(|| length("x-amz-decoded-content-length")).unwrap_or_default();
    if size == 0 {
        return Ok(Bytes::new());
    }
    let stand_in = locked(state).stand_in.clone().filter(|_| swallows);
    if let Some(stand_in) = stand_in {
        return swallowed(&stand_in, body).await;
    }
    let mut memory = locked(state).memory(size + FRAMING_BYTES);
    while let Some(frame) = body.frame().await {
        if let Some(data) = frame?.data_ref() {
            memory.extend_from_slice(data);
        }
    }
    if headers.contains_key("x-amz-decoded-content-length") {
        unchunk(&mut memory)?;
    }
    Ok(Bytes::from(memory))
}

/// What stands for a body that is compared and not kept.
async fn swallowed(stand_in: &Bytes, mut body: Incoming) -> Result<Bytes> {
    let mut came = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame?;
        let data = frame.data_ref().map_or(&[][..], Bytes::as_ref);
        ensure!(stand_in.get(came..came + data.len()) == Some(data), "other bytes came, or too many, at {came}");
        came += data.len();
    }
    Ok(stand_in.slice(..came))
}

/// All names that begin so, in one page.
fn listed(objects: &BTreeMap<String, Object>, bucket: &str, prefix: &str) -> String {
    let mut xml = format!("<ListBucketResult><IsTruncated>false</IsTruncated><Prefix>{prefix}</Prefix>");
    let begins = format!("{bucket}{prefix}");
    for (path, object) in objects.range(begins.clone()..).take_while(|(path, _)| path.starts_with(&begins)) {
        let _ = write!(
            xml,
            "<Contents><Key>{}</Key><LastModified>2026-01-05T09:00:00.000Z</LastModified><ETag>\"{}\"</ETag>\
             <Size>{}</Size></Contents>",
            &path[bucket.len()..],
            object.etag,
            object.size,
        );
    }
    xml.push_str("</ListBucketResult>");
    xml
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
    let size = upload.parts.values().map(|part| part.bytes.len() as u64).sum();
    let xml =
        format!("<CompleteMultipartUploadResult><ETag>\"{etag}\"</ETag>{checksum}</CompleteMultipartUploadResult>");
    let pieces = upload.parts.into_values().map(|part| part.bytes).collect();
    (Object { size, etag, headers: upload.headers, pieces }, xml)
}

fn shown(object: &Object, headers: &HeaderMap) -> Result<Answer> {
    let range = headers.get(RANGE).and_then(|range| range.to_str().ok()).and_then(|range| range.strip_prefix("bytes="));
    let (start, end) = match range.and_then(|range| range.split_once('-')) {
        Some((start, "")) => (start.parse()?, object.size),
        Some((start, last)) => (start.parse()?, (last.parse::<u64>()? + 1).min(object.size)),
        None => (0, object.size),
    };
    let pieces = stream::iter(between(&object.pieces, start, end).into_iter().map(|bytes| Ok(Frame::data(bytes))));
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

#[cfg(test)]
mod tests {
    use super::*;
    use connectors::Limits;
    use connectors::egress::Guard;
    use connectors::http::{Body, Client, tls_config};
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;

    fn client(sink: &NullSink) -> Client {
        let guard = Guard::new(["127.0.0.0/8".parse().unwrap()]);
        let trusted = CertificateDer::from_pem_file(sink.ca_file()).unwrap();
        Client::new(guard, tls_config(&[trusted]).unwrap(), &Limits::default())
    }

    async fn put(client: &Client, url: String, bytes: Vec<u8>) -> bool {
        let request = Request::put(url).body(Body::from(Bytes::from(bytes))).unwrap();
        client.send(request, "storing").await.is_ok_and(|answer| answer.status().is_success())
    }

    #[tokio::test]
    async fn what_came_is_known_by_its_digest_and_then_gone() {
        let folder = tempfile::tempdir().unwrap();
        let sink = NullSink::start(folder.path()).await.unwrap();
        let client = client(&sink);
        assert!(put(&client, format!("{}/b/x/1", sink.endpoint()), b"hello".to_vec()).await);
        sink.lend("/b/y", Bytes::from_static(b"other"));
        let expected = BTreeMap::from([("1".to_owned(), content::sha256(["hello"]))]);
        assert_eq!((sink.take("/b/x/"), sink.take("/b/x/")), (expected, BTreeMap::new()));
        sink.withdraw("/b/y");
        assert!(sink.take("/b/").is_empty());
    }

    #[tokio::test]
    async fn only_the_block_again_and_again_is_swallowed() {
        let folder = tempfile::tempdir().unwrap();
        let sink = NullSink::swallowing(folder.path()).await.unwrap();
        let client = client(&sink);
        let mut bytes: Vec<u8> = content::repeated(0, content::BLOCK_BYTES as u64 + 9).flatten().collect();
        assert!(put(&client, format!("{}/b/x", sink.endpoint()), bytes.clone()).await);
        bytes[content::BLOCK_BYTES + 5] ^= 1;
        assert!(!put(&client, format!("{}/b/y", sink.endpoint()), bytes).await);
        assert_eq!(sink.take("/b/").into_keys().collect::<Vec<_>>(), ["x"]);
    }
}
