//! `GET /v2/operations` and the older `GET /v2/convert/formats`: what tasks can do. Public.

use axum::http::StatusCode;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::http::body::{Data, View, json};
use crate::http::extract::Query;
use crate::operations;

/// An operation on the wire.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Operation")]
pub struct OperationBody {
    /// Its name.
    operation: String,
    /// Always null: it takes any.
    input_format: Option<String>,
    /// Always null: it changes nothing.
    output_format: Option<String>,
    /// Always null: no outside program is used.
    engine: Option<String>,
    /// Always 0.
    credits: i32,
    /// Its arguments; with `include=options`.
    #[serde(skip_serializing_if = "Option::is_none")]
    options: Option<Vec<OptionBody>>,
    /// Always empty: no outside program is used; with `include=engine_versions`.
    #[serde(skip_serializing_if = "Option::is_none")]
    engine_versions: Option<Vec<String>>,
    /// Always false.
    deprecated: bool,
    /// Always false.
    experimental: bool,
    /// Further facts as texts.
    meta: Map<String, Value>,
}

/// An argument on the wire.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "OperationOption")]
pub struct OptionBody {
    /// Its name.
    name: String,
    /// `string`, `boolean`, `integer`, `float`, `enum` or `dictionary`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Its value when it is not given.
    default: Option<Value>,
    /// What it may be, for `enum`.
    possible_values: Option<Vec<Value>>,
}

/// Answers with the list; filters that no operation meets leave an empty one. What a client cannot read is left out.
pub async fn handler(view: View, query: Query) -> Response {
    answer(&view, &query, query.get("filter[operation]"))
}

/// Answers with the conversions.
pub async fn formats(view: View, query: Query) -> Response {
    answer(&view, &query, Some("convert"))
}

fn answer(view: &View, query: &Query, operation: Option<&str>) -> Response {
    let wanted = |entry: &operations::Entry| {
        let is_named = operation.is_none_or(|name| name == entry.name || name == view.operation(entry.name));
        let by_other = ["input_format", "output_format", "engine", "engine_version"];
        is_named
            && view.can_read(entry.name)
            && by_other.iter().all(|name| query.get(&format!("filter[{name}]")).is_none())
    };
    let includes = |wanted: &str| query.list("include").any(|name| name == wanted);
    let (with_options, with_versions) = (includes("options"), includes("engine_versions"));
    let data = operations::all()
        .filter(|entry| wanted(entry))
        .map(|entry| OperationBody {
            operation: view.operation(entry.name).to_owned(),
            input_format: None,
            output_format: None,
            engine: None,
            credits: 0,
            options: with_options.then(|| options(entry)),
            engine_versions: with_versions.then(Vec::new),
            deprecated: false,
            experimental: false,
            meta: Map::from_iter([("group".to_owned(), Value::from(entry.name.split('/').next()))]),
        })
        .collect::<Vec<_>>();
    json(StatusCode::OK, &Data { data })
}

fn options(entry: &operations::Entry) -> Vec<OptionBody> {
    let schema = entry.schema();
    let members = schema.get("properties").and_then(Value::as_object);
    members
        .into_iter()
        .flatten()
        .map(|(name, member)| {
            let possible_values = member.get("enum").and_then(Value::as_array).cloned();
            OptionBody {
                name: name.clone(),
                kind: if possible_values.is_some() { "enum" } else { kind(member) },
                default: member.get("default").filter(|value| !value.is_object() && !value.is_array()).cloned(),
                possible_values,
            }
        })
        .collect()
}

fn kind(member: &Value) -> &'static str {
    let is = |wanted: &str| match member.get("type") {
        Some(Value::String(name)) => name == wanted,
        Some(Value::Array(names)) => names.iter().any(|name| name == wanted),
        _ => false,
    };
    if is("boolean") {
        "boolean"
    } else if is("integer") {
        "integer"
    } else if is("number") {
        "float"
    } else if is("object") {
        "dictionary"
    } else {
        "string"
    }
}
