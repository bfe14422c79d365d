//! One request to Swift: with a token that is renewed when it is refused, and its refusal understood.

use std::sync::{Arc, LazyLock, PoisonError};

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use percent_encoding::utf8_percent_encode;
use tokio::sync::{Mutex, OnceCell};

use super::STAT_CONTAINER;
use super::errors::{self, Asked};
use super::features::Features;
use super::identity::{Identity, Session, sensitive};
use crate::address::{ESCAPED, ESCAPED_IN_PATH, push_query};
use crate::error::{Error, Kind, Result};
use crate::http::{Answer, Body, Client, Reply};
use crate::network::{HostSlot, HostSlots};
use crate::retry;
use crate::secret::Secret;
use crate::transfer::Limits;

/// A listing of 1,000 names of 1,024 bytes, which JSON may write with six characters for two or three bytes, or a manifest.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Tokens that are remembered to be covered in what the store says: those of the requests that may still be under way.
const TOKENS_KEPT_MAX: usize = 16;

/// Objects that are being replaced by this process, each by one at a time. Their addresses play the hosts; that those which
/// differ in case alone take turns as well harms nobody.
static TURNS: LazyLock<HostSlots> = LazyLock::new(|| HostSlots::new(1));

/// Makes the body of a request, for each time that it is sent.
pub(super) type MakeBody<'a> = &'a (dyn Fn() -> Body + Send + Sync);

/// A request.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// What is done, as in [`Error::action`].
    pub(super) action: &'static str,
    method: Method,
    container: &'a str,
    /// The object; none for the container itself.
    object: Option<&'a str>,
    query: String,
    headers: HeaderMap,
}

impl<'a> Call<'a> {
    pub(super) fn new(action: &'static str, method: Method, container: &'a str, object: Option<&'a str>) -> Self {
        Self { action, method, container, object, query: String::new(), headers: HeaderMap::new() }
    }

    pub(super) fn query(mut self, name: &str, value: &str) -> Self {
        push_query(&mut self.query, [(name, value)]);
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// The store that holds the container, behind its Keystone.
#[derive(Debug)]
pub(super) struct Service {
    client: Client,
    identity: Identity,
    session: Mutex<Option<Arc<Session>>>,
    /// The latest tokens: an answer may repeat any of them.
    tokens: std::sync::Mutex<Vec<Secret>>,
    container: String,
    segment_container: String,
    features: OnceCell<Features>,
    pub(super) limits: Limits,
}

impl Service {
    pub(super) fn new(identity: Identity, client: Client, container: &str, limits: Limits) -> Self {
        Self {
            client,
            identity,
            session: Mutex::default(),
            tokens: std::sync::Mutex::default(),
            container: container.to_owned(),
            segment_container: format!("{container}_segments"),
            features: OnceCell::new(),
            limits,
        }
    }

    pub(super) fn container(&self) -> &str {
        &self.container
    }

    /// The container for the segments of large objects, named as other clients name it.
    pub(super) fn segment_container(&self) -> &str {
        &self.segment_container
    }

    /// Keystone's host and port, for people.
    pub(super) fn keystone(&self) -> &str {
        self.identity.host()
    }

    /// What this store says of itself; asked once.
    pub(super) async fn features(&self) -> Result<Features> {
        let ask = || async { Ok(super::features::ask(&self.client, &self.session().await?.storage).await) };
        self.features.get_or_try_init(ask).await.copied()
    }

    /// The right to replace an object, until it is dropped. Whoever replaces one looks at what it is made of first and removes
    /// that afterwards; two who did so at once would both leave the other's segments behind.
    pub(super) async fn turn(&self, object: &str) -> Result<HostSlot> {
        let storage = &self.session().await?.storage;
        Ok(TURNS.take(&format!("{storage}/{}/{object}", self.container)).await)
    }

    /// Sends a call without a body, again after transient faults, and reads the whole answer.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Reply> {
        retry::request(self.limits.tries, |_| self.call_once(call, &Body::empty)).await
    }

    /// Sends a call once and reads the whole answer.
    pub(super) async fn call_once(&self, call: &Call<'_>, body: MakeBody<'_>) -> Result<Reply> {
        Reply::read(self.open(call, body).await?, ANSWER_BYTES_MAX).await
    }

    /// Sends a call once and reads the whole answer, whatever its status.
    pub(super) async fn call_any(&self, call: &Call<'_>, body: MakeBody<'_>) -> Result<Reply> {
        Reply::read(self.open_any(call, body).await?, ANSWER_BYTES_MAX).await
    }

    /// Sends a call once and leaves the body of the answer to be read.
    pub(super) async fn open(&self, call: &Call<'_>, body: MakeBody<'_>) -> Result<Response<Answer>> {
        let response = self.open_any(call, body).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(self.error(call, &Reply::refused(response).await))
    }

    /// Sends a call once, or twice when the token was refused.
    async fn open_any(&self, call: &Call<'_>, body: MakeBody<'_>) -> Result<Response<Answer>> {
        let session = self.session().await?;
        let first = body();
        let is_carrying = size_of(&first) > 0;
        match self.send(call, &session, first).await {
            Ok(response) if response.status() != StatusCode::UNAUTHORIZED => return Ok(response),
            Ok(_) => {}
            // Whoever is refused while still sending may see the connection break before the answer comes.
            Err(error) if error.kind == Kind::Unreachable && is_carrying && self.is_refused(&session).await => {}
            Err(error) => return Err(error),
        }
        let session = self.renewed(&session).await?;
        self.send(call, &session, body()).await
    }

    /// The error of an answer, whatever its status.
    pub(super) fn error(&self, call: &Call<'_>, reply: &Reply) -> Error {
        let host = self.identity.host();
        let asked = Asked { action: call.action, container: call.container, object: call.object, host };
        let mut secrets = self.identity.secrets().to_vec();
        secrets.extend(self.tokens.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        errors::of_swift(asked, reply, &secrets)
    }

    async fn session(&self) -> Result<Arc<Session>> {
        let mut held = self.session.lock().await;
        if let Some(session) = held.as_ref() {
            return Ok(Arc::clone(session));
        }
        self.log_in(&mut held).await
    }

    /// Another session than the one that was refused; several requests that were refused together share it.
    async fn renewed(&self, refused: &Arc<Session>) -> Result<Arc<Session>> {
        let mut held = self.session.lock().await;
        match held.as_ref() {
            Some(session) if !Arc::ptr_eq(session, refused) => Ok(Arc::clone(session)),
            Some(_) | None => {
                tracing::debug!("the token was refused: logging in again");
                self.log_in(&mut held).await
            }
        }
    }

    async fn log_in(&self, held: &mut Option<Arc<Session>>) -> Result<Arc<Session>> {
        *held = None;
        let session = Arc::new(Box::pin(self.identity.log_in()).await?);
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= TOKENS_KEPT_MAX {
            tokens.remove(0);
        }
        tokens.push(session.token.clone());
        drop(tokens);
        *held = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Whether the token is what the store does not like.
    async fn is_refused(&self, session: &Session) -> bool {
        let probe = Call::new(STAT_CONTAINER, Method::HEAD, &self.container, None);
        let answer = self.send(&probe, session, Body::empty()).await;
        answer.is_ok_and(|response| response.status() == StatusCode::UNAUTHORIZED)
    }

    async fn send(&self, call: &Call<'_>, session: &Session, body: Body) -> Result<Response<Answer>> {
        let mut url = format!("{}/{}", session.storage, utf8_percent_encode(call.container, ESCAPED));
        if let Some(object) = call.object {
            url.push('/');
            url.extend(utf8_percent_encode(object, ESCAPED_IN_PATH));
        }
        url.push_str(&call.query);
        let size = size_of(&body);
        let built = http::Request::builder().method(call.method.clone()).uri(url).body(body);
        let mut request = built.map_err(|error| Error::argument("the name makes no URL").because(error))?;
        let headers = request.headers_mut();
        headers.clone_from(&call.headers);
        headers.insert("x-auth-token", sensitive(&session.token, call.action)?);
        if matches!(call.method, Method::PUT | Method::POST) {
            // The library leaves a length of 0 out, and then Swift waits for chunks.
            headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
        }
        self.client.send(request, call.action).await
    }
}

fn size_of(body: &Body) -> u64 {
    http_body::Body::size_hint(body).lower()
}
