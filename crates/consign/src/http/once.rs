//! `Idempotency-Key`: the same request is carried out once and answered alike, byte for byte, for 24 hours.

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::HeaderValue;
use axum::response::Response;

use super::error::sealed_with_another_key;
use super::extract::Entity;
use super::state::AppState;
use crate::error::{ApiError, ApiResult, Code, Faults};
use crate::id::UserId;
use crate::store::{Creation, Idempotency};

/// What a creation answers.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The body.
    pub bytes: Vec<u8>,
    /// It was given before.
    pub is_replay: bool,
}

impl Answer {
    /// The id of what was made.
    pub fn id<T: std::str::FromStr>(&self) -> Option<T> {
        let value: serde_json::Value = serde_json::from_slice(&self.bytes).ok()?;
        value.get("data")?.get("id")?.as_str()?.parse().ok()
    }
}

/// Looks for an earlier answer to the same request.
///
/// # Errors
/// `INVALID_DATA` when the key was used for another request; the store's.
pub async fn earlier(state: &AppState, user: UserId, entity: &Entity) -> ApiResult<Option<Answer>> {
    let Some(key) = &entity.idempotency_key else { return Ok(None) };
    match state.store.replay(user, key, &request_hash(entity), state.clock.now()).await? {
        None | Some(Creation::Created) => Ok(None),
        Some(made) => outcome(state, made, Vec::new()).map(Some),
    }
}

/// What the store needs to answer the same request again.
pub fn promise(state: &AppState, entity: &Entity, answer: &[u8]) -> Option<Idempotency> {
    entity.idempotency_key.as_ref().map(|key| Idempotency {
        key: key.clone(),
        request_hash: request_hash(entity),
        answer: state.vault.seal(answer),
    })
}

/// The answer to give after a creation.
///
/// # Errors
/// `INVALID_DATA` when the key was used for another request, or an input went in the meantime.
pub fn outcome(state: &AppState, made: Creation, answer: Vec<u8>) -> ApiResult<Answer> {
    let mut faults = Faults::default();
    match made {
        Creation::Created => return Ok(Answer { bytes: answer, is_replay: false }),
        Creation::Replayed(sealed) => {
            let bytes = state.vault.open(&sealed).map_err(sealed_with_another_key)?;
            return Ok(Answer { bytes, is_replay: true });
        }
        Creation::KeyReused => {
            faults.add("Idempotency-Key", "The key was used for another request; take a new one for each request.");
        }
        Creation::InputGone(id) => faults.add("input", format!("There is no task {id} any more.")),
    }
    Err(ApiError::invalid(faults))
}

/// Says in the answer that it was given before.
pub fn mark(mut response: Response, answer: &Answer) -> Response {
    if answer.is_replay {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    response
}

/// An answer without an id: only a fault of the program makes one.
pub fn no_id() -> ApiError {
    ApiError::new(Code::Internal, "The answer to repeat cannot be read.")
}

fn request_hash(entity: &Entity) -> [u8; 32] {
    let text = [entity.target.as_bytes(), b"\n", &entity.bytes].concat();
    let hash = digest(&SHA256, &text);
    hash.as_ref().try_into().expect("a SHA-256 has 32 bytes")
}
