//! Accepts connections, speaks HTTP/1.1 or HTTP/2 on them, and lets them end in peace when the server stops.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::Error;

/// Longest time for a client to send the head of a request, and to finish a TLS handshake.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest head of a request in bytes, request line and headers together.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Pause after a connection could not be accepted, mostly because files are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Binds an address.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

/// Serves until `stop`, then until the connections that are open have answered.
pub(super) async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, router: Router, stop: CancellationToken) {
    let graceful = GracefulShutdown::new();
    let watcher = || graceful.watcher();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (tls, router, watcher) = (tls.clone(), router.clone(), watcher());
                tokio::spawn(async move {
                    if let Some(tls) = tls {
                        // A client that gives up in the handshake is its own business.
                        if let Ok(Ok(stream)) = timeout(HEAD_TIMEOUT, tls.accept(stream)).await {
                            connection(stream, router, watcher).await;
                        }
                    } else {
                        prepare(&stream);
                        connection(stream, router, watcher).await;
                    }
                });
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a connection was not accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

fn prepare(stream: &TcpStream) {
    // Without it small answers wait for the client's acknowledgement; a socket that refuses is only slower.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = &error as &dyn std::error::Error, "nodelay");
    }
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    builder.http2().timer(TokioTimer::new()).max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX));
    let connection =
        builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(router)).into_owned();
    // What goes wrong on a connection has been answered, or its client is gone.
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(error, "connection ended");
    }
}
