//! What a schema says of an argument, and bringing what clients send into that shape.

use schemars::Schema;
use serde_json::{Map, Number, Value, json};
use serde_path_to_error::{Path, Segment};

use crate::operations::RawArgs;

/// References that are followed from one schema to the next.
const DEPTH_MAX: usize = 8;

/// One schema, with the whole that its references point into.
#[derive(Clone, Copy)]
pub(super) struct Shape<'a> {
    root: &'a Value,
    schema: &'a Value,
}

impl<'a> Shape<'a> {
    pub(super) fn of(schema: &'a Schema) -> Self {
        Self { root: schema.as_value(), schema: schema.as_value() }
    }

    pub(super) fn required(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str)
    }

    pub(super) fn properties(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.schema["properties"].as_object().into_iter().flat_map(Map::keys).map(String::as_str)
    }

    /// The shape of a field, by name.
    pub(super) fn property(&self, name: &str) -> Option<Self> {
        self.facts().into_iter().find_map(|schema| schema.get("properties")?.get(name)).map(|schema| self.at(schema))
    }

    /// The shape of the values of a map or list.
    pub(super) fn values(&self, keyword: &str) -> Option<Self> {
        self.facts().into_iter().find_map(|schema| schema.get(keyword)).map(|schema| self.at(schema))
    }

    /// Whether it holds a credential.
    pub(super) fn is_secret(&self) -> bool {
        self.facts().iter().any(|schema| schema["writeOnly"] == true)
    }

    fn at(&self, schema: &'a Value) -> Self {
        Self { root: self.root, schema }
    }

    /// This schema and all that it refers to.
    fn facts(&self) -> Vec<&'a Value> {
        let mut facts = vec![self.schema];
        let mut fresh = vec![self.schema];
        for _ in 0..DEPTH_MAX {
            let referred =
                fresh.iter().filter_map(|schema| self.root.pointer(schema.get("$ref")?.as_str()?.strip_prefix('#')?));
            let choices = ["anyOf", "oneOf", "allOf"];
            let chosen = fresh
                .iter()
                .flat_map(|schema| choices.iter().filter_map(|keyword| schema[*keyword].as_array()))
                .flatten();
            fresh = referred.chain(chosen).collect();
            facts.extend(&fresh);
        }
        facts
    }

    /// The JSON types that it takes, but for `null`; none when it takes anything.
    fn types(&self) -> Vec<&'a str> {
        let types = self.facts().into_iter().filter_map(|schema| schema.get("type"));
        types
            .flat_map(|types| {
                types.as_str().into_iter().chain(types.as_array().into_iter().flatten().filter_map(Value::as_str))
            })
            .filter(|kind| *kind != "null")
            .collect()
    }

    /// The texts that it takes; none when it takes any.
    fn choices(&self) -> Vec<&'a str> {
        let facts = self.facts().into_iter();
        facts
            .flat_map(|schema| schema["enum"].as_array().into_iter().flatten().chain(schema.get("const")))
            .filter_map(Value::as_str)
            .collect()
    }

    /// Something that can be read in place of a required argument that is missing or wrong, so that the others can be
    /// checked.
    pub(super) fn stand_in(&self, name: &str) -> Value {
        let Some(shape) = self.property(name) else { return Value::Null };
        if let Some(choice) = shape.choices().first() {
            return json!(choice);
        }
        match shape.types().first().copied() {
            Some("integer" | "number") => json!(1),
            Some("boolean") => json!(false),
            Some("object") => json!({}),
            Some("array") => json!([]),
            Some(_) | None => json!(""),
        }
    }

    /// What is wrong with the value at `path`.
    pub(super) fn complaint(&self, path: &Path, args: &Value) -> String {
        let (mut shape, mut value) = (Some(*self), Some(args));
        for segment in path {
            match segment {
                Segment::Map { key } => {
                    shape =
                        shape.and_then(|shape| shape.property(key).or_else(|| shape.values("additionalProperties")));
                    value = value.and_then(|value| value.get(key));
                }
                Segment::Seq { index } => {
                    shape = shape.and_then(|shape| shape.values("items"));
                    value = value.and_then(|value| value.get(index));
                }
                Segment::Enum { .. } | Segment::Unknown => {}
            }
        }
        let (Some(shape), Some(value)) = (shape, value) else { return format!("The {path} is invalid.") };
        let (types, choices) = (shape.types(), shape.choices());
        if !choices.is_empty() {
            return format!("The selected {path} is invalid; use one of: {}.", choices.join(", "));
        }
        if !types.iter().any(|kind| is_a(value, kind)) {
            let wanted = types.iter().map(|kind| phrase(kind)).collect::<Vec<_>>().join(" or ");
            return format!("The {path} must be {wanted}.");
        }
        let bound = |keyword: &str| shape.facts().into_iter().find_map(|schema| schema.get(keyword));
        match (bound("minimum"), bound("maximum")) {
            (Some(low), Some(high)) => format!("The {path} must be between {low} and {high}."),
            (Some(low), None) => format!("The {path} must be at least {low}."),
            (None, Some(high)) => format!("The {path} must be at most {high}."),
            (None, None) => format!("The {path} is invalid."),
        }
    }

    /// Takes away what means "not given", and converts what means the same in another type.
    pub(super) fn normalise(&self, args: &mut RawArgs) {
        let takes_empty = |shape: Shape<'_>| {
            let types = shape.types();
            types.is_empty() || (types.contains(&"string") && shape.choices().is_empty())
        };
        args.retain(|name, value| {
            !value.is_null() && (*value != json!("") || self.property(name).is_none_or(takes_empty))
        });
        for (name, value) in args {
            if let Some(shape) = self.property(name) {
                shape.convert(value);
            }
        }
    }

    /// In maps of texts, such as metadata, numbers and switches are meant as texts; elsewhere they are mistakes.
    fn as_text(&self, value: &mut Value) {
        if (value.is_number() || value.is_boolean()) && self.types() == ["string"] {
            *value = Value::String(value.to_string());
        }
    }

    fn convert(&self, value: &mut Value) {
        let types = self.types();
        let takes = |kind| types.contains(&kind);
        let number = takes("integer") || takes("number");
        let converted = match value {
            Value::Array(list) if list.is_empty() && takes("object") && !takes("array") => Some(json!({})),
            Value::String(text) if !takes("string") => from_text(text.trim(), takes("boolean"), number),
            Value::Number(given) if takes("boolean") && !number => match given.as_u64() {
                Some(0) => Some(json!(false)),
                Some(1) => Some(json!(true)),
                Some(_) | None => None,
            },
            Value::Number(given) if takes("integer") => whole(given),
            Value::Array(list) => {
                if let Some(items) = self.values("items") {
                    for item in list {
                        items.convert(item);
                    }
                }
                None
            }
            Value::Object(map) => {
                map.retain(|_, value| !value.is_null());
                for (name, value) in map {
                    if let Some(field) = self.property(name) {
                        field.convert(value);
                    } else if let Some(values) = self.values("additionalProperties") {
                        values.as_text(value);
                        values.convert(value);
                    }
                }
                None
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        if let Some(converted) = converted {
            *value = converted;
        }
    }
}

fn from_text(text: &str, boolean: bool, number: bool) -> Option<Value> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" if boolean => Some(json!(true)),
        "false" | "0" if boolean => Some(json!(false)),
        _ if number => text
            .parse::<i64>()
            .map(Number::from)
            .ok()
            .or_else(|| Number::from_f64(text.parse().ok()?))
            .map(Value::Number),
        _ => None,
    }
}

/// `22.0` as `22`: some languages know one kind of number only.
fn whole(given: &Number) -> Option<Value> {
    given.is_f64().then(|| format!("{given}").strip_suffix(".0")?.parse::<i64>().ok().map(|whole| json!(whole)))?
}

fn is_a(value: &Value, kind: &str) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) => kind == "boolean",
        Value::Number(number) => kind == "number" || (kind == "integer" && !number.is_f64()),
        Value::String(_) => kind == "string",
        Value::Array(_) => kind == "array",
        Value::Object(_) => kind == "object",
    }
}

fn phrase(kind: &str) -> &'static str {
    match kind {
        "string" => "a string",
        "integer" => "an integer",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "an array",
        _ => "an object",
    }
}
