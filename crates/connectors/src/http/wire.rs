//! Connections of the HTTP client, plain and with TLS, read in large pieces.
//!
//! The TLS library asks for 4 KiB at a time and hands out one record at a time. Below it, a buffer makes one system call
//! of many; above it, all records that are there fill one buffer of the HTTP library, so that what stands above
//! (frames, channels, timers) is paid once for many records.

use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::egress::Guard;
use crate::error::{Error, Kind};

/// Bytes that are read from a socket at once below TLS: four records.
const SOCKET_READ_BYTES: usize = 64 * 1024;

/// What an error says was being done.
const ACTION: &str = "connecting";

/// Opens connections through the guard, and bounds the time for one with its TLS handshake.
#[derive(Clone)]
pub(super) struct Connector {
    guard: Guard,
    tls: TlsConnector,
    connect_timeout: Duration,
}

type BoxError = Box<dyn StdError + Send + Sync>;

impl Connector {
    pub(super) fn new(guard: Guard, tls: rustls::ClientConfig, connect_timeout: Duration) -> Self {
        Self { guard, tls: TlsConnector::from(Arc::new(tls)), connect_timeout }
    }

    async fn open(&self, uri: &http::Uri) -> Result<Wire, BoxError> {
        let host = uri.host().ok_or_else(|| Error::new(Kind::InvalidRequest, ACTION, "the URL has no host"))?;
        let is_tls = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        if !is_tls {
            return Ok(Wire::Plain(self.guard.connect(host, port, self.connect_timeout).await?));
        }
        // An IPv6 address stands in brackets in a URL, and without them in a certificate.
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned())?;
        let socket = self.guard.connect(host, port, self.connect_timeout).await?;
        let socket = BufReader::with_capacity(SOCKET_READ_BYTES, socket);
        Ok(Wire::Tls(Box::new(TlsWire { stream: self.tls.connect(name, socket).await?, failed: None })))
    }
}

impl tower::Service<http::Uri> for Connector {
    type Response = TokioIo<Wire>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: http::Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let limit = connector.connect_timeout;
            let opened = timeout(limit, connector.open(&uri)).await;
            Ok(TokioIo::new(opened.unwrap_or_else(|_| Err(too_late(&uri, limit).into()))?))
        })
    }
}

fn too_late(uri: &http::Uri, limit: Duration) -> Error {
    let host = uri.host().unwrap_or_default();
    let detail = format!("{host} did not complete a connection within {} s", limit.as_secs());
    Error::new(Kind::Timeout, ACTION, detail)
}

/// An open connection.
#[derive(Debug)]
pub(super) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsWire>),
}

/// A connection with TLS.
#[derive(Debug)]
pub(super) struct TlsWire {
    stream: TlsStream<BufReader<TcpStream>>,
    /// What went wrong behind the bytes that were read last.
    failed: Option<io::Error>,
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Self::Tls(wire) => wire.poll_fill(context, buffer),
        }
    }
}

impl TlsWire {
    /// Reads until the buffer is full or nothing is there any more. What goes wrong behind bytes that are there is told by
    /// the next reading.
    fn poll_fill(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        while buffer.remaining() > 0 {
            let had = buffer.filled().len();
            match Pin::new(&mut self.stream).poll_read(context, buffer) {
                Poll::Ready(Ok(())) if buffer.filled().len() > had => {}
                Poll::Ready(Err(error)) if had > before => {
                    self.failed = Some(error);
                    break;
                }
                Poll::Ready(Ok(())) | Poll::Pending if had > before => break,
                ended @ (Poll::Ready(_) | Poll::Pending) => return ended,
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write(context, bytes),
            Self::Tls(wire) => Pin::new(&mut wire.stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_write_vectored(context, slices),
            Self::Tls(wire) => Pin::new(&mut wire.stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.is_write_vectored(),
            Self::Tls(wire) => wire.stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_flush(context),
            Self::Tls(wire) => Pin::new(&mut wire.stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(socket) => Pin::new(socket).poll_shutdown(context),
            Self::Tls(wire) => Pin::new(&mut wire.stream).poll_shutdown(context),
        }
    }
}
