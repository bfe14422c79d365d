//! S3 against the Ceph gateway, against our own practice server, and against scripted answers.

mod answers;
mod arguments;
mod endpoints;
mod faults;
mod keeps;
mod swift;

use connectors::s3::{Config, S3};
use connectors::{Limits, Secret};
use practice::Practice;
use serde_json::json;
use testkit::conformance::{Server, Standing};
use testkit::witness::{self, Witness};
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

/// boto3, as the owner of the bucket.
async fn boto3(config: &Config) -> Option<Witness> {
    let settings = json!({
        "endpoint": config.endpoint, "region": config.region, "bucket": config.bucket,
        "key": config.access_key_id, "secret": config.secret_access_key.expose(),
    });
    or_skip(Witness::start(witness::System::S3, &settings).await)
}

fn ceph_server(ceph: &Ceph) -> Server {
    server("Ceph Object Gateway", &ceph.version, Standing::Real)
}

fn practice_server() -> Server {
    server("consign practice", env!("CARGO_PKG_VERSION"), Standing::Practice)
}

fn server(name: &str, version: &str, standing: Standing) -> Server {
    Server {
        system: "s3".to_owned(),
        name: name.to_owned(),
        version: version.to_owned(),
        standing,
        witness: String::new(),
    }
}
