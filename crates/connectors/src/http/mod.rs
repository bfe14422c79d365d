//! The one HTTP client: through the egress guard, HTTP/1.1 over many connections, no redirect, no proxy, no cookie,
//! and a time limit on silence instead of on length.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{HeaderValue, USER_AGENT};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::field::Empty;
use tracing::{Instrument as _, debug_span};

use crate::egress::Guard;
use crate::error::{Error, Kind, Result};
use crate::source::ByteStream;
use crate::transfer::Limits;

use body::Activity;
pub use body::Body;
pub(crate) use reply::{Reply, header};
use wire::Connector;

/// What we call ourselves where a request does not say.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("connectors/", env!("CARGO_PKG_VERSION")));

/// Bytes that are read from one connection before somebody takes them; the library begins with less and grows.
const READ_BYTES_MAX: usize = 256 * 1024;

/// Idle connections kept for each host.
const IDLE_CONNECTIONS_MAX: usize = 32;

/// The HTTP client of a process; cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: legacy::Client<Connector, Body>,
    idle_timeout: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("idle_timeout", &self.idle_timeout).finish_non_exhaustive()
    }
}

impl Client {
    /// Makes a client whose connections all go through `guard`.
    pub fn new(guard: Guard, tls: rustls::ClientConfig, limits: &Limits) -> Self {
        let connector = Connector::new(guard, tls, limits.connect_timeout);
        let inner = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .pool_idle_timeout(Duration::from_secs(30))
            .http1_max_buf_size(READ_BYTES_MAX)
            .retry_canceled_requests(true)
            .build(connector);
        Self { inner, idle_timeout: limits.idle_timeout }
    }

    /// Sends a request and waits for the head of the answer, whatever its status.
    ///
    /// The request URI is absolute and sent as it is: nothing is normalised. A `User-Agent` is added where there is none;
    /// no signature covers it. `action` says what is being done, for the error.
    ///
    /// # Errors
    /// The guard's, [`Kind::Unreachable`], [`Kind::TlsRefused`], [`Kind::Timeout`] when no byte moved and no answer
    /// began for the idle timeout.
    pub async fn send(&self, request: http::Request<Body>, action: &'static str) -> Result<http::Response<Answer>> {
        // The host only: paths and queries may be capabilities.
        let (method, host) = (request.method(), request.uri().host());
        let span = debug_span!("call", otel.name = action, otel.kind = "client", %method, host, status = Empty);
        let answered = self.exchange(request, action).instrument(span.clone()).await;
        if let Ok(response) = &answered {
            span.record("status", response.status().as_u16());
        }
        answered
    }

    async fn exchange(&self, request: http::Request<Body>, action: &'static str) -> Result<http::Response<Answer>> {
        let activity = Activity::new();
        let mut request = request.map(|body| body.watched(activity.clone()));
        request.headers_mut().entry(USER_AGENT).or_insert(AGENT);
        let mut answer = std::pin::pin!(self.inner.request(request));
        loop {
            match timeout_at(activity.last() + self.idle_timeout, answer.as_mut()).await {
                Ok(Ok(response)) => {
                    return Ok(response.map(|body| Answer { body, idle_timeout: self.idle_timeout, action }));
                }
                Ok(Err(error)) => return Err(from_client(&error, action)),
                Err(_) if activity.last() + self.idle_timeout > Instant::now() => {}
                Err(_) => return Err(silence(self.idle_timeout, action)),
            }
        }
    }
}

fn silence(idle_timeout: Duration, action: &'static str) -> Error {
    let seconds = idle_timeout.as_secs();
    Error::new(Kind::Timeout, action, format!("the other side was silent for {seconds} s"))
}

/// The body of an answer.
#[derive(Debug)]
pub struct Answer {
    body: Incoming,
    idle_timeout: Duration,
    action: &'static str,
}

impl Answer {
    /// The length in bytes that the head of the answer promised; a body that ends before it breaks.
    pub fn size(&self) -> Option<u64> {
        http_body::Body::size_hint(&self.body).exact()
    }

    /// The next bytes, or none at the end.
    ///
    /// # Errors
    /// [`Kind::Unreachable`] when the connection broke, [`Kind::Timeout`] when it fell silent.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        loop {
            let frame = match timeout(self.idle_timeout, self.body.frame()).await {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(error))) => {
                    return Err(
                        Error::new(Kind::Unreachable, self.action, "the connection broke in the answer").because(error)
                    );
                }
                Err(_) => return Err(silence(self.idle_timeout, self.action)),
            };
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
    }

    /// All bytes, at most `limit_bytes` of them; what exceeds that is an error.
    ///
    /// # Errors
    /// [`Kind::Protocol`] when there are more, and those of [`Self::chunk`].
    pub async fn bytes(mut self, limit_bytes: usize) -> Result<Bytes> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if all.len() + chunk.len() > limit_bytes {
                return Err(Error::new(Kind::Protocol, self.action, "the answer is longer than it may be"));
            }
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }

    /// The bytes as a stream.
    pub fn stream(self) -> ByteStream {
        Box::pin(futures_util::stream::try_unfold(self, |mut answer| async move {
            Ok(answer.chunk().await?.map(|chunk| (chunk, answer)))
        }))
    }
}

/// Trust for TLS: the system's certificates (the browsers' list where the system has none) and `extra` ones.
///
/// # Errors
/// [`Kind::Local`] when one of `extra` is not a certificate.
///
/// # Panics
/// Never: the TLS library supports its own default versions.
pub fn tls_config(extra: &[rustls::pki_types::CertificateDer<'static>]) -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    let (found, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if found == 0 {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    for certificate in extra {
        roots.add(certificate.clone()).map_err(|error| {
            Error::new(Kind::Local, "reading the trusted certificates", "a certificate cannot be read").because(error)
        })?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// Finds the reason in what the client library wraps around it.
fn from_client(error: &legacy::Error, action: &'static str) -> Error {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(ours) = inner.downcast_ref::<Error>() {
            return Error::new(ours.kind, ours.action, ours.detail.clone()).because(chain(ours));
        }
        if let Some(tls) = inner.downcast_ref::<rustls::Error>() {
            return Error::new(Kind::TlsRefused, action, tls_refusal(tls));
        }
        if inner.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse) {
            let detail = "the other side's answer is not HTTP/1.1, or its head is too long";
            return Error::new(Kind::Protocol, action, detail).because(chain(error));
        }
        cause = match inner.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(wrapped) => Some(wrapped), // `source` would leave out the wrapped error itself
            None => inner.source(),
        };
    }
    let detail = if error.is_connect() { "no connection could be made" } else { "the connection broke" };
    Error::new(Kind::Unreachable, action, detail).because(chain(error))
}

fn tls_refusal(error: &rustls::Error) -> String {
    use rustls::CertificateError as Bad;
    let rustls::Error::InvalidCertificate(bad) = error else {
        return format!("the TLS connection was refused: {error}");
    };
    if matches!(bad, Bad::UnknownIssuer) {
        "the TLS certificate is not signed by an authority that this server trusts; \
         add that authority to its trusted certificates"
            .to_owned()
    } else if matches!(bad, Bad::Expired | Bad::ExpiredContext { .. }) {
        "the TLS certificate has expired".to_owned()
    } else if matches!(bad, Bad::NotValidForName | Bad::NotValidForNameContext { .. }) {
        "the TLS certificate is for another host name".to_owned()
    } else {
        format!("the TLS certificate was refused: {bad}")
    }
}

fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

mod body;
mod reply;
#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod tests;
mod wire;
