//! The store on SQLite keeps the contract; what only SQLite has: one file, one lock, one writer.

use std::sync::{Arc, Mutex};

use consign::clock::Timestamp;
use consign::store::sqlite::OpenError;
use consign::store::{Accounts as _, Error, SqliteStore, Store, contract};
use sqlx::Connection as _;
use tempfile::TempDir;

/// How often many hands are let loose.
const ROUNDS: u64 = 5;

macro_rules! contract_parts {
    ($($part:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $part() {
            let folders = Mutex::new(Vec::new());
            let make = async || -> Arc<dyn Store> {
                let folder = TempDir::new().unwrap();
                let store: Arc<dyn Store> = Arc::new(open(&folder).await);
                folders.lock().unwrap().push(folder);
                store
            };
            contract::$part::all(&make).await;
        }
    )+};
}

contract_parts!(accounts, making, lists, ending, leases, ledger, removal, fairness, races, signed_urls, walk, webhooks);

async fn open(folder: &TempDir) -> SqliteStore {
    SqliteStore::open(&folder.path().join("consign.db")).await.expect("nobody else uses it")
}

fn now() -> Timestamp {
    Timestamp(1_800_000_000_000_000)
}

#[tokio::test]
async fn one_server_at_a_time_uses_a_database() {
    let folder = TempDir::new().unwrap();
    let first = open(&folder).await;
    let second = SqliteStore::open(&folder.path().join("consign.db")).await;
    assert!(matches!(second, Err(OpenError::InUse(_))), "{second:?}");
    first.close().await;
    assert!(first.ping().await.is_err(), "it is closed");
    open(&folder).await.ping().await.unwrap();
}

#[tokio::test]
async fn the_command_line_writes_while_a_server_runs() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("consign.db");
    // On an empty folder it makes the database by itself.
    SqliteStore::open_shared(&path).await.unwrap().close().await;
    let server = open(&folder).await;
    let beside = SqliteStore::open_shared(&path).await.unwrap();
    for n in 0..50 {
        let (one, other) = (format!("server {n}"), format!("beside {n}"));
        let (one, other) = tokio::join!(server.ensure_user(&one, now()), beside.ensure_user(&other, now()));
        assert_eq!(beside.user(one.unwrap().id).await.unwrap().unwrap().name, format!("server {n}"));
        assert_eq!(server.user(other.unwrap().id).await.unwrap().unwrap().name, format!("beside {n}"));
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_reopening() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    let user = store.ensure_user("ada", now()).await.unwrap();
    // A crash: nothing is closed, the files are as they are on the disk now.
    let copy = TempDir::new().unwrap();
    for name in ["consign.db", "consign.db-wal"] {
        std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
    }
    assert_eq!(open(&copy).await.user(user.id).await.unwrap(), Some(user));
}

#[tokio::test]
async fn a_newer_schema_is_refused_in_words() {
    let folder = TempDir::new().unwrap();
    let store = open(&folder).await;
    store.close().await;
    let path = folder.path().join("consign.db");
    let mut conn = sqlx::SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (99, 'later', TRUE, x'00', 0)",
    )
    .execute(&mut conn)
    .await
    .unwrap();
    for error in [
        SqliteStore::open(&path).await.expect_err("it is newer"),
        SqliteStore::open_shared(&path).await.expect_err("it is newer"),
    ] {
        assert!(matches!(error, OpenError::NewerSchema { found: 99, known } if known < 99), "{error:?}");
        assert!(error.to_string().contains("or a later one"), "{error}");
    }
    sqlx::query("UPDATE _sqlx_migrations SET version = 1, checksum = x'00' WHERE version = 1")
        .execute(&mut conn)
        .await
        .unwrap();
    sqlx::query("DELETE FROM _sqlx_migrations WHERE version = 99").execute(&mut conn).await.unwrap();
    let error = SqliteStore::open(&path).await.expect_err("it is another schema");
    assert!(matches!(error, OpenError::OtherSchema(1)), "{error:?}");
}

#[tokio::test]
async fn a_full_disk_fails_one_group_and_nothing_else() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("consign.db");
    let store = open(&folder).await;
    store.ensure_user("before", now()).await.unwrap();
    store.close().await;
    let store = SqliteStore::open_limited(&path, 64).await.unwrap();
    let mut outcomes = Vec::new();
    for n in 0..40 {
        let name = format!("{n} {}", "x".repeat(10_000));
        outcomes.push(store.ensure_user(&name, now()).await);
    }
    let first_failed = outcomes.iter().position(Result::is_err).expect("64 pages are not enough");
    assert!(matches!(outcomes[first_failed], Err(Error::DiskFull(_))), "{:?}", outcomes[first_failed]);
    assert_eq!(store.counts(now()).await.unwrap().users, 1 + first_failed as u64, "what was answered is there");
    assert!(matches!(store.ensure_user("before", now()).await, Ok(user) if user.name == "before"), "it lives on");
}

#[test]
fn agrees_with_memory() {
    let folders = Mutex::new(Vec::new());
    crate::model::agrees_with_memory(async || {
        let folder = crate::model::quick_folder();
        let store: Arc<dyn Store> = Arc::new(open(&folder).await);
        folders.lock().unwrap().push(folder);
        store
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn many_hands() {
    let seed = crate::model::seed();
    for round in 0..ROUNDS {
        let folder = crate::model::quick_folder();
        let store: Arc<dyn Store> = Arc::new(open(&folder).await);
        crate::model::many_hands(&[store], seed.wrapping_add(round)).await;
    }
}
