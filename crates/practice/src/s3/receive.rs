//! Takes a body in: from the network into a temporary file, hashed on the way, compared with what the client claimed.

use std::io::{self, Write as _};
use std::path::PathBuf;

use bytes::Bytes;
use futures_util::StreamExt as _;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::StreamingBlob;
use s3s::{S3Error, S3ErrorCode, S3Result, StdError, s3_error};
use tempfile::NamedTempFile;
use tokio::sync::mpsc;

use super::checksum::{Checksums, Claims};

/// Chunks between the network and the disk. A chunk is what one read of a socket gave, at most about 400 KiB.
const CHUNKS_MAX: usize = 8;
/// Largest body of one request: 5 GiB, as at the original service.
pub(super) const BODY_BYTES_MAX: u64 = 5 << 30;

/// A body that has arrived whole and is what the client claimed. The file goes away unless it is kept.
pub(super) struct Received {
    pub file: NamedTempFile,
    pub size_bytes: u64,
    pub md5: [u8; 16],
    pub checksums: Checksums,
}

/// Takes in a body as a new file in `folder`.
///
/// # Cancel safety
/// When it is dropped, the file goes away.
pub(super) async fn receive(folder: PathBuf, body: Option<StreamingBlob>, claims: Claims) -> S3Result<Received> {
    let (chunks, arriving) = mpsc::channel(CHUNKS_MAX);
    let hasher = claims.hasher();
    // Hashing and writing run beside the network, on a thread that may block.
    let writer = tokio::task::spawn_blocking(move || write(folder, arriving, hasher));
    let sent = send(body, chunks).await;
    let received = writer.await.map_err(S3Error::internal_error)?.map_err(S3Error::internal_error)?;
    sent?;
    claims.check(&received.md5, &received.checksums)?;
    Ok(received)
}

async fn send(body: Option<StreamingBlob>, chunks: mpsc::Sender<Bytes>) -> S3Result<()> {
    let Some(mut body) = body else { return Ok(()) };
    let mut size_bytes = 0_u64;
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(broken_body)?;
        size_bytes += chunk.len() as u64;
        if size_bytes > BODY_BYTES_MAX {
            return Err(s3_error!(EntityTooLarge, "Your proposed upload exceeds the maximum allowed size of 5 GiB."));
        }
        if chunks.send(chunk).await.is_err() {
            // The writer has failed; its own error is the one to tell.
            return Ok(());
        }
    }
    Ok(())
}

fn write(
    folder: PathBuf,
    mut arriving: mpsc::Receiver<Bytes>,
    mut hasher: s3s::checksum::ChecksumHasher,
) -> io::Result<Received> {
    let mut file = NamedTempFile::new_in(folder)?;
    let mut md5 = Md5::new();
    let mut size_bytes = 0;
    while let Some(chunk) = arriving.blocking_recv() {
        md5.update(&chunk);
        hasher.update(&chunk);
        file.write_all(&chunk)?;
        size_bytes += chunk.len() as u64;
    }
    Ok(Received { file, size_bytes, md5: md5.finalize(), checksums: hasher.finalize().into() })
}

/// Says what was wrong with a body. The types of these errors are private to `s3s`, their texts are all there is.
fn broken_body(error: StdError) -> S3Error {
    let text = error.to_string();
    if text.contains("Sha256Mismatch") {
        let mut mismatch = S3Error::with_message(
            S3ErrorCode::Custom("XAmzContentSHA256Mismatch".into()),
            "The provided x-amz-content-sha256 header does not match what was computed.",
        );
        mismatch.set_status_code(hyper::StatusCode::BAD_REQUEST);
        mismatch
    } else if text.contains("SignatureMismatch") {
        s3_error!(SignatureDoesNotMatch, "The signature of a chunk does not match.")
    } else {
        S3Error::with_source(S3ErrorCode::IncompleteBody, error)
    }
}
