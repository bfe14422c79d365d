//! What every database must do, written against the trait [`Store`]: each database's tests call [`all`],
//! or `all` of each part.
//!
//! Each case gets an empty store. Graphs are written as text, see [`Scene::job`].

#![expect(
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "a suite of assertions: what panics here is a failed test"
)]
#![expect(clippy::future_not_send, reason = "each test awaits its own cases")]

use std::sync::Arc;

use super::Store;

pub mod accounts;
pub mod ending;
pub mod fairness;
pub mod leases;
pub mod ledger;
pub mod lists;
pub mod making;
pub mod races;
pub mod removal;
mod scene;
pub mod signed_urls;
pub mod walk;
pub mod webhooks;

pub use scene::{Made, Scene, file};

/// Runs the whole suite, one case after the other.
pub async fn all(make: impl AsyncFn() -> Arc<dyn Store>) {
    accounts::all(&make).await;
    making::all(&make).await;
    lists::all(&make).await;
    ending::all(&make).await;
    leases::all(&make).await;
    ledger::all(&make).await;
    removal::all(&make).await;
    fairness::all(&make).await;
    races::all(&make).await;
    signed_urls::all(&make).await;
    walk::all(&make).await;
    webhooks::all(&make).await;
}

/// Runs cases one after the other, each on its own store.
macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        /// Runs these cases, each on an empty store.
        pub async fn all(make: &impl AsyncFn() -> std::sync::Arc<dyn crate::store::Store>) {
            $(
                let scene = super::Scene::new(make().await).await;
                Box::pin($case(scene)).await;
            )+
        }
    };
}
use cases;
