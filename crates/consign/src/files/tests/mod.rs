//! The file store: what it keeps, what it refuses, what it leaves behind, in a folder and in the object stores of real
//! servers.

use std::sync::Arc;

use bytes::Bytes;
use connectors::{ByteStream, Kind, Progress};
use futures_util::{StreamExt as _, stream as streams};

use super::*;
use crate::clock::Timestamp;
pub(crate) use staged::{Act, Staged, goes};

mod bounds;
mod bucket;
mod folder;
mod staged;
mod suite;

const LIMIT_BYTES: u64 = 64 * 1024 * 1024;

/// A file store on a bucket that a test directs.
pub(crate) async fn on_stage(store: Arc<Staged>, folder: &Path) -> Files {
    let settings = BucketSettings { prefix: String::new(), ..bucket::settings(store, folder) };
    Files::in_bucket(settings).await.unwrap()
}

fn task() -> TaskId {
    TaskId::new(Timestamp(0))
}

fn key() -> BlobKey {
    BlobKey::new(task(), Token(5), 1)
}

fn stream_of(bytes: &[u8], piece: usize) -> ByteStream {
    let pieces: Vec<_> = bytes.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    streams::iter(pieces).boxed()
}

fn broken_after(bytes: &[u8]) -> ByteStream {
    let cut = connectors::Error::new(Kind::Unreachable, "reading", "the connection broke");
    stream_of(bytes, 1000).chain(streams::iter([Err(cut)])).boxed()
}

fn row(received: Received) -> File {
    File {
        name: "a".to_owned(),
        size: received.size,
        digests: received.digests,
        content_type: "text/plain".to_owned(),
        blob: None,
        download: None,
        receipt: None,
    }
}
