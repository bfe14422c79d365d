//! The server's own TLS with the certificates of `consign hosts`: both versions of HTTP, and renewal while it runs.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::harness::Program;

/// The server, its address, and the folder of its certificates.
async fn started() -> (Program, SocketAddr) {
    let mut program = Program::new(&[("PUBLIC_URL", "https://api.cloudconvert.com/")]);
    let made = program.run(&["hosts", "--folder", "hosts"]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let folder = program.folder().join("hosts");
    program.set("TLS__CERT", folder.join("cert.pem").to_str().unwrap());
    program.set("TLS__KEY", folder.join("key.pem").to_str().unwrap());
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    program.start_at(port).await;
    (program, SocketAddr::from(([127, 0, 0, 1], port)))
}

/// Connects as a client that trusts the authority in `ca` and knows the server as `name`.
async fn connect(
    address: SocketAddr,
    ca: &Path,
    name: &str,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpSocket::new_v4().unwrap().connect(address).await?;
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name.to_owned()).unwrap(), stream).await
}

fn served(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_of_http_are_spoken_to_the_names_of_the_service() {
    let (program, address) = started().await;
    let ca = program.folder().join("hosts/ca.pem");
    assert!(program.printed().contains("Consign is ready at https://api.cloudconvert.com\n"), "{}", program.printed());
    let request = |target: &str| {
        let request = Request::get(target).header("authorization", format!("Bearer {}", program.key()));
        request.header("host", "api.cloudconvert.com").body(Empty::<Bytes>::new()).unwrap()
    };
    for name in ["api.cloudconvert.com", "sync.api.cloudconvert.com", "s.cloudconvert.com", "localhost"] {
        let stream = connect(address, &ca, name, &["http/1.1"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let answer = sender.send_request(request("/v2/users/me")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert!(body["data"]["links"]["self"].as_str().unwrap().starts_with("https://api.cloudconvert.com/v2/users/"));
    }
    let stream = connect(address, &ca, "api.cloudconvert.com", &["h2", "http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let answer = sender.send_request(request("https://api.cloudconvert.com/v2/users/me")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(connect(address, &ca, "example.com", &[]).await.is_err(), "the certificate is for the service's names");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_served_without_a_restart() {
    let (program, address) = started().await;
    let folder = program.folder().join("hosts");
    let (ca, cert) = (folder.join("ca.pem"), folder.join("cert.pem"));
    let connected = async || connect(address, &ca, "api.cloudconvert.com", &["http/1.1"]).await.unwrap();
    let old = served(&connected().await);
    assert_eq!(old, CertificateDer::from_pem_file(&cert).unwrap());

    // Half of a renewal: the key does not fit yet. The old pair stays in use.
    let whole = std::fs::read(&cert).unwrap();
    std::fs::write(&cert, &whole[..whole.len() / 2]).unwrap();
    let began = Instant::now();
    while !program.log().contains("the changed certificate is not used") {
        assert!(began.elapsed() < Duration::from_mins(1), "{}", program.log());
        assert_eq!(served(&connected().await), old);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(served(&connected().await), old);

    let renewed = program.run(&["hosts", "--folder", "hosts"]);
    let said = String::from_utf8_lossy(&renewed.stderr).into_owned();
    assert!(renewed.status.success() && said.contains("renewed the certificate"), "{said}");
    let began = Instant::now();
    while served(&connected().await) == old {
        assert!(began.elapsed() < Duration::from_mins(1), "the old certificate is still served: {}", program.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(served(&connected().await), CertificateDer::from_pem_file(&cert).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_names_every_client_and_the_files() {
    let program = Program::new(&[]);
    let made = program.run(&["hosts", "--folder", "some where", "--address", "192.0.2.7"]);
    let guide = String::from_utf8(made.stdout).unwrap();
    for needle in [
        "Python",
        "Node",
        "PHP",
        "Laravel",
        "Java",
        ".NET",
        "Ruby",
        "Rust",
        "n8n",
        "192.0.2.7 sync.api.cloudconvert.com",
    ] {
        assert!(guide.contains(needle), "{needle}");
    }
    assert!(
        guide.contains("some where/ca.pem") && !guide.contains("{folder}") && !guide.contains("{address}"),
        "{guide}"
    );
}
