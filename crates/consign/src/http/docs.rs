//! `GET /docs`: the OpenAPI document as one page for people, without scripts and without anything from elsewhere.

use std::fmt::Write as _;

use axum::extract::State;
use axum::response::Response;
use serde_json::Value;

use super::openapi;
use super::state::AppState;
use super::status::page;

/// The parts of the page, in this order, by the tags of the document.
const PARTS: [(&str, &str); 6] = [
    ("jobs", "Jobs"),
    ("tasks", "Tasks"),
    ("operations", "Operations"),
    ("files", "Uploads and downloads"),
    ("users", "Users"),
    ("server", "The server itself"),
];
/// How deep shapes are unfolded; choices and parts count too. The deepest is a field of a job's task's form.
const DEPTH_MAX: usize = 12;

/// Answers with the page.
pub async fn handler(State(state): State<AppState>) -> Response {
    page("Consign: API", state.manual.page.get_or_init(|| html(&openapi::document(&state.public_url))))
}

/// The document as HTML.
fn html(document: &Value) -> String {
    let mut out = String::from(
        "<header><h1>API</h1><p>Send <code>Authorization: Bearer KEY</code> with every call that needs a scope. \
         Errors are <code>{\"message\", \"code\", \"errors\"}</code>.</p></header>",
    );
    for (tag, title) in PARTS {
        let _ = write!(out, "<h2>{title}</h2>");
        for (path, methods) in members(&document["paths"]) {
            for (method, described) in members(methods) {
                if described["tags"][0] == *tag {
                    route(&mut out, document, method, path, described);
                }
            }
        }
    }
    out
}

fn route(out: &mut String, document: &Value, method: &str, path: &str, described: &Value) {
    let (method, path) = (method.to_ascii_uppercase(), escaped(path));
    let summary = text(&described["summary"]);
    let _ = write!(out, "<details><summary><b>{method}</b><code>{path}</code><span>{summary}</span></summary>");
    for paragraph in text(&described["description"]).split("\n\n").filter(|paragraph| !paragraph.is_empty()) {
        let _ = write!(out, "<p>{paragraph}</p>");
    }
    let parameters = described["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !parameters.is_empty() {
        out.push_str("<table><tr><th>Parameter<th>In<th>About");
        for parameter in parameters {
            let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
            let _ = write!(out, "<tr><td><code>{name}</code><td>{place}<td>{}", text(&parameter["description"]));
        }
        out.push_str("</table>");
    }
    for content in members(&described["requestBody"]["content"]).map(|(_, content)| content) {
        fields(out, document, "Body", &content["schema"]);
    }
    out.push_str("<table><tr><th>Answer<th>When");
    for (status, answer) in members(&described["responses"]) {
        let _ = write!(out, "<tr><td><code>{status}</code><td>{}", text(&answer["description"]));
    }
    out.push_str("</table>");
    // All operations answer with a task, whose shape stands with the tasks.
    let is_told = described["tags"][0] != "operations";
    for (_, answer) in members(&described["responses"]).filter(|(status, _)| is_told && status.starts_with('2')) {
        for (_, content) in members(&answer["content"]) {
            fields(out, document, "Answer", &content["schema"]);
        }
    }
    out.push_str("</details>");
}

fn fields(out: &mut String, document: &Value, title: &str, schema: &Value) {
    let mut rows = String::new();
    collect(&mut rows, document, "", schema, 0);
    if !rows.is_empty() {
        let _ = write!(out, "<table><tr><th>{title}<th>Type<th>About{rows}</table>");
    }
}

/// Writes a row for every member of a shape, and of the shapes within.
fn collect(rows: &mut String, document: &Value, prefix: &str, schema: &Value, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    let schema = resolved(document, schema);
    for part in schema["allOf"].as_array().into_iter().flatten() {
        collect(rows, document, prefix, part, depth + 1);
    }
    let required = schema["required"].as_array().map(Vec::as_slice).unwrap_or_default();
    for (name, member) in members(&schema["properties"]) {
        let path = format!("{prefix}{name}");
        let mark = if required.iter().any(|needed| needed == name) && prefix.is_empty() { " *" } else { "" };
        let about = text(&member["description"]);
        let _ = write!(rows, "<tr><td><code>{}</code>{mark}<td>{}<td>{about}", escaped(&path), kind(document, member));
        // A task within a task is described already.
        if !matches!(name, "retries" | "depends_on_tasks" | "job") {
            collect(rows, document, &format!("{path}."), member, depth + 1);
        }
    }
    if schema["items"].is_object() {
        collect(rows, document, prefix, &schema["items"], depth + 1);
    }
    let choices = schema["anyOf"].as_array().map(Vec::as_slice).unwrap_or_default();
    if let Some(within) = choices.iter().find(|choice| choice.get("$ref").is_some()) {
        collect(rows, document, prefix, within, depth + 1);
    }
}

fn kind(document: &Value, schema: &Value) -> String {
    let schema = resolved(document, schema);
    if let Some(choices) = schema["enum"].as_array() {
        let choices: Vec<String> = choices.iter().map(|choice| format!("<code>{}</code>", text(choice))).collect();
        return choices.join(", ");
    }
    match &schema["type"] {
        Value::String(name) => escaped(name),
        Value::Array(names) => names.iter().map(text).filter(|name| name != "null").collect::<Vec<_>>().join(" or "),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => String::new(),
    }
}

fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    let target = schema["$ref"].as_str().and_then(|target| document.pointer(target.strip_prefix('#')?));
    target.unwrap_or(schema)
}

fn members(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value))
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => escaped(text),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => escaped(&value.to_string()),
    }
}

/// Text as HTML, with `code` marked.
fn escaped(text: &str) -> String {
    let safe = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let mut out = String::with_capacity(safe.len());
    for (index, piece) in safe.split('`').enumerate() {
        if index % 2 == 1 {
            let _ = write!(out, "<code>{piece}</code>");
        } else {
            out.push_str(piece);
        }
    }
    out
}
