//! How the shared methods of the store reach PostgreSQL: each is a transaction on a connection of the pool.
//!
//! What loses against another transaction is run again, and so is what met a dead connection or a server that restarts. A commit
//! whose answer was lost is not guessed at: the server is asked what became of that transaction. After a crash it does not know any
//! more; then the command is run again, and every command finds what it did before: rows have their ids from the caller,
//! transitions their token, and leases that nobody knows of are given back (`runner::recover`).

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use sqlx::pool::PoolConnection;
use sqlx::{Executor as _, PgConnection, PgPool, Row as _};
use tokio::time::{Instant, sleep, timeout};
use tracing::Instrument as _;

use super::news::News;
use super::queries::{Changed, Tx};
use super::{Db, PostgresStore};
use crate::store::{Cause, Claim, Error, Result};

/// How long lost connections and a server that restarts are waited out.
const PATIENCE: Duration = Duration::from_secs(12);
/// Tries of a transaction that loses against others.
const RACES_MAX: u32 = 12;
/// First pause before something is tried again; it doubles with each try.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_millis(400);
/// How long a try may take: longer than the server gives a statement, for when nothing comes back at all.
const TRY_MAX: Duration = Duration::from_secs(20);

const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// A weaker `synchronous_commit` than the server's own disk is made stronger once more: a pooler may have given the connection to
/// somebody else before, and opened it without us.
const BEGIN: &str = "\
     BEGIN; \
     SELECT set_config('synchronous_commit', 'on', TRUE) WHERE current_setting('synchronous_commit') IN ('off', 'local'); \
     SELECT pg_current_xact_id()::text AS xid, now()::text AS began";
/// For a group: who waits for a row that somebody holds must not hold up the others for long.
const BEGIN_GROUP: &str = "\
     BEGIN; SET LOCAL lock_timeout = '1s'; \
     SELECT set_config('synchronous_commit', 'on', TRUE) WHERE current_setting('synchronous_commit') IN ('off', 'local'); \
     SELECT pg_current_xact_id()::text AS xid, now()::text AS began";
const BEGIN_RELAXED: &str =
    "BEGIN; SET LOCAL synchronous_commit = off; SELECT pg_current_xact_id()::text AS xid, now()::text AS began";

/// How a command is run.
#[derive(Clone, Copy)]
pub(super) struct Way {
    /// What its transaction begins with.
    begin: &'static str,
    /// How long lost connections and a server that restarts are waited out.
    patience: Duration,
    /// How long a try may take, with the wait for a connection.
    try_max: Duration,
}

/// The answer waits for the disk.
pub(super) const DURABLE: Way = Way { begin: BEGIN, patience: PATIENCE, try_max: TRY_MAX.saturating_add(PATIENCE) };
/// The same for a group.
pub(super) const GROUP: Way = Way { begin: BEGIN_GROUP, ..DURABLE };
/// For a sign of life: the answer does not wait for the disk, and one that is not answered soon is of no use, but would keep the
/// next one from the connection: shorter than the time between two.
pub(super) const BEAT: Way =
    Way { begin: BEGIN_RELAXED, patience: Duration::from_millis(2500), try_max: Duration::from_millis(2500) };
/// For a look at whether the server works: whoever looks gives up after 2 s, and is to hear before what is wrong.
pub(super) const PROBE: Way =
    Way { begin: BEGIN_RELAXED, patience: Duration::from_millis(500), try_max: Duration::from_millis(1600) };

impl Way {
    /// How long it is tried.
    pub(super) fn patience(self) -> Patience {
        Patience { since: Instant::now(), lasts: self.patience, races: 0, pause: PAUSE_MIN }
    }

    /// Gives up a try when nothing comes from the server.
    pub(super) async fn in_time<T>(self, work: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
        timeout(self.try_max, work).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }
}

/// Whether there is anything to claim.
pub(super) const ANY_SQL: &str = "SELECT 1 FROM tasks WHERE state = 'queued' AND ended_at IS NULL LIMIT 1";

/// What became of a transaction, and whether the server may have crashed since it began: then it may have given the number to
/// another one. Whoever crashed and came back has made a checkpoint.
const FATE: &str = "\
     SELECT pg_xact_status(CAST($1 AS xid8)) AS status, \
            pg_postmaster_start_time() >= CAST($2 AS timestamptz) \
                OR (SELECT checkpoint_time FROM pg_control_checkpoint()) >= date_trunc('second', CAST($2 AS timestamptz)) \
                AS has_crashed";

/// A connection with a transaction on it. Dropped before the end of the transaction it is closed, which rolls back.
pub(super) struct Link {
    conn: Option<PoolConnection<Db>>,
}

const THERE: &str = "the connection is only taken away at the end";

impl Deref for Link {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.conn.as_ref().expect(THERE)
    }
}

impl DerefMut for Link {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.conn.as_mut().expect(THERE)
    }
}

impl Link {
    /// Ends the transaction well; the connection can be used again.
    pub(super) async fn commit(mut self) -> sqlx::Result<()> {
        self.execute("COMMIT").await?;
        drop(self.conn.take());
        Ok(())
    }

    /// Takes back what the transaction did; the connection can be used again if that succeeds.
    async fn roll_back(mut self) {
        if self.execute("ROLLBACK").await.is_ok() {
            drop(self.conn.take());
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            drop(conn.detach());
        }
    }
}

impl PostgresStore {
    /// Whether a claim may find something. One that finds nothing stops all others meanwhile, so whoever found nothing the last time
    /// looks first.
    pub(super) async fn may_claim(&self) -> Result<bool> {
        let mut patience = DURABLE.patience();
        while self.is_idle.load(Ordering::Relaxed) {
            let looked = sqlx::query(ANY_SQL).fetch_optional(&self.writer.pool);
            match DURABLE.in_time(looked).await {
                Ok(found) => return Ok(found.is_some()),
                Err(failure) => patience.after(failure).await?,
            }
        }
        Ok(true)
    }

    /// Notes what became of a claim.
    pub(super) fn claimed(&self, claims: &Result<Vec<Claim>>) {
        self.is_idle.store(claims.as_ref().is_ok_and(Vec::is_empty), Ordering::Relaxed);
    }
}

/// Reads, and runs commands. Cheap to clone.
#[derive(Clone)]
pub(super) struct Writer {
    /// Where connections come from.
    pub(super) pool: PgPool,
    /// Where changes are told.
    pub(super) news: News,
}

impl Writer {
    /// A connection that reads one snapshot.
    pub(super) async fn snapshot(&self) -> sqlx::Result<Link> {
        let mut read = Link { conn: Some(self.pool.acquire().await?) };
        read.execute(BEGIN_READ).await?;
        Ok(read)
    }

    /// Runs a command until it is committed, or cannot be. It happens even if the caller stops waiting.
    pub(super) async fn command<T, F>(&self, way: Way, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(Tx) -> BoxFuture<'static, (Tx, sqlx::Result<T>)> + Send + Sync + 'static,
    {
        let writer = self.clone();
        let running = async move { writer.write(way, work).await.map_err(store_error) };
        let stopped = |error| Error::Broken(Box::new(error));
        tokio::spawn(running.in_current_span()).await.map_err(stopped)?
    }

    /// Runs a command until it is committed, or cannot be.
    pub(super) async fn write<T: Send>(
        &self,
        way: Way,
        work: impl Fn(Tx) -> BoxFuture<'static, (Tx, sqlx::Result<T>)> + Send + Sync,
    ) -> sqlx::Result<T> {
        let mut patience = way.patience();
        loop {
            match way.in_time(run(&self.pool, way.begin, &work)).await {
                Ok((value, changed)) => {
                    self.news.announce(changed);
                    return Ok(value);
                }
                Err(failure) => patience.outlast(failure).await?,
            }
        }
    }
}

/// Runs a command once.
async fn run<T: Send>(
    pool: &PgPool,
    begin: &'static str,
    work: impl Fn(Tx) -> BoxFuture<'static, (Tx, sqlx::Result<T>)> + Send + Sync,
) -> sqlx::Result<(T, Changed)> {
    let mut conn = Link { conn: Some(pool.acquire().await?) };
    let rows = sqlx::raw_sql(begin).fetch_all(&mut *conn).await?;
    let row = rows.last().ok_or(sqlx::Error::RowNotFound)?;
    let (xid, began): (String, String) = (row.try_get("xid")?, row.try_get("began")?);
    let (tx, done) = work(Tx { conn, changed: Changed::default() }).await;
    match done {
        Ok(value) => {
            if let Err(failure) = tx.conn.commit().await
                && !was_committed(pool, &xid, &began).await?
            {
                return Err(failure);
            }
            Ok((value, tx.changed))
        }
        Err(failure) => {
            tx.conn.roll_back().await;
            Err(failure)
        }
    }
}

/// Whether a transaction whose commit was not answered is known to have happened.
async fn was_committed(pool: &PgPool, xid: &str, began: &str) -> sqlx::Result<bool> {
    /// A transaction number that the server has never given: it was lost in a crash.
    const IN_THE_FUTURE: &str = "22023";

    let give_up = Instant::now() + PATIENCE;
    loop {
        let asked = async {
            let mut conn = pool.acquire().await?;
            let row = sqlx::query(FATE).bind(xid).bind(began).fetch_one(&mut *conn).await?;
            Ok::<_, sqlx::Error>((row.try_get::<Option<String>, _>("status")?, row.try_get::<bool, _>("has_crashed")?))
        };
        match asked.await {
            Ok((_, true)) => return Ok(false),
            Ok((Some(status), _)) if status == "committed" => return Ok(true),
            Ok((Some(status), _)) if status == "in progress" && Instant::now() < give_up => {}
            Ok(_) => return Ok(false),
            Err(failure) if code(&failure).as_deref() == Some(IN_THE_FUTURE) => return Ok(false),
            Err(failure) if kind(&failure) == Kind::Lost && Instant::now() < give_up => {}
            Err(failure) => return Err(failure),
        }
        sleep(PAUSE_MAX / 4).await;
    }
}

/// What a failure means for the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Another transaction was preferred.
    Race,
    /// The connection, or the server, is gone.
    Lost,
    /// It would fail again.
    Final,
}

fn code(failure: &sqlx::Error) -> Option<std::borrow::Cow<'_, str>> {
    failure.as_database_error().and_then(sqlx::error::DatabaseError::code)
}

fn kind(failure: &sqlx::Error) -> Kind {
    match (code(failure).as_deref(), failure) {
        // serialization_failure, deadlock_detected
        (Some("40001" | "40P01"), _) => Kind::Race,
        // admin_shutdown, crash_shutdown, cannot_connect_now, database_dropped while it is replaced, idle sessions ended by us,
        // too_many_connections, connection failures; read-only after a failover: the pool will find the new primary.
        (Some("57P01" | "57P02" | "57P03" | "57P05" | "25P03" | "25P04" | "25006" | "53300"), _) => Kind::Lost,
        (Some(code), _) if code.starts_with("08") => Kind::Lost,
        (None, sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed) => {
            Kind::Lost
        }
        (Some(_) | None, _) => Kind::Final,
    }
}

/// How long something is tried again.
pub(super) struct Patience {
    since: Instant,
    lasts: Duration,
    races: u32,
    pause: Duration,
}

impl Patience {
    /// As [`Self::outlast`]; the failure comes back sorted.
    ///
    /// # Errors
    /// The failure, when it makes no sense to try again.
    pub(super) async fn after(&mut self, failure: sqlx::Error) -> Result<()> {
        self.outlast(failure).await.map_err(store_error)
    }

    /// Waits until it makes sense to try again.
    ///
    /// # Errors
    /// The failure, when it does not.
    async fn outlast(&mut self, failure: sqlx::Error) -> sqlx::Result<()> {
        let goes_on = match kind(&failure) {
            Kind::Race => {
                self.races += 1;
                self.races < RACES_MAX
            }
            Kind::Lost => self.since.elapsed() < self.lasts,
            Kind::Final => false,
        };
        if !goes_on {
            return Err(failure);
        }
        tracing::debug!(error = &failure as &dyn std::error::Error, "a transaction is tried again");
        sleep(self.pause.mul_f64(rand::random_range(0.5..1.5))).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

/// Whether one command of a group may have brought this about, so that the others would fare better without it: a value that the
/// server or its client refuses, a row that somebody holds.
pub(super) fn is_of_one(failure: &sqlx::Error) -> bool {
    let is_of_all = match code(failure) {
        // insufficient resources
        Some(code) => code.starts_with("53"),
        None => matches!(failure, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed),
    };
    kind(failure) != Kind::Lost && !is_of_all
}

/// Sorts failures by PostgreSQL's error code.
pub(super) fn store_error(failure: sqlx::Error) -> Error {
    sorted(&failure)(Box::new(failure))
}

/// As [`store_error`], for a failure that several callers hear of.
pub(super) fn shared_error(failure: &Arc<sqlx::Error>) -> Error {
    sorted(failure)(Box::new(Arc::clone(failure)))
}

fn sorted(failure: &sqlx::Error) -> fn(Cause) -> Error {
    let full = match code(failure).as_deref() {
        // disk_full
        Some("53100") => true,
        Some(_) | None => false,
    };
    let passes = match code(failure).as_deref() {
        // insufficient resources, operator intervention, lock_not_available
        Some(code) => code.starts_with("53") || code.starts_with("57") || code == "55P03",
        None => matches!(failure, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed),
    };
    match kind(failure) {
        _ if full => Error::DiskFull,
        Kind::Final if !passes => Error::Broken,
        Kind::Race | Kind::Lost | Kind::Final => Error::Unavailable,
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Connection as _;

    use super::*;

    #[test]
    fn what_is_not_of_the_connection_is_of_one_command() {
        for (failure, wanted) in [
            (sqlx::Error::RowNotFound, true),
            (sqlx::Error::Encode("too long".into()), true),
            (sqlx::Error::ColumnDecode { index: "id".to_owned(), source: "no id".into() }, true),
            (sqlx::Error::PoolTimedOut, false),
            (sqlx::Error::PoolClosed, false),
            (sqlx::Error::WorkerCrashed, false),
            (sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into()), false),
        ] {
            assert_eq!(is_of_one(&failure), wanted, "{failure}");
        }
    }

    /// Whatever was set on the connection before, an answer waits for the disk; and nothing is left behind on it.
    #[tokio::test]
    async fn a_transaction_is_durable_on_any_connection() {
        let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
        let mut conn = PgConnection::connect(&server.database().await.unwrap()).await.unwrap();
        let shown = async |conn: &mut PgConnection| -> String {
            sqlx::query("SHOW synchronous_commit").fetch_one(conn).await.unwrap().get(0)
        };
        let lock_timeout = async |conn: &mut PgConnection| -> String {
            sqlx::query("SHOW lock_timeout").fetch_one(conn).await.unwrap().get(0)
        };
        let waits = lock_timeout(&mut conn).await;
        for (server_default, begin, wanted) in [
            ("off", BEGIN, "on"),
            ("local", BEGIN, "on"),
            ("remote_apply", BEGIN, "remote_apply"),
            ("off", BEGIN_GROUP, "on"),
            ("local", BEGIN_GROUP, "on"),
            ("on", BEGIN_RELAXED, "off"),
        ] {
            sqlx::query("SELECT set_config('synchronous_commit', $1, FALSE)")
                .bind(server_default)
                .execute(&mut conn)
                .await
                .unwrap();
            let rows = sqlx::raw_sql(begin).fetch_all(&mut conn).await.unwrap();
            assert!(!rows.last().unwrap().get::<String, _>("xid").is_empty());
            assert_eq!(shown(&mut conn).await, wanted, "{server_default}");
            assert_eq!(lock_timeout(&mut conn).await == "1s", begin == BEGIN_GROUP, "{begin}");
            conn.execute("COMMIT").await.unwrap();
            assert_eq!(shown(&mut conn).await, server_default);
            assert_eq!(lock_timeout(&mut conn).await, waits, "{begin}");
        }
    }
}
