//! `POST /v2/webhooks`: makes a webhook and its secret.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;

use crate::auth;
use crate::error::{ApiError, ApiResult, Faults};
use crate::http::AppState;
use crate::http::body::{View, data};
use crate::http::extract::{By, Entity};
use crate::http::members::is_web_address;
use crate::model::EventKind;
use crate::store::NewWebhook;

/// Webhooks of one user.
const WEBHOOKS_MAX: u32 = 100;

/// Answers 201 with the webhook.
///
/// # Errors
/// `INVALID_DATA`, also when the user has as many as there may be.
pub async fn handler(State(state): State<AppState>, By(caller): By, view: View, entity: Entity) -> ApiResult<Response> {
    let mut members = entity.object()?;
    let mut faults = Faults::default();
    let url = url(members.remove("url"), &mut faults);
    let events = events(members.remove("events"), &mut faults);
    faults.into_result()?;
    let new = NewWebhook {
        user_id: caller.id(),
        url: state.vault.seal(url.as_bytes()),
        events,
        secret: state.vault.seal(auth::new_signing_secret().as_bytes()),
    };
    let Some(webhook) = state.store.create_webhook(new, WEBHOOKS_MAX, state.clock.now()).await? else {
        let mut faults = Faults::default();
        faults.add("url", format!("There are {WEBHOOKS_MAX} webhooks already; delete one that is not needed."));
        return Err(ApiError::invalid(faults));
    };
    Ok(data(StatusCode::CREATED, &super::body(&state, &view, &webhook)?))
}

fn url(value: Option<Value>, faults: &mut Faults) -> String {
    match value {
        Some(Value::String(text)) if is_web_address(&text) => return text,
        None | Some(Value::Null) => faults.add("url", "The url field is required."),
        Some(Value::String(text)) if text.is_empty() => faults.add("url", "The url field is required."),
        Some(Value::String(_) | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            faults.add("url", "The url format is invalid.");
        }
    }
    String::new()
}

/// Reads `events`: known names, each once, in the order of the client.
fn events(value: Option<Value>, faults: &mut Faults) -> Vec<EventKind> {
    let entries = match value {
        Some(Value::Array(entries)) if !entries.is_empty() => entries,
        None | Some(Value::Null | Value::Array(_)) => {
            faults.add("events", "The events field is required.");
            return Vec::new();
        }
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
            faults.add("events", "The events must be an array.");
            return Vec::new();
        }
    };
    let mut events = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        match entry.as_str().and_then(EventKind::from_wire) {
            Some(event) if events.contains(&event) => {}
            Some(event) => events.push(event),
            None => {
                faults.add(format!("events.{index}"), format!("The selected events.{index} is invalid."));
                // One sentence an entry, and a list may be long.
                if index > EventKind::ALL.len() {
                    break;
                }
            }
        }
    }
    events
}
