//! Service accounts of Google Cloud Storage: their keys, their tokens, and what little they need to be allowed.

use std::sync::Arc;
use std::time::Duration;

use connectors::gcs::{Config, Gcs, Tokens};
use connectors::{Connector as _, Kind, Limits};
use futures_util::future::join_all;
use testkit::proxy::Proxy;

use super::{connector, gcs_with, of};
use crate::attempt::Attempt;
use crate::{LIMITS, client};

const MIB: usize = 1024 * 1024;
const ALL: [&str; 4] = ["create", "delete", "get", "list"];

fn sharing(config: &Config, tokens: &Tokens, limits: Limits) -> Gcs {
    Gcs::new(config, client(&limits).unwrap(), tokens, limits).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_transfers_share_one_token() {
    let bucket = "gcs-one-token";
    let Some(gcs) = gcs_with(bucket).await else { return };
    let email = gcs.account("one-token", &ALL, 3600).await.unwrap();
    let config = Config { client_email: email.clone(), ..of(&gcs, &gcs.endpoint, bucket) };
    let tokens = Tokens::default();
    let transfers = (0..6).map(|number| {
        let (config, tokens) = (config.clone(), tokens.clone());
        async move {
            // As each task does.
            let connector = sharing(&config, &tokens, LIMITS);
            for size in [10, 6 * MIB] {
                let attempt = Attempt::of(size, number);
                attempt.put(&connector, &format!("{number}/{size}")).await.unwrap();
            }
            connector.list("", 100).await.unwrap();
        }
    });
    join_all(transfers).await;
    assert_eq!(gcs.tokens_issued(&email).await.unwrap(), 1);
    sharing(&config, &Tokens::default(), LIMITS).list("", 100).await.unwrap();
    assert_eq!(gcs.tokens_issued(&email).await.unwrap(), 2, "the gate does not count");
    // Another key, another account or another place: another token.
    let wrong = Config { private_key: gcs.unknown_private_key.as_str().into(), ..config };
    let error = sharing(&wrong, &tokens, LIMITS).list("", 100).await.unwrap_err();
    assert_eq!(error.kind, Kind::InvalidCredentials);
}

/// A transfer that lasts: it is slowed down so that what happens to its token happens in its midst.
async fn slow_transfer(name: &str, token_secs: u64, is_revoked: bool) {
    let bucket = format!("gcs-{name}");
    let Some(gcs) = gcs_with(&bucket).await else { return };
    let email = gcs.account(name, &ALL, token_secs).await.unwrap();
    let proxy = Proxy::start(gcs.addr()).await.unwrap();
    let endpoint = format!("http://{}", proxy.addr());
    let config = Config { client_email: email.clone(), ..of(&gcs, &endpoint, &bucket) };
    let connector = Arc::new(connector(&config));
    let attempt = Arc::new(Attempt::of(16 * MIB, 1));
    proxy.delay(Duration::from_millis(3));
    let sending = tokio::spawn({
        let (attempt, connector) = (Arc::clone(&attempt), Arc::clone(&connector));
        async move { attempt.put(connector.as_ref(), "x").await }
    });
    while attempt.progress.bytes() == 0 && !sending.is_finished() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if is_revoked {
        gcs.revoke_tokens(&email).await.unwrap();
    }
    sending.await.unwrap().unwrap();
    let issued = gcs.tokens_issued(&email).await.unwrap();
    assert!(if is_revoked { issued == 2 } else { issued >= 2 }, "{issued} tokens");
    assert_eq!(connector.stat("x").await.unwrap().size, 16 * MIB as u64);
    assert_eq!(attempt.journal.totals(), (1, 1), "the same upload went on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_token_is_renewed_in_mid_transfer() {
    slow_transfer("revoked", 3600, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_is_renewed_in_mid_transfer() {
    slow_transfer("short-lived", 2, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_read_in_every_form() {
    let bucket = "gcs-keys";
    let Some(gcs) = gcs_with(bucket).await else { return };
    let (pkcs8, pkcs1) = (gcs.private_key.as_str(), gcs.private_key_pkcs1.as_str());
    assert!(
        pkcs8.starts_with("-----BEGIN PRIVATE KEY-----\n") && pkcs1.starts_with("-----BEGIN RSA PRIVATE KEY-----\n")
    );
    for key in [pkcs8, pkcs1] {
        for form in [
            key.to_owned(),
            key.trim().to_owned(),
            key.replace('\n', "\\n"),
            key.replace('\n', "\\\\n"),
            key.replace('\n', "\r\n"),
            key.replace('\n', "\\r\\n"),
            key.replace('\n', " "),
            key.replace('\n', ""),
            format!(" \"{}\"\n", key.replace('\n', "\\n")),
            format!("'{key}'"),
        ] {
            let config = Config { private_key: form.as_str().into(), ..of(&gcs, &gcs.endpoint, bucket) };
            let error = connector(&config).stat("missing").await.unwrap_err();
            assert_eq!(error.kind, Kind::NotFound, "{error:?} with {form:.60}…");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_an_account_is_said() {
    let bucket = "gcs-accounts";
    let Some(gcs) = gcs_with(bucket).await else { return };
    let right = of(&gcs, &gcs.endpoint, bucket);
    let stranger = Config { client_email: "nobody@elsewhere.example".to_owned(), ..right.clone() };
    let other_key = Config { private_key: gcs.unknown_private_key.as_str().into(), ..right.clone() };
    let nowhere = Config { token_uri: Some(format!("{}/nothing", gcs.endpoint)), ..right.clone() };
    for (config, kind, code, expected) in [
        (stranger, Kind::InvalidCredentials, Some("invalid_grant"), "check `client_email`"),
        (other_key, Kind::InvalidCredentials, Some("invalid_grant"), "make a new key"),
        (nowhere, Kind::InvalidCredentials, Some("required"), "no access token"),
    ] {
        let error = connector(&config).stat("x").await.unwrap_err();
        assert_eq!(error.kind, kind, "{error:?}");
        assert!(error.detail.contains(expected) && !error.is_transient(), "{error:?}");
        assert_eq!(error.answer.unwrap().code.as_deref(), code);
    }
    for half in [
        Config { client_email: " ".to_owned(), ..right.clone() },
        Config { private_key: "".into(), ..right.clone() },
        Config { private_key: "some-private-key".into(), ..right },
    ] {
        let error = Gcs::new(&half, client(&LIMITS).unwrap(), &Tokens::default(), LIMITS).unwrap_err();
        assert_eq!(error.kind, Kind::InvalidCredentials, "{error:?}");
    }
}

/// Storage Object Creator is enough to deliver, whatever the size; what it does not allow is said.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_creator_delivers() {
    let bucket = "gcs-creator";
    let Some(gcs) = gcs_with(bucket).await else { return };
    let email = gcs.account("creator", &["create"], 3600).await.unwrap();
    let creator = connector(&Config { client_email: email.clone(), ..of(&gcs, &gcs.endpoint, bucket) });
    for size in [100, 12 * MIB] {
        let (name, attempt) = (size.to_string(), Attempt::of(size, 1));
        let receipt = attempt.put(&creator, &name).await.unwrap();
        assert_eq!((receipt.verified.as_str(), receipt.note.as_ref()), ("crc32c", None));
        let error = attempt.put(&creator, &name).await.unwrap_err();
        assert_eq!(error.kind, Kind::AccessDenied, "{error:?}");
        let expected = format!("an object `{name}` already in the bucket `{bucket}`, and {email} may not replace it");
        assert!(error.detail.contains(&expected), "{error}");
        assert!(error.answer.unwrap().request_id.is_some());
        let error = creator.stat(&name).await.unwrap_err();
        assert!(error.kind == Kind::AccessDenied && error.detail.contains("storage.objects.get"), "{error:?}");
    }
    let error = creator.list("", 10).await.unwrap_err();
    assert!(error.kind == Kind::AccessDenied && error.detail.contains("storage.objects.list"), "{error:?}");
    assert_eq!(gcs.open_sessions(bucket).await.unwrap(), Vec::<String>::new());
}
