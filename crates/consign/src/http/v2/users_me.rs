//! `GET /v2/users/me`: whose key it is.

use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use crate::error::ApiResult;
use crate::http::body::{SelfLink, View, data};
use crate::http::extract::By;

/// Credits that are shown: nothing is charged, but clients stop at zero.
const CREDITS: i32 = 1_000_000;

/// A user on the wire.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "User")]
pub struct UserBody {
    /// Its number.
    id: i32,
    /// Its name.
    username: String,
    /// An address made of its name; nothing is sent there.
    email: String,
    /// When it was made.
    created_at: String,
    /// Always the same: nothing is charged.
    credits: i32,
    /// Always false.
    paying: bool,
    /// Always null.
    task_priority: Option<i32>,
    /// Always null.
    tasks_per_minute: Option<i32>,
    /// Its address.
    links: SelfLink,
}

/// Answers with the user.
///
/// # Errors
/// None of its own.
pub async fn handler(By(caller): By, view: View) -> ApiResult<Response> {
    let user = &caller.user;
    let body = UserBody {
        id: user.id.0,
        username: user.name.clone(),
        // Reserved for such use by RFC 2606, so that no mail ever goes astray.
        email: format!("{}@consign.invalid", user.name),
        created_at: user.created_at.wire(),
        credits: CREDITS,
        paying: false,
        task_priority: None,
        tasks_per_minute: None,
        links: view.link("users", &user.id.0.to_string()),
    };
    Ok(data(StatusCode::OK, &body))
}
