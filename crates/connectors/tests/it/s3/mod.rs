//! S3 against the Ceph gateway, against our own practice server, and against scripted answers.

mod answers;
mod arguments;
mod faults;

use connectors::contract::{self, Fixture};
use connectors::s3::{Config, S3};
use connectors::{Limits, Secret};
use practice::{Practice, Settings};
use testkit::{Account, Ceph, or_skip};

use crate::{LIMITS, client};

/// Arguments that reach a bucket of the gateway, through `endpoint`.
fn of_ceph(account: &Account, endpoint: &str, bucket: &str) -> Config {
    Config {
        bucket: bucket.to_owned(),
        region: "default".to_owned(),
        endpoint: Some(endpoint.to_owned()),
        access_key_id: account.access_key_id.clone(),
        secret_access_key: account.secret_access_key.as_str().into(),
        session_token: account.session_token.as_deref().map(Secret::from),
        ..Config::default()
    }
}

fn s3(config: &Config) -> S3 {
    with_limits(config, LIMITS)
}

fn with_limits(config: &Config, limits: Limits) -> S3 {
    S3::new(config, client(&limits).unwrap(), limits).unwrap()
}

/// The gateway with an empty bucket of this name.
async fn ceph_with(bucket: &str) -> Option<Ceph> {
    let ceph = or_skip(testkit::ceph().await)?;
    let empty = format!(
        "
s3.create_bucket(Bucket={bucket:?})
for page in s3.get_paginator('list_objects_v2').paginate(Bucket={bucket:?}):
    for found in page.get('Contents', []):
        s3.delete_object(Bucket={bucket:?}, Key=found['Key'])
for found in s3.list_multipart_uploads(Bucket={bucket:?}).get('Uploads', []):
    s3.abort_multipart_upload(Bucket={bucket:?}, Key=found['Key'], UploadId=found['UploadId'])"
    );
    or_skip(ceph.s3api(&empty).await)?;
    Some(ceph)
}

fn fixture(config: &Config) -> Fixture {
    let wrong_secret = Config { secret_access_key: "wrong-secret".into(), ..config.clone() };
    let missing = Config { bucket: "no-such-bucket-here".to_owned(), ..config.clone() };
    Fixture {
        connector: Box::new(s3(config)),
        wrong_secret: Some(Box::new(s3(&wrong_secret))),
        missing_container: Some(Box::new(s3(&missing))),
        prefix: "contract/".to_owned(),
        limits: LIMITS,
        names_are_keys: true,
        large_bytes: contract::large_bytes(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ceph_keeps_the_contract() {
    let Some(ceph) = ceph_with("s3-contract").await else { return };
    let config = of_ceph(&ceph.account, &ceph.endpoint, "s3-contract");
    contract::all(&fixture(&config)).await;
    assert_eq!(s3(&config).open_uploads("").await.unwrap(), [], "uploads stay open");
}

#[tokio::test(flavor = "multi_thread")]
async fn practice_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let practice = Practice::start(Settings::new(folder.path())).await.unwrap();
    let config = of_practice(&practice, &practice.s3_endpoint());
    contract::all(&fixture(&config)).await;
    assert_eq!(s3(&config).open_uploads("").await.unwrap(), [], "uploads stay open");
}

fn of_practice(practice: &Practice, endpoint: &str) -> Config {
    Config {
        bucket: practice.bucket().to_owned(),
        region: practice.region().to_owned(),
        endpoint: Some(endpoint.to_owned()),
        access_key_id: practice.access_key_id().to_owned(),
        secret_access_key: practice.secret_access_key().into(),
        ..Config::default()
    }
}
