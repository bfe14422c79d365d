//! What of a task's arguments may be shown.

use schemars::Schema;
use serde_json::{Value, json};

use super::shape::Shape;
use crate::operations::RawArgs;
use crate::secret::{HIDDEN, without_credentials};

/// Arguments that take a URL without its scheme, or only its host.
const PLACES: [&str; 3] = ["auth_url", "endpoint", "host"];

/// See [`crate::operations::Entry::redact`]. Arguments that are not known are hidden whole: a credential is one
/// misspelling away from them.
pub(in crate::operations) fn redact(args: &RawArgs, schema: &Schema) -> RawArgs {
    let shape = Shape::of(schema);
    let shown = args.iter().map(|(name, value)| {
        let shown = match (shape.property(name), value) {
            (None, _) => json!(HIDDEN),
            (Some(_), Value::Object(headers)) if name == "headers" => {
                headers.keys().map(|name| (name.clone(), json!(HIDDEN))).collect()
            }
            (Some(_), Value::String(place)) if PLACES.contains(&name.as_str()) => json!(place_shown(place)),
            (shape @ Some(_), value) => shown(value, shape),
        };
        (name.clone(), shown)
    });
    shown.collect()
}

fn shown(value: &Value, shape: Option<Shape<'_>>) -> Value {
    if shape.is_some_and(|shape| shape.is_secret()) {
        return json!(HIDDEN);
    }
    match value {
        Value::String(text) => json!(without_credentials(text)),
        Value::Array(list) => {
            let items = shape.and_then(|shape| shape.values("items"));
            list.iter().map(|item| shown(item, items)).collect()
        }
        Value::Object(map) => {
            let field = |name: &str| {
                shape.and_then(|shape| shape.property(name).or_else(|| shape.values("additionalProperties")))
            };
            map.iter().map(|(name, value)| (name.clone(), shown(value, field(name)))).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// A URL that may lack its scheme, without credentials.
fn place_shown(text: &str) -> String {
    if text.contains("://") {
        return without_credentials(text);
    }
    let bare = |whole: String| whole.trim_start_matches("https://").trim_end_matches('/').to_owned();
    let has_credentials = text.contains(['@', '?', '#']);
    if has_credentials { bare(without_credentials(&format!("https://{text}"))) } else { text.to_owned() }
}
