//! Arguments: from JSON to a checked, typed form; what is wrong with them, all at once; what of them may be shown.

use schemars::Schema;
use serde_json::Value;
use serde_path_to_error::Segment;

use self::shape::Shape;
use super::{Arguments as _, Operation, RawArgs};
use crate::error::{Code, Faults, TaskError};

mod redact;
mod shape;

pub(super) use redact::redact;

/// Unknown arguments that are named in warnings; further ones are counted.
const WARNINGS_MAX: usize = 20;
/// Letters of an unknown argument's name that are shown.
const SHOWN_LETTERS_MAX: usize = 64;
/// How alike (Jaro–Winkler, from 0 to 1) two names are of which one may be meant by the other.
const ALIKE: f64 = 0.85;

/// Members of a task that are no arguments of its operation; they open its stored arguments, in this order.
pub const OWN_MEMBERS: [&str; 3] = ["operation", "input", "ignore_error"];

/// JSON Schema of an operation's arguments.
pub(super) fn schema_of<O: Operation>() -> Schema {
    O::Args::schema()
}

/// See [`super::Entry::prepare`].
pub(super) fn prepare<O: Operation>(args: &mut RawArgs, schema: &Schema) -> Result<Vec<String>, Faults> {
    let shape = Shape::of(schema);
    let warnings = unknown(args, &shape);
    shape.normalise(args);

    let mut faults = Faults::default();
    for field in shape.required().filter(|field| !args.contains_key(*field)).collect::<Vec<_>>() {
        faults.add(field, format!("The {field} field is required."));
        args.insert(field.to_owned(), shape.stand_in(field));
    }
    if let Some(typed) = typed::<O>(args, &shape, &mut faults) {
        let mut further = Faults::default();
        for (path, told) in typed.out_of_bounds() {
            let sentence = out_of_bounds(&path, &told);
            further.add(path, sentence);
        }
        O::check(&typed, &mut further);
        for (field, sentences) in further.0 {
            if !faults.0.keys().any(|known| top(known) == top(&field)) {
                faults.0.insert(field, sentences);
            }
        }
    }
    if faults.is_empty() { Ok(warnings) } else { Err(faults) }
}

/// Says which bound a value breaks; the validator's words where it has better ones.
fn out_of_bounds(path: &str, told: &str) -> String {
    if told == "length is lower than 1" {
        return format!("The {path} field is required.");
    }
    match told.strip_prefix("length is greater than ") {
        Some(most) => format!("The {path} may not be greater than {most} characters."),
        None => format!("The {path} is invalid: {told}."),
    }
}

/// Reads arguments that were checked when the task was made.
pub(super) fn read<O: Operation>(args: RawArgs) -> Result<O::Args, TaskError> {
    O::Args::take(Value::Object(args)).map_err(|error| {
        TaskError::new(Code::InvalidData, "The task's arguments cannot be read by this version of the server.")
            .because(error.path().to_string())
    })
}

/// Reads arguments. Where one cannot be read, notes why and reads the others without it, so that all faults are found.
fn typed<O: Operation>(args: &mut RawArgs, shape: &Shape<'_>, faults: &mut Faults) -> Option<O::Args> {
    // Moved in and out: an argument may be a whole file.
    let mut trial = Value::Object(std::mem::take(args));
    let found = loop {
        let error = match O::Args::read(&trial) {
            Ok(typed) => break Some(typed),
            Err(error) => error,
        };
        let Some(Segment::Map { key: field }) = error.path().iter().next() else {
            faults.add("", "The arguments cannot be read.");
            break None;
        };
        let is_new = !faults.0.keys().any(|known| top(known) == field);
        faults.add(error.path().to_string(), shape.complaint(error.path(), &trial));
        let Value::Object(fields) = &mut trial else { break None };
        if !is_new || fields.remove(field).is_none() {
            break None;
        }
        if shape.required().any(|required| required == field) {
            fields.insert(field.clone(), shape.stand_in(field));
        }
    };
    if let Value::Object(fields) = trial {
        *args = fields;
    }
    found
}

/// The argument that a path begins with.
fn top(path: &str) -> &str {
    path.split(['.', '[']).next().unwrap_or(path)
}

/// Warns of arguments that this operation does not have.
fn unknown(args: &RawArgs, shape: &Shape<'_>) -> Vec<String> {
    let unknown: Vec<&String> = args.keys().filter(|name| shape.property(name).is_none()).collect();
    let mut warnings: Vec<String> = unknown.iter().take(WARNINGS_MAX).map(|name| warning(name, shape)).collect();
    if unknown.len() > WARNINGS_MAX {
        warnings.push(format!("{} more arguments are not known and are ignored.", unknown.len() - WARNINGS_MAX));
    }
    warnings
}

fn warning(name: &str, shape: &Shape<'_>) -> String {
    let shown: String = name.chars().take(SHOWN_LETTERS_MAX).collect();
    let likeness = |known: &&str| strsim::jaro_winkler(&shown.to_lowercase(), known);
    let nearest = shape.properties().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest.filter(|known| likeness(known) >= ALIKE) {
        Some(known) => format!("The argument \"{shown}\" is not known and is ignored; did you mean \"{known}\"?"),
        None => format!("The argument \"{shown}\" is not known and is ignored."),
    }
}

#[cfg(test)]
mod tests;
