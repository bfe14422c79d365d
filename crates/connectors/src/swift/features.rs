//! What a store says of itself at `/info`: how large objects may be, and whether they may be made of segments.
//!
//! # Source
//! OpenStack Object Storage API, "Discoverability".

use http::Method;
use serde::Deserialize;

use super::STORE;
use crate::http::{Body, Client};

/// What is read of the answer.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// What a store can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Features {
    /// Largest object that is sent in one piece, in bytes.
    pub(super) piece_bytes_max: u64,
    /// Segments of one object at the most; none where the store knows no static large objects.
    pub(super) segments_max: Option<u64>,
}

impl Default for Features {
    /// What Swift does unless told otherwise: objects of 5 GiB, 1,000 segments.
    fn default() -> Self {
        Self { piece_bytes_max: 5 * 1024 * 1024 * 1024, segments_max: Some(1000) }
    }
}

#[derive(Debug, Deserialize)]
struct Info {
    swift: Option<Constraints>,
    slo: Option<Slo>,
}

#[derive(Debug, Deserialize)]
struct Constraints {
    max_file_size: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct Slo {
    max_manifest_segments: Option<u64>,
}

/// Asks the store; where it does not say, the usual is taken.
pub(super) async fn ask(client: &Client, storage: &str) -> Features {
    match read(client, storage).await {
        Some(info) => understand(&info),
        None => Features::default(),
    }
}

async fn read(client: &Client, storage: &str) -> Option<Info> {
    let (base, _) = storage.rsplit_once("/v1")?;
    let request = http::Request::builder().method(Method::GET).uri(format!("{base}/info")).body(Body::empty()).ok()?;
    let response = client.send(request, STORE).await.ok()?;
    if !response.status().is_success() {
        return None;
    }
    serde_json::from_slice(&response.into_body().bytes(ANSWER_BYTES_MAX).await.ok()?).ok()
}

fn understand(info: &Info) -> Features {
    let usual = Features::default();
    // A page that is no description at all says nothing about segments either.
    let Some(constraints) = &info.swift else { return usual };
    Features {
        piece_bytes_max: constraints.max_file_size.filter(|bytes| *bytes > 0).unwrap_or(usual.piece_bytes_max),
        segments_max: info.slo.as_ref().map(|slo| slo.max_manifest_segments.unwrap_or(1000).max(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_as_usual() {
        let of = |text| understand(&serde_json::from_str(text).unwrap());
        assert_eq!(of("{}"), Features::default());
        assert_eq!(of(r#"{"swift": {}, "slo": {}}"#), Features::default());
        let small =
            r#"{"swift": {"max_file_size": 1000}, "slo": {"max_manifest_segments": 50, "min_segment_size": 1}}"#;
        assert_eq!(of(small), Features { piece_bytes_max: 1000, segments_max: Some(50) });
        assert_eq!(of(r#"{"swift": {"max_file_size": 1000}}"#), Features { piece_bytes_max: 1000, segments_max: None });
    }
}
