//! Statements that write the whole state down, row by row, and read it in again on another database.

use std::str::FromStr as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::TryStreamExt as _;
use serde_json::Value;
use sqlx::{QueryBuilder, Row as _};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::rows::nonsense;
use super::tables::Kind::{self, Bytes, Flag, Id, Number, Text};
use super::tables::{TABLES, Table};
use super::{Conn, Db, Row, dialect};
use crate::store::state::{Imported, Line, send};

/// Rows of one `INSERT`: a statement has at most 32,766 values on SQLite, and no table here has more than 28 columns.
const ROWS_PER_INSERT: usize = 100;
/// Bytes of one `INSERT` of several rows: PostgreSQL takes no message of a gibibyte, and memory is needed several times over.
const BYTES_PER_INSERT: usize = 4 * 1024 * 1024;

/// Names of `meta` that belong to a database and not to the state.
const OF_THE_DATABASE: &str = "schema_floor";

/// The newest migration that this database had.
pub(crate) async fn schema(conn: &mut Conn) -> sqlx::Result<i64> {
    let row = sqlx::query("SELECT MAX(version) AS version FROM _sqlx_migrations").fetch_one(conn).await?;
    Ok(row.try_get::<Option<i64>, _>("version")?.unwrap_or_default())
}

/// Writes all rows down, as of one moment.
pub(crate) async fn export(conn: &mut Conn, lines: &mpsc::Sender<Line>) -> sqlx::Result<()> {
    for table in TABLES {
        let columns: Vec<&str> = table.columns.iter().map(|(name, _)| *name).collect();
        let text = format!("SELECT {} FROM {} ORDER BY {}", columns.join(", "), table.name, table.order);
        let mut query = QueryBuilder::<Db>::new(text);
        let mut rows = query.build().fetch(&mut *conn);
        while let Some(row) = rows.try_next().await? {
            let line = Line { table: table.name.to_owned(), values: values(&row, table)?, columns: None };
            if line.values.first().and_then(Value::as_str) == Some(OF_THE_DATABASE) {
                continue;
            }
            let bytes = line.bytes();
            if !send(lines, line, bytes).await {
                // Whoever reads has given up, and says why.
                return Ok(());
            }
        }
    }
    Ok(())
}

fn values(row: &Row, table: &Table) -> sqlx::Result<Vec<Value>> {
    let value = |(name, kind): &(&'static str, Kind)| -> sqlx::Result<Value> {
        Ok(match kind {
            Id => row.try_get::<Option<Uuid>, _>(*name)?.map(|id| id.to_string()).into(),
            Number => row.try_get::<Option<i64>, _>(*name)?.into(),
            Text => row.try_get::<Option<String>, _>(*name)?.into(),
            Bytes => row.try_get::<Option<Vec<u8>>, _>(*name)?.map(|bytes| STANDARD.encode(bytes)).into(),
            Flag => row.try_get::<Option<bool>, _>(*name)?.into(),
        })
    };
    table.columns.iter().map(value).collect()
}

/// Reads all rows in, in the order in which they were written; into an empty database only. All of it happens, or nothing:
/// what makes no sense is an error.
pub(crate) async fn import(conn: &mut Conn, lines: &mut mpsc::Receiver<Option<Line>>) -> sqlx::Result<Imported> {
    let row = sqlx::query("SELECT (SELECT COUNT(*) FROM users) + (SELECT COUNT(*) FROM jobs) AS rows_there")
        .fetch_one(&mut *conn)
        .await?;
    if row.try_get::<i64, _>("rows_there")? > 0 {
        return Ok(Imported::NotEmpty);
    }
    sqlx::query("DELETE FROM meta WHERE name <> $1").bind(OF_THE_DATABASE).execute(&mut *conn).await?;
    let (mut count, mut chunk) = (0_u64, Chunk::default());
    // A channel that closes without having said so was left by somebody who has failed.
    while let Some(line) = lines.recv().await.ok_or_else(|| nonsense("end"))? {
        if !chunk.has_room_for(&line) {
            insert(conn, &std::mem::take(&mut chunk).lines).await?;
        }
        chunk.add(line);
        count += 1;
    }
    insert(conn, &chunk.lines).await?;
    dialect::number_on(conn).await?;
    Ok(Imported::Rows(count))
}

/// Rows that are stored with one statement.
#[derive(Debug, Default)]
struct Chunk {
    lines: Vec<Line>,
    bytes: usize,
}

impl Chunk {
    /// Whether this row may be stored with the others. One alone may have any size.
    fn has_room_for(&self, line: &Line) -> bool {
        let is_small =
            self.lines.len() < ROWS_PER_INSERT && self.bytes.saturating_add(line.bytes()) <= BYTES_PER_INSERT;
        let is_alike = |first: &Line| first.table == line.table && first.columns == line.columns;
        self.lines.first().is_none_or(|first| is_small && is_alike(first))
    }

    fn add(&mut self, line: Line) {
        self.bytes = self.bytes.saturating_add(line.bytes());
        self.lines.push(line);
    }
}

async fn insert(conn: &mut Conn, lines: &[Line]) -> sqlx::Result<()> {
    let Some(first) = lines.first() else { return Ok(()) };
    let table = TABLES.iter().find(|table| table.name == first.table).ok_or_else(|| nonsense("table"))?;
    let columns = columns(table, first)?;
    if lines.iter().any(|line| line.values.len() != columns.len()) {
        return Err(nonsense(table.name));
    }
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let mut query = QueryBuilder::<Db>::new(format!("INSERT INTO {} ({}) ", table.name, names.join(", ")));
    let mut bad = false;
    query.push_values(lines, |mut row, line| {
        for (&(_, kind), value) in columns.iter().zip(&line.values) {
            let text = value.as_str();
            bad |= !value.is_null() && !fits(kind, value);
            match kind {
                Id => row.push_bind(text.and_then(|id| Uuid::from_str(id).ok())),
                Number => row.push_bind(value.as_i64()),
                Text => row.push_bind(text.map(str::to_owned)),
                Bytes => row.push_bind(text.and_then(|bytes| STANDARD.decode(bytes).ok())),
                Flag => row.push_bind(value.as_bool()),
            };
        }
    });
    if bad {
        return Err(nonsense(table.name));
    }
    query.build().execute(conn).await.map(drop)
}

/// The columns that a line has values for. What it has none for gets the database's own default.
fn columns(table: &Table, line: &Line) -> sqlx::Result<Vec<(&'static str, Kind)>> {
    let Some(names) = &line.columns else { return Ok(table.columns.to_vec()) };
    let known = |name: &String| table.columns.iter().find(|(column, _)| column == name).copied();
    names.iter().map(|name| known(name).ok_or_else(|| nonsense(table.name))).collect()
}

fn fits(kind: Kind, value: &Value) -> bool {
    match kind {
        Id => value.as_str().is_some_and(|id| Uuid::from_str(id).is_ok()),
        Number => value.is_i64(),
        Text => value.is_string(),
        Bytes => value.as_str().is_some_and(|bytes| STANDARD.decode(bytes).is_ok()),
        Flag => value.is_boolean(),
    }
}

/// Connections of other servers to this database.
pub(crate) async fn others(conn: &mut Conn) -> sqlx::Result<u64> {
    dialect::others(conn).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_bounded_in_rows_and_in_bytes() {
        let line = |table: &str, bytes| Line {
            table: table.to_owned(),
            values: vec![Value::from("x".repeat(bytes))],
            columns: None,
        };
        for (bytes, rows) in
            [(1, ROWS_PER_INSERT), (BYTES_PER_INSERT / 4, 4), (BYTES_PER_INSERT / 2 + 1, 1), (2 * BYTES_PER_INSERT, 1)]
        {
            let mut chunk = Chunk::default();
            while chunk.has_room_for(&line("t", bytes)) {
                chunk.add(line("t", bytes));
            }
            assert_eq!(chunk.lines.len(), rows, "rows of {bytes} bytes");
        }
        let mut chunk = Chunk::default();
        chunk.add(line("t", 1));
        assert!(chunk.has_room_for(&line("t", 1)) && !chunk.has_room_for(&line("u", 1)));
    }
}
