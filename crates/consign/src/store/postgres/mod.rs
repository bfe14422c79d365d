//! The store on PostgreSQL: any number of processes share it.
//!
//! An answer means that the change is on stable storage as the server is set up to have it, at least its own
//! (`synchronous_commit`). Transactions run side by side at `READ COMMITTED` and lock what they rely on (see `dialect`); reads see
//! one snapshot. Lost connections and restarts of the server are waited out for a while.

use std::fmt;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use connectors::Secret;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgConnection, PgPool, Row as _};
use tokio::sync::mpsc;

use super::dialect::postgres as dialect;
use super::state::{self, Imported, Line, State};
use super::{CLOCKS_APART_MAX, Counts, Error, Hints, Load, Result, Store};
use crate::clock::{Clock, Timestamp};
use creations::Create;
use ends::End;
use group::Lane;
use news::News;
use run::{Link, Writer, store_error};

#[macro_use]
mod call;
mod creations;
mod ends;
mod group;
#[path = "../methods/mod.rs"]
mod methods;
mod news;
#[cfg(test)]
mod plan_tests;
#[path = "../queries/mod.rs"]
mod queries;
mod run;
mod schema;
mod sets;
#[cfg(test)]
mod state_tests;

/// The store that the shared methods are compiled for.
type Database = PostgresStore;
/// The database that the shared statements are compiled for.
type Db = sqlx::Postgres;

/// The oldest server that is supported, as it tells its version.
const VERSION_MIN: i32 = 150_000;

/// How long to wait for a free connection, or for a server that is not there.
const ACQUIRE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection may be unused before it is closed.
const IDLE_MAX: Duration = Duration::from_mins(5);

/// Prepared statements kept by each connection.
const STATEMENTS_KEPT: usize = 256;

/// How often two connections are asked where they end, to find a pooler.
const POOLER_LOOKS: usize = 8;

/// What each connection begins with. No transaction of ours may hold locks, or the server's oldest snapshot, for long:
/// not when this process is stopped, and not when its network is gone. `transaction_timeout` came with PostgreSQL 17. A weaker
/// `synchronous_commit` than the server's own disk is made stronger, never the other way round. Behind a pooler that shares
/// connections all this is the pooler's to set, see `deploy/pgbouncer.ini`; what must not fail, each transaction sets again.
///
/// Every statement looks rows up in an index, is planned once and keeps its plan: on tables that are new, or whose statistics are
/// old, the server would otherwise come to read them whole. It knows no way to insist but to forbid the others; the price that it
/// then gives to reading a small table whole must not make it compile the statement.
const SESSION_SQL: &str = "\
     SET client_min_messages = warning; \
     SET statement_timeout = '15s'; \
     SET lock_timeout = '8s'; \
     SET idle_in_transaction_session_timeout = '15s'; \
     SET plan_cache_mode = force_generic_plan; \
     SET enable_seqscan = off; SET enable_bitmapscan = off; SET jit = off; \
     SET enable_hashjoin = off; SET enable_mergejoin = off; \
     SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
     SELECT set_config('transaction_timeout', '30s', FALSE) WHERE current_setting('server_version_num')::int >= 170000; \
     SELECT set_config('synchronous_commit', 'on', FALSE) \
         WHERE current_setting('synchronous_commit') IN ('off', 'local')";

/// What the two transactions begin with through which the whole state goes: they last as long as somebody reads or writes, and
/// no server is running that they could hold up.
const UNHURRIED_SQL: &str = "\
     SET LOCAL statement_timeout = 0; \
     SET LOCAL idle_in_transaction_session_timeout = 0; \
     SELECT set_config('transaction_timeout', '0', TRUE) WHERE current_setting('server_version_num')::int >= 170000";

/// How to use the database.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Connections of this process for transactions, at the most. Signs of life take one more, which nothing else can hold; telling
    /// and hearing of changes two.
    pub connections_max: u32,
    /// Hear of changes by `LISTEN`; without it this process asks every second.
    pub listen: bool,
}

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address makes no sense.
    #[error("database_url is no valid address; it must look like `postgres://user:password@host:5432/database`")]
    Address,
    /// The server cannot be reached, or refuses.
    #[error("cannot use PostgreSQL at {place}: {source}; check database_url and that the server runs")]
    Connect {
        /// Host, port and database.
        place: String,
        /// What the server, or the system, says.
        source: sqlx::Error,
    },
    /// The server is too old.
    #[error("PostgreSQL {0} is too old, at least 15 is needed")]
    OldServer(i32),
    /// The clocks differ.
    #[error(
        "the clocks of this machine and of the database are {0} s apart, so that processes would not agree on what is due; \
         synchronise them (NTP)"
    )]
    Clock(u64),
    /// The database was written by a later version that this one does not understand.
    #[error(
        "the database has schema {found} and needs programs that know schema {floor}, this one knows schemas up to {known}; \
         use a later version"
    )]
    NewerSchema {
        /// Schema of the database.
        found: i64,
        /// What a program must know.
        floor: i64,
        /// Newest schema that this program knows.
        known: i64,
    },
    /// A table that is to be changed was held all the time.
    #[error(
        "the tables cannot be changed for this version, since for half a minute other transactions held one of them; end those \
         that are old (pg_stat_activity), and start again"
    )]
    TablesHeld,
    /// The database was made by something else.
    #[error("the database's schema {0} is not the one this program makes; it was changed by hand or is not ours")]
    OtherSchema(i64),
    /// The database itself failed.
    #[error("the database cannot be prepared: {0}")]
    Failed(#[source] Error),
}

/// The store on PostgreSQL. Made by [`Self::open`]; its methods are those of [`Store`].
pub struct PostgresStore {
    place: String,
    writer: Writer,
    /// Has one connection: a process whose others all wait for somebody must not lose its leases because of that.
    beats: Writer,
    ends: Lane<End>,
    creations: Lane<Create>,
    /// The last claim found nothing.
    is_idle: AtomicBool,
    hints: Arc<Hints>,
}

impl PostgresStore {
    /// Opens the database and brings its schema up to date; any number of processes may do so at the same time.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(url: &Secret, use_as: Options) -> std::result::Result<Self, OpenError> {
        let connect = PgConnectOptions::from_str(url.expose())
            .map_err(|_| OpenError::Address)?
            .statement_cache_capacity(STATEMENTS_KEPT)
            // Of numbers as text, which nobody asks for here; a pooler would refuse a parameter that it does not know.
            .extra_float_digits(None)
            .disable_statement_logging();
        let connect =
            if connect.get_application_name().is_some() { connect } else { connect.application_name("consign") };
        let place = place(&connect);
        let unreachable = |source| OpenError::Connect { place: place.clone(), source };
        let mut conn = connect.connect().await.map_err(unreachable)?;
        check_version(&mut conn).await?;
        check_clock(&mut conn).await?;
        schema::migrate(&mut conn).await?;
        let pool = pool(use_as.connections_max).connect_with(connect.clone()).await.map_err(unreachable)?;
        let is_pooled = is_pooled(&mut conn, &pool).await?;
        // Whoever counts connections must not find this one.
        conn.close().await.map_err(failed)?;
        if use_as.listen && is_pooled {
            tracing::warn!(
                "a pooler shares the connections to the database between transactions, so that nothing can be heard there: \
                 changes of other processes are looked for every second, as with database.listen=false"
            );
        }
        let hints = Arc::new(Hints::default());
        let news = News::start(&connect, Arc::clone(&hints), use_as.listen && !is_pooled);
        let beats = self::pool(1).idle_timeout(None).max_lifetime(None).connect_lazy_with(connect);
        Ok(Self::over(place, pool, beats, news, hints))
    }

    fn over(place: String, pool: PgPool, beats: PgPool, news: News, hints: Arc<Hints>) -> Self {
        let beats = Writer { pool: beats, news: news.clone() };
        let writer = Writer { pool, news };
        let (ends, creations) = (Lane::start(writer.clone()), Lane::start(writer.clone()));
        Self { place, writer, beats, ends, creations, is_idle: AtomicBool::new(false), hints }
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").field("place", &self.place).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn ping(&self) -> Result<Option<Timestamp>> {
        run_command!(self.writer, run::PROBE, [] sweep::ping())
    }

    async fn counts(&self, now: Timestamp) -> Result<Counts> {
        read!(self, sweep::counts(now))
    }

    async fn loads(&self, limit: u32) -> Result<Vec<Load>> {
        read!(self, sweep::loads(limit))
    }

    async fn agree_on(&self, name: &str, value: i64) -> Result<i64> {
        let name = name.to_owned();
        command!(self, [name] sweep::agree_on(&name, value))
    }

    async fn take_turn(&self, name: &str, now: Timestamp, until: Timestamp) -> Result<bool> {
        let name = name.to_owned();
        command!(self, [name] sweep::take_turn(&name, now, until))
    }

    fn describe(&self) -> String {
        format!("PostgreSQL at {}", self.place)
    }

    fn hints(&self) -> &Arc<Hints> {
        &self.hints
    }

    async fn close(&self) {
        self.writer.news.stop().await;
        self.beats.pool.close().await;
        self.writer.pool.close().await;
    }
}

#[async_trait]
impl State for PostgresStore {
    async fn export_state(&self, lines: mpsc::Sender<Line>) -> Result<()> {
        // Not again after a failure: some lines were sent.
        let mut read = self.writer.snapshot().await.map_err(store_error)?;
        read.execute(UNHURRIED_SQL).await.map_err(store_error)?;
        // A fleet that is being upgraded lets this program use tables that it does not know all of.
        let found = queries::state::schema(&mut read).await.map_err(store_error)?;
        state::check_schema(found, schema::newest())?;
        queries::state::export(&mut read, &lines).await.map_err(store_error)?;
        read.commit().await.map_err(store_error)
    }

    async fn import_state(&self, mut lines: mpsc::Receiver<Option<Line>>) -> Result<Imported> {
        let mut tx = self.writer.pool.begin().await.map_err(store_error)?;
        tx.execute(UNHURRIED_SQL).await.map_err(store_error)?;
        let imported = queries::state::import(&mut tx, &mut lines).await.map_err(store_error)?;
        tx.commit().await.map_err(store_error)?;
        Ok(imported)
    }

    async fn others(&self) -> Result<u64> {
        read!(self, state::others())
    }
}

/// Host, port and database, for people.
fn place(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    options.get_socket().map_or_else(
        || format!("{}:{}/{database}", options.get_host(), options.get_port()),
        |socket| format!("{}/{database}", socket.display()),
    )
}

fn pool(connections_max: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections_max.max(1))
        .acquire_timeout(ACQUIRE_PATIENCE)
        .idle_timeout(IDLE_MAX)
        // A dead connection shows when it is used, and then another one is tried: asking before each use would cost more.
        .test_before_acquire(false)
        .after_connect(|conn, _| Box::pin(async move { conn.execute(SESSION_SQL).await.map(drop) }))
}

async fn check_version(conn: &mut PgConnection) -> std::result::Result<(), OpenError> {
    let row = sqlx::query("SELECT current_setting('server_version_num')::int AS version")
        .fetch_one(conn)
        .await
        .map_err(failed)?;
    let version: i32 = row.try_get("version").map_err(failed)?;
    if version < VERSION_MIN { Err(OpenError::OldServer(version / 10_000)) } else { Ok(()) }
}

/// Different machines judge what is due.
async fn check_clock(conn: &mut PgConnection) -> std::result::Result<(), OpenError> {
    let asked = Clock::system().now();
    let told = dialect::time(conn, asked).await.map_err(failed)?;
    let off = told.since(asked).max(asked.since(told));
    if off > CLOCKS_APART_MAX { Err(OpenError::Clock(off.as_secs())) } else { Ok(()) }
}

/// Whether a pooler in between seems to give a connection to somebody else after each transaction. That it was not seen proves
/// nothing: others who use the pooler at the same moment, or a second pooler, can hide it.
async fn is_pooled(first: &mut PgConnection, pool: &PgPool) -> std::result::Result<bool, OpenError> {
    let mut second = pool.acquire().await.map_err(failed)?;
    let mut seen = Vec::with_capacity(POOLER_LOOKS);
    for _ in 0..POOLER_LOOKS {
        seen.push([backend(first).await?, backend(&mut second).await?]);
    }
    Ok(are_shared(&seen))
}

/// The process of the server at which a connection ends.
async fn backend(conn: &mut PgConnection) -> std::result::Result<i32, OpenError> {
    let row = sqlx::query("SELECT pg_backend_pid() AS backend").fetch_one(conn).await.map_err(failed)?;
    row.try_get("backend").map_err(failed)
}

/// Whether two connections that are open all the time ended at the same backend, as a rule the one that was used last, or one of
/// them ended at another one than before: neither can be where each has a backend of its own.
fn are_shared(seen: &[[i32; 2]]) -> bool {
    seen.iter().any(|[first, second]| first == second) || seen.windows(2).any(|looks| looks[0] != looks[1])
}

fn failed(error: sqlx::Error) -> OpenError {
    OpenError::Failed(store_error(error))
}

#[cfg(test)]
mod tests {
    use super::are_shared;

    #[test]
    fn any_sign_of_a_pooler_is_taken_for_one() {
        assert!(!are_shared(&[[7, 8], [7, 8], [7, 8]]), "each has its own");
        assert!(are_shared(&[[7, 7]]), "an idle pooler gives both the same one");
        assert!(are_shared(&[[7, 8], [8, 9], [7, 8]]), "on a busy one they change");
        assert!(are_shared(&[[7, 8], [7, 8], [7, 9]]), "and if it is only one that does");
        assert!(are_shared(&[[7, 8], [9, 8], [9, 9]]), "or at last they meet");
    }
}
