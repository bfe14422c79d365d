//! One request to the service: authorised, sent, its refusal understood.

use std::fmt;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_LENGTH};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use percent_encoding::utf8_percent_encode;

use super::endpoint::{Endpoint, Tree};
use super::errors::{self, Asked};
use super::tokens::{Account, Tokens};
use super::{CREATE, Config};
use crate::address::{self, ESCAPED};
use crate::error::{Error, Kind, Result};
use crate::http::{Answer, Body, Client, Reply};
use crate::retry;
use crate::secret::Secret;
use crate::transfer::Limits;

/// An answer in JSON: a page of a listing with 1,000 names of 1,024 bytes, escaped, is below 7 MiB.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The address of an upload's session: who has it may write the object.
pub(super) struct Session(String);

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session(***)")
    }
}

/// A request.
#[derive(Debug)]
pub(super) struct Call<'a> {
    /// What is done, as in [`Error::action`].
    pub(super) action: &'static str,
    pub(super) method: Method,
    url: String,
    session: Option<&'a Session>,
    pub(super) headers: HeaderMap,
    /// The object, for the sentence.
    pub(super) object: Option<&'a str>,
    /// The body, in pieces that are sent one after the other without being copied.
    pub(super) body: Vec<Bytes>,
}

/// The service that holds the bucket, and the account that uses it.
#[derive(Debug)]
pub(super) struct Service {
    client: Client,
    endpoint: Endpoint,
    bucket: String,
    account: Account,
    pub(super) limits: Limits,
}

impl Service {
    pub(super) fn new(config: &Config, client: Client, tokens: &Tokens, limits: Limits) -> Result<Self> {
        let bucket = config.bucket.as_str();
        if bucket.is_empty() || matches!(bucket, "." | "..") || bucket.contains('/') {
            return Err(Error::argument("`bucket` must be the name of a bucket, without `gs://` and without a path"));
        }
        Ok(Self {
            account: Account::new(config, tokens)?,
            endpoint: Endpoint::new(config.endpoint.as_deref())?,
            bucket: bucket.to_owned(),
            client,
            limits,
        })
    }

    pub(super) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Host and port, for people.
    pub(super) fn host(&self) -> String {
        self.endpoint.shown()
    }

    /// A call to the API.
    pub(super) fn api<'a>(
        &self,
        action: &'static str,
        method: Method,
        tree: Tree,
        object: Option<&'a str>,
        query: &[(&str, &str)],
    ) -> Call<'a> {
        let url = self.endpoint.url(tree, &self.bucket, object, query);
        Call { action, method, url, session: None, headers: HeaderMap::new(), object, body: Vec::new() }
    }

    /// A call that copies an object within the bucket.
    pub(super) fn rewrite<'a>(
        &self,
        action: &'static str,
        from: &'a str,
        to: &str,
        query: &[(&str, &str)],
    ) -> Call<'a> {
        let mut call = self.api(action, Method::POST, Tree::Metadata, Some(from), &[]);
        call.url.push_str("/rewriteTo/b/");
        call.url.extend(utf8_percent_encode(&self.bucket, ESCAPED));
        call.url.push_str("/o/");
        call.url.extend(utf8_percent_encode(to, ESCAPED));
        address::push_query(&mut call.url, query.iter().copied());
        call
    }

    /// A call to a session.
    pub(super) fn on<'a>(session: &'a Session, action: &'static str, method: Method, object: &'a str) -> Call<'a> {
        let url = session.0.clone();
        let object = Some(object);
        Call { action, method, url, session: Some(session), headers: HeaderMap::new(), object, body: Vec::new() }
    }

    /// Takes an address of a session that the service gave.
    ///
    /// # Errors
    /// [`Kind::Protocol`] when it is not at the endpoint.
    pub(super) fn session(&self, address: &str) -> Result<Session> {
        if self.endpoint.owns(address) {
            return Ok(Session(address.to_owned()));
        }
        let detail = format!(
            "the service names another place for the upload than {}, and nothing is sent there; check `endpoint`",
            self.host()
        );
        Err(Error::new(Kind::Protocol, CREATE, detail))
    }

    /// Sends a call, again after transient faults, and reads the whole answer.
    pub(super) async fn call(&self, call: &Call<'_>) -> Result<Reply> {
        retry::request(self.limits.tries, |_| self.call_once(call)).await
    }

    /// Sends a call once and reads the whole answer.
    pub(super) async fn call_once(&self, call: &Call<'_>) -> Result<Reply> {
        Reply::read(self.open(call).await?, ANSWER_BYTES_MAX).await
    }

    /// Sends a call once, and once more with another token when its token was refused, and leaves the body of the
    /// answer to be read.
    pub(super) async fn open(&self, call: &Call<'_>) -> Result<Response<Answer>> {
        let token = self.account.token(&self.client, self.limits.tries, None).await?;
        let response = self.send(call, &token).await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return self.understood(call, response, &token).await;
        }
        drop(response);
        let token = self.account.token(&self.client, self.limits.tries, Some(&token)).await?;
        let response = self.send(call, &token).await?;
        self.understood(call, response, &token).await
    }

    async fn send(&self, call: &Call<'_>, token: &Secret) -> Result<Response<Answer>> {
        let length: usize = call.body.iter().map(Bytes::len).sum();
        let body = match call.body.as_slice() {
            [] => Body::empty(),
            [bytes] => Body::from(bytes.clone()),
            pieces => {
                let pieces: Vec<_> = pieces.iter().cloned().map(Ok).collect();
                Body::stream(length as u64, Box::pin(futures_util::stream::iter(pieces)))
            }
        };
        let unusable = |error| Error::new(Kind::InvalidRequest, call.action, "the name makes no URL").because(error);
        let mut request = http::Request::builder().method(call.method.clone()).uri(&call.url).body(body).map_err(
            // The cause of a session's address would be the address.
            |error| if call.session.is_some() { unusable("not a URL".to_owned()) } else { unusable(error.to_string()) },
        )?;
        let headers = request.headers_mut();
        headers.clone_from(&call.headers);
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.expose()))
            .expect("a token that makes no header is not accepted");
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
        if matches!(call.method, Method::PUT | Method::POST) {
            // The library leaves a length of 0 out, and the service insists on it.
            headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        self.client.send(request, call.action).await
    }

    /// An answer that is a success, or the 308 with which a session says that it wants more; else its error.
    async fn understood(
        &self,
        call: &Call<'_>,
        response: Response<Answer>,
        token: &Secret,
    ) -> Result<Response<Answer>> {
        let wants_more = call.session.is_some() && response.status() == StatusCode::PERMANENT_REDIRECT;
        if response.status().is_success() || wants_more {
            return Ok(response);
        }
        let reply = Reply::refused(response).await;
        let host = self.host();
        let asked = Asked {
            action: call.action,
            bucket: &self.bucket,
            host: &host,
            object: call.object,
            client_email: &self.account.client_email,
        };
        let mut secrets = vec![token.clone()];
        if let Some(Session(address)) = call.session {
            secrets.push(address.as_str().into());
            // The parts of it that a message or the id of the request may repeat.
            let values = address.split_once('?').map_or("", |(_, query)| query).split('&');
            let ids = values.filter_map(|pair| pair.strip_prefix("upload_id="));
            secrets.extend(ids.map(Secret::from));
        }
        Err(errors::refusal(asked, &reply, &secrets))
    }
}
