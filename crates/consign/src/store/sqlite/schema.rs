//! Brings the schema of a SQLite database up to date.

use sqlx::migrate::{Migrate as _, MigrateError, Migration, MigrationType, Migrator};
use sqlx::{Row as _, SqlSafeStr as _, SqliteConnection};

use super::{OpenError, failed};
use crate::store::Error;

/// All migrations, oldest first: version, name, text. Never changed once released.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "start", include_str!("../../../../../migrations/sqlite/0001_start.sql")),
    (2, "webhooks", include_str!("../../../../../migrations/sqlite/0002_webhooks.sql")),
    (3, "signed_urls", include_str!("../../../../../migrations/sqlite/0003_signed_urls.sql")),
    (4, "lists", include_str!("../../../../../migrations/sqlite/0004_lists.sql")),
    (5, "taken", include_str!("../../../../../migrations/sqlite/0005_taken.sql")),
    (6, "ready", include_str!("../../../../../migrations/sqlite/0006_ready.sql")),
];

/// The newest schema that this program knows.
pub(super) fn newest() -> i64 {
    MIGRATIONS.last().map_or(0, |(version, ..)| *version)
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
    let migrations = MIGRATIONS
        .iter()
        .map(|&(version, name, text)| {
            Migration::new(version, name.into(), MigrationType::Simple, text.into_sql_str(), false)
        })
        .collect();
    Migrator::with_migrations(migrations).run(conn).await.map_err(migration_failed)
}

fn migration_failed(error: MigrateError) -> OpenError {
    if let MigrateError::VersionMismatch(version) | MigrateError::Dirty(version) = error {
        return OpenError::OtherSchema(version);
    }
    if let MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) = error {
        return failed(error);
    }
    OpenError::Failed(Error::Broken(Box::new(error)))
}
