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

use super::{Error, Result};

/// Rows up to this size may wait in the queue together, as many as it has places.
const SMALL_BYTES_MAX: usize = 64 * 1024;

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

impl Line {
    /// Bytes of its texts: what it needs in memory, and in a statement.
    pub fn bytes(&self) -> usize {
        self.values.iter().map(|value| value.as_str().map_or(size_of::<Value>(), str::len)).sum()
    }
}

/// Puts a row of so many bytes into the queue, and tells whether anybody still takes it. A large one waits until the queue is
/// empty, so that there is at most one of them beside small ones: arguments may have any size that a request may have.
pub async fn send<T: Send>(lines: &mpsc::Sender<T>, row: T, bytes: usize) -> bool {
    if bytes <= SMALL_BYTES_MAX {
        return lines.send(row).await.is_ok();
    }
    match lines.reserve_many(lines.max_capacity()).await {
        Ok(mut places) => {
            if let Some(place) = places.next() {
                place.send(row);
            }
            true
        }
        Err(_) => false,
    }
}

/// What became of an import.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Imported {
    /// So many rows are stored.
    Rows(u64),
    /// The database has users or jobs of its own; nothing is stored.
    NotEmpty,
}

/// Refuses a database in which there may be more than this program writes down.
pub(super) fn check_schema(found: i64, known: i64) -> Result<()> {
    if found > known { Err(Error::NewerSchema { found, known }) } else { Ok(()) }
}

/// Writing the state down, and reading it in.
#[async_trait]
pub trait State: Send + Sync {
    /// Sends every row, as of one moment, in an order in which they can be stored again.
    ///
    /// # Errors
    /// The database's; [`Error::NewerSchema`] when it has tables or columns that this program may not know.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bytes: usize) -> Line {
        Line { table: "t".to_owned(), values: vec![Value::Null, Value::from("x".repeat(bytes))], columns: None }
    }

    #[tokio::test]
    async fn large_rows_wait_for_an_empty_queue() {
        let (sender, mut lines) = mpsc::channel(4);
        let sending = tokio::spawn(async move {
            for bytes in [10, 10, SMALL_BYTES_MAX, 3 * SMALL_BYTES_MAX, 3 * SMALL_BYTES_MAX, 10] {
                let line = line(bytes);
                let size = line.bytes();
                assert!(send(&sender, line, size).await);
            }
        });
        let mut seen = Vec::new();
        loop {
            // Until whoever sends can do nothing more.
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            seen.push(lines.len());
            if lines.recv().await.is_none() {
                break;
            }
        }
        sending.await.unwrap();
        // Small ones together, then each large one alone but for what is small behind it.
        assert_eq!(seen, [2, 1, 1, 1, 2, 1, 0]);
        let (sender, lines) = mpsc::channel(4);
        drop(lines);
        assert!(!send(&sender, line(10), 10).await && !send(&sender, line(10), usize::MAX).await);
    }
}
