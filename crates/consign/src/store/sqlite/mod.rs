//! The store on SQLite: one file in write-ahead mode, one writer with group commit, readers beside it.
//!
//! An answer means that the change is on stable storage (`synchronous=FULL`). Readers see the last commit and never
//! wait for the writer. Only one server may use a database at a time; it holds a lock beside the file. The command line
//! opens the same file without that lock for small changes; SQLite's own lock then lets one write after the other.

use std::fmt;
use std::fs::{File as FsFile, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Row as _, SqliteConnection, SqlitePool};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::dialect::sqlite as dialect;
use super::state::{self, Imported, Line, State};
use super::{Counts, Error, Hints, Load, Result, Store};
use crate::clock::Timestamp;
use writer::Writer;

#[cfg(test)]
mod plan_tests;
#[macro_use]
mod run;
#[path = "../methods/mod.rs"]
mod methods;
#[path = "../queries/mod.rs"]
mod queries;
mod schema;
mod sets;
mod writer;

/// The store that the shared methods are compiled for.
type Database = SqliteStore;
/// The database that the shared statements are compiled for.
type Db = sqlx::Sqlite;
/// The connection that a transaction is written on.
type Link = Box<SqliteConnection>;

/// A failure that several callers hear of.
type Failure = Arc<sqlx::Error>;

/// Connections that read at the same time.
const READERS_MAX: u32 = 8;

/// How long to wait for another process that writes to the same file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long to wait for the lock of a server that may just be going.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);

/// Pause between two tries to take that lock.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// Prepared statements kept by each connection.
const STATEMENTS_KEPT: usize = 256;

/// Size in bytes to which the write-ahead log is cut after it grew.
const LOG_KEPT_BYTES: u32 = 64 << 20;

/// The oldest SQLite that does not lose data when two connections write the log (3.7.0 to 3.51.2 may).
const VERSION_MIN: (u32, u32, u32) = (3, 51, 3);

/// Why a database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another server uses the database.
    #[error("another server is using {0}; stop it, or set another data_dir")]
    InUse(PathBuf),
    /// The database was written by a later version.
    #[error(
        "the database has schema {found}, this program knows schemas up to {known}; \
         use the version of the program that wrote it, or a later one"
    )]
    NewerSchema {
        /// Schema of the database.
        found: i64,
        /// Newest schema that this program knows.
        known: i64,
    },
    /// The database was made by something else.
    #[error("the database's schema {0} is not the one this program makes; it was changed by hand or is not ours")]
    OtherSchema(i64),
    /// The program was built with a SQLite that can lose data.
    #[error("SQLite {0} is too old, at least 3.51.3 is needed; build with the bundled one")]
    OldLibrary(String),
    /// The folder or the lock file could not be used.
    #[error("cannot use {path}")]
    Folder {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database itself failed.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// The store on SQLite. Made by [`Self::open`]; its methods are those of [`Store`].
pub struct SqliteStore {
    path: PathBuf,
    readers: SqlitePool,
    writer: Writer,
    hints: Arc<Hints>,
    lock: Mutex<Option<FsFile>>,
}

impl SqliteStore {
    /// Opens the database for a server, makes it if need be and brings its schema up to date. No other server can
    /// open it until this one is closed.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(path: &Path) -> std::result::Result<Self, OpenError> {
        let lock = lock_soon(path).await?;
        let mut conn = connect(path).await?;
        schema::migrate(&mut conn).await?;
        start(path, conn, Some(lock)).await
    }

    /// Opens the database beside a server that may be using it, for the command line's small changes. Brings the
    /// schema up to date only if no server uses it.
    ///
    /// # Errors
    /// See [`OpenError`]; [`OpenError::InUse`] when the running server has an older schema.
    pub async fn open_shared(path: &Path) -> std::result::Result<Self, OpenError> {
        make_folder(path)?;
        let mut conn = connect(path).await?;
        if schema::found(&mut conn).await? != Some(schema::newest()) {
            let lock = lock(path)?;
            schema::migrate(&mut conn).await?;
            drop(lock);
        }
        start(path, conn, None).await
    }

    /// Opens the database with room for `pages` pages and no more, as on a disk that is nearly full.
    ///
    /// # Errors
    /// See [`OpenError`].
    #[cfg(feature = "test-support")]
    pub async fn open_limited(path: &Path, pages: u32) -> std::result::Result<Self, OpenError> {
        let lock = lock(path)?;
        let mut conn = connect(path).await?;
        schema::migrate(&mut conn).await?;
        let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        sqlx::query(limit).execute(&mut conn).await.map_err(failed)?;
        start(path, conn, Some(lock)).await
    }

    fn failed(error: sqlx::Error) -> Error {
        store_error(Arc::new(error))
    }

    /// A connection that reads, inside a transaction, so that several statements see the same commit.
    async fn read(&self) -> Result<sqlx::Transaction<'static, Db>> {
        self.readers.begin().await.map_err(|error| store_error(Arc::new(error)))
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("path", &self.path).finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn ping(&self) -> Result<Option<Timestamp>> {
        command!(self, [] sweep::ping())
    }

    async fn counts(&self, now: Timestamp) -> Result<Counts> {
        read!(self, sweep::counts(now))
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
        format!("SQLite at {}", self.path.display())
    }

    async fn loads(&self, limit: u32) -> Result<Vec<Load>> {
        read!(self, sweep::loads(limit))
    }

    fn hints(&self) -> &Arc<Hints> {
        &self.hints
    }

    async fn close(&self) {
        // Readers first: the last connection to close tidies the log away.
        self.readers.close().await;
        self.writer.close().await;
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

#[async_trait]
impl State for SqliteStore {
    async fn export_state(&self, lines: mpsc::Sender<Line>) -> Result<()> {
        let mut read = self.read().await?;
        let found = queries::state::schema(&mut read).await.map_err(Self::failed)?;
        state::check_schema(found, schema::newest())?;
        queries::state::export(&mut read, &lines).await.map_err(Self::failed)
    }

    async fn import_state(&self, mut lines: mpsc::Receiver<Option<Line>>) -> Result<Imported> {
        self.writer
            .write(move |tx| Box::pin(async move { queries::state::import(&mut tx.conn, &mut lines).await }))
            .await
    }

    async fn others(&self) -> Result<u64> {
        read!(self, state::others())
    }
}

/// Tables and columns of the whole state, which is the same in every database.
pub(super) fn state_columns() -> impl Iterator<Item = (&'static str, &'static str)> {
    queries::tables::TABLES.iter().flat_map(|table| table.columns.iter().map(|(column, _)| (table.name, *column)))
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(STATEMENTS_KEPT)
        // A fault of a mapped file is a signal, not an error.
        .pragma("mmap_size", "0")
        .disable_statement_logging()
}

/// Makes the file readable by its owner only; SQLite gives the write-ahead log the same mode.
fn make_private(path: &Path) -> std::result::Result<(), OpenError> {
    let made = FsFile::options().create(true).append(true).mode(0o600).open(path);
    made.map(drop).map_err(|source| OpenError::Folder { path: path.to_owned(), source })
}

async fn connect(path: &Path) -> std::result::Result<SqliteConnection, OpenError> {
    make_private(path)?;
    let mut conn = options(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("journal_size_limit", LOG_KEPT_BYTES.to_string())
        .connect()
        .await
        .map_err(failed)?;
    let row = sqlx::query("SELECT sqlite_version() AS version").fetch_one(&mut conn).await.map_err(failed)?;
    let version: String = row.try_get("version").map_err(failed)?;
    if !is_new_enough(&version) {
        return Err(OpenError::OldLibrary(version));
    }
    Ok(conn)
}

fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next()) >= VERSION_MIN
}

async fn start(
    path: &Path,
    conn: SqliteConnection,
    lock: Option<FsFile>,
) -> std::result::Result<SqliteStore, OpenError> {
    let readers = SqlitePoolOptions::new()
        .max_connections(READERS_MAX)
        .connect_with(options(path).read_only(true))
        .await
        .map_err(failed)?;
    let hints = Arc::new(Hints::default());
    let writer = Writer::start(conn, Arc::clone(&hints)).map_err(|error| Error::Unavailable(Box::new(error)))?;
    Ok(SqliteStore { path: path.to_owned(), readers, writer, hints, lock: Mutex::new(lock) })
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn make_folder(path: &Path) -> std::result::Result<(), OpenError> {
    let folder = folder(path);
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| OpenError::Folder { path: folder.to_owned(), source })
}

/// Takes the lock, and waits a moment for it: a process that was just killed holds it until the system has cleared it
/// away, and whoever restarts the server should not have to care.
async fn lock_soon(path: &Path) -> std::result::Result<FsFile, OpenError> {
    let give_up = Instant::now() + LOCK_PATIENCE;
    loop {
        match lock(path) {
            Err(OpenError::InUse(_)) if Instant::now() < give_up => sleep(LOCK_PAUSE).await,
            taken => return taken,
        }
    }
}

/// Takes the lock that only one server can have; it is free again when the file is dropped or the process is gone.
fn lock(path: &Path) -> std::result::Result<FsFile, OpenError> {
    make_folder(path)?;
    let place = folder(path).join("consign.lock");
    let cannot = |source| OpenError::Folder { path: place.clone(), source };
    let file = FsFile::options().create(true).truncate(false).write(true).open(&place).map_err(cannot)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(folder(path).to_owned())),
        Err(TryLockError::Error(source)) => Err(cannot(source)),
    }
}

fn failed(error: sqlx::Error) -> OpenError {
    OpenError::Failed(store_error(Arc::new(error)))
}

/// Sorts failures by SQLite's result code (the last byte of the extended one).
fn store_error(failure: Failure) -> Error {
    const BUSY: u32 = 5;
    const LOCKED: u32 = 6;
    const OUT_OF_MEMORY: u32 = 7;
    const READ_ONLY: u32 = 8;
    const IO: u32 = 10;
    const FULL: u32 = 13;
    const CANNOT_OPEN: u32 = 14;

    let code = failure.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok()).map(|code| code & 0xff);
    match (code, failure.as_ref()) {
        (Some(FULL), _) => Error::DiskFull(Box::new(failure)),
        (Some(BUSY | LOCKED | OUT_OF_MEMORY | READ_ONLY | IO | CANNOT_OPEN), _)
        | (
            None,
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed,
        ) => Error::Unavailable(Box::new(failure)),
        (Some(_) | None, _) => Error::Broken(Box::new(failure)),
    }
}
