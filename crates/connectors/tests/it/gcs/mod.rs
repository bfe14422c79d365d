//! Google Cloud Storage against a stand-in: an emulator by other hands, behind a gate of ours that checks tokens.

mod accounts;
mod answers;
mod faults;
mod keeps;

use connectors::Limits;
use connectors::gcs::{Config, Gcs, Tokens};
use testkit::or_skip;

use crate::{LIMITS, client};

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
