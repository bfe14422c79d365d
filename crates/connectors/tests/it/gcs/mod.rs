//! Google Cloud Storage against a stand-in: an emulator by other hands, behind a gate of ours that checks tokens.

mod accounts;
mod answers;
mod faults;

use connectors::contract::{self, Fixture};
use connectors::gcs::{Config, Gcs, Tokens};
use connectors::{Limits, Secret};
use testkit::or_skip;

use crate::{LIMITS, client};

/// The emulator copies all that it has of an upload with every chunk.
const LARGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Arguments that reach a bucket of the stand-in through `endpoint`, with tokens from the gate itself.
fn of(gcs: &testkit::Gcs, endpoint: &str, bucket: &str) -> Config {
    Config {
        bucket: bucket.to_owned(),
        client_email: gcs.client_email.clone(),
        private_key: gcs.private_key.as_str().into(),
        endpoint: Some(endpoint.to_owned()),
        token_uri: Some(gcs.token_uri.clone()),
    }
}

fn connector(config: &Config) -> Gcs {
    with_limits(config, LIMITS)
}

fn with_limits(config: &Config, limits: Limits) -> Gcs {
    Gcs::new(config, client(&limits).unwrap(), &Tokens::default(), limits).unwrap()
}

/// The stand-in with an empty bucket of this name.
async fn gcs_with(bucket: &str) -> Option<testkit::Gcs> {
    let gcs = or_skip(testkit::gcs().await)?;
    or_skip(gcs.create_bucket(bucket).await)?;
    Some(gcs)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stand_in_keeps_the_contract() {
    let bucket = "gcs-contract";
    let Some(gcs) = gcs_with(bucket).await else { return };
    let config = of(&gcs, &gcs.endpoint, bucket);
    let wrong_secret = Config { private_key: Secret::from(gcs.unknown_private_key.as_str()), ..config.clone() };
    let missing = Config { bucket: "no-such-bucket-here".to_owned(), ..config.clone() };
    contract::all(&Fixture {
        connector: Box::new(connector(&config)),
        wrong_secret: Some(Box::new(connector(&wrong_secret))),
        missing_container: Some(Box::new(connector(&missing))),
        prefix: "contract/".to_owned(),
        limits: LIMITS,
        names_are_keys: true,
        large_bytes: contract::large_bytes().min(LARGE_BYTES_MAX),
    })
    .await;
    assert_eq!(gcs.open_sessions(bucket).await.unwrap(), Vec::<String>::new(), "sessions stay open");
}
