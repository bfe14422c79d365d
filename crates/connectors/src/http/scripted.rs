//! A server on loopback that answers each request with what a test wrote down, byte for byte, and may stop anywhere.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::Client;
use crate::egress::{Guard, Rule};
use crate::transfer::Limits;

/// One step of an answer.
pub(crate) enum Step {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Reads and writes nothing more, but keeps the connection.
    Stall,
    /// Closes the connection.
    Close,
    /// Waits.
    Wait(Duration),
    /// Reads the body of the request up to this length.
    Read(usize),
}

impl Step {
    pub(crate) fn send(bytes: impl AsRef<[u8]>) -> Self {
        Self::Send(bytes.as_ref().to_vec())
    }
}

type Answering = dyn Fn(usize, &str) -> Vec<Step> + Send + Sync;

/// The server. It ends with the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Starts it. `answer` is told the number of the request, from 0, and its head.
    pub(crate) async fn start(answer: impl Fn(usize, &str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::start_with(None, answer).await
    }

    pub(crate) async fn start_with(
        tls: Option<TlsAcceptor>,
        answer: impl Fn(usize, &str) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer): (_, Arc<Answering>) = (Arc::clone(&requests), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, answer, tls) = (Arc::clone(&seen), Arc::clone(&answer), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &seen, &*answer).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, &seen, &*answer).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, requests }
    }

    /// The heads of the requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A client that may talk to this server and to nobody else on this machine.
    pub(crate) fn client(&self, idle_timeout: Duration) -> Client {
        client([self.rule()], idle_timeout)
    }

    pub(crate) fn rule(&self) -> Rule {
        self.address.to_string().parse().unwrap()
    }
}

pub(crate) fn client(rules: impl IntoIterator<Item = Rule>, idle_timeout: Duration) -> Client {
    let limits = Limits { idle_timeout, connect_timeout: Duration::from_secs(2), ..Limits::default() };
    Client::new(Guard::new(rules), super::tls_config(&[]).unwrap(), &limits)
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, seen: &Mutex<Vec<String>>, answer: &Answering) {
    while let Some(head) = read_head(&mut stream).await {
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(head.clone());
            seen.len() - 1
        };
        for step in answer(number, &head) {
            match step {
                Step::Send(bytes) => {
                    if stream.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Step::Stall => std::future::pending().await,
                Step::Close => {
                    let _ = stream.shutdown().await;
                    return;
                }
                Step::Wait(time) => tokio::time::sleep(time).await,
                Step::Read(length) => {
                    let mut body = vec![0; length];
                    if stream.read_exact(&mut body).await.is_err() {
                        return;
                    }
                }
            }
        }
        let _ = stream.flush().await;
    }
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}
