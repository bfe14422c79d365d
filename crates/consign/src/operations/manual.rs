//! The manual of operations, printed from their types.

use std::fmt::Write as _;

use serde_json::Value;

use super::{Feed, all};

/// All operations with their arguments, as Markdown.
pub fn markdown() -> String {
    let mut text = String::from(
        "# Operations\n\nWhat a task can do, with all arguments. Beside them every task of a job has `operation`, and \
         may have `ignore_error` (boolean: the job carries on if this task fails); a task that works on files names \
         other tasks in `input` (a name, or a list of names).\n",
    );
    for entry in all() {
        let schema = entry.schema().to_value();
        let _ = write!(text, "\n## `{}`\n\n{}\n", entry.name, about(&schema));
        let files = match entry.feed {
            Feed::Itself => "It takes no `input`.",
            Feed::Client => "It takes no `input`: it waits until a file is posted to the form in its `result`.",
            Feed::Inputs => "`input` is required.",
        };
        let _ = write!(text, "\n{files}\n");
        let properties = schema["properties"].as_object();
        if properties.is_none_or(serde_json::Map::is_empty) {
            continue;
        }
        text.push_str("\n| argument | type | required | meaning |\n|---|---|---|---|\n");
        let required = &schema["required"];
        for (name, property) in properties.into_iter().flatten() {
            let is_required = required.as_array().is_some_and(|names| names.iter().any(|known| known == name.as_str()));
            let doc = property["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
            let secret = if property["writeOnly"] == true { " Secret: never shown again." } else { "" };
            let _ = writeln!(
                text,
                "| `{name}` | {} | {} | {doc}{secret} |",
                kind(property),
                if is_required { "yes" } else { "" }
            );
        }
    }
    text
}

/// What an operation says of itself, its headings below that of the operation.
fn about(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().replace("\n## ", "\n### ")
}

/// The type of an argument in a word or two.
fn kind(property: &Value) -> String {
    let names: Vec<&str> = match &property["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    };
    if names.is_empty() { "any".to_owned() } else { names.join(" or ") }
}
