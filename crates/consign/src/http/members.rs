//! Reads the members of a job and of a task that are no arguments of an operation, with the leniencies of clients.

use std::collections::HashSet;

use serde_json::Value;
use url::Url;

use crate::error::Faults;

/// Longest name of a task and longest tag, in characters.
const LABEL_MAX: usize = 255;
/// Longest webhook address, in bytes.
const URL_BYTES_MAX: usize = 2048;

/// Reads `input`: a name or an array of names, each once.
pub(super) fn inputs(value: Option<Value>, faults: &mut Faults) -> Vec<String> {
    let entries = match value {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Array(entries)) => entries,
        Some(Value::String(one)) if one.is_empty() => return Vec::new(),
        Some(one) => vec![one],
    };
    let mut seen = HashSet::new();
    let mut names = Vec::with_capacity(entries.len());
    for entry in entries {
        let Value::String(name) = entry else {
            faults.add("input", "The input must be a name of a task or an array of names.");
            return Vec::new();
        };
        if seen.insert(name.clone()) {
            names.push(name);
        }
    }
    names
}

/// Reads `tasks`: an object of tasks by name, in the order of the client.
pub(super) fn task_members(tasks: Option<Value>, tasks_max: u32, faults: &mut Faults) -> Vec<(String, Value)> {
    let tasks = match tasks {
        Some(Value::Object(tasks)) if !tasks.is_empty() => tasks,
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) => {
            faults.add("tasks", "The tasks must be an object of tasks by name.");
            return Vec::new();
        }
        Some(Value::Array(entries)) if !entries.is_empty() => {
            faults.add("tasks", "The tasks must be an object of tasks by name.");
            return Vec::new();
        }
        None | Some(Value::Null | Value::Object(_) | Value::Array(_)) => {
            faults.add("tasks", "The tasks field is required.");
            return Vec::new();
        }
    };
    if tasks.len() > tasks_max as usize {
        faults.add("tasks", format!("The tasks may not have more than {tasks_max} items."));
        return Vec::new();
    }
    let is_name = |name: &str| {
        (1..=LABEL_MAX).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    };
    for name in tasks.keys().filter(|name| !is_name(name)) {
        let sentence = format!("The name of a task has 1 to {LABEL_MAX} letters, digits, `_` and `-`.");
        faults.add(format!("tasks.{}", shortened(name)), sentence);
    }
    tasks.into_iter().filter(|(name, _)| is_name(name)).collect()
}

/// Reads a label; an empty one is none.
pub(super) fn label(value: Option<Value>, field: &str, faults: &mut Faults) -> Option<String> {
    let text = match value {
        None | Some(Value::Null) => return None,
        Some(Value::String(text)) => text,
        Some(Value::Number(number)) => number.to_string(),
        Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) => {
            faults.add(field, format!("The {field} must be a string."));
            return None;
        }
    };
    if text.chars().count() > LABEL_MAX {
        faults.add(field, format!("The {field} may not be greater than {LABEL_MAX} characters."));
    }
    // PostgreSQL cannot store NUL, and both databases must agree.
    if text.contains('\0') {
        faults.add(field, format!("The {field} may not contain NUL."));
    }
    Some(text).filter(|text| !text.is_empty())
}

/// Reads `webhook_url`; only its form is checked.
pub(super) fn webhook_url(value: Option<Value>, faults: &mut Faults) -> Option<String> {
    let text = match value {
        None | Some(Value::Null) => return None,
        Some(Value::String(text)) if text.is_empty() => return None,
        Some(Value::String(text)) => text,
        Some(Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
            faults.add("webhook_url", "The webhook url must be a string.");
            return None;
        }
    };
    if !is_web_address(&text) {
        faults.add("webhook_url", "The webhook url format is invalid.");
    }
    Some(text)
}

/// Whether a text is an address that can be posted to.
pub(super) fn is_web_address(text: &str) -> bool {
    let is_web = Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    is_web && text.len() <= URL_BYTES_MAX && !text.contains(char::is_control)
}

/// Reads a switch; text and numbers that mean one are accepted.
pub(super) fn switch(value: Option<Value>, field: &str, faults: &mut Faults) -> bool {
    match value {
        None | Some(Value::Null) => false,
        Some(Value::Bool(on)) => on,
        Some(Value::Number(number)) if number.as_u64() == Some(1) => true,
        Some(Value::Number(number)) if number.as_u64() == Some(0) => false,
        Some(Value::String(text)) if text == "true" || text == "1" => true,
        Some(Value::String(text)) if text == "false" || text == "0" || text.is_empty() => false,
        Some(Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) => {
            faults.add(field, format!("The {field} field must be true or false."));
            false
        }
    }
}

/// A text of the client as it may be quoted in an answer.
pub(super) fn shortened(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(100).collect()
}
