//! Tests of downloads: redirects, secrets, names, broken bodies, and addresses that nobody may reach.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use std::{io, net::IpAddr, net::SocketAddr, sync::Arc};

use async_trait::async_trait;
use futures_util::TryStreamExt as _;
use tokio::net::TcpListener;

use super::*;
use crate::egress::{Guard, Resolver, Rule};
use crate::http::scripted::{Server, Step, client};

const IDLE: Duration = Duration::from_millis(500);

fn web(server: &Server) -> Web {
    Web::new(server.client(IDLE), &Limits { tries: 3, ..Limits::default() })
}

fn ok(headers: &str, body: &str) -> Step {
    Step::send(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()))
}

fn redirect(status: u16, to: &str) -> Step {
    Step::send(format!("HTTP/1.1 {status} Moved\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"))
}

async fn all(download: Download) -> Result<Vec<u8>> {
    download
        .stream
        .try_fold(Vec::new(), |mut all, chunk| async move {
            all.extend_from_slice(&chunk);
            Ok(all)
        })
        .await
}

fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
    list.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

#[tokio::test]
async fn a_file_arrives_with_what_the_server_says_of_it() {
    let server = Server::start(|_, _| {
        vec![ok("content-type: text/plain\r\ncontent-disposition: attachment; filename=\"a b.txt\"\r\n", "hello")]
    })
    .await;
    let download = web(&server).get(&server.url("/x?token=secret#part"), &HeaderMap::new()).await.unwrap();
    assert_eq!(download.file_name.as_deref(), Some("a b.txt"));
    assert_eq!(download.content_type.as_deref(), Some("text/plain"));
    assert_eq!(download.size, Some(5));
    assert_eq!(download.location, server.url("/x"));
    assert_eq!(all(download).await.unwrap(), b"hello");
    let request = &server.requests()[0];
    assert!(request.starts_with("GET /x?token=secret HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("accept-encoding: identity\r\n"), "{request}");
}

#[tokio::test]
async fn an_address_is_encoded_where_it_must_be_and_left_alone_where_it_is() {
    let server = Server::start(|_, _| vec![ok("", "")]).await;
    for (path, sent) in [
        ("/a b/ü.txt", "/a%20b/%C3%BC.txt"),
        ("/a%20b/%C3%BC.txt", "/a%20b/%C3%BC.txt"),
        ("/100%/x", "/100%/x"),
        ("/a%2Fb?x=%2F&y=ü z", "/a%2Fb?x=%2F&y=%C3%BC%20z"),
        ("/a|b[1]{2}\"<>^`", "/a|b[1]%7B2%7D%22%3C%3E^%60"),
        ("/x/../y/./z", "/y/z"),
        ("\\win\\path", "/win/path"),
        ("/'(quoted)'?a='b'", "/'(quoted)'?a=%27b%27"),
    ] {
        web(&server)
            .get(&server.url(path), &HeaderMap::new())
            .await
            .unwrap_or_else(|error| panic!("{path}: {error:?}"));
        let request = server.requests().pop().unwrap();
        assert_eq!(request.split(' ').nth(1), Some(sent), "{path}");
    }
}

#[tokio::test]
async fn the_name_comes_from_the_path_that_looks_like_a_file() {
    let server = Server::start(|_, head| match head.split(' ').nth(1).unwrap() {
        "/report.pdf" => vec![redirect(302, "/blob/8a7f")],
        "/download" => vec![redirect(302, "/files/final%20report.pdf")],
        _ => vec![ok("", "")],
    })
    .await;
    for (path, name) in [
        ("/report.pdf", Some("report.pdf")),
        ("/download", Some("final report.pdf")),
        ("/caf%C3%A9", Some("café")),
        ("/caf%E9", Some("café")),
        ("/..%2f..%2fetc%2fpasswd", Some("../../etc/passwd")),
        ("/", None),
    ] {
        let download = web(&server).get(&server.url(path), &HeaderMap::new()).await.unwrap();
        assert_eq!(download.file_name.as_deref(), name, "{path}");
    }
}

#[tokio::test]
async fn redirects_are_followed_with_get_and_in_bounds() {
    let server = Server::start(|_, head| {
        let path = head.split(' ').nth(1).unwrap();
        match path.trim_start_matches('/').parse::<u16>() {
            Ok(0) => vec![ok("", "done")],
            Ok(left) => vec![redirect([301, 302, 303, 307, 308][usize::from(left) % 5], &format!("{}", left - 1))],
            Err(_) => vec![redirect(302, path)],
        }
    })
    .await;
    let download = web(&server).get(&server.url("/10"), &HeaderMap::new()).await.unwrap();
    assert_eq!(all(download).await.unwrap(), b"done");
    assert!(server.requests().iter().all(|request| request.starts_with("GET ")));
    for path in ["/11", "/loop"] {
        let error = web(&server).get(&server.url(path), &HeaderMap::new()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Protocol);
        assert_eq!(error.detail, "the URL redirects more than 10 times");
    }
}

#[tokio::test]
async fn redirects_to_nowhere_are_errors() {
    for to in ["ftp://files.example/", "file:///etc/passwd", "data:,x", "http://", "http://[::1", "gopher://1.1.1.1/"] {
        let server = Server::start(move |_, _| vec![redirect(302, to)]).await;
        let error = web(&server).get(&server.url("/"), &HeaderMap::new()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Protocol, "{to}");
    }
    let server = Server::start(|_, _| vec![Step::send("HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n")]).await;
    assert_eq!(web(&server).get(&server.url("/"), &HeaderMap::new()).await.unwrap_err().kind, Kind::Protocol);
}

#[tokio::test]
async fn secrets_stay_with_the_origin_they_were_meant_for() {
    let other = Server::start(|_, _| vec![ok("", "")]).await;
    let (same, elsewhere) = ("/next".to_owned(), other.url("/landed"));
    let server = Server::start(move |_, head| match head.split(' ').nth(1).unwrap() {
        "/same" => vec![redirect(302, &same)],
        "/away" => vec![redirect(307, &elsewhere)],
        _ => vec![ok("", "")],
    })
    .await;
    let web = Web::new(client([server.rule(), other.rule()], IDLE), &Limits::default());
    let sent =
        headers(&[("authorization", "Bearer t0ken"), ("x-api-key", "k3y"), ("cookie", "c=1"), ("accept", "a/b")]);
    web.get(&server.url("/same"), &sent).await.unwrap();
    let request = server.requests().pop().unwrap();
    assert!(request.starts_with("GET /next"));
    for secret in ["Bearer t0ken", "k3y", "c=1", "accept: a/b"] {
        assert!(request.contains(secret), "{secret} did not arrive: {request}");
    }
    web.get(&server.url("/away"), &sent).await.unwrap();
    let request = other.requests().pop().unwrap().to_lowercase();
    for secret in ["t0ken", "k3y", "cookie", "authorization"] {
        assert!(!request.contains(secret), "{secret} leaked: {request}");
    }
    assert!(request.contains("accept: a/b"));
}

#[tokio::test]
async fn user_info_becomes_a_header_and_is_never_shown() {
    let server = Server::start(|_, _| vec![Step::send("HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n")]).await;
    let url = server.url("/private?sig=c4nary").replace("http://", "http://us%40er:p%3Ass@");
    let error = web(&server).get(&url, &HeaderMap::new()).await.unwrap_err();
    assert_eq!(error.kind, Kind::InvalidCredentials);
    for secret in ["c4nary", "p:ss", "p%3Ass", "us%40er", "dXNA"] {
        assert!(!format!("{error:?} {error}").contains(secret), "{error:?}");
    }
    let request = server.requests().pop().unwrap();
    // base64 of `us@er:p:ss`
    assert!(request.contains("authorization: Basic dXNAZXI6cDpzcw==\r\n"), "{request}");
    assert!(!request.contains('@'), "{request}");
}

#[tokio::test]
async fn a_callers_headers_for_the_connection_are_left_out() {
    let server = Server::start(|_, _| vec![ok("", "")]).await;
    let sent = headers(&[
        ("host", "internal.example"),
        ("range", "bytes=5-"),
        ("accept-encoding", "gzip"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("user-agent", "mine/1"),
    ]);
    web(&server).get(&server.url("/"), &sent).await.unwrap();
    let request = server.requests().pop().unwrap();
    assert!(request.contains(&format!("host: {}\r\n", server.address)), "{request}");
    assert!(request.contains("user-agent: mine/1\r\n"), "{request}");
    for absent in ["internal.example", "range", "gzip", "content-length", "chunked", "consign/"] {
        assert!(!request.contains(absent), "{absent}: {request}");
    }
}

#[tokio::test]
async fn a_refusal_says_what_to_do() {
    for (status, kind, says) in [
        (404, Kind::NotFound, "the URL answers 404 Not Found; check that the file exists and is public"),
        (410, Kind::NotFound, "the URL answers 410 Gone; check that the file exists and is public"),
        (
            401,
            Kind::InvalidCredentials,
            "the URL answers 401 Unauthorized; it wants credentials, which `headers` can carry",
        ),
        (
            403,
            Kind::AccessDenied,
            "the URL answers 403 Forbidden; check that the file is public, or that the link has not expired",
        ),
        (400, Kind::InvalidRequest, "the URL answers 400 Bad Request"),
        (304, Kind::Protocol, "the URL answers 304 Not Modified, which is no file"),
    ] {
        let server =
            Server::start(move |_, _| vec![Step::send(format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\n\r\n"))])
                .await;
        let error = web(&server).get(&server.url("/f?s=1"), &HeaderMap::new()).await.unwrap_err();
        assert_eq!((error.kind, error.detail.as_str()), (kind, says));
        assert_eq!(error.answer.unwrap().status, Some(status));
        assert_eq!(server.requests().len(), 1, "{status} was tried again");
    }
}

#[tokio::test]
async fn a_server_that_is_busy_is_asked_again() {
    for status in [429, 500, 503] {
        let server = Server::start(move |number, _| match number {
            0 => vec![Step::send(format!("HTTP/1.1 {status} x\r\ncontent-length: 0\r\nretry-after: 0\r\n\r\n"))],
            _ => vec![ok("", "hello")],
        })
        .await;
        let download = web(&server).get(&server.url("/"), &HeaderMap::new()).await.unwrap();
        assert_eq!(all(download).await.unwrap(), b"hello");
    }
}

/// Serves `content` and breaks off after `at_once` bytes of every answer. `honest` servers know ranges.
fn breaking(
    content: &'static str,
    at_once: usize,
    marks: &'static str,
    honest: bool,
) -> impl Fn(usize, &str) -> Vec<Step> {
    move |_, head| {
        let from = head.split_once("range: bytes=").and_then(|(_, rest)| rest.split_once('-')).map(|(n, _)| n.parse());
        let from: usize = from.transpose().unwrap().filter(|_| honest).unwrap_or(0);
        let rest = &content[from..];
        let head = if from > 0 {
            format!("HTTP/1.1 206 Part\r\ncontent-range: bytes {from}-{}/{}\r\n", content.len() - 1, content.len())
        } else {
            "HTTP/1.1 200 OK\r\n".to_owned()
        };
        let head = format!("{head}content-length: {}\r\n{marks}\r\n", rest.len());
        let at_once = if honest { at_once } else { at_once * 2 };
        vec![Step::send(head), Step::send(&rest[..rest.len().min(at_once)]), Step::Close]
    }
}

const CONTENT: &str = "The quick brown fox jumps over the lazy dog";
const DATED: &str = "last-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\ndate: Sun, 06 Nov 1994 08:50:00 GMT\r\n";

#[tokio::test]
async fn a_broken_body_is_resumed_without_losing_or_repeating_a_byte() {
    for marks in ["etag: \"v1\"\r\n", DATED] {
        let server = Server::start(breaking(CONTENT, 17, marks, true)).await;
        let download = web(&server).get(&server.url("/f"), &headers(&[("x-key", "1")])).await.unwrap();
        assert_eq!(download.size, Some(43));
        assert_eq!(all(download).await.unwrap(), CONTENT.as_bytes());
        let requests = server.requests();
        assert_eq!(requests.len(), 3);
        assert!(requests[1].contains("range: bytes=17-\r\n") && requests[2].contains("range: bytes=34-\r\n"));
        assert!(requests[1].contains("x-key: 1"));
        let mark = if marks == DATED { "if-range: Sun, 06 Nov 1994 08:49:37 GMT" } else { "if-range: \"v1\"" };
        assert!(requests[1].contains(mark), "{}", requests[1]);
    }
}

#[tokio::test]
async fn a_server_without_ranges_repeats_and_the_repetition_is_dropped() {
    let count = AtomicUsize::new(0);
    let (short, whole) =
        (breaking(CONTENT, 5, "etag: \"v1\"\r\n", false), breaking(CONTENT, 99, "etag: \"v1\"\r\n", false));
    let server = Server::start(move |number, head| {
        if count.fetch_add(1, Ordering::Relaxed) == 0 { short(number, head) } else { whole(number, head) }
    })
    .await;
    let download = web(&server).get(&server.url("/f"), &HeaderMap::new()).await.unwrap();
    assert_eq!(all(download).await.unwrap(), CONTENT.as_bytes());
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_body_without_a_mark_fails_as_transient_instead_of_being_pieced_together() {
    for marks in ["", "etag: W/\"weak\"\r\n", "last-modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n"] {
        let server = Server::start(breaking(CONTENT, 17, marks, true)).await;
        let download = web(&server).get(&server.url("/f?k=s3cret"), &HeaderMap::new()).await.unwrap();
        let error = all(download).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        assert!(!format!("{error:?}").contains("s3cret"));
        assert_eq!(server.requests().len(), 1, "{marks}");
    }
}

#[tokio::test]
async fn a_file_that_changes_on_the_way_is_not_mixed() {
    let part = |etag: &str, range: &str| {
        vec![Step::send(format!(
            "HTTP/1.1 206 P\r\netag: {etag}\r\ncontent-range: {range}\r\ncontent-length: 3\r\n\r\nxyz"
        ))]
    };
    let whole = |etag: &str| vec![ok(&format!("etag: {etag}\r\n"), "xyzxyz")];
    for (second, kind) in [
        (part("\"v2\"", "bytes 3-5/6"), Kind::IntegrityMismatch),
        (part("\"v1\"", "bytes 4-6/6"), Kind::IntegrityMismatch),
        (part("\"v1\"", "bytes 3-5/7"), Kind::IntegrityMismatch),
        (part("\"v1\"", "nonsense"), Kind::Protocol),
        (whole("\"v2\""), Kind::IntegrityMismatch),
        (whole("W/\"v1\""), Kind::IntegrityMismatch),
    ] {
        let second = Mutex::new(Some(second));
        let server = Server::start(move |number, _| match number {
            0 => vec![Step::send("HTTP/1.1 200 O\r\netag: \"v1\"\r\ncontent-length: 6\r\n\r\nabc"), Step::Close],
            _ => second.lock().unwrap().take().unwrap_or_default(),
        })
        .await;
        let download = web(&server).get(&server.url("/f"), &HeaderMap::new()).await.unwrap();
        assert_eq!(all(download).await.unwrap_err().kind, kind);
    }
}

#[tokio::test]
async fn resuming_ends_when_the_server_refuses() {
    let server = Server::start(move |number, _| match number {
        0 => vec![Step::send("HTTP/1.1 200 O\r\netag: \"v1\"\r\ncontent-length: 6\r\n\r\nabc"), Step::Close],
        _ => vec![Step::send("HTTP/1.1 403 Expired\r\ncontent-length: 0\r\n\r\n")],
    })
    .await;
    let error = all(web(&server).get(&server.url("/f"), &HeaderMap::new()).await.unwrap()).await.unwrap_err();
    assert!(error.is_transient(), "the whole download may be tried again: {error:?}");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_part_that_nobody_asked_for_is_refused() {
    let server = Server::start(|_, _| {
        vec![Step::send("HTTP/1.1 206 P\r\ncontent-range: bytes 3-5/6\r\ncontent-length: 3\r\n\r\nxyz")]
    })
    .await;
    let error = web(&server).get(&server.url("/f"), &HeaderMap::new()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Protocol);
}

#[tokio::test]
async fn only_web_addresses_are_asked_for() {
    let server = Server::start(|_, _| vec![ok("", "")]).await;
    for url in [
        "",
        "x",
        "//host/x",
        "ftp://host/x",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "data:,x",
        "http://",
        "https://:80/",
    ] {
        let error = web(&server).get(url, &HeaderMap::new()).await.unwrap_err();
        assert_eq!(error.kind, Kind::InvalidRequest, "{url}");
    }
    web(&server).get(&server.url("/").replace("http", "HTTP"), &HeaderMap::new()).await.unwrap();
}

/// Answers every name with the address that the test is at.
#[derive(Debug, Default)]
struct Current(Mutex<Option<IpAddr>>);

#[async_trait]
impl Resolver for Current {
    async fn resolve(&self, _: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(self.0.lock().unwrap().map(|address| SocketAddr::new(address, port)).into_iter().collect())
    }
}

/// Tries every form of the corpus at the port of a listener that hears everything sent to this machine.
async fn nobody_is_reached(url_of: impl Fn(&str) -> String, rules: Vec<Rule>, trap: TcpListener) {
    let resolver = Arc::new(Current::default());
    let guard = Guard::with_resolver(rules, Arc::clone(&resolver) as Arc<dyn Resolver>);
    let limits = Limits { tries: 1, connect_timeout: Duration::from_secs(2), idle_timeout: IDLE, ..Limits::default() };
    let web = Web::new(Client::new(guard, crate::http::tls_config(&[]).unwrap(), &limits), &limits);
    let forms = testkit::egress::forbidden().into_iter().chain(testkit::egress::forbidden_names());
    for form in forms {
        *resolver.0.lock().unwrap() = form.address;
        let host = format!("{}:{}", form.in_url(), trap.local_addr().unwrap().port());
        // What is no host may still make a URL (`user@127.0.0.1`), and then leads to an address.
        match web.get(&url_of(&host), &HeaderMap::new()).await {
            Err(error) => {
                let refused = error.kind == Kind::HostNotAllowed;
                let unread = matches!(error.kind, Kind::InvalidRequest | Kind::Protocol | Kind::HostNotFound);
                assert!(refused || form.address.is_none() && unread, "{host}: {error:?}");
            }
            Ok(download) => panic!("{host} was reached: {download:?}"),
        }
    }
    let heard = tokio::time::timeout(Duration::from_millis(50), trap.accept()).await;
    assert!(heard.is_err(), "somebody was called: {heard:?}");
}

async fn trap() -> TcpListener {
    match TcpListener::bind("[::]:0").await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind("0.0.0.0:0").await.unwrap(),
    }
}

#[tokio::test]
async fn no_url_reaches_a_forbidden_address() {
    nobody_is_reached(|host| format!("http://{host}/f"), Vec::new(), trap().await).await;
    nobody_is_reached(|host| format!("HTTP:\\\\{host}/f"), Vec::new(), trap().await).await;
    nobody_is_reached(|host| format!("https://public.example@{host}/f"), Vec::new(), trap().await).await;
}

#[tokio::test]
async fn no_redirect_reaches_a_forbidden_address() {
    let location = Arc::new(Mutex::new(String::new()));
    let answered = Arc::clone(&location);
    let server = Server::start(move |_, _| vec![redirect(302, &answered.lock().unwrap())]).await;
    let url_of = |host: &str| {
        *location.lock().unwrap() = format!("http://{host}/f");
        server.url("/")
    };
    nobody_is_reached(url_of, vec![server.rule()], trap().await).await;
    assert!(server.requests().len() > 300, "the redirecting server was not asked");
}
