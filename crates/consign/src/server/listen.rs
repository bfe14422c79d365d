//! Accepts connections, speaks HTTP/1.1 or HTTP/2 on them, and lets them end in peace when the server stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use prometheus_client::metrics::gauge::Gauge;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Error;
use super::tls::Certificate;
use crate::telemetry::metrics::Held;

/// Longest time for a client to send the head of a request, and to finish a TLS handshake. Tests have less patience.
const HEAD_TIMEOUT: Duration = if cfg!(test) { Duration::from_millis(500) } else { Duration::from_secs(30) };
/// Longest head of a request in bytes, request line and headers together.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Pause after a connection could not be accepted, mostly because files are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections at once; further ones wait in the system's queue until one of these ends.
const CONNECTIONS_MAX: u64 = 8192;
/// A client that takes no byte of its answer for so long is gone, or wants to hold us up.
const STALL_TIMEOUT: Duration = Duration::from_mins(2);
/// How long a client that has connected and asked for nothing yet may still ask once the server stops: its request is on its
/// way, or never comes.
const LATE_MAX: Duration = Duration::from_secs(1);
/// How soon the system asks whether a silent client, such as one that waits for a job, is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_mins(1);

/// Binds an address.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })
}

/// Asks for as many open files as this process may have: connections and the files of tasks all count.
pub(super) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::debug!(%error, "the limit of open files stays");
    }
}

/// How many connections may be open at once: half of the files that this process may open. The other half is for what
/// the connections are about.
fn places() -> usize {
    let files = getrlimit(Resource::Nofile).current;
    usize::try_from(files.map_or(CONNECTIONS_MAX, |files| (files / 2).min(CONNECTIONS_MAX))).unwrap_or(1)
}

/// Serves until `stop`, then until the connections that are open have answered.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<Certificate>>,
    router: Router,
    open: Gauge,
    stop: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(places()));
    let accept = async || {
        let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes the semaphore");
        (place, listener.accept().await)
    };
    loop {
        let (place, accepted) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (tls, router, watcher, stop) = (tls.clone(), router.clone(), graceful.watcher(), stop.clone());
                let place = Place(Arc::new((place, Held::of(&open))));
                tokio::spawn(async move {
                    prepare(&stream);
                    if let Some(certificate) = tls {
                        let tls = certificate.acceptor().await;
                        let shaken = tokio::select! {
                            shaken = timeout(HEAD_TIMEOUT, tls.accept(stream)) => shaken,
                            () = is_late(&stop) => return,
                        };
                        // A client that gives up in the handshake is its own business.
                        if let Ok(Ok(stream)) = shaken {
                            connection(stream, router, watcher, place, stop).await;
                        }
                    } else {
                        connection(stream, router, watcher, place, stop).await;
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

/// The place that a connection takes. Its requests carry it: one that turns into something else, such as a WebSocket,
/// keeps the head of its request, and so stays counted when this side has let go of it.
#[derive(Clone)]
struct Place(
    #[expect(dead_code, reason = "it is free again when the last copy is dropped")] Arc<(OwnedSemaphorePermit, Held)>,
);

fn prepare(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    // Without `nodelay` small answers wait for the client's acknowledgement.
    let set = (socket.set_tcp_nodelay(true))
        .and_then(|()| socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER)))
        .and_then(|()| socket.set_tcp_user_timeout(Some(STALL_TIMEOUT)));
    // A socket that refuses is slower or stays longer, but works.
    if let Err(error) = set {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection is not set up as it should be");
    }
}

/// Waits until it is too late for a first request, because the server stops.
async fn is_late(stop: &CancellationToken) {
    stop.cancelled().await;
    sleep(LATE_MAX).await;
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    watcher: hyper_util::server::graceful::Watcher,
    place: Place,
    stop: CancellationToken,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_BYTES_MAX);
    builder.http2().timer(TokioTimer::new()).max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX));
    let has_asked = Arc::new(AtomicBool::new(false));
    let (router, noted) = (TowerToHyperService::new(router), Arc::clone(&has_asked));
    let service = service_fn(move |mut request: Request<Incoming>| {
        noted.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(place.clone());
        router.call(request)
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    // The library waits without end for the bytes that tell HTTP/1.1 from HTTP/2, and for the first request of the
    // latter.
    let silent = async {
        tokio::select! {
            () = sleep(HEAD_TIMEOUT) => {}
            () = is_late(&stop) => {}
        }
        if has_asked.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        // What goes wrong on a connection has been answered, or its client is gone.
        ended = watcher.watch(connection) => if let Err(error) = ended {
            tracing::debug!(error, "connection ended");
        },
        () = silent => tracing::debug!("a client connected and asked for nothing"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::time::Instant;

    use super::*;

    async fn server() -> (SocketAddr, CancellationToken) {
        let listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let slow = async || {
            sleep(HEAD_TIMEOUT * 3).await;
            "yes"
        };
        let router = Router::new().route("/", get(async || "yes")).route("/slow", get(slow));
        let router = router.route("/body", post(async |body: String| body));
        tokio::spawn(serve(listener, None, router, Gauge::default(), stop.clone()));
        (address, stop)
    }

    #[expect(clippy::disallowed_methods, reason = "a client of the server under test, on loopback")]
    async fn connect(address: SocketAddr) -> TcpStream {
        TcpStream::connect(address).await.unwrap()
    }

    #[tokio::test]
    async fn a_client_that_asks_for_nothing_is_shown_out() {
        let (address, stop) = server().await;
        for beginning in ["", "P", "PRI * HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\n"] {
            let mut stream = connect(address).await;
            stream.write_all(beginning.as_bytes()).await.unwrap();
            let began = Instant::now();
            let mut said = Vec::new();
            let closed = timeout(HEAD_TIMEOUT * 20, stream.read_to_end(&mut said)).await;
            assert!(closed.is_ok(), "{beginning:?} holds the connection for ever");
            assert!(began.elapsed() >= HEAD_TIMEOUT / 2, "{beginning:?}");
        }
        stop.cancel();
    }

    #[tokio::test]
    async fn a_client_that_asked_may_take_its_time() {
        let (address, stop) = server().await;
        let mut waits = connect(address).await;
        waits.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut sends = connect(address).await;
        let head = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nConnection: close\r\n\r\n";
        sends.write_all(head).await.unwrap();
        for byte in b"slow" {
            sleep(HEAD_TIMEOUT * 3 / 4).await;
            sends.write_all(&[*byte]).await.unwrap();
        }
        for (mut stream, wanted) in [(waits, "yes"), (sends, "slow")] {
            let mut answer = String::new();
            timeout(HEAD_TIMEOUT * 20, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with(wanted), "{answer}");
        }
        stop.cancel();
    }

    #[test]
    fn places_are_bounded() {
        assert!((1..=usize::try_from(CONNECTIONS_MAX).unwrap()).contains(&places()));
    }
}
