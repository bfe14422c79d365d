//! What Azurite refuses, and what is said of it.

use std::sync::Arc;

use connectors::azure_blob::Config;
use connectors::contract;
use connectors::memory::MemorySource;
use connectors::{Connector as _, Error, Kind};
use testkit::Azurite;

use super::{MIB, azure, azurite_with, with_key, with_sas};

/// Stores a blob in one go and one in blocks, and gives the one refusal of both.
async fn refused(config: &Config, name: &str) -> Error {
    let mut refusals = Vec::new();
    for size in [10, 2 * MIB] {
        let source = Arc::new(MemorySource::new(contract::bytes(size, 1)));
        refusals.push(contract::put(&azure(config), name, &source).await.unwrap_err());
    }
    let [single, blocks] = <[Error; 2]>::try_from(refusals).unwrap();
    assert_eq!((single.kind, &single.detail), (blocks.kind, &blocks.detail));
    assert!(!single.is_transient() && !blocks.is_transient(), "{single:?}");
    let answer = single.answer.as_ref().unwrap();
    assert!(answer.request_id.is_some() && answer.code.is_some(), "{single:?}");
    single
}

fn code(error: &Error) -> &str {
    error.answer.as_ref().unwrap().code.as_deref().unwrap()
}

async fn ready(container: &str) -> Option<(Azurite, Config)> {
    let azurite = azurite_with(container).await?;
    let config = with_key(&azurite, &azurite.endpoint, container);
    Some((azurite, config))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_refused() {
    let Some((_, config)) = ready("wrong-key").await else { return };
    let wrong = "d3Jvbmcta2V5LWNhbmFyeQ==";
    let error = refused(&Config { key: Some(wrong.into()), ..config.clone() }, "x").await;
    assert_eq!((error.kind, code(&error)), (Kind::AccessDenied, "AuthorizationFailure"));
    assert!(error.detail.contains("check the credentials"), "{error}");
    assert!(!format!("{error:?}").contains(wrong), "{error:?}");
    let nobody = refused(&Config { endpoint: config.endpoint.map(|it| format!("{it}x")), ..config }, "x").await;
    assert_eq!(nobody.kind, Kind::ContainerNotFound, "{nobody:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_has_expired_is_refused() {
    let container = "expired";
    let Some((azurite, config)) = ready(container).await else { return };
    let token = azurite.container_sas(container, "cw", -1).await.unwrap();
    let error = refused(&Config { key: None, sas: Some(token.as_str().into()), ..config }, "x").await;
    assert_eq!((error.kind, code(&error)), (Kind::InvalidCredentials, "AuthorizationFailure"));
    assert!(error.detail.contains("the SAS token expired at "), "{error}");
    assert!(!format!("{error:?}").contains("sig="), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_without_the_permission_is_refused() {
    let container = "read-only";
    let Some((azurite, _)) = ready(container).await else { return };
    let config = with_sas(&azurite, &azurite.endpoint, container, "rl").await;
    let error = refused(&config, "x").await;
    assert_eq!((error.kind, code(&error)), (Kind::AccessDenied, "AuthorizationPermissionMismatch"));
    assert!(error.detail.contains("it has the permissions `rl`, and this needs `w`"), "{error}");
    let error = azure(&config).delete("x").await.unwrap_err();
    assert!(error.detail.contains("this needs `d`"), "{error}");
    let config = with_sas(&azurite, &azurite.endpoint, container, "w").await;
    let error = azure(&config).list("", 10).await.unwrap_err();
    assert!(error.detail.contains("this needs `l`"), "{error}");
    let elsewhere = Config { container: "expired".to_owned(), ..config };
    assert!(matches!(refused(&elsewhere, "x").await.kind, Kind::AccessDenied | Kind::InvalidCredentials));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_named() {
    let Some((_, config)) = ready("missing").await else { return };
    let nowhere = Config { container: "no-such-container".to_owned(), ..config.clone() };
    let error = refused(&nowhere, "x").await;
    assert_eq!((error.kind, code(&error)), (Kind::ContainerNotFound, "ContainerNotFound"));
    assert!(error.detail.contains("`no-such-container` does not exist"), "{error}");
    assert_eq!(azure(&nowhere).stat("x").await.unwrap_err().kind, Kind::ContainerNotFound);
    assert_eq!(azure(&nowhere).list("", 1).await.unwrap_err().kind, Kind::ContainerNotFound);
    let error = azure(&config).stat("x").await.unwrap_err();
    assert_eq!(error.detail, "there is no blob `x` in the container `missing`");
    let odd = refused(&Config { container: "Bad_Name".to_owned(), ..config }, "x").await;
    assert_eq!((odd.kind, code(&odd)), (Kind::InvalidRequest, "InvalidResourceName"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_did_to_a_blob_is_said() {
    let container = "states";
    let Some((azurite, config)) = ready(container).await else { return };
    let script = format!(
        "
container = service.get_container_client({container:?})
container.upload_blob('leased', b'old').acquire_lease(15)
container.upload_blob('paged', b'\\0' * 512, blob_type='PageBlob')
container.upload_blob('photographed', b'old').create_snapshot()
container.get_blob_client('foreign').stage_block('AAAA', b'x')"
    );
    azurite.sdk(&script).await.unwrap();
    let leased = refused(&config, "leased").await;
    assert_eq!((leased.kind, code(&leased)), (Kind::AccessDenied, "LeaseIdMissing"));
    assert!(leased.detail.contains("break the lease"), "{leased}");
    let snapshots = azure(&config).delete("photographed").await.unwrap_err();
    assert_eq!((snapshots.kind, code(&snapshots)), (Kind::AccessDenied, "SnapshotsPresent"));
    let source = Arc::new(MemorySource::new(contract::bytes(2 * MIB, 1)));
    let paged = contract::put(&azure(&config), "paged", &source).await.unwrap_err();
    assert_eq!((paged.kind, code(&paged)), (Kind::AccessDenied, "InvalidBlobType"), "{paged:?}");
    assert!(paged.detail.contains("page or append blob"), "{paged}");
    let foreign = contract::put(&azure(&config), "foreign", &source).await.unwrap_err();
    assert!(foreign.detail.contains("another program left an unfinished upload"), "{foreign:?}");
}

/// Names that Azure would turn into others are refused before anything is sent.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_would_not_arrive_are_refused() {
    let Some((_, config)) = ready("bad-names").await else { return };
    for name in ["a\\b", "../states/x", "a/./b", "", &"n".repeat(1025)] {
        let source = Arc::new(MemorySource::new(contract::bytes(10, 1)));
        let error = contract::put(&azure(&config), name, &source).await.unwrap_err();
        assert!(error.kind == Kind::InvalidRequest && error.answer.is_none(), "{name}: {error:?}");
    }
}
