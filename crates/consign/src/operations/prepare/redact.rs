//! What of a task's arguments may be shown.

use schemars::Schema;
use serde_json::{Value, json};
use url::Url;

use super::shape::Shape;
use crate::operations::RawArgs;

/// What stands in place of a secret.
const HIDDEN: &str = "***";

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

/// Hides user info, query and fragment of a URL; other texts stay as they are.
fn without_credentials(text: &str) -> String {
    let Ok(mut url) = Url::parse(text) else {
        // Not quite a URL, and nobody knows what it holds.
        return text.split_once("://").map_or_else(|| text.to_owned(), |(scheme, _)| format!("{scheme}://{HIDDEN}"));
    };
    let has_user = !url.username().is_empty() || url.password().is_some();
    if !has_user && url.query().is_none() && url.fragment().is_none() {
        return text.to_owned();
    }
    // Both setters refuse URLs that cannot have user info; those have none.
    if has_user && url.set_username(HIDDEN).and_then(|()| url.set_password(None)).is_err() {
        return HIDDEN.to_owned();
    }
    if url.query().is_some() {
        url.set_query(Some(HIDDEN));
    }
    if url.fragment().is_some() {
        url.set_fragment(Some(HIDDEN));
    }
    url.into()
}
