//! Webhooks: addresses that are told what happens to a user's jobs.

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::ApiResult;
use crate::http::AppState;
use crate::http::body::{SelfLink, View};
use crate::http::error::sealed_with_another_key;
use crate::model::Webhook;

pub mod create;
pub mod delete;
pub mod deliveries;
pub mod list;

/// A webhook on the wire.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Webhook")]
pub struct WebhookBody {
    /// Its number.
    id: i32,
    /// Its address.
    url: String,
    /// It answered 410 and is told nothing more.
    disabled: bool,
    /// What it is told.
    #[schemars(extend("items" = {"type": "string", "enum": ["job.created", "job.finished", "job.failed"]}))]
    events: Vec<&'static str>,
    /// Whether the last attempt failed.
    failing: bool,
    /// What signs its deliveries.
    signing_secret: String,
    /// When it was made.
    created_at: String,
    /// When it last changed.
    updated_at: String,
    /// Its address here.
    links: SelfLink,
}

fn body(state: &AppState, view: &View, webhook: &Webhook) -> ApiResult<WebhookBody> {
    let open = |sealed: &[u8]| -> ApiResult<String> {
        let opened = state.vault.open(sealed).map_err(sealed_with_another_key)?;
        Ok(String::from_utf8_lossy(&opened).into_owned())
    };
    Ok(WebhookBody {
        id: webhook.id.0,
        url: open(&webhook.url)?,
        disabled: webhook.disabled,
        events: webhook.events.iter().map(|event| event.wire()).collect(),
        failing: webhook.failing,
        signing_secret: open(&webhook.secret)?,
        created_at: webhook.created_at.wire(),
        updated_at: webhook.updated_at.wire(),
        links: view.link("webhooks", &webhook.id.0.to_string()),
    })
}
