//! Stands between an SSH channel and its SFTP session, so that requests and replies cannot block each other.
//!
//! SFTP sessions answer one request after the other, and do not read while they write. A client that asks for much at
//! once would bring both sides to a stop: replies wait until it grants more room, its grant waits on the connection
//! behind requests that nobody takes. So requests are always taken, up to a bound far above what clients ask for.

use tokio::io::{AsyncRead, AsyncWrite, BufReader, DuplexStream, Join, copy_buf, duplex, join, split};

/// Requests that wait to be answered, in bytes. A request to read takes about 40 bytes, so that this is room for 200,000
/// of them: 6 GiB at the usual 32 KiB each, asked for at once. Uploads are slowed down when it is full.
const REQUEST_BYTES_MAX: usize = 8 << 20;
/// Replies that wait to be sent, in bytes.
const REPLY_BYTES_MAX: usize = 512 * 1024;
/// How much is moved at once.
const MOVE_BYTES: usize = 256 * 1024;

/// Gives the stream for the session. Both end when the channel ends, even in the middle of a reply.
pub(super) fn start(channel: impl AsyncRead + AsyncWrite + Send + 'static) -> Join<DuplexStream, DuplexStream> {
    let (mut requests, taken_requests) = duplex(REQUEST_BYTES_MAX);
    let (replies, waiting_replies) = duplex(REPLY_BYTES_MAX);
    tokio::spawn(async move {
        let (from_client, mut to_client) = split(channel);
        let mut from_client = BufReader::with_capacity(MOVE_BYTES, from_client);
        let mut waiting_replies = BufReader::with_capacity(MOVE_BYTES, waiting_replies);
        let ended = tokio::select! {
            ended = copy_buf(&mut from_client, &mut requests) => ended,
            ended = copy_buf(&mut waiting_replies, &mut to_client) => ended,
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "an SFTP channel broke");
        }
    });
    join(taken_requests, replies)
}
