//! One request to the service: built, signed, sent, its refusal understood.

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response};

use super::Config;
use super::address::{Address, check_name};
use super::credentials::Credentials;
use super::errors::{self, Asked};
use crate::error::{Error, Kind, Result};
use crate::http::{Answer, Body, Client, Reply};
use crate::retry;
use crate::secret::Secret;
use crate::transfer::Limits;

/// The version of the protocol that is spoken: blocks of 4,000 MiB came with 2019-12-12, percent-encoded names in
/// listings with 2021-02-12. Clouds of one's own lag behind, so it is not the newest.
const VERSION: HeaderValue = HeaderValue::from_static("2021-12-02");
const VERSION_HEADER: HeaderName = HeaderName::from_static("x-ms-version");
/// MD5 of a body.
pub(super) const MD5_HEADER: HeaderName = HeaderName::from_static("content-md5");

/// An answer in XML: a list of 150,000 blocks with ids of 64 characters is 19 MiB.
const ANSWER_BYTES_MAX: usize = 24 * 1024 * 1024;

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Call<'a> {
    /// What is done, as in [`Error::action`].
    pub(super) action: &'static str,
    pub(super) method: Method,
    /// The blob; none for the container itself.
    pub(super) name: Option<&'a str>,
    pub(super) query: Vec<(&'static str, String)>,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl<'a> Call<'a> {
    pub(super) fn new(action: &'static str, method: Method, name: Option<&'a str>) -> Self {
        Self { action, method, name, query: Vec::new(), headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub(super) fn query(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// Adds a header of text that is known to make one, such as digits or base64.
    pub(super) fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.insert(name, HeaderValue::try_from(value.into()).expect("digits and base64 make a header"));
        self
    }
}

/// The service that holds the container.
pub(super) struct Service {
    client: Client,
    credentials: Credentials,
    /// Texts of the credentials, which a provider's message may repeat.
    secrets: Vec<Secret>,
    pub(super) address: Address,
    pub(super) limits: Limits,
}

impl Service {
    pub(super) fn new(config: &Config, client: Client, limits: Limits) -> Result<Self> {
        let credentials = Credentials::new(config)?;
        let secrets = credentials.secrets(config);
        Ok(Self { client, credentials, secrets, address: Address::new(config)?, limits })
    }

    /// Sends a call, again after transient faults, and reads the whole answer.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Reply> {
        retry::request(self.limits.tries, |_| self.call_once(call)).await
    }

    /// Sends a call once and reads the whole answer.
    pub(super) async fn call_once(&self, call: &Call<'_>) -> Result<Reply> {
        let reply = Reply::read(self.open(call).await?, ANSWER_BYTES_MAX).await?;
        let echo = call.headers.get(MD5_HEADER).and_then(|_| reply.headers.get(MD5_HEADER));
        if echo.is_some_and(|echo| call.headers.get(MD5_HEADER) != Some(echo)) {
            return Err(Error::new(Kind::IntegrityMismatch, call.action, "the bytes did not arrive as they were sent"));
        }
        Ok(reply)
    }

    /// Sends a call once and leaves the body of the answer to be read.
    pub(super) async fn open(&self, call: &Call<'_>) -> Result<Response<Answer>> {
        let response = self.client.send(self.request(call)?, call.action).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let reply = Reply::refused(response).await;
        let asked = Asked {
            action: call.action,
            container: self.address.container(),
            host: &self.address.host(),
            name: call.name,
            credentials: &self.credentials,
        };
        Err(errors::refusal(asked, &reply, &self.secrets))
    }

    /// The address of a blob for the service itself, with the token where that is what gives the right to read.
    pub(super) fn readable(&self, name: &str) -> String {
        let url = self.address.url(Some(name));
        match &self.credentials {
            Credentials::Key { .. } => url,
            Credentials::Sas(_) => self.credentials.sign(&Method::GET, url, &[], &mut HeaderMap::new()),
        }
    }

    fn request(&self, call: &Call<'_>) -> Result<http::Request<Body>> {
        call.name.map_or(Ok(()), check_name)?;
        let mut headers = call.headers.clone();
        headers.insert(VERSION_HEADER, VERSION);
        if call.method == Method::PUT {
            // The library leaves a length of 0 out, and the service insists on it.
            headers.insert(CONTENT_LENGTH, HeaderValue::from(call.body.len()));
        }
        let url = self.credentials.sign(&call.method, self.address.url(call.name), &call.query, &mut headers);
        let request = http::Request::builder().method(call.method.clone()).uri(url).body(Body::from(call.body.clone()));
        let mut request = request.map_err(|_| {
            // The library's own words may hold the address with its token.
            Error::new(Kind::InvalidRequest, call.action, "the name makes no URL, as it is too long")
        })?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}
