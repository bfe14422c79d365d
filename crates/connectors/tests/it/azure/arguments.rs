//! Every argument, read back from the server by Microsoft's own client, for uploads in one go and in blocks.

use std::sync::Arc;

use connectors::azure_blob::{AzureBlob, Config};
use connectors::contract;
use connectors::memory::MemorySource;
use connectors::{Connector as _, Kind, Secret};
use serde_json::json;
use testkit::Azurite;
use testkit::conformance::{self, Cell, Form};
use testkit::http_faults::HttpFaults;

use super::{LIMITS, MIB, azure, azurite_with, keeps, view, with_key, with_sas};
use crate::client;

/// Sizes of an upload in one go and of one in blocks, and how many blocks they make.
const SIZES: [(usize, usize); 2] = [(1000, 0), (2 * MIB + 1000, 3)];

/// Writes down for the matrix that arguments were read back for a blob with so many blocks.
async fn note(azurite: &Azurite, blocks: usize, arguments: &[&str]) {
    let version = azurite.sdk("import azure.storage.blob as sdk; result = sdk.__version__").await.unwrap();
    let server = keeps::server(azurite, &format!("azure-storage-blob {}", version.as_str().unwrap()));
    let form = if blocks == 0 { Form::Single } else { Form::Parts };
    for name in arguments {
        conformance::argument(&server, name, form, Cell::Shown);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_argument_arrives() {
    let container = "arguments";
    let Some(azurite) = azurite_with(container).await else { return };
    let metadata = [("job", "7"), ("x-ms-meta-a_b", "some  value"), ("A1", "x=1; y"), ("a10", "z")];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let config = Config { metadata, ..with_key(&azurite, &azurite.endpoint, container) };
    for (size, blocks) in SIZES {
        let name = format!("full {size}");
        // As most imports leave it: the MD5 is not known yet.
        let source = Arc::new(MemorySource::new(contract::bytes(size, 1)).without_md5());
        let receipt = contract::put(&azure(&config), &name, &source).await.unwrap();
        assert_eq!(receipt.location, format!("{}/{container}/full%20{size}", azurite.endpoint));
        assert_eq!(receipt.verified, "md5");
        assert!(receipt.etag.is_some_and(|etag| etag.starts_with("0x")));
        let mut seen = view(&azurite, container, &name).await;
        assert_eq!(seen["bytes"].take(), hex::encode(source.bytes()), "{size}: other bytes came back");
        let expected = json!({
            "bytes": null,
            "size": size,
            "type": "application/x-contract",
            "md5": testkit::bytes::digest(source.bytes()).md5,
            "metadata": {"job": "7", "a_b": "some  value", "a1": "x=1; y", "a10": "z"},
            "kind": "BlockBlob",
            "blocks": blocks,
        });
        assert_eq!(seen, expected);
        let arguments = ["storage_account", "storage_access_key", "container", "blob", "metadata", "endpoint"];
        note(&azurite, blocks, &arguments).await;
    }
}

/// What stands on which request: the digest on every block, the properties on the list alone.
#[tokio::test(flavor = "multi_thread")]
async fn blocks_go_with_their_digests() {
    let container = "digests";
    let Some(azurite) = azurite_with(container).await else { return };
    let faults = HttpFaults::start(azurite.addr()).await.unwrap();
    let config = with_key(&azurite, &azurite.endpoint_at(faults.addr()), container);
    let metadata = [("job".to_owned(), "7".to_owned())].into();
    let source = Arc::new(MemorySource::new(contract::bytes(SIZES[1].0, 2)));
    contract::put(&azure(&Config { metadata, ..config }), "x", &source).await.unwrap();
    let requests = faults.requests();
    let (blocks, commits): (Vec<_>, Vec<_>) = requests.iter().partition(|request| request.path.contains("comp=block&"));
    assert_eq!((blocks.len(), commits.len()), (3, 1), "{requests:?}");
    assert!(requests.iter().all(|request| request.header("content-md5").is_some()));
    assert!(requests.iter().all(|request| request.header("x-ms-version") == Some("2021-12-02")));
    for name in ["x-ms-meta-job", "x-ms-blob-content-type", "x-ms-blob-content-md5"] {
        assert!(blocks.iter().all(|block| block.header(name).is_none()), "{name} stands on a block");
        assert!(commits[0].header(name).is_some(), "{name} does not stand on the list");
    }
}

/// A token is enough, whether or not its question mark was copied; and one that may only write.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_may_only_write_is_enough() {
    let container = "write-only";
    let Some(azurite) = azurite_with(container).await else { return };
    let config = with_sas(&azurite, &azurite.endpoint, container, "w").await;
    let token = config.sas.as_ref().unwrap().expose();
    let with_mark = Config { sas: Some(Secret::new(format!("?{token}"))), account: String::new(), ..config.clone() };
    for (at, config) in [&config, &with_mark].into_iter().enumerate() {
        for (size, blocks) in SIZES {
            let name = format!("{at}/{size}");
            let source = Arc::new(MemorySource::new(contract::bytes(size, 3)));
            let receipt = contract::put(&azure(config), &name, &source).await.unwrap();
            assert!(!format!("{receipt:?}").contains("sig="), "{receipt:?}");
            assert_eq!(view(&azurite, container, &name).await["bytes"], hex::encode(source.bytes()));
            note(&azurite, blocks, &["sas_token"]).await;
        }
        let error = azure(config).stat(&format!("{at}/1000")).await.unwrap_err();
        assert_eq!(error.kind, Kind::AccessDenied, "{error:?}");
    }
}

/// Faults of the arguments are found before anything is sent, and named.
#[test]
fn bad_arguments_are_named() {
    let good =
        Config { account: "acct".to_owned(), key: Some("AAAA".into()), container: "c".to_owned(), ..Config::default() };
    let refusal = |config: &Config| AzureBlob::new(config, client(&LIMITS).unwrap(), LIMITS).unwrap_err();
    for (config, kind, word) in [
        (Config { key: Some("canary!".into()), ..good.clone() }, Kind::InvalidCredentials, "`storage_access_key`"),
        (Config { sas: Some("sv=1&sig=x".into()), ..good.clone() }, Kind::InvalidCredentials, "only one"),
        (Config { key: None, sas: Some("canary".into()), ..good.clone() }, Kind::InvalidCredentials, "`sas_token`"),
        (Config { key: None, ..good.clone() }, Kind::InvalidCredentials, "is needed"),
        (Config { account: "a.b/".to_owned(), ..good.clone() }, Kind::InvalidRequest, "`storage_account`"),
        (Config { container: String::new(), ..good.clone() }, Kind::InvalidRequest, "`container`"),
        (Config { endpoint: Some("x y".to_owned()), ..good.clone() }, Kind::InvalidRequest, "`endpoint`"),
        (Config { metadata: [("a-b".to_owned(), "v".to_owned())].into(), ..good }, Kind::InvalidRequest, "`metadata`"),
    ] {
        let error = refusal(&config);
        assert!(error.kind == kind && error.detail.contains(word), "{word}: {error:?}");
        assert!(!format!("{error:?} {config:?}").contains("canary"), "{error:?}");
    }
}
