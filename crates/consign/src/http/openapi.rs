//! The OpenAPI document, made of the route table, the shapes of answers and the arguments of all operations.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::body;
use super::error::ErrorBody;
use super::router::{Route, Takes, routes};
use super::state::AppState;
use crate::model::EventKind;
use crate::operations::{self, Entry, Feed};

/// Where shapes that are used more than once stand.
const SCHEMAS: &str = "#/components/schemas/";

/// `GET /openapi.json`.
pub async fn handler(State(state): State<AppState>) -> Response {
    let bytes = state.manual.document.get_or_init(|| document(&state.public_url).to_string().into_bytes());
    body::json_bytes(StatusCode::OK, bytes.clone())
}

/// The document of a server that is reached at `public_url`.
pub fn document(public_url: &str) -> Value {
    let settings = SchemaSettings::draft2020_12()
        .for_serialize()
        .with(|settings| settings.definitions_path = SCHEMAS[1..SCHEMAS.len() - 1].into());
    let mut shapes = settings.into_generator();
    let error = shapes.subschema_for::<ErrorBody<'static>>().to_value();
    let mut paths = Map::new();
    for route in routes() {
        let Some(described) = describe(&route, &mut shapes, &error) else { continue };
        let at = paths.entry(route.path.clone()).or_insert_with(|| json!({}));
        at[route.method.as_str().to_ascii_lowercase()] = described;
    }
    let mut schemas = shapes.take_definitions(true);
    for entry in operations::all() {
        let mut args = entry.schema().to_value();
        if let Some(Value::Object(parts)) = args.as_object_mut().and_then(|args| args.shift_remove("$defs")) {
            schemas.extend(parts);
        }
        if let Some(args) = args.as_object_mut() {
            args.shift_remove("$schema");
        }
        schemas.insert(component(entry), args);
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Consign",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Takes files in, works on them and delivers them. Speaks the CloudConvert API v2.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": public_url}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}},
        },
    });
    rebase(&mut document);
    document
}

fn describe(route: &Route, shapes: &mut SchemaGenerator, error: &Value) -> Option<Value> {
    let (summary, description) = route.says.as_ref()?;
    let mut responses = Map::new();
    let (status, kind, shape) = route.answers;
    let mut good = json!({"description": summary});
    if !kind.is_empty() {
        let shape = shape.map_or_else(|| json!({}), |shape| shape(shapes).to_value());
        good["content"] = json!({kind: {"schema": shape}});
    }
    responses.insert(status.to_string(), good);
    responses.extend(route.also.iter().map(|(status, about)| (status.to_string(), json!({"description": about}))));
    for code in route.codes() {
        let sentence = format!("`{}`: {}", code.wire(), code.doc().trim());
        let answer = responses
            .entry(code.status().to_string())
            .or_insert_with(|| json!({"description": "", "content": {"application/json": {"schema": error}}}));
        let known = answer["description"].as_str().unwrap_or_default();
        answer["description"] = if known.is_empty() { sentence.into() } else { format!("{known} {sentence}").into() };
    }
    let mut described = json!({
        "summary": summary,
        "description": description,
        "operationId": format!("{} {}", route.method, route.path),
        "tags": [tag(route)],
        "parameters": parameters(route),
        "responses": responses,
    });
    if let Some(scope) = route.scope {
        described["security"] = json!([{"key": []}]);
        described["description"] = format!("{description}\n\nNeeds the scope `{}`.", scope.wire()).into();
    }
    if let Some(request) = request_body(route.takes) {
        described["requestBody"] = request;
    }
    Some(described)
}

fn tag(route: &Route) -> &'static str {
    match route.takes {
        Takes::Args(_) => "operations",
        Takes::Form => "files",
        Takes::Nothing | Takes::Job | Takes::Destination | Takes::Webhook => {
            ["deliveries", "webhooks", "jobs", "tasks", "operations", "destinations", "users", "files"]
                .into_iter()
                .find(|name| route.path.split('/').any(|segment| segment == *name))
                .unwrap_or("server")
        }
    }
}

fn parameters(route: &Route) -> Vec<Value> {
    let in_path = route.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<Value> = in_path
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    parameters.extend(route.query.iter().map(|name| json!({"name": name, "in": "query", "schema": in_query(name)})));
    if matches!(route.takes, Takes::Job | Takes::Args(_)) {
        let about = "The same key with the same request gives the same answer for 24 hours, and makes nothing twice.";
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "description": about,
            "schema": {"type": "string", "maxLength": 255},
        }));
    }
    parameters
}

/// What a parameter of the query takes: an empty one counts as not given, and a page out of bounds as the nearest one.
fn in_query(name: &str) -> Value {
    match name {
        "page" | "per_page" => json!({"type": ["integer", "string"], "description": "A number from 1."}),
        "filter[status]" => json!({"type": "string", "enum": ["", "waiting", "processing", "finished", "error"]}),
        _ => json!({"type": "string"}),
    }
}

fn request_body(takes: Takes) -> Option<Value> {
    let (kind, schema) = match takes {
        Takes::Nothing => return None,
        Takes::Job => ("application/json", job_schema()),
        Takes::Args(entry) => {
            let mut all = vec![json!({"$ref": format!("{SCHEMAS}{}", component(entry))})];
            if entry.feed == Feed::Inputs {
                all.push(json!({"type": "object", "required": ["input"], "properties": {"input": input_schema()}}));
            }
            ("application/json", json!({"allOf": all}))
        }
        Takes::Destination => {
            let any: Vec<Value> = operations::all().filter(|entry| entry.has_destination()).map(task_schema).collect();
            ("application/json", json!({"oneOf": any}))
        }
        Takes::Webhook => {
            let events: Vec<&str> = EventKind::ALL.into_iter().map(EventKind::wire).collect();
            let fields = json!({
                "url": {"type": "string", "format": "uri", "description": "`http:` or `https:`; up to 2048 bytes."},
                "events": {"type": "array", "minItems": 1, "items": {"type": "string", "enum": events}},
            });
            ("application/json", json!({"type": "object", "required": ["url", "events"], "properties": fields}))
        }
        Takes::Form => {
            let fields = json!({"file": {"type": "string", "format": "binary", "description": "Comes last."}});
            ("multipart/form-data", json!({"type": "object", "required": ["file"], "properties": fields}))
        }
    };
    Some(json!({"required": true, "content": {kind: {"schema": schema}}}))
}

fn job_schema() -> Value {
    let tasks: Vec<Value> = operations::all()
        .map(|entry| {
            let mut own = Map::new();
            own.insert("operation".to_owned(), json!({"const": entry.name}));
            let mut required = vec!["operation"];
            if entry.feed == Feed::Inputs {
                own.insert("input".to_owned(), input_schema());
                required.push("input");
            }
            let about = "The job carries on if this task fails.";
            own.insert("ignore_error".to_owned(), json!({"type": "boolean", "default": false, "description": about}));
            let own = json!({"type": "object", "required": required, "properties": own});
            json!({"title": entry.name, "allOf": [{"$ref": format!("{SCHEMAS}{}", component(entry))}, own]})
        })
        .collect();
    json!({
        "type": "object",
        "required": ["tasks"],
        "properties": {
            "tasks": {
                "type": "object",
                "description": "The tasks by name; a name has letters, digits, `_` and `-`.",
                "minProperties": 1,
                "propertyNames": {"pattern": "^[A-Za-z0-9_-]{1,255}$"},
                "additionalProperties": {"oneOf": tasks},
            },
            "tag": {"type": ["string", "null"], "maxLength": 255, "description": "A label of yours."},
            "webhook_url": {"type": ["string", "null"], "format": "uri", "description": "Told when the job has ended."},
            "redirect": {"type": "boolean", "description": "On a waiting host: answer 302 to the first file."},
        },
    })
}

fn input_schema() -> Value {
    json!({
        "description": "Names of tasks in this job, or ids of tasks.",
        "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
    })
}

/// An operation with its arguments, and nothing of its place in a job.
fn task_schema(entry: &Entry) -> Value {
    let own = json!({"type": "object", "required": ["operation"], "properties": {"operation": {"const": entry.name}}});
    json!({"title": entry.name, "allOf": [{"$ref": format!("{SCHEMAS}{}", component(entry))}, own]})
}

/// An operation's name as a component's: those have no slash.
fn component(entry: &Entry) -> String {
    entry.name.replace('/', ".")
}

/// Turns references into an operation's own definitions into references to where those stand now.
fn rebase(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(target)) = members.get_mut("$ref")
                && let Some(name) = target.strip_prefix("#/$defs/")
            {
                *target = format!("{SCHEMAS}{name}");
            }
            members.values_mut().for_each(rebase);
        }
        Value::Array(entries) => entries.iter_mut().for_each(rebase),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
