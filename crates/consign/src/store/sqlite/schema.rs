//! Brings the schema of a SQLite database up to date.

use sqlx::migrate::{Migrate as _, MigrateError};
use sqlx::{Row as _, SqliteConnection};

use super::{OpenError, failed};
use crate::store::migrations::{self, Failure, Step};

/// All migrations, oldest first.
const MIGRATIONS: &[Step] = &[
    (1, "start", include_str!("../../../../../migrations/sqlite/0001_start.sql")),
    (2, "webhooks", include_str!("../../../../../migrations/sqlite/0002_webhooks.sql")),
    (3, "signed_urls", include_str!("../../../../../migrations/sqlite/0003_signed_urls.sql")),
    (4, "lists", include_str!("../../../../../migrations/sqlite/0004_lists.sql")),
    (5, "taken", include_str!("../../../../../migrations/sqlite/0005_taken.sql")),
    (6, "ready", include_str!("../../../../../migrations/sqlite/0006_ready.sql")),
];

/// The newest schema that this program knows.
pub(super) fn newest() -> i64 {
    migrations::newest(MIGRATIONS)
}

/// The schema that the database has; `None` for one that is empty.
pub(super) async fn found(conn: &mut SqliteConnection) -> Result<Option<i64>, OpenError> {
    conn.ensure_migrations_table("_sqlx_migrations").await.map_err(migration_failed)?;
    let row =
        sqlx::query("SELECT MAX(version) AS version FROM _sqlx_migrations").fetch_one(conn).await.map_err(failed)?;
    let found: Option<i64> = row.try_get("version").map_err(failed)?;
    match found {
        Some(found) if found > newest() => Err(OpenError::NewerSchema { found, known: newest() }),
        found => Ok(found),
    }
}

/// Brings the schema up to date.
pub(super) async fn migrate(conn: &mut SqliteConnection) -> Result<(), OpenError> {
    found(conn).await?;
    migrations::migrator(MIGRATIONS).run(conn).await.map_err(migration_failed)
}

fn migration_failed(error: MigrateError) -> OpenError {
    match error.into() {
        Failure::Foreign(version) => OpenError::OtherSchema(version),
        Failure::Statement(error) => failed(error),
    }
}
