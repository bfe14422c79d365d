//! Arguments: from JSON to a checked, typed form; what is wrong with them, all at once; what of them may be shown.

use schemars::Schema;
use serde_json::Value;

use super::{Operation, RawArgs};
use crate::error::{Code, Faults, TaskError};

/// Members of a task that are no arguments of its operation.
const SHARED: [&str; 4] = ["operation", "input", "name", "ignore_error"];

/// Whether a member of a task is no argument of its operation.
pub fn is_shared(member: &str) -> bool {
    SHARED.contains(&member)
}

/// JSON Schema of an operation's arguments.
pub(super) fn schema_of<O: Operation>() -> Schema {
    schemars::schema_for!(O::Args)
}

/// See [`super::Entry::prepare`].
pub(super) fn prepare<O: Operation>(_args: &mut RawArgs, _schema: &Schema) -> Result<Vec<String>, Faults> {
    Ok(Vec::new())
}

/// Reads arguments that were checked when the task was made.
pub(super) fn read<O: Operation>(args: RawArgs) -> Result<O::Args, TaskError> {
    serde_path_to_error::deserialize(Value::Object(args)).map_err(|error| {
        TaskError::new(Code::InvalidData, "The task's arguments cannot be read by this version of the server.")
            .because(error.path().to_string())
    })
}

/// See [`super::Entry::redact`].
pub(super) fn redact(args: &RawArgs, _schema: &Schema) -> RawArgs {
    args.clone()
}
