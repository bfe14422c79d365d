//! The S3 server: accepts connections and hands requests to `s3s`, which checks signatures and calls the backend.
//!
//! `name` maps keys to file names, `receive` takes in a body, `objects` keeps finished objects, `uploads` multipart
//! uploads, `listing` pages through keys; `backend` (with `lists`) is the list of operations, `answer` the shapes of what they say.

mod answer;
mod backend;
mod checksum;
mod leftover;
mod listing;
mod lists;
mod name;
mod objects;
mod receive;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use s3s::auth::{S3Auth, SecretKey};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3Result, s3_error};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use objects::Objects;

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 512;
/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long open requests may go on once the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait after the system refused a connection (mostly: too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The one access key.
struct OneKey {
    access_key_id: String,
    secret_access_key: SecretKey,
}

#[async_trait::async_trait]
impl S3Auth for OneKey {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        if access_key == self.access_key_id {
            Ok(self.secret_access_key.clone())
        } else {
            Err(s3_error!(InvalidAccessKeyId, "The access key id you provided does not exist in our records."))
        }
    }
}

/// Puts the protocol in front of the objects.
pub(crate) fn service(objects: Objects, region: &str, access_key_id: &str, secret_access_key: &str) -> S3Service {
    let mut builder = S3ServiceBuilder::new(backend::Backend::new(objects, region.to_owned()));
    builder.set_auth(OneKey { access_key_id: access_key_id.to_owned(), secret_access_key: secret_access_key.into() });
    builder.build()
}

/// Serves until `stop` is cancelled, then lets open requests end for a while.
pub(crate) async fn serve(listener: TcpListener, service: S3Service, stop: CancellationToken) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    // Dropped with this future, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((socket, place)) = accepted else { continue };
        let connection = graceful.watch(http.serve_connection(TokioIo::new(socket), answering(service.clone())));
        connections.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an S3 connection broke");
            }
            drop(place);
        });
        while connections.try_join_next().is_some() {}
    }
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        tracing::debug!("S3 requests were cut off because the server stops");
    }
}

fn answering(
    service: S3Service,
) -> impl hyper::service::Service<
    hyper::Request<hyper::body::Incoming>,
    Response = hyper::Response<s3s::Body>,
    Error = s3s::HttpError,
    Future: Send,
> + Send {
    hyper::service::service_fn(move |request| leftover::answer(service.clone(), request))
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    match listener.accept().await {
        Ok((socket, _)) => {
            if let Err(error) = socket.set_nodelay(true) {
                tracing::debug!(%error, "small answers may be delayed");
            }
            Some((socket, place))
        }
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}
