//! A receiver of webhooks that writes down what it hears and answers as the path asks.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::sleep;

use super::harness::eventually;

/// Longer than any test waits.
const HANGS: Duration = Duration::from_mins(10);

/// What came.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) at: Instant,
}

impl Heard {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub(crate) fn event(&self) -> String {
        self.json()["event"].as_str().unwrap().to_owned()
    }

    /// Checks both signatures, as a client and as a library of Standard Webhooks would.
    #[track_caller]
    pub(crate) fn is_signed_with(&self, secret: &str) {
        let mac = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
        assert_eq!(self.header("cloudconvert-signature"), hex::encode(mac(secret.as_bytes(), &self.body)));
        let head = format!("{}.{}.", self.header("webhook-id"), self.header("webhook-timestamp"));
        let signature = mac(&STANDARD.decode(secret).unwrap(), &[head.as_bytes(), &self.body].concat());
        assert_eq!(self.header("webhook-signature"), format!("v1,{}", STANDARD.encode(signature)));
    }
}

/// The receiver. `/ok` is answered with 200, `/gone` with 410, `/hang` never; `/once/500` and `/once/hang` so the first
/// time and with 204 from then on.
pub(crate) struct Receiver {
    pub(crate) addr: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let heard = Arc::<Mutex<Vec<Heard>>>::default();
        let notes = Arc::clone(&heard);
        let answer = move |uri: Uri, headers: HeaderMap, body: Bytes| {
            let path = uri.path().to_owned();
            let is_first = {
                let mut notes = notes.lock().unwrap();
                let is_first = !notes.iter().any(|before| before.path == path);
                notes.push(Heard { path: path.clone(), headers, body, at: Instant::now() });
                is_first
            };
            answer(path, is_first)
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        Self { addr, heard }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) fn heard(&self, path: &str) -> Vec<Heard> {
        self.heard.lock().unwrap().iter().filter(|heard| heard.path == path).cloned().collect()
    }

    /// Waits until so much came to a path.
    pub(crate) async fn hears(&self, path: &str, count: usize) -> Vec<Heard> {
        eventually(&format!("{count} calls of {path}"), async || {
            let heard = self.heard(path);
            (heard.len() >= count).then_some(heard)
        })
        .await
    }
}

async fn answer(path: String, is_first: bool) -> Response {
    match path.as_str() {
        "/gone" => StatusCode::GONE.into_response(),
        "/once/500" if is_first => (StatusCode::INTERNAL_SERVER_ERROR, "not now").into_response(),
        "/redirect" => (StatusCode::FOUND, [("location", "/ok")]).into_response(),
        "/hang" => hang().await,
        "/once/hang" if is_first => hang().await,
        path if path.starts_with("/once/") => StatusCode::NO_CONTENT.into_response(),
        _ => (StatusCode::OK, "thank you").into_response(),
    }
}

async fn hang() -> Response {
    sleep(HANGS).await;
    StatusCode::OK.into_response()
}
