//! How a PostgreSQL database is used.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a PostgreSQL database is used; SQLite needs no settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// Connections of this process at the most. There are three more: one of a runner says that it lives, whatever the others wait
    /// for, and two tell other processes of changes and hear of theirs.
    pub connections_max: u32,
    /// Hear of changes by `LISTEN`. Behind a pooler that shares connections between transactions nothing can be heard, so that
    /// each process looks for changes every second, as with `false`, which costs time and work.
    pub listen: bool,
}

impl Default for Database {
    fn default() -> Self {
        // A transaction takes a few milliseconds: sixteen at once are more than the tasks of a process ask for.
        Self { connections_max: 16, listen: true }
    }
}
