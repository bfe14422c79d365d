//! Brings the schema of a PostgreSQL database up to date, while others may be using it.

use std::time::Duration;

use sqlx::migrate::{Migrate as _, MigrateError};
use sqlx::{Connection as _, Executor as _, PgConnection, Row as _};
use tokio::time::sleep;

use super::{OpenError, failed};
use crate::store::migrations::{self, Failure, Step};

/// All migrations, oldest first.
const MIGRATIONS: &[Step] = &[
    (1, "start", include_str!("../../../../../migrations/postgres/0001_start.sql")),
    (2, "lists", include_str!("../../../../../migrations/postgres/0002_lists.sql")),
    (3, "taken", include_str!("../../../../../migrations/postgres/0003_taken.sql")),
    (4, "ready", include_str!("../../../../../migrations/postgres/0004_ready.sql")),
];

/// How often a change is tried for which a table must be locked that somebody holds: half a minute.
const TRIES_MAX: u32 = 10;
/// Pause between two tries, in which those go on who wait behind whoever waits for a table.
const PAUSE: Duration = Duration::from_secs(1);

/// What the transaction begins with. The lock is held by whoever changes the schema; its number is the name of this program in
/// ASCII. Others wait for it, and for as long as an index is being built: neither is bounded by what the server, or a pooler, gives
/// a statement. A table is waited for only briefly: whoever wants to write to it waits behind whoever waits.
const LOCK: &str = "\
     SET LOCAL client_min_messages = warning; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; \
     SELECT set_config('transaction_timeout', '0', TRUE) WHERE current_setting('server_version_num')::int >= 170000; \
     SELECT pg_advisory_xact_lock(x'636f6e7369676e'::bigint); \
     SET LOCAL lock_timeout = '2s'";

/// The newest schema that this program knows.
pub(super) fn newest() -> i64 {
    migrations::newest(MIGRATIONS)
}

/// Brings the schema up to date, one process at a time. A database that is ahead of this program is left as it is, if its
/// schema says that this program may use it: so a fleet is upgraded one process after the other.
pub(super) async fn migrate(conn: &mut PgConnection) -> Result<(), OpenError> {
    for tries in 1..=TRIES_MAX {
        if migrate_once(conn).await? {
            return Ok(());
        }
        tracing::warn!(tries, "a table that is to be changed is held by another transaction");
        sleep(PAUSE).await;
    }
    Err(OpenError::TablesHeld)
}

/// Tries so in one transaction: its lock goes with it, whatever happens and whoever else a pooler gives the connection to. Nothing
/// is changed, and `false`, when somebody holds a table.
async fn migrate_once(conn: &mut PgConnection) -> Result<bool, OpenError> {
    const TABLE: &str = "_sqlx_migrations";
    let mut conn = conn.begin().await.map_err(failed)?;
    conn.execute(LOCK).await.map_err(failed)?;
    conn.ensure_migrations_table(TABLE).await.map_err(migration_failed)?;
    let row = sqlx::query("SELECT MAX(version) AS version FROM _sqlx_migrations").fetch_one(&mut *conn).await;
    let found: Option<i64> = row.and_then(|row| row.try_get("version")).map_err(failed)?;
    if let Some(found) = found.filter(|found| *found > newest()) {
        let row = sqlx::query("SELECT value FROM meta WHERE name = 'schema_floor'").fetch_one(&mut *conn).await;
        let floor: i64 = row.and_then(|row| row.try_get("value")).map_err(failed)?;
        let known = newest();
        if floor > known {
            return Err(OpenError::NewerSchema { found, floor, known });
        }
    }
    let mut migrator = migrations::migrator(MIGRATIONS);
    migrator.set_ignore_missing(true).set_locking(false);
    match migrator.run(&mut *conn).await {
        Ok(()) => conn.commit().await.map(|()| true).map_err(failed),
        Err(error) if is_held(&error) => conn.rollback().await.map(|()| false).map_err(failed),
        Err(error) => Err(migration_failed(error)),
    }
}

/// Whether a table could not be locked in time, or somebody waited for this very transaction meanwhile.
fn is_held(error: &MigrateError) -> bool {
    let (MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) = error else { return false };
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    // lock_not_available, deadlock_detected
    matches!(code.as_deref(), Some("55P03" | "40P01"))
}

fn migration_failed(error: MigrateError) -> OpenError {
    match error.into() {
        Failure::Foreign(version) => OpenError::OtherSchema(version),
        Failure::Statement(error) => failed(error),
    }
}
