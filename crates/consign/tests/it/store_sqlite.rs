//! The store on SQLite keeps the contract; what only SQLite has: one file, one lock, one writer.

use std::sync::{Arc, Mutex};

use consign::store::{SqliteStore, Store, contract};
use tempfile::TempDir;

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

contract_parts!(accounts, making, lists, ending, leases, ledger, removal, fairness, races);

async fn open(folder: &TempDir) -> SqliteStore {
    SqliteStore::open(&folder.path().join("consign.db")).await.unwrap()
}
