//! Azure Blob Storage against Azurite, and against scripted answers.

mod answers;
mod arguments;
mod endpoints;
mod faults;
mod keeps;
mod refusals;

use std::sync::Arc;

use connectors::azure_blob::{AzureBlob, Config};
use connectors::contract;
use connectors::memory::MemorySource;
use connectors::source::Source as _;
use connectors::{Connector as _, Limits, Secret, WholeDigest};
use futures_util::TryStreamExt as _;
use testkit::{Azurite, or_skip};

use crate::client;

const MIB: usize = 1024 * 1024;

/// Azure takes blocks of any size: small ones make a test with many of them move few bytes.
const LIMITS: Limits = Limits { part_bytes: MIB as u64, ..crate::LIMITS };

/// Arguments that reach a container with the account's key, through `endpoint`.
fn with_key(azurite: &Azurite, endpoint: &str, container: &str) -> Config {
    Config {
        account: azurite.account.clone(),
        key: Some(azurite.key.as_str().into()),
        container: container.to_owned(),
        endpoint: Some(endpoint.to_owned()),
        ..Config::default()
    }
}

/// Arguments that reach a container with a token that gives these permissions.
async fn with_sas(azurite: &Azurite, endpoint: &str, container: &str, permissions: &str) -> Config {
    let token = azurite.container_sas(container, permissions, 1).await.unwrap();
    Config { key: None, sas: Some(Secret::from(token)), ..with_key(azurite, endpoint, container) }
}

fn azure(config: &Config) -> AzureBlob {
    with_limits(config, LIMITS)
}

fn with_limits(config: &Config, limits: Limits) -> AzureBlob {
    AzureBlob::new(config, client(&limits).unwrap(), limits).unwrap()
}

/// Azurite with an empty container of this name.
async fn azurite_with(container: &str) -> Option<Azurite> {
    let azurite = or_skip(testkit::azurite().await)?;
    or_skip(azurite.empty_container(container).await)?;
    Some(azurite)
}

/// What a blob is to Microsoft's own client.
async fn view(azurite: &Azurite, container: &str, name: &str) -> serde_json::Value {
    azurite.sdk(&format!("result = view({container:?}, {name:?})")).await.unwrap()
}

/// Names that a path of a file system could not hold, as Microsoft's own client lists them.
#[tokio::test(flavor = "multi_thread")]
async fn odd_names_arrive_byte_for_byte() {
    let container = "names";
    let Some(azurite) = azurite_with(container).await else { return };
    let connector = azure(&with_key(&azurite, &azurite.endpoint, container));
    let mut names = ["/leading", "//two", "a//b", "f/", "...", "a./b", " edge ", "%2F%41+ ?#&=", "日本/🦀"]
        .map(str::to_owned)
        .to_vec();
    names.push("ü".repeat(250));
    for name in &names {
        let source = Arc::new(MemorySource::new(name.as_bytes().to_vec()));
        contract::put(&connector, name, &source).await.unwrap();
        assert_eq!(contract::get(&connector, name).await.unwrap(), name.as_bytes());
    }
    names.sort();
    let listed = connector.list("", 100).await.unwrap();
    assert_eq!(listed.iter().map(|blob| &blob.name).collect::<Vec<_>>(), names.iter().collect::<Vec<_>>());
    let script = format!(
        "
container = service.get_container_client({container:?})
result = sorted(name for name in container.list_blob_names() if container.download_blob(name).readall() == name.encode())"
    );
    let mut seen: Vec<String> = serde_json::from_value(azurite.sdk(&script).await.unwrap()).unwrap();
    seen.sort();
    assert_eq!(seen, names);
}

/// A blob says its MD5 before it is read, and is not read on when it has become another.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_changed_is_not_read_on() {
    let container = "changed";
    let Some(azurite) = azurite_with(container).await else { return };
    for config in
        [with_key(&azurite, &azurite.endpoint, container), with_sas(&azurite, &azurite.endpoint, container, "rw").await]
    {
        let connector = azure(&config);
        for size in [1000, 2 * MIB] {
            let source = Arc::new(MemorySource::new(contract::bytes(size, 1)));
            contract::put(&connector, "x", &source).await.unwrap();
            let described = connector.describe("x", None).await.unwrap();
            assert_eq!(described.digest, Some(WholeDigest::Md5(source.digests().md5.unwrap())));
            let stream = connector.read_same(&described.object, 10..900).await.unwrap();
            let read: Vec<bytes::Bytes> = stream.try_collect().await.unwrap();
            assert_eq!(read.concat(), source.bytes()[10..900]);
            contract::put(&connector, "x", &Arc::new(MemorySource::new(contract::bytes(size, 2)))).await.unwrap();
            let error = connector.read_same(&described.object, 10..900).await.map(drop).unwrap_err();
            assert_eq!(error.kind, connectors::Kind::IntegrityMismatch, "{error:?}");
        }
    }
}

/// Listings come in pages, whose order and whose end are right.
#[tokio::test(flavor = "multi_thread")]
async fn long_listings_come_whole() {
    let container = "pages";
    let Some(azurite) = azurite_with(container).await else { return };
    let script = format!(
        "
from concurrent.futures import ThreadPoolExecutor
container = service.get_container_client({container:?})
with ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda n: container.upload_blob(f'many/{{n:04}}', b'x' * (n % 3)), range(1100)))"
    );
    azurite.sdk(&script).await.unwrap();
    let connector = azure(&with_key(&azurite, &azurite.endpoint, container));
    let listed = connector.list("many/", 2000).await.unwrap();
    let expected: Vec<(String, u64)> = (0..1100).map(|n| (format!("many/{n:04}"), n % 3)).collect();
    assert_eq!(listed.into_iter().map(|blob| (blob.name, blob.size)).collect::<Vec<_>>(), expected);
    assert_eq!(connector.list("many/", 1099).await.unwrap_err().kind, connectors::Kind::TooMany);
    assert_eq!(connector.list("many/00", 100).await.unwrap().len(), 100);
}
