//! The store on SQLite keeps the contract.

use std::sync::{Arc, Mutex};

use consign::store::{SqliteStore, Store, contract};
use tempfile::TempDir;

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_contract() {
    let folders = Mutex::new(Vec::new());
    contract::all(async || -> Arc<dyn Store> {
        let folder = TempDir::new().unwrap();
        let store = SqliteStore::open(&folder.path().join("consign.db")).await.unwrap();
        folders.lock().unwrap().push(folder);
        let store: Arc<dyn Store> = Arc::new(store);
        store
    })
    .await;
}
