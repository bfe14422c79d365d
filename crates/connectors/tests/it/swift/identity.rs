//! Ways to log in, and what is said when one does not lead in.

use std::sync::Arc;

use connectors::contract;
use connectors::egress::Guard;
use connectors::http::{Client, tls_config};
use connectors::memory::MemorySource;
use connectors::swift::{Config, Swift};
use connectors::{Connector as _, Error, Kind, Limits, Secret};
use testkit::User;

use super::{SMALL, of, swift, with_container, with_limits};

/// Puts an object, finds it and deletes it.
async fn works(config: &Config) {
    let connector = swift(config);
    let source = Arc::new(MemorySource::new(contract::bytes(1000, 1)));
    contract::put(&connector, "x", &source).await.unwrap();
    assert!(contract::get(&connector, "x").await.unwrap() == *source.bytes());
    connector.delete("x").await.unwrap();
}

async fn refused(config: &Config) -> Error {
    with_limits(config, Limits { tries: 1, ..SMALL }).stat("x").await.unwrap_err()
}

#[tokio::test]
async fn a_project_is_the_default_one_or_found_or_named() {
    let container = "identity-project";
    let Some(openstack) = with_container(container).await else { return };
    let (with, without) = (of(&openstack, User::Demo, container), of(&openstack, User::NoDefault, container));
    let named = |name: &str| Some(name.to_owned());
    for config in [
        with,
        without.clone(),
        Config { tenant_name: named("demo"), ..without.clone() },
        Config { project_name: named("demo"), tenant_name: named("other"), ..without.clone() },
        Config { project_id: named(openstack.project_id()), project_name: named("other"), ..without.clone() },
        Config { project_name: named("demo"), project_domain_name: named("default"), ..without.clone() },
        Config { user_domain_name: named("Default"), ..without },
    ] {
        works(&config).await;
    }
}

#[tokio::test]
async fn an_auth_url_works_with_and_without_version() {
    let container = "identity-url";
    let Some(openstack) = with_container(container).await else { return };
    for suffix in ["", "/", "/v3", "/v3/", "/v2.0", "/v3/auth/tokens"] {
        let config = of(&openstack, User::NoDefault, container);
        works(&Config { auth_url: format!("{}{suffix}", openstack.auth_url()), ..config }).await;
    }
}

#[tokio::test]
async fn an_application_credential_needs_no_user() {
    let container = "identity-application";
    let Some(openstack) = with_container(container).await else { return };
    let (id, secret) = openstack.application_credential();
    let config = Config {
        username: String::new(),
        password: Secret::default(),
        application_credential_id: Some(id.to_owned()),
        application_credential_secret: Some(secret.into()),
        // It has its own, and Keystone would refuse another.
        project_name: Some("demo".to_owned()),
        ..of(&openstack, User::Demo, container)
    };
    works(&config).await;
    let error = refused(&Config { application_credential_secret: Some("wrong-secret".into()), ..config }).await;
    assert_eq!(error.kind, Kind::InvalidCredentials, "{error:?}");
}

/// The stand-in is ours: Keystone no longer has this version.
#[tokio::test]
async fn version_2_is_spoken_where_there_is_no_3() {
    let container = "identity-v2";
    let Some(openstack) = with_container(container).await else { return };
    for suffix in ["", "/v2.0/", "/v3"] {
        let auth_url = format!("{}{suffix}", openstack.auth_url_v2());
        let config = Config { auth_url, ..of(&openstack, User::NoDefault, container) };
        works(&config).await;
        works(&Config { tenant_name: Some("demo".to_owned()), ..config.clone() }).await;
        works(&Config { project_id: Some(openstack.project_id().to_owned()), ..config.clone() }).await;
        let error = refused(&Config { password: "wrong-secret".into(), ..config.clone() }).await;
        assert_eq!(error.kind, Kind::InvalidCredentials, "{error:?}");
        let error = refused(&Config { region: "Nowhere".to_owned(), ..config }).await;
        assert!(error.detail.contains("`RegionOne`, `RegionTwo`"), "{error:?}");
    }
    let (id, secret) = openstack.application_credential();
    let without_v3 = Config {
        auth_url: openstack.auth_url_v2(),
        application_credential_id: Some(id.to_owned()),
        application_credential_secret: Some(secret.into()),
        ..of(&openstack, User::Demo, container)
    };
    assert_eq!(refused(&without_v3).await.kind, Kind::InvalidRequest);
}

#[tokio::test]
async fn the_region_decides() {
    let Some(openstack) = with_container("identity-region").await else { return };
    for user in [User::Demo, User::NoDefault] {
        let config = of(&openstack, user, "identity-region");
        let error = refused(&Config { region: "Nowhere".to_owned(), ..config.clone() }).await;
        assert_eq!(error.kind, Kind::InvalidRequest, "{error:?}");
        assert!(error.detail.contains("`RegionOne`"), "{error:?}");
        // Nothing listens there.
        let error = refused(&Config { region: "RegionTwo".to_owned(), ..config }).await;
        assert_eq!(error.kind, Kind::Unreachable, "{error:?}");
    }
}

#[tokio::test]
async fn a_refused_log_in_says_what_to_check() {
    let Some(openstack) = with_container("identity-refused").await else { return };
    let config = of(&openstack, User::Demo, "identity-refused");
    let mut errors = Vec::new();
    for wrong in [
        Config { password: "wrong-secret".into(), ..config.clone() },
        Config { username: "nobody".to_owned(), ..config.clone() },
        Config { user_domain_name: Some("Elsewhere".to_owned()), ..config.clone() },
        Config { project_name: Some("other".to_owned()), ..config.clone() },
    ] {
        errors.push(refused(&wrong).await);
    }
    for error in &errors {
        assert_eq!(error.kind, Kind::InvalidCredentials, "{error:?}");
        assert!(error.detail.contains("check `username`"), "{error:?}");
        let answer = error.answer.as_ref().unwrap();
        assert_eq!((answer.status, answer.code.as_deref()), (Some(401), Some("Unauthorized")));
        assert!(answer.request_id.as_ref().is_some_and(|id| id.starts_with("req-")), "{error:?}");
    }
    assert!(errors[3].detail.contains("role on the project"), "{:?}", errors[3]);
    let error = refused(&of(&openstack, User::Projectless, "x")).await;
    assert_eq!(error.kind, Kind::AccessDenied, "{error:?}");
    // Swift is no Keystone.
    let error = refused(&Config { auth_url: format!("http://{}", openstack.swift_addr()), ..config }).await;
    assert_eq!(error.kind, Kind::InvalidRequest, "{error:?}");
    assert!(error.detail.contains("`auth_url`"), "{error:?}");
}

/// What a catalogue says is not trusted more than what a client says.
#[tokio::test]
async fn the_address_of_the_catalogue_is_guarded() {
    let Some(openstack) = with_container("identity-guard").await else { return };
    let guard = Guard::new([format!("{}", openstack.keystone_addr()).parse().unwrap()]);
    let client = Client::new(guard, tls_config(&[]).unwrap(), &SMALL);
    let connector = Swift::new(&of(&openstack, User::Demo, "identity-guard"), client, SMALL).unwrap();
    let error = connector.stat("x").await.unwrap_err();
    assert_eq!(error.kind, Kind::HostNotAllowed, "{error:?}");
}
