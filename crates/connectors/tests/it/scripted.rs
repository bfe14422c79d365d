//! An HTTP server that answers what a test tells it, for answers that no server at hand gives.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use connectors::memory::{MemoryJournal, MemorySource};
use connectors::{Budget, Connector, Progress, Put, contract};
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Characters of a service's message that are passed on.
const WORDS_CHARS_MAX: usize = 300;

/// A request that came: its head, and its whole body.
pub(crate) type Request = http::Request<Bytes>;

/// A server that ends when dropped.
#[derive(Debug)]
pub(crate) struct Scripted {
    pub(crate) addr: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    acceptor: JoinHandle<()>,
}

impl Scripted {
    /// Starts a server that answers every request with `answer`.
    pub(crate) async fn start(answer: impl Fn(&Request) -> http::Response<String> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Request>>>::default();
        let shared = (Arc::new(answer), Arc::clone(&seen));
        let acceptor = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = shared.clone();
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let (answer, seen) = shared.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let request = Request::from_parts(head, body.collect().await.unwrap().to_bytes());
                        let response = answer(&request);
                        seen.lock().unwrap().push(request);
                        Ok::<_, Infallible>(response.map(|body| Full::new(Bytes::from(body))))
                    }
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { addr, seen, acceptor }
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

/// An answer with a body.
pub(crate) fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> http::Response<String> {
    let mut response = http::Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(*name, *value);
    }
    response.body(body.to_owned()).unwrap()
}

/// Messages of a service that hold a secret just where a message is cut short.
pub(crate) fn cut_in(secret: &'static str) -> impl Iterator<Item = String> {
    let places = [WORDS_CHARS_MAX - secret.len() + 1, WORDS_CHARS_MAX - secret.len() / 2, WORDS_CHARS_MAX - 4];
    places.into_iter().map(move |before| format!("{}{secret}{}", "x".repeat(before), "y".repeat(50)))
}

/// Checks that an error passes a message of [`cut_in`] on, without any part of the secret.
pub(crate) fn shows_no_part(error: &connectors::Error, secret: &str) {
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("xxxx"), "the message is not passed on: {shown}");
    assert!(!shown.contains(&secret[..4]), "a part of the secret is shown: {shown}");
}

/// Checks that an upload gives its memory back while it waits for its next try. The server asks for some seconds of patience
/// as long as `is_busy`.
pub(crate) async fn holds_nothing_in_a_pause(connector: impl Connector + 'static, is_busy: &AtomicBool, size: usize) {
    is_busy.store(true, Ordering::Relaxed);
    let budget = Budget::default();
    let source = Arc::new(MemorySource::new(contract::bytes(size, 1)));
    let request = contract::request("k", &source, &Arc::<MemoryJournal>::default(), &Progress::default(), None);
    let put = Put { memory: budget.share(), ..request };
    let putting = tokio::spawn(async move { connector.put(put).await });
    let in_vain = async {
        while source.read_bytes() < size as u64 || budget.usage().held_bytes > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(2), in_vain).await.expect("memory is held through a pause");
    assert!(!putting.is_finished());
    is_busy.store(false, Ordering::Relaxed);
    putting.await.unwrap().unwrap();
    assert_eq!(budget.usage().held_bytes, 0);
}
