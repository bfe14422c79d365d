//! The world outside: a web server that files come from and a receiver of webhooks that writes down what it hears.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Result;
use aws_lc_rs::hmac;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt as _, stream};
use serde_json::Value;
use testkit::bytes;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::history::{Event, History};

/// A file is sent in pieces of so many bytes,
const PIECE_BYTES: usize = 1024 * 1024;
/// with a pause before each but the first.
const PIECE_PAUSE: Duration = Duration::from_millis(50);

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
    /// Listens at this address of the machine.
    pub(crate) async fn start(address: IpAddr, history: Arc<History>) -> Result<Self> {
        let listener = TcpListener::bind((address, 0)).await?;
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

/// A large file takes a while, so that something can happen meanwhile.
async fn file(Path((seed, size, _)): Path<(u64, u64, String)>) -> impl IntoResponse {
    let content = Bytes::from(bytes::pattern(seed, usize::try_from(size).unwrap_or_default()));
    let pieces = (0..content.len()).step_by(PIECE_BYTES).map(move |start| (start, content.clone()));
    let pieces = stream::iter(pieces).then(|(start, content)| async move {
        if start > 0 {
            sleep(PIECE_PAUSE).await;
        }
        Ok::<_, Infallible>(content.slice(start..content.len().min(start + PIECE_BYTES)))
    });
    ([(CONTENT_LENGTH, size)], Body::from_stream(pieces))
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
