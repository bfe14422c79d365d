//! A web server that takes files by `PUT`, as behind a signed address, and knows them by their hashes. Only a whole file counts:
//! what breaks off leaves what was there before.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use aws_lc_rs::digest;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::put;
use futures_util::StreamExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Before each piece of a file, so that large ones are under way for a moment, and faults meet them.
const PIECE_PAUSE: Duration = Duration::from_millis(10);
/// How long a sender may be silent: longer than any fault lasts.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// It ends when dropped.
#[derive(Debug)]
pub(crate) struct Receiver {
    addr: SocketAddr,
    files: Files,
    serving: JoinHandle<()>,
}

/// SHA-256 in lower-case hex, by name, of what was acknowledged.
#[derive(Clone, Debug, Default)]
struct Files(Arc<Mutex<BTreeMap<String, String>>>);

impl Files {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Receiver {
    /// Listens on loopback.
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let files = Files::default();
        let router = Router::new().route("/put/{name}", put(take)).with_state(files.clone());
        let serving = tokio::spawn(async move {
            // It cannot fail before the run is over.
            axum::serve(listener, router).await.ok();
        });
        Ok(Self { addr, files, serving })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where a file of this name is sent to, below the address of the path to this.
    pub(crate) fn path(name: &str) -> String {
        format!("/put/{name}")
    }

    /// All files: name and SHA-256.
    pub(crate) fn files(&self) -> Vec<(String, String)> {
        self.files.locked().iter().map(|(name, sha256)| (name.clone(), sha256.clone())).collect()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(State(files): State<Files>, Path(name): Path<String>, body: Body) -> StatusCode {
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut pieces = body.into_data_stream();
    loop {
        match timeout(SILENCE_MAX, pieces.next()).await {
            Ok(Some(Ok(piece))) => hash.update(&piece),
            Ok(None) => break,
            // Whoever broke off does not hear it; whoever is slow may send again.
            Ok(Some(Err(_))) | Err(_) => return StatusCode::REQUEST_TIMEOUT,
        }
        sleep(PIECE_PAUSE).await;
    }
    // Before it is acknowledged.
    files.locked().insert(name, hex::encode(hash.finish()));
    StatusCode::CREATED
}

#[cfg(test)]
mod tests {
    use testkit::bytes;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    /// Announces a file and sends some of it; gives what was answered.
    #[expect(clippy::disallowed_methods, reason = "a client on loopback")]
    async fn send(receiver: &Receiver, name: &str, announced: usize, content: &[u8]) -> String {
        let mut stream = TcpStream::connect(receiver.addr()).await.unwrap();
        let path = Receiver::path(name);
        let head =
            format!("PUT {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {announced}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(content).await.unwrap();
        if content.len() < announced {
            stream.shutdown().await.unwrap();
        }
        let mut answer = Vec::new();
        // One who broke off need not be answered.
        stream.read_to_end(&mut answer).await.ok();
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn only_whole_files_count_and_each_by_its_bytes() {
        let receiver = Receiver::start().await.unwrap();
        let (small, large) = (b"hello".to_vec(), bytes::pattern(3, 3 << 20));
        for (content, is_whole) in [(&small, false), (&large, true), (&small, false), (&small, true), (&large, false)] {
            let before = receiver.files();
            let announced = if is_whole { content.len() } else { content.len() + 1 };
            let answer = send(&receiver, "a.bin", announced, content).await;
            assert_eq!(answer.starts_with("HTTP/1.1 201 "), is_whole, "{answer}");
            let after = vec![("a.bin".to_owned(), bytes::digest(content).sha256)];
            assert_eq!(receiver.files(), if is_whole { after } else { before });
        }
        assert!(send(&receiver, "empty", 0, b"").await.starts_with("HTTP/1.1 201 "));
        assert_eq!(receiver.files()[1], ("empty".to_owned(), bytes::digest(b"").sha256));
    }
}
