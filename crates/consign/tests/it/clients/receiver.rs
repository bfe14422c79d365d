//! A server on loopback that keeps what is posted to it.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::post;
use bytes::Bytes;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::program::eventually;

/// One delivery.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// The server. It ends when dropped.
pub(crate) struct Receiver {
    /// Where webhooks are sent to; a `GET` there is answered with 405.
    pub(crate) url: String,
    kept: Arc<Mutex<Vec<Kept>>>,
    server: JoinHandle<()>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let kept: Arc<Mutex<Vec<Kept>>> = Arc::default();
        let keep = Arc::clone(&kept);
        let hook = post(async move |headers, body| keep.lock().unwrap().push(Kept { headers, body }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            axum::serve(listener, Router::new().route("/hook", hook)).await.unwrap();
        });
        Self { url, kept, server }
    }

    /// The delivery of this event about this job.
    pub(crate) async fn delivery(&self, event: &str, job: &str) -> Kept {
        let is_it = |kept: &&Kept| {
            let body: Value = serde_json::from_slice(&kept.body).unwrap();
            body["event"] == event && body["job"]["id"] == job
        };
        eventually(event, async || self.kept.lock().unwrap().iter().find(is_it).cloned()).await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.server.abort();
    }
}
