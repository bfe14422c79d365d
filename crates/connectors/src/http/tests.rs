//! Tests of the client against servers that stall, break, babble or show the wrong certificate.

use super::scripted::{Server, Step, client};
use super::*;

const IDLE: Duration = Duration::from_millis(300);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

fn request(url: &str, body: impl Into<Body>) -> http::Request<Body> {
    http::Request::put(url).body(body.into()).unwrap()
}

async fn ask(server: &Server, body: Bytes) -> Result<Bytes> {
    let answer = server.client(IDLE).send(request(&server.url("/a"), body), "testing").await?;
    answer.into_body().bytes(1024).await
}

#[tokio::test]
async fn a_request_that_does_not_say_who_asks_gets_our_name() {
    let server = Server::start(|_, _| vec![Step::send(OK)]).await;
    let url = server.url("/a");
    for (own, expected) in [(None, AGENT), (Some("mine/1"), HeaderValue::from_static("mine/1"))] {
        let mut request = request(&url, "");
        request.headers_mut().extend(own.map(|own| (USER_AGENT, HeaderValue::from_static(own))));
        server.client(IDLE).send(request, "testing").await.unwrap();
        let head = server.requests().pop().unwrap().to_ascii_lowercase();
        let agents: Vec<&str> = head.lines().filter(|line| line.starts_with("user-agent:")).collect();
        assert_eq!(agents, [format!("user-agent: {}", expected.to_str().unwrap())]);
    }
}

#[tokio::test]
async fn a_body_that_nobody_reads_times_out() {
    let server = Server::start(|_, _| vec![Step::Stall]).await;
    let began = Instant::now();
    // More than the socket buffers of both sides take.
    let error = ask(&server, Bytes::from(vec![0; 64 << 20])).await.unwrap_err();
    assert_eq!(error.kind, Kind::Timeout);
    assert!(began.elapsed() >= IDLE);
}

#[tokio::test]
async fn a_body_that_is_read_slowly_does_not_time_out() {
    // Much more than the socket buffers take, for nobody sees how fast those are emptied.
    const SIZE: usize = 96 << 20;
    let server = Server::start(|_, _| {
        let slowly = (0..48).flat_map(|_| [Step::Read(SIZE / 48), Step::Wait(IDLE / 20)]);
        slowly.chain([Step::send(OK)]).collect()
    })
    .await;
    let began = Instant::now();
    assert_eq!(ask(&server, Bytes::from(vec![0; SIZE])).await.unwrap(), "hello");
    assert!(began.elapsed() > IDLE * 2, "the test was too fast to prove anything");
}

#[tokio::test]
async fn silence_times_out_before_the_answer_and_in_it() {
    for start in ["", "HTTP/1.1 200 OK\r\nserver: x\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhell"] {
        let server = Server::start(move |_, _| vec![Step::send(start), Step::Stall]).await;
        let error = ask(&server, Bytes::new()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Timeout, "after {start:?}");
        assert!(error.is_transient());
        assert_eq!(error.action, "testing");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_transient_error() {
    for start in ["", "HTTP/1.1 200 O", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhell"] {
        let server = Server::start(move |_, _| vec![Step::send(start), Step::Close]).await;
        let error = ask(&server, Bytes::new()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unreachable, "after {start:?}: {error:?}");
        assert!(error.is_transient());
    }
}

#[tokio::test]
async fn what_is_no_http_or_too_much_of_it_is_a_protocol_error() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(8 << 20));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(5000));
    for start in ["220 mail.example ESMTP\r\n".to_owned(), "SSH-2.0-OpenSSH_9.9\r\n".to_owned(), long, many] {
        let shown = start[..20].to_owned();
        let server = Server::start(move |_, _| vec![Step::send(&start), Step::Stall]).await;
        let error = ask(&server, Bytes::new()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Protocol, "{shown}: {error:?}");
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn an_answer_longer_than_it_may_be_is_refused() {
    let server = Server::start(|_, _| vec![Step::send(OK)]).await;
    let answer = server.client(IDLE).send(request(&server.url("/a"), Body::empty()), "testing").await.unwrap();
    assert_eq!(answer.body().size(), Some(5));
    assert_eq!(answer.into_body().bytes(4).await.unwrap_err().kind, Kind::Protocol);
}

#[tokio::test]
async fn a_pooled_connection_that_the_server_has_closed_is_not_used() {
    let server = Server::start(|_, _| vec![Step::send(OK), Step::Wait(Duration::from_millis(50)), Step::Close]).await;
    let client = server.client(Duration::from_secs(5));
    for pause_ms in [0, 10, 49, 50, 51, 100] {
        let answer = client.send(request(&server.url("/a"), vec![0; 100]), "testing").await;
        // The moment in which it closes cannot be told from a request that was lost: that one may fail, as transient.
        match answer {
            Ok(answer) => assert_eq!(answer.into_body().bytes(9).await.unwrap(), "hello"),
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.send(request(&server.url("/a"), vec![0; 100]), "testing").await.unwrap();
}

#[tokio::test]
async fn a_refusal_of_the_guard_comes_through_as_it_is() {
    let trap = Server::start(|_, _| vec![Step::send(OK)]).await;
    let error = client([], IDLE).send(request(&trap.url("/a"), Body::empty()), "testing").await.unwrap_err();
    assert_eq!(error.kind, Kind::HostNotAllowed);
    assert!(error.detail.contains(&format!("add {} to egress.allow", trap.address)), "{error}");
    assert!(trap.requests().is_empty());
}

struct Certificates {
    authority: rustls::pki_types::CertificateDer<'static>,
    acceptor: tokio_rustls::TlsAcceptor,
}

/// Makes an authority and a server certificate of it for `name`.
fn certificates(name: &str, expired: bool) -> Certificates {
    let authority_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&authority_key).unwrap();
    let issuer = rcgen::Issuer::new(params, authority_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    if expired {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    }
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        )
        .unwrap();
    Certificates { authority: authority.der().clone(), acceptor: Arc::new(config).into() }
}

async fn ask_tls(name: &str, expired: bool, trusted: bool) -> Result<Bytes> {
    let Certificates { authority, acceptor } = certificates(name, expired);
    let server = Server::start_with(Some(acceptor), |_, _| vec![Step::send(OK)]).await;
    let tls = tls_config(if trusted { std::slice::from_ref(&authority) } else { &[] }).unwrap();
    let client = Client::new(Guard::new([server.rule()]), tls, &Limits::default());
    let url = format!("https://{}/a", server.address);
    client.send(request(&url, Body::empty()), "testing").await?.into_body().bytes(9).await
}

#[tokio::test]
async fn a_server_is_trusted_with_the_extra_authority_only() {
    assert_eq!(ask_tls("127.0.0.1", false, true).await.unwrap(), "hello");
    for (name, expired, trusted, says) in [
        ("127.0.0.1", false, false, "add that authority to its trusted certificates"),
        ("127.0.0.1", true, true, "has expired"),
        ("other.example", false, true, "is for another host name"),
    ] {
        let error = ask_tls(name, expired, trusted).await.unwrap_err();
        assert_eq!(error.kind, Kind::TlsRefused, "{error:?}");
        assert!(error.detail.contains(says), "{error:?}");
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn a_handshake_that_nobody_answers_times_out_as_connecting() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits { connect_timeout: Duration::from_millis(200), ..Limits::default() };
    let rule = address.to_string().parse().unwrap();
    let client = Client::new(Guard::new([rule]), tls_config(&[]).unwrap(), &limits);
    let began = Instant::now();
    let error = client.send(request(&format!("https://{address}/"), Body::empty()), "testing").await.unwrap_err();
    assert_eq!(error.kind, Kind::Timeout);
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn what_came_over_tls_is_handed_out_before_the_error_behind_it() {
    const SENT: usize = 300_000;
    let Certificates { authority, acceptor } = certificates("127.0.0.1", false);
    let cut = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}", SENT + 1, "x".repeat(SENT));
    let server = Server::start_with(Some(acceptor), move |_, _| vec![Step::send(&cut), Step::Close]).await;
    let tls = tls_config(std::slice::from_ref(&authority)).unwrap();
    let client = Client::new(Guard::new([server.rule()]), tls, &Limits::default());
    let url = format!("https://{}/a", server.address);
    let mut answer = client.send(request(&url, Body::empty()), "testing").await.unwrap().into_body();
    let mut came = 0;
    let error = loop {
        match answer.chunk().await {
            Ok(chunk) => came += chunk.expect("a byte is missing").len(),
            Err(error) => break error,
        }
    };
    assert_eq!((came, error.kind), (SENT, Kind::Unreachable));
}
