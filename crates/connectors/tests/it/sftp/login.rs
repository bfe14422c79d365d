//! Who gets in, and what the others are told.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use connectors::egress::Guard;
use connectors::sftp::{Config, Sftp};
use connectors::{Connector as _, Kind, Limits, Secret, contract};
use testkit::conformance::{self, Cell, Form};
use testkit::proxy::Proxy;
use testkit::{Key, Sshd, or_skip};

use super::{MIB, config, connector, limits, login, openssh, source};

/// Delivers a small file and one of several parts, and writes down that these arguments did it.
async fn delivers(sshd: &Sshd, config: Config, argument: &str) {
    let folder = sshd.folder("login").unwrap();
    let connector = connector(config);
    for (form, size) in [(Form::Single, 100), (Form::Parts, 3 * MIB)] {
        let place = folder.join(format!("{size}"));
        let put = contract::put(&connector, &place.display().to_string(), &source(size, 1)).await;
        assert!(put.is_ok(), "{argument}: {put:?}");
        assert!(fs::read(place).unwrap() == contract::bytes(size, 1), "{argument}: other bytes arrived");
        conformance::argument(&openssh(sshd), argument, form, Cell::Shown);
    }
}

#[tokio::test]
async fn every_key_format_logs_in() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    for key in Key::PLAIN.into_iter().chain([Key::Ed25519Pkcs8]) {
        let text = sshd.key(key).unwrap();
        for bent in [text.replace('\n', "\r\n"), text.replace('\n', "\\n"), text.replace('\n', " ")] {
            let config = Config { private_key: Some(Secret::new(bent)), ..config(&sshd, sshd.addr()) };
            login(config).await.unwrap_or_else(|error| panic!("{key:?}: {error:?}"));
        }
        let config = Config { private_key: Some(Secret::new(text)), ..config(&sshd, sshd.addr()) };
        delivers(&sshd, config, &format!("private_key: {key:?}")).await;
    }
}

#[tokio::test]
async fn encrypted_keys_are_refused_with_a_reason() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    for key in Key::ENCRYPTED {
        let config = Config { private_key: Some(Secret::new(sshd.key(key).unwrap())), ..config(&sshd, sshd.addr()) };
        let error = Sftp::new(config, Guard::new([])).expect_err("an encrypted key");
        assert_eq!(error.kind, Kind::InvalidCredentials);
        assert!(error.detail.contains("without a passphrase"), "{error:?}");
    }
}

#[tokio::test]
async fn passwords_log_in_both_ways() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let Some(password) = or_skip(sshd.password()) else { return };
    for (addr, argument) in
        [(sshd.addr(), "password"), (sshd.addr_keyboard_interactive(), "password: keyboard-interactive")]
    {
        let right = Config { password: Some(Secret::new(password)), private_key: None, ..config(&sshd, addr) };
        delivers(&sshd, right.clone(), argument).await;
        let beside_a_wrong_key =
            Config { private_key: Some(Secret::new(sshd.key(Key::Unknown).unwrap())), ..right.clone() };
        login(beside_a_wrong_key).await.unwrap();
        let wrong = Config { password: Some(Secret::new("canary-hunter2")), ..right };
        let error = login(wrong).await.expect_err("a wrong password");
        assert_eq!(error.kind, Kind::InvalidCredentials, "{error:?}");
        assert!(!error.is_transient());
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        assert!(error.detail.contains("did not accept the password"), "{error:?}");
    }
}

#[tokio::test]
async fn a_refusal_says_what_the_server_accepts() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let unknown = Secret::new(sshd.key(Key::Unknown).unwrap());
    let error = login(Config { private_key: Some(unknown), ..config(&sshd, sshd.addr()) }).await.expect_err("refused");
    assert_eq!(error.kind, Kind::InvalidCredentials, "{error:?}");
    assert!(error.detail.contains("private key") && error.detail.contains("publickey"), "{error:?}");
    let Some(_) = or_skip(sshd.password()) else { return };
    let error = login(config(&sshd, sshd.addr_keyboard_interactive())).await.expect_err("a key is not asked for");
    assert_eq!(error.kind, Kind::InvalidCredentials, "{error:?}");
    assert!(error.detail.contains("keyboard-interactive"), "{error:?}");
}

#[tokio::test]
async fn a_refused_account_is_not_asked_again() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let proxy = Proxy::start(sshd.addr()).await.unwrap();
    let unknown = Secret::new(sshd.key(Key::Unknown).unwrap());
    let connector = connector(Config { private_key: Some(unknown), ..config(&sshd, proxy.addr()) });
    for _ in 0..3 {
        assert_eq!(connector.stat("x").await.map_err(|error| error.kind), Err(Kind::InvalidCredentials));
    }
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn the_host_key_can_be_insisted_on() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    for fingerprint in sshd.fingerprints() {
        let config = Config { host_key: Some(fingerprint.clone()), ..config(&sshd, sshd.addr()) };
        delivers(&sshd, config, "host_key").await;
    }
    let other = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
    for wrong in [other, key] {
        let config = Config { host_key: Some(wrong.to_owned()), ..config(&sshd, sshd.addr()) };
        let error = login(config).await.expect_err("another host key");
        assert_eq!(error.kind, Kind::HostKeyMismatch, "{error:?}");
        assert!(error.detail.contains(&sshd.fingerprints()[0]), "{error:?}");
    }
}

#[tokio::test]
async fn a_silent_host_ends_in_a_timeout() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let proxy = Proxy::start(sshd.addr()).await.unwrap();
    proxy.stall_after(0);
    let limits = Limits { connect_timeout: Duration::from_secs(1), ..limits() };
    let error = login(Config { limits, ..config(&sshd, proxy.addr()) }).await.expect_err("nobody answers");
    assert_eq!(error.kind, Kind::Timeout, "{error:?}");
}

#[tokio::test]
async fn what_is_no_ssh_server_is_said() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.ok();
    });
    let config = Config { port: addr.port(), ..config_without_server() };
    let error = login(config.clone()).await.expect_err("no SSH server");
    assert!(matches!(error.kind, Kind::Protocol | Kind::Unreachable), "{error:?}");
    server.await.unwrap();
    let refused = login(config).await.expect_err("nobody listens any more");
    assert_eq!(refused.kind, Kind::Unreachable, "{refused:?}");
    let blocked = Config { host: "10.0.0.1".to_owned(), ..config_without_server() };
    let error = Sftp::new(blocked, Guard::new([])).unwrap().list("", 1).await.expect_err("not allowed");
    assert_eq!(error.kind, Kind::HostNotAllowed, "{error:?}");
}

fn config_without_server() -> Config {
    Config {
        host: "127.0.0.1".to_owned(),
        port: 22,
        username: "user".to_owned(),
        password: Some(Secret::new("canary")),
        private_key: None,
        host_key: None,
        limits: limits(),
    }
}

/// A server that knows nothing but an old key exchange.
struct Old;

impl russh::server::Handler for Old {
    type Error = russh::Error;
}

#[tokio::test]
async fn a_server_with_old_algorithms_is_named_with_them() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let key = russh::keys::PrivateKey::random(&mut russh::keys::key::safe_rng(), russh::keys::Algorithm::Ed25519);
        let config = russh::server::Config {
            keys: vec![key.unwrap()],
            preferred: russh::Preferred { kex: vec![russh::kex::DH_G1_SHA1].into(), ..russh::Preferred::DEFAULT },
            ..russh::server::Config::default()
        };
        let (stream, _) = listener.accept().await.unwrap();
        let running = russh::server::run_stream(Arc::new(config), stream, Old).await;
        running.unwrap().await.ok();
    });
    let error = login(Config { port, ..config_without_server() }).await.expect_err("nothing in common");
    assert_eq!(error.kind, Kind::Unsupported, "{error:?}");
    for algorithm in ["diffie-hellman-group1-sha1", "curve25519-sha256"] {
        assert!(error.detail.contains(algorithm), "{error:?}");
    }
    server.abort();
}
