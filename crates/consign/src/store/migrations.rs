//! What both databases do with their migrations.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

/// A migration: version, name, text. Never changed once released.
pub(super) type Step = (i64, &'static str, &'static str);

/// The newest schema that these lead to; they are in order.
pub(super) fn newest(steps: &[Step]) -> i64 {
    steps.last().map_or(0, |(version, ..)| *version)
}

/// What runs them.
pub(super) fn migrator(steps: &[Step]) -> Migrator {
    let migration = |&(version, name, text): &Step| {
        Migration::new(version, name.into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations(steps.iter().map(migration).collect())
}

/// Why migrating failed.
pub(super) enum Failure {
    /// The database has a migration of this version that is not ours.
    Foreign(i64),
    /// A statement did.
    Statement(sqlx::Error),
}

impl From<MigrateError> for Failure {
    fn from(error: MigrateError) -> Self {
        if let MigrateError::VersionMismatch(version) | MigrateError::Dirty(version) = error {
            return Self::Foreign(version);
        }
        if let MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) = error {
            return Self::Statement(error);
        }
        Self::Statement(error.into())
    }
}
