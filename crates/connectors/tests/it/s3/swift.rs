//! S3 as Swift speaks it.

use std::sync::Arc;

use connectors::memory::MemorySource;
use connectors::s3::Config;
use connectors::{Connector as _, Kind, contract};
use testkit::conformance::{Server, Standing};
use testkit::{OpenStack, or_skip};

use super::{s3, server};
use crate::PART_BYTES;

/// The server with an empty bucket of this name, and arguments that reach it.
pub(super) async fn swift_with(bucket: &str) -> Option<(OpenStack, Config)> {
    let openstack = or_skip(testkit::openstack().await)?;
    let empty = format!(
        "
for container in [{bucket:?}, {bucket:?} + '+segments']:
    swift.put_container(container)
    for found in swift.get_container(container, full_listing=True)[1]:
        swift.delete_object(container, found['name'])"
    );
    or_skip(openstack.swift(&empty).await)?;
    let account = openstack.s3_account();
    let config = Config {
        bucket: bucket.to_owned(),
        region: "RegionOne".to_owned(),
        endpoint: Some(format!("http://{}", openstack.swift_addr())),
        access_key_id: account.access_key_id,
        secret_access_key: account.secret_access_key.into(),
        ..Config::default()
    };
    Some((openstack, config))
}

/// The column of the matrix.
pub(super) fn swift_server(openstack: &OpenStack) -> Server {
    server("Swift (S3 API)", openstack.version(), Standing::Real)
}

/// This server checks the region, and names the right one.
#[tokio::test]
async fn a_wrong_region_is_named() {
    let Some((_, config)) = swift_with("s3-swift-region").await else { return };
    let elsewhere = Config { region: "elsewhere".to_owned(), ..config };
    let source = Arc::new(MemorySource::new(contract::bytes(10, 1)));
    let error = contract::put(&s3(&elsewhere), "x", &source).await.unwrap_err();
    assert_eq!((error.kind, error.is_transient()), (Kind::InvalidRequest, false), "{error:?}");
    assert!(error.detail.contains("set `region` to RegionOne"), "{error:?}");
}

/// It does not encrypt, and says so; nothing is stored without.
#[tokio::test]
async fn encryption_is_refused_with_a_reason() {
    let Some((_, config)) = swift_with("s3-swift-encryption").await else { return };
    let encrypted = Config { server_side_encryption: Some("AES256".to_owned()), ..config.clone() };
    for size in [10, PART_BYTES + 1] {
        let source = Arc::new(MemorySource::new(contract::bytes(size, 1)));
        let error = contract::put(&s3(&encrypted), "x", &source).await.unwrap_err();
        assert_eq!((error.kind, error.is_transient()), (Kind::Unsupported, false), "{error:?}");
        assert!(error.detail.contains("does not know one of the arguments"), "{error:?}");
        assert_eq!(s3(&config).stat("x").await.unwrap_err().kind, Kind::NotFound);
    }
}
