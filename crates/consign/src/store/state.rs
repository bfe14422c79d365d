//! The whole state of a store as text, to back it up or to move it to another database.
//!
//! The text is one JSON document a line: a head with the version of the format and the columns of each table, a line for each
//! row, and a foot with their number, without which it is not whole. What is sealed in the database stays sealed. Files are not in
//! it. The columns say what an earlier version could not know: there the database puts what it puts into old rows itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;

use super::Result;

/// A row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Its table.
    pub table: String,
    /// Its values, in the order of the columns.
    pub values: Vec<Value>,
    /// The columns, where they are not all that this version knows, in its order.
    #[serde(skip)]
    pub columns: Option<Arc<[String]>>,
}

/// The columns of each table, in the order of the values.
pub type Layout = BTreeMap<String, Vec<String>>;

/// The columns of each table as this version writes them.
pub fn layout() -> Layout {
    let mut layout = Layout::new();
    for (table, column) in super::sqlite::state_columns() {
        layout.entry(table.to_owned()).or_default().push(column.to_owned());
    }
    layout
}

/// What became of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imported {
    /// So many rows are stored.
    Rows(u64),
    /// The database has users or jobs of its own; nothing is stored.
    NotEmpty,
}

/// Writing the state down, and reading it in.
#[async_trait]
pub trait State: Send + Sync {
    /// Sends every row, as of one moment, in an order in which they can be stored again.
    ///
    /// # Errors
    /// The database's.
    async fn export_state(&self, lines: mpsc::Sender<Line>) -> Result<()>;

    /// Stores every row in an empty database once `None` says that these were all; before, or without, nothing is stored.
    /// Rows that make no sense are an error.
    ///
    /// # Errors
    /// The database's.
    async fn import_state(&self, lines: mpsc::Receiver<Option<Line>>) -> Result<Imported>;

    /// How many other connections of servers there are; a database that one server locks has none.
    ///
    /// # Errors
    /// The database's.
    async fn others(&self) -> Result<u64>;
}

/// Every column that is written, as `table.column`, for the test that compares them with the schemas.
#[cfg(feature = "test-support")]
pub fn columns() -> Vec<String> {
    super::sqlite::state_columns().map(|(table, column)| format!("{table}.{column}")).collect()
}
