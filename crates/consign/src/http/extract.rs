//! What handlers take out of a request: who calls, the query with its leniencies, ids, the body.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::{Map, Value};

use super::body::View;
use super::state::AppState;
use crate::auth;
use crate::error::{ApiError, ApiResult, Code};
use crate::id::UserId;
use crate::model::{ApiKey, Scope, User};

/// Longest API key that is looked up, in bytes: keys of other makes are signed tokens of about a kilobyte.
const KEY_BYTES_MAX: usize = 4096;
/// Time for a request body that must fit into memory.
const BODY_TIMEOUT: Duration = Duration::from_mins(1);
/// Bytes of a refused body that are still read, so that the client sees the answer instead of a broken connection.
const DRAIN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Time for that.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Who calls, with which key.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Whose key it is.
    pub user: User,
    /// The key.
    pub key: ApiKey,
}

impl Caller {
    /// The user's number.
    pub fn id(&self) -> UserId {
        self.user.id
    }
}

/// Lets a request through that carries a valid key with the scope, and tells the handler who calls.
///
/// # Errors
/// [`Code::Unauthenticated`] for a key that is missing, malformed, unknown, expired or revoked, all alike;
/// [`Code::Forbidden`] when only the scope is missing.
pub async fn authorise(
    State((state, scope)): State<(AppState, Scope)>,
    mut request: Request,
    next: Next,
) -> ApiResult<Response> {
    let key = bearer(request.headers()).ok_or_else(|| ApiError::new(Code::Unauthenticated, "Unauthenticated."))?;
    let caller = admit(&state, &auth::hash(key), scope).await?;
    let id = caller.id();
    request.extensions_mut().insert(Arc::new(caller));
    let mut response = next.run(request).await;
    response.extensions_mut().insert(id);
    Ok(response)
}

/// Who calls with the key of this hash, if the key is valid now and has the scope.
///
/// # Errors
/// Those of [`authorise`].
pub(super) async fn admit(state: &AppState, key_hash: &[u8; 32], scope: Scope) -> ApiResult<Caller> {
    let found = state.store.key_by_hash(key_hash).await?;
    let found = found.filter(|(key, _)| key.is_valid(state.clock.now()));
    let (key, user) = found.ok_or_else(|| ApiError::new(Code::Unauthenticated, "Unauthenticated."))?;
    if !key.scopes.contains(&scope) {
        let message = format!("The API key lacks the scope {}; use a key that has it.", scope.wire());
        return Err(ApiError::new(Code::Forbidden, message));
    }
    Ok(Caller { user, key })
}

/// The token of `Authorization: Bearer …`.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    bearer_of(headers.get(header::AUTHORIZATION)?.to_str().ok()?)
}

/// The token of `Bearer …`.
pub(super) fn bearer_of(value: &str) -> Option<&str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.len() <= KEY_BYTES_MAX).then_some(token)
}

/// [`Caller`], on routes that ask for a scope.
#[derive(Clone, Debug)]
pub struct By(pub Arc<Caller>);

impl<S: Sync> FromRequestParts<S> for By {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> ApiResult<Self> {
        let caller = parts.extensions.get::<Arc<Caller>>().map(Arc::clone).map(Self);
        // Only a route without a scope in the table gets here, and that must not pass for "anybody".
        caller.ok_or_else(|| ApiError::new(Code::Unauthenticated, "Unauthenticated."))
    }
}

/// Whether this request asked to be answered when the job or task has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waits(pub bool);

impl<S: Sync> FromRequestParts<S> for Waits {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> ApiResult<Self> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or(Self(false)))
    }
}

impl FromRequestParts<AppState> for View {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> ApiResult<Self> {
        let is_java = parts
            .headers
            .get(header::USER_AGENT)
            .is_some_and(|agent| agent.as_bytes().starts_with(b"cloudconvert-java/"));
        Ok(if is_java { state.view().for_java() } else { state.view() })
    }
}

/// The query, decoded. What is empty counts as not given; what is not known is ignored.
#[derive(Clone, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the text after the question mark.
    pub fn parse(text: &str) -> Self {
        Self(url::form_urlencoded::parse(text.as_bytes()).into_owned().filter(|(_, value)| !value.is_empty()).collect())
    }

    /// The first value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The entries of a comma list, which may also come as several values or as `name[]`.
    pub fn list<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key.strip_suffix("[]").unwrap_or(key) == name)
            .flat_map(|(_, value)| value.split(','))
            .map(str::trim)
    }

    /// Whether a switch is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| matches!(value, "1" | "true" | "True" | "yes" | "on"))
    }

    /// The same query without what has that name.
    #[must_use]
    pub fn without(&self, name: &str) -> Self {
        Self(self.0.iter().filter(|(key, _)| key != name).cloned().collect())
    }

    /// The same query with another value for what has that name.
    #[must_use]
    pub fn with(&self, name: &str, value: String) -> Self {
        let mut changed = self.without(name);
        changed.0.push((name.to_owned(), value));
        changed
    }

    /// All pairs.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// Shows names only: values may be signatures and keys.
impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> ApiResult<Self> {
        let query = parts.uri.query().map(Self::parse).unwrap_or_default();
        // PostgreSQL refuses NUL in a text, and both databases must agree.
        if query.pairs().any(|(_, value)| value.contains('\0')) {
            return Err(ApiError::new(Code::BadRequest, "The query may not contain NUL."));
        }
        Ok(query)
    }
}

/// The id in the path. What is no id names nothing.
#[derive(Clone, Copy, Debug)]
pub struct Id<T>(pub T);

impl<S: Send + Sync, T: FromStr> FromRequestParts<S> for Id<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> ApiResult<Self> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| ApiError::not_found())?;
        text.parse().map(Self).map_err(|_| ApiError::not_found())
    }
}

/// The whole body of a request, bounded in length and time.
#[derive(Clone)]
pub struct Entity {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its method and path, which belong to what an idempotency key promises.
    pub target: String,
    /// The client's idempotency key.
    pub idempotency_key: Option<String>,
}

impl Entity {
    /// Reads the body as an object; none and an empty list count as an empty one.
    ///
    /// # Errors
    /// [`Code::BadRequest`].
    pub fn object(&self) -> ApiResult<Map<String, Value>> {
        if self.bytes.trim_ascii().is_empty() {
            return Ok(Map::new());
        }
        let value = serde_json::from_slice(&self.bytes).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            ApiError::new(Code::BadRequest, format!("The body is not JSON: see line {line}, column {column}."))
        })?;
        match value {
            Value::Object(members) => Ok(members),
            Value::Array(entries) if entries.is_empty() => Ok(Map::new()),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(ApiError::new(Code::BadRequest, "The body must be a JSON object."))
            }
        }
    }
}

/// Shows its length only: it may hold credentials.
impl fmt::Debug for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entity").field("target", &self.target).field("bytes", &self.bytes.len()).finish_non_exhaustive()
    }
}

impl FromRequest<AppState> for Entity {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> ApiResult<Self> {
        let limit = usize::try_from(state.config.limits.request_bytes_max.as_u64()).unwrap_or(usize::MAX);
        let target = format!("{} {}", request.method(), request.uri().path());
        let idempotency_key = idempotency_key(request.headers())?;
        let announced = content_length(request.headers());
        let asks_first = asks_first(request.headers());
        let body = request.into_body();
        if announced.is_some_and(|length| length > limit as u64) {
            if !asks_first {
                drain(body).await;
            }
            return Err(too_large(limit));
        }
        Ok(Self { bytes: whole(body, limit, BODY_TIMEOUT).await?, target, idempotency_key })
    }
}

/// Reads a body to its end, which must come in time.
async fn whole(mut body: Body, limit: usize, patience: Duration) -> ApiResult<Bytes> {
    let read = Limited::new(&mut body, limit).collect();
    let Ok(read) = tokio::time::timeout(patience, read).await else {
        return Err(ApiError::new(Code::BadRequest, "The body did not arrive in time; send it again."));
    };
    match read {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            drain(body).await;
            Err(too_large(limit))
        }
        Err(error) => Err(ApiError::new(Code::BadRequest, "The body ended too early; send it again.").because(error)),
    }
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(Code::PayloadTooLarge, format!("The request body is larger than the {limit} bytes allowed."))
}

/// The announced length of the body.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn idempotency_key(headers: &HeaderMap) -> ApiResult<Option<String>> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    if value.as_bytes().trim_ascii().is_empty() {
        return Ok(None);
    }
    let text = value.to_str().ok().map(str::trim).filter(|text| text.len() <= 255);
    text.map(|text| Some(text.to_owned())).ok_or_else(|| {
        let mut faults = crate::error::Faults::default();
        faults.add("Idempotency-Key", "The header must have 1 to 255 visible ASCII characters.");
        ApiError::invalid(faults)
    })
}

/// Whether the client sends its body only once it is told to: reading it would tell it so.
pub(super) fn asks_first(headers: &HeaderMap) -> bool {
    headers.contains_key(header::EXPECT)
}

/// Reads a little more of a body that was refused, and throws it away.
pub(super) async fn drain(mut body: Body) {
    let reading = async {
        let mut left = DRAIN_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
    };
    // Whether it came in time does not matter: the answer is the same.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, reading).await;
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};

    use super::*;

    #[tokio::test]
    async fn a_body_that_stops_coming_is_not_waited_for() {
        let half = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{\"tasks\":"))]);
        let body = Body::from_stream(half.chain(stream::pending()));
        let read = tokio::time::timeout(Duration::from_secs(10), whole(body, 1000, Duration::from_millis(50))).await;
        let error = read.expect("it is waited for without end").unwrap_err();
        assert_eq!(
            (error.code, error.message.as_str()),
            (Code::BadRequest, "The body did not arrive in time; send it again.")
        );
    }
}
