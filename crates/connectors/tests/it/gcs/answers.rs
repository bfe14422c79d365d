//! What is sent to Google Cloud Storage, and answers that no server at hand gives.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use connectors::contract;
use connectors::gcs::Config;
use connectors::memory::{MemoryJournal, MemorySource};
use connectors::{Connector as _, Kind, Limits, Progress};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};

use super::{connector, gcs_with, of, with_limits};
use crate::scripted::{Request, Scripted, answer, cut_in, shows_no_part};
use crate::{LIMITS, PART_BYTES};

const LARGE: usize = PART_BYTES + 10;
const TOKEN: &str = "ya29.canary-token";
const ONCE: Limits = Limits { tries: 1, ..LIMITS };

/// A key that was just made.
fn private_key() -> String {
    use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
    let pair = aws_lc_rs::rsa::KeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der.as_ref()))
}

/// A server that issues tokens, and answers everything else as it is told.
async fn server(respond: impl Fn(&Request) -> http::Response<String> + Send + Sync + 'static) -> (Scripted, Config) {
    let scripted = Scripted::start(move |request| match request.uri().path() {
        "/token" => answer(200, &[], &json!({"access_token": TOKEN, "token_type": "Bearer"}).to_string()),
        _ => respond(request),
    });
    let scripted = scripted.await;
    let endpoint = format!("http://{}", scripted.addr);
    let config = Config {
        bucket: "bkt".to_owned(),
        client_email: "me@project".to_owned(),
        private_key: private_key().into(),
        token_uri: Some(format!("{endpoint}/token")),
        endpoint: Some(endpoint),
    };
    (scripted, config)
}

/// The requests but those for tokens.
fn seen(server: &Scripted) -> Vec<Request> {
    server.seen().into_iter().filter(|request| request.uri().path() != "/token").collect()
}

fn crc32c(bytes: &[u8]) -> String {
    STANDARD.encode(connectors::Digests::of(bytes).crc32c.to_be_bytes())
}

/// Google's own client finds what was stored, and how.
#[tokio::test(flavor = "multi_thread")]
async fn googles_own_client_reads_it_back() {
    let bucket = "gcs-read-back";
    let Some(gcs) = gcs_with(bucket).await else { return };
    let connector = connector(&of(&gcs, &gcs.endpoint, bucket));
    for size in [0, 100, 12 * 1024 * 1024] {
        let source = Arc::new(MemorySource::new(contract::bytes(size, 1)));
        let receipt = contract::put(&connector, "a b/ü%2F", &source).await.unwrap();
        assert_eq!(receipt.location, format!("gs://{bucket}/a b/ü%2F"));
        assert_eq!(receipt.verified, "crc32c");
        let script = format!(
            "
import hashlib
bucket = gated().bucket({bucket:?})
blob = bucket.get_blob('a b/ü%2F')
# By its name: the emulator's link to the bytes does not escape the percent sign.
data = bucket.blob(blob.name).download_as_bytes(checksum='crc32c') if blob.size else b''
result = [blob.content_type, blob.crc32c, str(blob.generation), blob.etag, hashlib.sha256(data).hexdigest()]"
        );
        let sha256 = testkit::bytes::digest(source.bytes()).sha256;
        let crc32c = crc32c(source.bytes());
        let expected = json!(["application/x-contract", crc32c, receipt.version, receipt.etag, sha256]);
        assert_eq!(gcs.python(&script).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_small_object_is_one_request_with_its_checksum() {
    let bytes = contract::bytes(1000, 1);
    let stored = json!({"crc32c": crc32c(&bytes), "size": "1000", "generation": "7", "etag": "E/=="}).to_string();
    let (server, config) = server(move |_| answer(200, &[], &stored)).await;
    let source = Arc::new(MemorySource::new(bytes));
    let receipt = contract::put(&connector(&config), "/a ü", &source).await.unwrap();
    assert_eq!((receipt.version.as_deref(), receipt.etag.as_deref()), (Some("7"), Some("E/==")));
    let [request] = seen(&server).try_into().unwrap();
    assert_eq!(request.uri(), "/upload/storage/v1/b/bkt/o?uploadType=multipart");
    assert_eq!(request.headers()["authorization"], format!("Bearer {TOKEN}"));
    let related = request.headers()["content-type"].to_str().unwrap().to_owned();
    let boundary = related.strip_prefix("multipart/related; boundary=").unwrap();
    let body = String::from_utf8_lossy(request.body());
    let parts: Vec<&str> = body.split(&format!("--{boundary}")).collect();
    assert_eq!((parts.len(), parts[0], parts[3]), (4, "", "--\r\n"));
    let metadata: Value = serde_json::from_str(parts[1].split_once("\r\n\r\n").unwrap().1).unwrap();
    let crc32c = crc32c(source.bytes());
    assert_eq!(metadata, json!({"name": "/a ü", "contentType": "application/x-contract", "crc32c": crc32c}));
    assert!(parts[2].starts_with("\r\nContent-Type: application/x-contract\r\n\r\n"), "the types must agree");
}

/// Answers like the service to one upload in chunks.
fn session(location: String, stored: String) -> impl Fn(&Request) -> http::Response<String> {
    move |request| match request.headers().get("content-range").map(|range| range.to_str().unwrap()) {
        None => answer(200, &[("location", &location)], &stored),
        Some(range) if range.starts_with("bytes 0-") => {
            answer(308, &[("range", &format!("bytes=0-{}", PART_BYTES - 1))], "")
        }
        Some(_) => answer(200, &[], &stored),
    }
}

/// Where the server's session is; the server is not known before it has started.
async fn with_session(stored: Value, at: impl Fn(&str) -> String) -> (Scripted, Config) {
    let listening = Arc::new(std::sync::Mutex::new(String::new()));
    let shared = Arc::clone(&listening);
    let (scripted, config) =
        server(move |request| session(shared.lock().unwrap().clone(), stored.to_string())(request)).await;
    *listening.lock().unwrap() = at(&format!("http://{}", scripted.addr));
    (scripted, config)
}

#[tokio::test]
async fn a_large_object_goes_in_chunks_to_its_session() {
    let source = Arc::new(MemorySource::new(contract::bytes(LARGE, 2)));
    let stored = json!({"crc32c": crc32c(source.bytes())});
    let (server, config) = with_session(stored, |server| format!("{server}/s?a=b&upload_id=u%2F1")).await;
    contract::put(&connector(&config), "k", &source).await.unwrap();
    let [first, chunk, last] = seen(&server).try_into().unwrap();
    assert_eq!(first.uri(), "/upload/storage/v1/b/bkt/o?uploadType=resumable");
    assert_eq!(first.headers()["x-upload-content-type"], "application/x-contract");
    assert_eq!(first.headers()["x-upload-content-length"], LARGE.to_string().as_str());
    let metadata: Value = serde_json::from_slice(first.body()).unwrap();
    let crc32c = crc32c(source.bytes());
    assert_eq!(metadata, json!({"name": "k", "contentType": "application/x-contract", "crc32c": crc32c}));
    for (request, range) in [
        (&chunk, format!("bytes 0-{}/{LARGE}", PART_BYTES - 1)),
        (&last, format!("bytes {PART_BYTES}-{}/{LARGE}", LARGE - 1)),
    ] {
        assert_eq!(request.uri(), "/s?a=b&upload_id=u%2F1", "the address is used as it was given");
        assert_eq!(request.headers()["content-range"], range.as_str());
    }
}

/// Neither bytes nor a token go to where the service itself is not.
#[tokio::test]
async fn a_session_of_a_foreign_origin_is_refused() {
    let (elsewhere, _) = server(|_| answer(200, &[], "")).await;
    let foreign = format!("http://{}/s?upload_id=1", elsewhere.addr);
    for location in [foreign, "https://storage.googleapis.com/s".to_owned(), "/s?upload_id=1".to_owned(), String::new()]
    {
        let (server, config) = with_session(json!({}), |_| location.clone()).await;
        let journal = Arc::new(MemoryJournal::default());
        let source = Arc::new(MemorySource::new(contract::bytes(LARGE, 3)));
        let put = contract::request("k", &source, &journal, &Progress::default(), None);
        let error = connector(&config).put(put).await.unwrap_err();
        assert_eq!(error.kind, Kind::Protocol, "{error:?}");
        assert!(error.detail.contains("nothing is sent there"), "{error}");
        assert_eq!((seen(&server).len(), source.read_bytes()), (1, 0));
        let mut open = journal.open("k").unwrap();
        assert_eq!(open.handle, "", "it is not written down");
        open.handle = format!("http://{}/s", elsewhere.addr);
        assert_eq!(connector(&config).abort(&open).await.unwrap_err().kind, Kind::Protocol);
    }
    assert_eq!(elsewhere.seen().len(), 0);
}

/// A service that stores other bytes than it was sent is not believed, in one request and in chunks.
#[tokio::test]
async fn other_marks_are_a_mismatch() {
    for stored in [json!({"crc32c": "AAAAAA=="}), json!({"md5Hash": "AAAA"}), json!({"size": "3"})] {
        let (_server, config) = with_session(stored, |server| format!("{server}/s")).await;
        for size in [10, LARGE] {
            let source = Arc::new(MemorySource::new(contract::bytes(size, 4)));
            let error = contract::put(&with_limits(&config, ONCE), "k", &source).await.unwrap_err();
            assert_eq!(error.kind, Kind::IntegrityMismatch, "{error:?}");
        }
    }
}

/// Services that speak the protocol and name no checksum: the next best proof counts, and is named.
#[tokio::test]
async fn the_strongest_mark_is_the_proof() {
    let source = Arc::new(MemorySource::new(contract::bytes(10, 5)));
    let md5 = STANDARD.encode(connectors::Digests::of(source.bytes()).md5.unwrap());
    for (stored, verified) in [(json!({"md5Hash": md5, "size": "10"}), "md5"), (json!({"size": "10"}), "size")] {
        let (_server, config) = server(move |_| answer(200, &[], &stored.to_string())).await;
        assert_eq!(contract::put(&connector(&config), "k", &source).await.unwrap().verified, verified);
    }
    for body in ["{}", "<html></html>"] {
        let (_server, config) = server(move |_| answer(200, &[], body)).await;
        let error = contract::put(&connector(&config), "k", &source).await.unwrap_err();
        assert!(error.kind == Kind::Protocol && error.detail.contains("check `endpoint`"), "{error:?}");
    }
}

/// A server that repeats in its refusal all that it was told.
#[tokio::test]
async fn a_refusal_repeats_no_secret() {
    let session = Arc::new(std::sync::Mutex::new(String::new()));
    let shared = Arc::clone(&session);
    let (server, config) = server(move |request| {
        if request.method() == "POST" {
            return answer(200, &[("location", &shared.lock().unwrap())], "");
        }
        let mut told = format!("{} {}", shared.lock().unwrap(), request.uri());
        for (name, value) in request.headers() {
            write!(told, " {name}={}", value.to_str().unwrap()).unwrap();
        }
        let error = json!({"error": {"message": told, "errors": [{"reason": told}]}}).to_string();
        answer(400, &[("x-guploader-uploadid", "canary-session")], &error)
    })
    .await;
    *session.lock().unwrap() = format!("http://{}/s?upload_id=canary-session", server.addr);
    let source = Arc::new(MemorySource::new(contract::bytes(LARGE, 6)));
    let error = contract::put(&connector(&config), "k", &source).await.unwrap_err();
    assert!(error.detail.contains("***"), "it was not repeated: {error:?}");
    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
}

#[tokio::test]
async fn no_message_is_cut_within_a_secret() {
    for message in cut_in(TOKEN) {
        let body = json!({"error": {"message": message, "errors": [{"reason": "odd"}]}}).to_string();
        let (_server, config) = server(move |_| answer(400, &[], &body)).await;
        shows_no_part(&connector(&config).stat("k").await.unwrap_err(), TOKEN);
    }
}

/// A token that is never good is renewed once, and then the credentials are to blame.
#[tokio::test]
async fn tokens_are_renewed_once() {
    let (server, config) = server(|_| answer(401, &[], "")).await;
    let error = connector(&config).stat("k").await.unwrap_err();
    assert!(error.kind == Kind::InvalidCredentials && !error.is_transient(), "{error:?}");
    assert_eq!((seen(&server).len(), server.seen().len()), (2, 4));
}

#[tokio::test]
async fn the_token_endpoint_may_stumble() {
    let asked = AtomicUsize::new(0);
    let tokens = Scripted::start(move |request| {
        if asked.fetch_add(1, Ordering::Relaxed) == 0 {
            return answer(503, &[], "{\"error\": \"internal_failure\"}");
        }
        let form = String::from_utf8_lossy(request.body());
        let grant = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=ey";
        assert!(form.starts_with(grant), "{form}");
        answer(200, &[], "{\"access_token\": \"t\", \"expires_in\": 3599}")
    });
    let tokens = tokens.await;
    let (_server, config) = server(|_| answer(404, &[], "")).await;
    let config = Config { token_uri: Some(format!("http://{}/", tokens.addr)), ..config };
    assert_eq!(connector(&config).stat("k").await.unwrap_err().kind, Kind::NotFound);
    for body in ["{}", "{\"access_token\": \"\"}", "{\"access_token\": \"canary\\n\"}", "canary"] {
        let tokens = Scripted::start(move |_| answer(200, &[], body)).await;
        let config = Config { token_uri: Some(format!("http://{}/", tokens.addr)), ..config.clone() };
        let error = connector(&config).stat("k").await.unwrap_err();
        assert!(error.kind == Kind::Protocol && error.detail.contains("check `token_uri`"), "{error:?}");
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
    }
}

/// Bytes are served as they are stored, and are compared with the checksum of the whole, when all are read.
#[tokio::test]
async fn what_is_read_is_checked() {
    let right = format!("crc32c={},md5=x", crc32c(b"hello"));
    let (server, config) = server(move |request| {
        let is_part = request.headers()["range"] != "bytes=0-4";
        let (range, body) = if is_part { ("bytes 1-4/5", "ello") } else { ("bytes 0-4/5", "hello") };
        let hash = if request.uri().path().ends_with("wrong") { "crc32c=AAAAAA==" } else { right.as_str() };
        answer(206, &[("content-range", range), ("x-goog-hash", hash)], body)
    })
    .await;
    let connector = connector(&config);
    let read = async |name: &str, range| connector.read(name, range).await?.try_collect::<BytesMut>().await;
    assert_eq!(read("right", 0..5).await.unwrap(), "hello");
    assert_eq!(read("wrong", 1..5).await.unwrap(), "ello", "of a part nothing can be said");
    assert_eq!(read("wrong", 0..5).await.unwrap_err().kind, Kind::IntegrityMismatch);
    assert_eq!(read("right", 0..4).await.unwrap_err().kind, Kind::Protocol, "that is another range");
    let first = &seen(&server)[0];
    assert_eq!(first.uri(), "/download/storage/v1/b/bkt/o/right?alt=media");
    assert_eq!(first.headers()["accept-encoding"], "gzip", "else it may be unpacked on the way");
}

#[tokio::test]
async fn listings_come_in_pages() {
    let (server, config) = server(|request| {
        let query = request.uri().query().unwrap();
        let token = query.split("pageToken=").nth(1);
        let page = match token {
            None => json!({"items": [{"name": "p/b", "size": "2"}], "nextPageToken": "t/1"}),
            Some("t%2F1") => json!({"nextPageToken": "t2"}),
            Some(_) if query.contains("prefix=endless") => json!({"nextPageToken": format!("{}x", token.unwrap())}),
            Some(_) => json!({"items": [{"name": "p/a", "size": "1"}]}),
        };
        answer(200, &[], &page.to_string())
    })
    .await;
    let connector = connector(&config);
    let names = |found: Vec<connectors::Object>| found.into_iter().map(|object| object.name).collect::<Vec<_>>();
    assert_eq!(names(connector.list("p/ü", 5).await.unwrap()), ["p/a", "p/b"]);
    assert!(seen(&server)[0].uri().query().unwrap().ends_with("maxResults=6&prefix=p%2F%C3%BC"));
    assert_eq!(connector.list("p/", 1).await.unwrap_err().kind, Kind::TooMany);
    assert_eq!(connector.list("endless", 5).await.unwrap_err().kind, Kind::Protocol);
}

#[tokio::test]
async fn names_that_cannot_be_are_refused_before_anything_is_sent() {
    let (server, config) = server(|_| answer(200, &[], "{}")).await;
    let connector = connector(&config);
    for name in ["", ".", "..", "a\nb", "a\rb", &"x".repeat(1025)] {
        let source = Arc::new(MemorySource::new(&b"x"[..]));
        assert_eq!(contract::put(&connector, name, &source).await.unwrap_err().kind, Kind::InvalidRequest);
        assert_eq!(connector.stat(name).await.unwrap_err().kind, Kind::InvalidRequest);
    }
    assert_eq!(server.seen().len(), 0);
    for bucket in ["", "gs://b", "..", "a/b"] {
        let config = Config { bucket: bucket.to_owned(), ..config.clone() };
        let made = connectors::gcs::Gcs::new(
            &config,
            crate::client(&LIMITS).unwrap(),
            &connectors::gcs::Tokens::default(),
            LIMITS,
        );
        assert_eq!(made.unwrap_err().kind, Kind::InvalidRequest);
    }
}
