//! One request to the service: built, signed, sent, its refusal understood, and what the service insists on learned.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response};

use super::Config;
use super::checksum::{Learned, Support};
use super::endpoint::Endpoint;
use super::errors::{self, Asked};
use super::sign::Signer;
use crate::error::{Error, Kind, Result};
use crate::http::{Answer, Body, Client, Reply};
use crate::retry;
use crate::secret::Secret;
use crate::transfer::Limits;

/// An answer in XML: a page of a listing with 1,000 keys of 1,024 bytes, percent-encoded, is 3 MiB and some marks.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How often one request is repeated at once because the service wants it in another shape.
const SHAPES_MAX: usize = 3;

/// A request.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// What is done, as in [`Error::action`].
    pub(super) action: &'static str,
    pub(super) method: Method,
    /// The object; none for the bucket itself.
    pub(super) key: Option<&'a str>,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) headers: HeaderMap,
    /// A header that older services refuse; it is left out once this one did.
    pub(super) checksum: Option<(HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
}

impl<'a> Call<'a> {
    pub(super) fn new(action: &'static str, method: Method, key: Option<&'a str>) -> Self {
        Self { action, method, key, query: Vec::new(), headers: HeaderMap::new(), checksum: None, body: Bytes::new() }
    }

    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }
}

/// The shape in which a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    is_virtual: bool,
    is_payload_signed: bool,
    has_checksum: bool,
}

/// The service that holds the bucket.
#[derive(Debug)]
pub(super) struct Service {
    client: Client,
    signer: Signer,
    endpoint: Endpoint,
    /// Texts of the credentials, which a provider's message may repeat.
    secrets: Vec<Secret>,
    is_payload_signed: AtomicBool,
    pub(super) checksums: Learned,
    pub(super) limits: Limits,
}

impl Service {
    pub(super) fn new(config: &Config, client: Client, limits: Limits) -> Result<Self> {
        let region = if config.region.is_empty() { "us-east-1" } else { config.region.as_str() };
        let key_pair = [Secret::new(&config.access_key_id), config.secret_access_key.clone()];
        Ok(Self {
            client,
            signer: Signer::new(config, region),
            endpoint: Endpoint::new(config)?,
            secrets: key_pair.into_iter().chain(config.session_token.clone()).collect(),
            is_payload_signed: AtomicBool::new(false),
            checksums: Learned::default(),
            limits,
        })
    }

    pub(super) fn bucket(&self) -> &str {
        self.endpoint.bucket()
    }

    /// Host and port, for people.
    pub(super) fn host(&self) -> String {
        self.endpoint.shown()
    }

    /// Sends a call, again after transient faults, and reads the whole answer.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Reply> {
        retry::request(self.limits.tries, |_| self.call_once(call)).await
    }

    /// Sends a call once and reads the whole answer.
    pub(super) async fn call_once(&self, call: &Call<'_>) -> Result<Reply> {
        Reply::read(self.open(call).await?, ANSWER_BYTES_MAX).await
    }

    /// Sends a call once, in every shape that the service asks for, and leaves the body of the answer to be read.
    pub(super) async fn open(&self, call: &Call<'_>) -> Result<Response<Answer>> {
        let mut shapes = 0;
        loop {
            let shape = self.shape(call);
            let response = self.client.send(self.request(call, shape)?, call.action).await?;
            if response.status().is_success() {
                return Ok(response);
            }
            let error = self.error(call, &Reply::refused(response).await);
            shapes += 1;
            if shapes >= SHAPES_MAX || !self.adapts(call, shape, &error) {
                return Err(error);
            }
            tracing::debug!(error = %error, "the request is sent again in another shape");
        }
    }

    /// The signed address of an object that anybody may read until `life` is over.
    pub(super) fn link(&self, key: &str, query: &[(&'static str, String)], life: Duration) -> Result<String> {
        self.signer.link(&self.endpoint.url(Some(key), query), life)
    }

    /// The error of an answer, whatever its status.
    pub(super) fn error(&self, call: &Call<'_>, reply: &Reply) -> Error {
        let host = self.host();
        let asked = Asked { action: call.action, bucket: self.bucket(), host: &host, key: call.key };
        errors::refusal(asked, reply, &self.secrets)
    }

    fn shape(&self, call: &Call<'_>) -> Shape {
        Shape {
            is_virtual: self.endpoint.is_virtual(),
            is_payload_signed: self.is_payload_signed.load(Ordering::Relaxed),
            has_checksum: call.checksum.is_some() && self.checksums.get() != Support::Refuses,
        }
    }

    /// Learns from a refusal; true when the request may fare better now.
    fn adapts(&self, call: &Call<'_>, sent: Shape, error: &Error) -> bool {
        if errors::wants_virtual_host(error) {
            self.endpoint.switch();
        } else if errors::wants_signed_payload(error) {
            self.is_payload_signed.store(true, Ordering::Relaxed);
        } else if sent.has_checksum && self.checksums.get() == Support::Unknown && errors::may_refuse_checksum(error) {
            self.checksums.set(Support::Refuses);
        }
        self.shape(call) != sent
    }

    fn request(&self, call: &Call<'_>, shape: Shape) -> Result<http::Request<Body>> {
        let url = self.endpoint.url(call.key, &call.query);
        let mut request =
            http::Request::builder().method(call.method.clone()).uri(url).body(()).map_err(|error| {
                Error::new(Kind::InvalidRequest, call.action, "the key makes no URL").because(error)
            })?;
        request.headers_mut().clone_from(&call.headers);
        if let Some((name, value)) = call.checksum.as_ref().filter(|_| shape.has_checksum) {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        self.signer.sign(&mut request, &call.body, shape.is_payload_signed)?;
        if matches!(call.method, Method::PUT | Method::POST) {
            // The library leaves a length of 0 out, and gateways insist on it.
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(call.body.len()));
        }
        Ok(request.map(|()| Body::from(call.body.clone())))
    }
}
