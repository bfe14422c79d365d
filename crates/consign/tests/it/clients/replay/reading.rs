//! What clients do with an answer, as strictly as they do it.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The keys of a task in the order of the captures; those in brackets may be missing.
const TASK: [&str; 24] = [
    "id",
    "[name]",
    "job_id",
    "status",
    "credits",
    "code",
    "message",
    "percent",
    "operation",
    "[engine]",
    "[engine_version]",
    "result",
    "created_at",
    "started_at",
    "ended_at",
    "retry_of_task_id",
    "copy_of_task_id",
    "user_id",
    "priority",
    "host_name",
    "storage",
    "[region]",
    "depends_on_task_ids",
    "links",
];
/// The keys of a job.
const JOB: [&str; 8] = ["id", "tag", "status", "created_at", "started_at", "ended_at", "[tasks]", "links"];
/// The operations that the Java client knows: any other throws.
const JAVA_OPERATIONS: &str = " convert optimize capture-website merge archive archive/extract command thumbnail watermark metadata \
     metadata/write import/url import/upload import/s3 import/google-cloud-storage import/openstack import/sftp import/base64 \
     import/raw import/azure-blob export/url export/s3 export/azure/blob export/google-cloud-storage export/openstack export/sftp ";

/// Compares keys and their order with those of the captures.
fn keys_are(object: &Value, expected: &[&str]) -> Result<()> {
    let object = object.as_object().context("an object")?;
    let wanted = expected.iter().filter_map(|key| match key.strip_prefix('[') {
        Some(optional) => Some(optional.trim_end_matches(']')).filter(|key| object.contains_key(*key)),
        None => Some(*key),
    });
    let found: Vec<_> = object.keys().map(String::as_str).collect();
    ensure!(found == wanted.collect::<Vec<_>>(), "the keys are {found:?}");
    Ok(())
}

/// `T?` of a client with types: null or the type.
fn moments(object: &Value, names: &[&str]) -> Result<()> {
    for name in names {
        if let Some(text) = object[*name].as_str() {
            ensure!(text.len() == 25 && text.ends_with("+00:00"), "{name} is {text}");
            OffsetDateTime::parse(text, &Rfc3339)?;
        } else {
            ensure!(object[*name].is_null(), "{name} is {}", object[*name]);
        }
    }
    Ok(())
}

/// A map of texts, as Java makes it: scalars only.
fn is_flat(map: &Map<String, Value>) -> bool {
    map.values().all(|value| !value.is_object() && !value.is_array())
}

/// A task: key order of the captures, .NET's numbers, Java's enumerations and maps, PHP's non-null names.
pub(super) fn task(task: &Value) -> Result<()> {
    keys_are(task, &TASK).with_context(|| task.to_string())?;
    for number in ["percent", "user_id", "priority"] {
        ensure!(task[number].as_i64().is_some_and(|number| i32::try_from(number).is_ok()), "{number}: {task}");
    }
    ensure!(task["credits"].is_null() || task["credits"].is_i64() || task["credits"].is_u64(), "credits: {task}");
    ensure!(matches!(task["status"].as_str(), Some("waiting" | "processing" | "finished" | "error")), "{task}");
    ensure!(task.get("name").is_none_or(Value::is_string), "{task}");
    ensure!(task["depends_on_task_ids"].is_array() && task["links"]["self"].is_string(), "{task}");
    ensure!(task["created_at"].is_string(), "{task}");
    moments(task, &["created_at", "started_at", "ended_at"])?;
    for file in task["result"]["files"].as_array().into_iter().flatten() {
        let file = file.as_object().context("a file")?;
        ensure!(is_flat(file) && file.get("size").is_none_or(Value::is_u64), "{file:?}");
    }
    let parameters = &task["result"]["form"]["parameters"];
    ensure!(
        parameters.is_null() || parameters.as_object().is_some_and(|all| all.values().all(Value::is_string)),
        "{task}"
    );
    Ok(())
}

/// A job and its tasks.
pub(super) fn job(job: &Value) -> Result<()> {
    keys_are(job, &JOB)?;
    ensure!(job["created_at"].is_string() && job["links"]["self"].is_string(), "{job}");
    ensure!(matches!(job["status"].as_str(), Some("waiting" | "processing" | "finished" | "error")), "{job}");
    moments(job, &["created_at", "started_at", "ended_at"])?;
    job["tasks"].as_array().into_iter().flatten().try_for_each(task)
}

/// `resource`, whichever it is.
pub(super) fn resource(resource: &Value) -> Result<()> {
    match resource.get("operation") {
        Some(_) => task(resource),
        None if resource.get("status").is_some() => job(resource),
        None => Ok(()),
    }
}

/// Java cuts eight characters in front and one behind, and reads the rest; it knows its own operations only.
pub(super) fn java(body: &[u8]) -> Result<Value> {
    let text = std::str::from_utf8(body)?;
    let inner = text.get(8..text.len() - 1).context("too short")?;
    ensure!(inner.starts_with('{') && !inner.contains('\n'), "what it cuts is not the envelope: {text}");
    let value: Value = serde_json::from_str(inner)?;
    let tasks = value["tasks"].as_array().into_iter().flatten().chain([&value]);
    for operation in tasks.filter_map(|task| task["operation"].as_str()) {
        ensure!(JAVA_OPERATIONS.contains(&format!(" {operation} ")), "Java has no {operation}");
    }
    Ok(value)
}

/// Ruby reads every key of a list; the type must be JSON by its last word.
pub(super) fn list(list: &Value) -> Result<&Vec<Value>> {
    keys_are(list, &["data", "links", "meta"])?;
    keys_are(&list["links"], &["first", "last", "prev", "next"])?;
    keys_are(&list["meta"], &["current_page", "from", "path", "per_page", "to"])?;
    ensure!(list["links"]["last"].is_null() && list["links"]["first"].is_string(), "{list}");
    list["data"].as_array().context("a list")
}

/// An error: a sentence, a code, and lists of sentences by field where there are any (PHP joins each).
pub(super) fn error(body: &Value) -> Result<&str> {
    ensure!(body["message"].is_string(), "{body}");
    if let Some(errors) = body.get("errors") {
        let lists = errors.as_object().context("an object of lists")?.values();
        ensure!(!errors.as_object().is_some_and(Map::is_empty), "it must be absent where it is empty");
        for list in lists {
            ensure!(list.as_array().is_some_and(|list| list.iter().all(Value::is_string)), "{body}");
        }
    }
    body["code"].as_str().context("a code")
}
