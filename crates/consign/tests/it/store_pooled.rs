//! The store keeps the contract on PostgreSQL by way of a pooler that shares connections between transactions.

use std::path::Path;
use std::sync::Arc;

use connectors::Secret;
use consign::store::postgres::Options;
use consign::store::{PostgresStore, Store, contract};
use futures_util::future::join_all;
use testkit::{Pooler, Postgres, or_skip};

const OPTIONS: Options = Options { connections_max: 8, listen: true };

async fn pooled() -> Option<(Postgres, Pooler)> {
    let server = or_skip(testkit::postgres().await)?;
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/pgbouncer.ini");
    let pooler = or_skip(testkit::pooler(&server, &shipped).await)?;
    Some((server, pooler))
}

async fn open(url: &str) -> PostgresStore {
    PostgresStore::open(&Secret::new(url), OPTIONS).await.unwrap()
}

macro_rules! contract_parts {
    ($($part:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $part() {
            let Some((server, pooler)) = pooled().await else { return };
            let make = async || {
                let store: Arc<dyn Store> =
                    Arc::new(open(&pooler.url(&server.database().await.unwrap()).unwrap()).await);
                store
            };
            contract::$part::all(&make).await;
        }
    )+};
}

contract_parts!(making, ending, leases, ledger, fairness, races, webhooks);

/// Whoever changes the schema locks it, and the lock is gone with the change: on a shared connection nobody could give it back.
#[tokio::test(flavor = "multi_thread")]
async fn several_processes_start_at_once_on_an_empty_database() {
    let Some((server, pooler)) = pooled().await else { return };
    let direct = server.database().await.unwrap();
    let url = pooler.url(&direct).unwrap();
    let stores = join_all((0..6).map(|_| open(&url))).await;
    let name = direct.rsplit('/').next().unwrap();
    let locks = format!(
        "SELECT COUNT(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE locktype = 'advisory' AND datname = '{name}'"
    );
    assert_eq!(server.psql("postgres", &locks).await.unwrap(), "0");
    for store in &stores {
        store.ping().await.unwrap();
    }
    open(&url).await.ping().await.unwrap();
}
