//! The world outside: a web server that files come from and a receiver of webhooks that writes down what it hears.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use anyhow::Result;
use aws_lc_rs::hmac;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use testkit::bytes;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::history::{Event, History};

/// It ends when dropped.
#[derive(Debug)]
pub(crate) struct Outside {
    addr: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    history: Arc<History>,
    secret: OnceLock<String>,
}

impl Outside {
    pub(crate) async fn start(history: Arc<History>) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared { history, secret: OnceLock::new() });
        let router = Router::new()
            .route("/file/{seed}/{size}/{name}", get(file))
            .route("/hook/{tag}", post(hear))
            .with_state(Arc::clone(&shared));
        let serving = tokio::spawn(async move {
            // It cannot fail before the run is over.
            axum::serve(listener, router).await.ok();
        });
        Ok(Self { addr, shared, serving })
    }

    /// Says what webhooks are signed with.
    pub(crate) fn expect_secret(&self, secret: &str) {
        self.shared.secret.set(secret.to_owned()).ok();
    }

    pub(crate) fn file_url(&self, seed: u64, size: u64, name: &str) -> String {
        format!("http://{}/file/{seed}/{size}/{name}", self.addr)
    }

    /// There is nothing.
    pub(crate) fn missing_url(&self) -> String {
        format!("http://{}/missing", self.addr)
    }

    pub(crate) fn hook_url(&self, tag: &str) -> String {
        format!("http://{}/hook/{tag}", self.addr)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn file(Path((seed, size, _)): Path<(u64, u64, String)>) -> Vec<u8> {
    bytes::pattern(seed, usize::try_from(size).unwrap_or_default())
}

async fn hear(
    State(shared): State<Arc<Shared>>,
    Path(tag): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let told: Value = serde_json::from_slice(&body).unwrap_or_default();
    let is_genuine = shared.secret.get().is_some_and(|secret| is_genuine(&headers, &body, secret))
        && told["job"]["tag"].as_str() == Some(&tag);
    let name = told["event"].as_str().unwrap_or_default().to_owned();
    shared.history.note(Event::Heard { tag, name, is_genuine });
    StatusCode::NO_CONTENT
}

/// Checks both signatures, as a client and as a library of Standard Webhooks would.
fn is_genuine(headers: &HeaderMap, body: &[u8], secret: &str) -> bool {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mac = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text);
    let key = STANDARD.decode(secret).unwrap_or_default();
    let text = [format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).as_bytes(), body].concat();
    header("cloudconvert-signature") == hex::encode(mac(secret.as_bytes(), body))
        && header("webhook-signature") == format!("v1,{}", STANDARD.encode(mac(&key, &text)))
}
