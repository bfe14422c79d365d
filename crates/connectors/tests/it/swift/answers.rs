//! Clouds that answer in ways that no server at hand does.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use connectors::contract;
use connectors::memory::MemorySource;
use connectors::swift::{Config, Swift};
use connectors::{Connector as _, Error, Kind, Limits, Receipt, Result, WholeDigest};

use super::{MIB, SMALL, with_limits};
use crate::scripted::{Request, Scripted, answer, cut_in, shows_no_part};

/// Starts Keystone and Swift in one server. `swift` answers what is not about logging in, `None` with the usual.
async fn cloud(swift: impl Fn(&Request) -> Option<http::Response<String>> + Send + Sync + 'static) -> Scripted {
    let addr = Arc::new(Mutex::new(String::new()));
    let known = Arc::clone(&addr);
    let server = Scripted::start(move |request| {
        if let Some(answer) = swift(request) {
            return answer;
        }
        let storage = format!("http://{}/v1/AUTH_p", known.lock().unwrap());
        usual(request, &storage)
    })
    .await;
    *addr.lock().unwrap() = server.addr.to_string();
    server
}

fn usual(request: &Request, storage: &str) -> http::Response<String> {
    match (request.method().as_str(), request.uri().path()) {
        ("POST", "/v3/auth/tokens") => {
            let endpoint = format!(r#"{{"interface": "public", "region": "R", "url": "{storage}"}}"#);
            let catalog = format!(r#"[{{"type": "object-store", "endpoints": [{endpoint}]}}]"#);
            let body = format!(r#"{{"token": {{"project": {{"id": "p"}}, "catalog": {catalog}}}}}"#);
            answer(201, &[("x-subject-token", "canary-token")], &body)
        }
        ("HEAD" | "GET", path) if path.starts_with("/v1/AUTH_p/c/") => answer(404, &[], ""),
        ("HEAD", _) => answer(204, &[], ""),
        ("PUT", path) if request.uri().query() == Some("multipart-manifest=put") => {
            assert!(path.starts_with("/v1/AUTH_p/c/"), "{path}");
            let etag = request.headers()["etag"].to_str().unwrap().to_owned();
            answer(201, &[("etag", &format!("\"{etag}\""))], "")
        }
        ("PUT", _) => answer(201, &[("etag", &testkit::bytes::digest(request.body()).md5)], ""),
        _ => answer(404, &[], ""),
    }
}

fn config(server: &Scripted) -> Config {
    Config {
        auth_url: format!("http://{}", server.addr),
        username: "u".to_owned(),
        password: "canary-password".into(),
        region: "R".to_owned(),
        container: "c".to_owned(),
        ..Config::default()
    }
}

fn swift(server: &Scripted) -> Swift {
    with_limits(&config(server), Limits { tries: 1, ..SMALL })
}

async fn put(connector: &Swift, size: usize) -> Result<Receipt> {
    contract::put(connector, "k", &Arc::new(MemorySource::new(contract::bytes(size, 1)))).await
}

fn is(request: &Request, method: &str, path: &str) -> bool {
    request.method().as_str() == method && request.uri().path().starts_with(path)
}

fn count(server: &Scripted, method: &str, path: &str) -> usize {
    server.seen().iter().filter(|request| is(request, method, path)).count()
}

fn has_no_canary(error: &Error) {
    assert!(!format!("{error:?} {error}").contains("canary"), "{error:?}");
}

#[tokio::test]
async fn a_piece_carries_its_md5_its_length_and_its_type() {
    let server = cloud(|_| None).await;
    for size in [0, 10] {
        put(&swift(&server), size).await.unwrap();
        let seen = server.seen();
        let piece = seen.iter().rfind(|request| is(request, "PUT", "/v1/AUTH_p/c/k")).unwrap();
        let digest = testkit::bytes::digest(&contract::bytes(size, 1)).md5;
        let headers = piece.headers();
        assert_eq!(
            (headers["etag"].to_str().unwrap(), headers["content-length"].to_str().unwrap()),
            (digest.as_str(), size.to_string().as_str())
        );
        assert_eq!(
            (&headers["content-type"], &headers["x-auth-token"]),
            (&"application/x-contract".parse().unwrap(), &"canary-token".parse().unwrap())
        );
    }
}

/// The mark of an object of one piece is its MD5; that of one of segments is none, though it may look so.
#[tokio::test]
async fn an_md5_is_told_of_plain_objects_only() {
    let md5 = "0123456789abcdef0123456789abcdef";
    let told = |etag: &str, field: Option<(&'static str, &'static str)>| {
        let etag = etag.to_owned();
        async move {
            let server = cloud(move |request| {
                let is_asked = is(request, "HEAD", "/v1/AUTH_p/c/k");
                let mut headers = vec![("content-length", "5"), ("etag", etag.as_str())];
                headers.extend(field);
                is_asked.then(|| answer(200, &headers, ""))
            })
            .await;
            let connector = swift(&server);
            let object = connector.stat("k").await.unwrap();
            let described = connector.describe("k", None).await.unwrap();
            assert_eq!(described, connector.describe("k", Some(object.clone())).await.unwrap());
            assert_eq!(described.object, object);
            described.digest
        }
    };
    let expected = WholeDigest::Md5(hex::decode(md5).unwrap().try_into().unwrap());
    assert_eq!(told(md5, None).await, Some(expected));
    assert_eq!(told(&format!("\"{md5}\""), None).await, Some(expected));
    assert_eq!(told("opaque", None).await, None);
    assert_eq!(told(md5, Some(("x-static-large-object", "True"))).await, None);
    assert_eq!(told(md5, Some(("x-object-manifest", "segments/k"))).await, None);
}

/// A token that is refused again is not asked for again.
#[tokio::test]
async fn a_token_is_renewed_once() {
    let server = cloud(|request| {
        request.uri().path().starts_with("/v1").then(|| answer(401, &[], "canary-token canary-password"))
    })
    .await;
    for tries in [1, 3] {
        let before = count(&server, "POST", "/v3/auth/tokens");
        let connector = with_limits(&config(&server), Limits { tries, ..SMALL });
        let error = connector.stat("k").await.unwrap_err();
        assert_eq!((error.kind, error.is_transient()), (Kind::InvalidCredentials, false), "{error:?}");
        has_no_canary(&error);
        // Also when it was missing to find out what is missing.
        assert_eq!(count(&server, "POST", "/v3/auth/tokens") - before, 2);
    }
}

#[tokio::test]
async fn what_is_repeated_of_the_credentials_is_covered() {
    let echo = r#"{"error": {"code": 400, "title": "canary-password", "message": "canary-password is wrong"}}"#;
    let server = cloud(move |request| {
        is(request, "POST", "/v3").then(|| answer(400, &[("x-openstack-request-id", "canary-password")], echo))
    })
    .await;
    let error = put(&swift(&server), 1).await.unwrap_err();
    assert!(error.detail.contains("*** is wrong"), "{error:?}");
    has_no_canary(&error);
    let server = cloud(|request| is(request, "PUT", "/v1").then(|| answer(400, &[], "your token canary-token"))).await;
    let error = put(&swift(&server), 1).await.unwrap_err();
    assert!(error.detail.contains("your token ***"), "{error:?}");
    has_no_canary(&error);
}

#[tokio::test]
async fn no_message_is_cut_within_a_secret() {
    for message in cut_in("canary-token") {
        let server = cloud(move |request| is(request, "PUT", "/v1").then(|| answer(400, &[], &message))).await;
        shows_no_part(&put(&swift(&server), 1).await.unwrap_err(), "canary-token");
    }
    for message in cut_in("canary-password") {
        let body = serde_json::json!({"error": {"code": 400, "title": message, "message": message}}).to_string();
        let server = cloud(move |request| is(request, "POST", "/v3").then(|| answer(400, &[], &body))).await;
        shows_no_part(&put(&swift(&server), 1).await.unwrap_err(), "canary-password");
    }
}

/// The token with which projects are looked for goes out in a body as well.
#[tokio::test]
async fn no_message_is_cut_within_a_token_without_a_project() {
    for message in cut_in("canary-unscoped") {
        let body = serde_json::json!({"error": {"code": 400, "title": message, "message": message}}).to_string();
        let server = cloud(move |request| {
            let projects = r#"{"projects": [{"id": "p"}]}"#;
            let unscoped = [("x-subject-token", "canary-unscoped")];
            let is_scoped = std::str::from_utf8(request.body()).unwrap().contains("scope");
            match (request.method().as_str(), request.uri().path()) {
                ("GET", "/v3/auth/projects") => Some(answer(200, &[], projects)),
                ("POST", "/v3/auth/tokens") if is_scoped => Some(answer(400, &[], &body)),
                ("POST", "/v3/auth/tokens") => Some(answer(201, &unscoped, r#"{"token": {}}"#)),
                _ => None,
            }
        })
        .await;
        shows_no_part(&put(&swift(&server), 1).await.unwrap_err(), "canary-unscoped");
    }
}

#[tokio::test]
async fn a_keystone_that_is_elsewhere_is_not_followed() {
    let moved = [("location", "https://k.example/v3/auth/tokens?x=canary")];
    let server = cloud(move |request| is(request, "POST", "/").then(|| answer(301, &moved, ""))).await;
    let error = put(&swift(&server), 1).await.unwrap_err();
    assert_eq!(error.kind, Kind::InvalidRequest, "{error:?}");
    assert!(error.detail.contains("https://k.example;"), "{error:?}");
    has_no_canary(&error);
}

/// What a store says of itself: fewer segments, and smaller ones.
#[tokio::test]
async fn segments_are_as_many_and_as_large_as_the_store_takes() {
    let info = |max_file_size: usize, segments: u32| {
        let text = format!(
            r#"{{"swift": {{"max_file_size": {max_file_size}}}, "slo": {{"max_manifest_segments": {segments}}}}}"#
        );
        cloud(move |request| is(request, "GET", "/info").then(|| answer(200, &[], &text)))
    };
    let server = info(100 * MIB, 5).await;
    put(&swift(&server), 10 * MIB).await.unwrap();
    // 4.5 of 5: 3 MiB each.
    assert_eq!(count(&server, "PUT", "/v1/AUTH_p/c_segments/"), 4);
    let server = info(MIB / 2, 1000).await;
    put(&swift(&server), 2 * MIB).await.unwrap();
    assert_eq!(count(&server, "PUT", "/v1/AUTH_p/c_segments/"), 4);
    let server = info(MIB, 5).await;
    let error = put(&swift(&server), 10 * MIB).await.unwrap_err();
    assert_eq!(error.kind, Kind::TooLarge, "{error:?}");
    let server = cloud(|request| is(request, "GET", "/info").then(|| answer(200, &[], r#"{"swift": {}}"#))).await;
    put(&swift(&server), 10 * MIB).await.unwrap();
    assert_eq!(count(&server, "PUT", "/v1/AUTH_p/c_segments/"), 0);
}

#[tokio::test]
async fn an_answer_with_another_mark_is_no_proof() {
    let wrong: [&[(&str, &str)]; 2] = [&[("etag", "0123456789abcdef0123456789abcdef")], &[]];
    for headers in wrong {
        for (path, size) in [("/v1/AUTH_p/c/k", 10), ("/v1/AUTH_p/c_segments/", 2 * MIB), ("/v1/AUTH_p/c/k", 2 * MIB)] {
            let server = cloud(move |request| is(request, "PUT", path).then(|| answer(201, headers, ""))).await;
            let source = Arc::new(MemorySource::new(contract::bytes(size, 1)));
            let error = contract::put(&swift(&server), "k", &source).await.unwrap_err();
            assert_eq!((error.kind, error.is_transient()), (Kind::IntegrityMismatch, true), "{error:?}");
        }
    }
}

/// A new container for segments lies where the user's does.
#[tokio::test]
async fn the_container_for_segments_has_the_same_policy() {
    let made = Arc::new(Mutex::new(HashSet::new()));
    let server = cloud(move |request| match (request.method().as_str(), request.uri().path()) {
        ("HEAD", "/v1/AUTH_p/c") => Some(answer(204, &[("x-storage-policy", "gold")], "")),
        ("HEAD", "/v1/AUTH_p/c_segments") => Some(answer(404, &[], "")),
        ("PUT", path @ "/v1/AUTH_p/c_segments") => {
            let is_new = made.lock().unwrap().insert(path.to_owned());
            assert!(is_new && request.headers()["x-storage-policy"] == "gold");
            Some(answer(201, &[], ""))
        }
        _ => None,
    })
    .await;
    put(&swift(&server), 2 * MIB).await.unwrap();
    assert_eq!(count(&server, "PUT", "/v1/AUTH_p/c_segments"), 3);
    let names: HashSet<String> = server.seen().iter().map(|request| request.uri().path().to_owned()).collect();
    assert!(
        names.iter().any(|name| name.starts_with("/v1/AUTH_p/c_segments/k/") && name.ends_with("/00000002")),
        "{names:?}"
    );
}

/// A large object is deleted with its segments; when that fails in the middle of the answer, it has failed.
#[tokio::test]
async fn a_deletion_that_fails_late_has_failed() {
    for (body, kind) in [
        (r#"{"Response Status": "200 OK", "Errors": []}"#, None),
        (
            r#"{"Response Status": "400 Bad Request", "Errors": [["/c_segments/x", "403 Forbidden"]]}"#,
            Some(Kind::AccessDenied),
        ),
        (r#"{"Response Status": "502 Bad Gateway", "Errors": []}"#, Some(Kind::Unavailable)),
    ] {
        let server = cloud(move |request| match request.method().as_str() {
            "HEAD" => Some(answer(200, &[("x-static-large-object", "True"), ("content-length", "0")], "")),
            "DELETE" => {
                assert_eq!(request.uri().query(), Some("multipart-manifest=delete"));
                Some(answer(200, &[], body))
            }
            _ => None,
        })
        .await;
        assert_eq!(swift(&server).delete("k").await.err().map(|error| error.kind), kind);
    }
}

/// Page after page until an empty one, with the last name as the marker.
#[tokio::test]
async fn a_listing_has_all_pages() {
    let names: Vec<String> = (0..1005).map(|number| format!("f/{number:04} ü&\"\u{1}")).collect();
    let known = names.clone();
    let server = cloud(move |request| {
        if !is(request, "GET", "/v1/AUTH_p/c") {
            return None;
        }
        let query: Vec<(String, String)> =
            url::form_urlencoded::parse(request.uri().query().unwrap().as_bytes()).into_owned().collect();
        let of = |key: &str| query.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        assert_eq!((of("prefix"), of("format")), (Some("f/ü"), Some("json")));
        let limit = of("limit").unwrap().parse().unwrap();
        let rest = known.iter().filter(|name| of("marker").is_none_or(|marker| name.as_str() > marker)).take(limit);
        let page: Vec<_> = rest.map(|name| serde_json::json!({"name": name, "bytes": 1, "hash": "h"})).collect();
        Some(answer(200, &[], &serde_json::to_string(&page).unwrap()))
    })
    .await;
    let found = swift(&server).list("f/ü", 1005).await.unwrap();
    assert_eq!(found.into_iter().map(|object| object.name).collect::<Vec<_>>(), names);
    assert_eq!(swift(&server).list("f/ü", 1004).await.unwrap_err().kind, Kind::TooMany);
}

/// A store that always gives the same page must not be asked for ever.
#[tokio::test]
async fn a_listing_that_does_not_go_on_ends() {
    let page = r#"[{"name": "a", "bytes": 1, "hash": "h"}]"#;
    let server = cloud(move |request| is(request, "GET", "/v1/AUTH_p/c").then(|| answer(200, &[], page))).await;
    assert_eq!(swift(&server).list("", 1000).await.unwrap_err().kind, Kind::Protocol);
}

/// Accounts are locked after some wrong passwords: one task must not count twice.
#[tokio::test]
async fn a_refused_log_in_is_not_tried_again() {
    let server = cloud(|request| is(request, "POST", "/v3").then(|| answer(401, &[], ""))).await;
    for size in [1, 2 * MIB] {
        let before = server.seen().len();
        let connector = with_limits(&config(&server), SMALL);
        let error =
            contract::put(&connector, "k", &Arc::new(MemorySource::new(contract::bytes(size, 1)))).await.unwrap_err();
        assert_eq!(error.kind, Kind::InvalidCredentials, "{error:?}");
        assert_eq!(server.seen().len() - before, 1);
    }
}
