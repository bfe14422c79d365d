//! The store in memory keeps the contract, so that a database can be compared with it.

use std::sync::Arc;

use consign::store::{MemoryStore, Store, contract};

macro_rules! contract_parts {
    ($($part:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $part() {
            let make = async || {
                let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
                store
            };
            contract::$part::all(&make).await;
        }
    )+};
}

contract_parts!(accounts, making, lists, ending, leases, ledger, removal, fairness, races, signed_urls, walk, webhooks);
