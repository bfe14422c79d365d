//! Who may do what, and how every error looks.

use std::time::Duration;

use consign::auth;
use consign::id::KeyId;
use consign::model::Scope;
use consign::store::NewKey;

use super::app::{App, new_key};

#[tokio::test]
async fn a_key_that_is_missing_malformed_unknown_or_revoked_is_refused_alike() {
    let app = App::new().await;
    let (revoked, _) = new_key(&app.state, "bob", &Scope::ALL).await;
    let keys = app.state.store.list_keys().await.unwrap();
    let name = keys.into_iter().find(|(_, user)| user.name == "bob").unwrap().0.name;
    app.state.store.revoke_key(&name, app.clock.now()).await.unwrap();
    let revoked = format!("Bearer {revoked}");
    for value in ["", "Bearer", "Bearer ", "Basic abc", "Bearer unknown", &revoked] {
        let reply = app.request("GET", "/v2/users/me").header("authorization", value).send().await;
        assert_eq!(reply.status, 401, "{value}");
        assert_eq!(reply.text(), r#"{"message":"Unauthenticated.","code":"UNAUTHENTICATED"}"#);
        assert_eq!(reply.header("content-type"), "application/json");
        assert_eq!(reply.header("www-authenticate"), "Bearer");
    }
    assert_eq!(app.request("GET", "/v2/jobs").anonymous().send().await.status, 401);
    let lower = app.request("GET", "/v2/users/me").header("authorization", &format!("bearer {}", app.key));
    assert_eq!(lower.send().await.status, 200);
}

/// Routes that need no key; what they give away is public, or guarded by a signature in the address.
const PUBLIC: [&str; 11] = [
    "GET /",
    "GET /docs",
    "GET /files/{task}/{name}",
    "GET /healthz",
    "GET /metrics",
    "GET /openapi.json",
    "GET /readyz",
    "GET /s/{id}",
    "GET /v2/convert/formats",
    "GET /v2/operations",
    "POST /upload/{task}",
];

#[tokio::test]
async fn every_route_asks_for_its_scope_and_no_other() {
    let app = App::new().await;
    let (expired, _) = expiring_key(&app).await;
    let document = app.get("/openapi.json").await.json();
    let (mut public, mut guarded) = (Vec::new(), 0);
    for (template, methods) in document["paths"].as_object().unwrap() {
        for (method, route) in methods.as_object().unwrap() {
            let method = method.to_uppercase();
            let named = format!("{method} {template}");
            if route["security"].is_null() {
                public.push(named);
                continue;
            }
            guarded += 1;
            let said = route["description"].as_str().unwrap();
            let said = said.rsplit_once("Needs the scope `").unwrap().1.split('`').next().unwrap();
            let scope = *Scope::ALL.iter().find(|scope| scope.wire() == said).unwrap();
            let path = template.replace("{id}", "00000000-0000-0000-0000-000000000001");
            assert!(!path.contains('{'), "{named}: what stands there?");
            assert_eq!(app.request(&method, &path).anonymous().send().await.status, 401, "{named} without a key");
            assert_eq!(app.request(&method, &path).by(&expired).send().await.status, 401, "{named} with an old key");
            let others: Vec<Scope> = Scope::ALL.into_iter().filter(|other| *other != scope).collect();
            let (key, _) = new_key(&app.state, "bob", &others).await;
            app.request(&method, &path).by(&key).send().await.fails(403, "FORBIDDEN");
            if route["responses"]["200"]["content"]["text/event-stream"].is_object() {
                continue;
            }
            let (key, _) = new_key(&app.state, "bob", &[scope]).await;
            let reply = app.request(&method, &path).by(&key).send().await;
            assert!(!matches!(reply.status.as_u16(), 401 | 403), "{named}: {}", reply.text());
        }
    }
    public.sort_unstable();
    assert_eq!(public, PUBLIC, "a route without a scope is open to everybody");
    assert!(guarded >= 15, "{guarded} routes were tried");
}

/// A key that was good until now.
async fn expiring_key(app: &App) -> (String, KeyId) {
    let now = app.clock.now();
    let user = app.state.store.ensure_user("bob", now).await.unwrap();
    let (key, id) = (auth::new_key(), KeyId::new(now));
    let new = NewKey {
        id,
        user_id: user.id,
        name: "old".to_owned(),
        hash: auth::hash(&key),
        scopes: Scope::ALL.to_vec(),
        expires_at: Some(now.plus(Duration::from_mins(1))),
    };
    app.state.store.create_key(new, now).await.unwrap().unwrap();
    assert_eq!(app.request("GET", "/v2/users/me").by(&key).send().await.status, 200);
    app.clock.advance(Duration::from_mins(1));
    (key, id)
}

#[tokio::test]
async fn what_is_not_there_is_json_too() {
    let app = App::new().await;
    for path in ["/nothing", "/v2", "/v2/nothing", "/v2/jobs/1", "/v2/tasks/00000000-0000-0000-0000-000000000001"] {
        app.get(path).await.fails(404, "NOT_FOUND");
    }
    app.request("POST", "/v2/export/nowhere").send().await.fails(404, "NOT_FOUND");
    app.get("/v2/jobs/%ff").await.fails(404, "NOT_FOUND");
}

#[tokio::test]
async fn a_wrong_method_names_the_right_ones() {
    let app = App::new().await;
    for (method, path, allowed) in [
        ("PUT", "/v2/jobs", vec!["GET", "POST"]),
        ("GET", "/v2/import/url", vec!["POST"]),
        ("PATCH", "/v2/users/me", vec!["GET"]),
        ("BREW", "/healthz", vec!["GET"]),
    ] {
        let reply = app.request(method, path).send().await;
        reply.fails(405, "METHOD_NOT_ALLOWED");
        for name in allowed {
            assert!(reply.header("allow").contains(name), "{method} {path}: {}", reply.header("allow"));
        }
    }
    let options = app.request("OPTIONS", "/v2/jobs").anonymous().send().await;
    assert_eq!((options.status.as_u16(), options.body.len()), (204, 0));
    assert!(options.header("allow").contains("POST"));
    let head = app.request("HEAD", "/v2/users/me").send().await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
}

#[tokio::test]
async fn somebody_elses_jobs_and_tasks_do_not_exist() {
    let app = App::new().await;
    let (job, task, _) = app.small_job().await;
    let (other, _) = new_key(&app.state, "bob", &Scope::ALL).await;
    for (method, path) in [
        ("GET", format!("/v2/jobs/{job}")),
        ("GET", format!("/v2/jobs/{job}/wait")),
        ("DELETE", format!("/v2/jobs/{job}")),
        ("GET", format!("/v2/tasks/{task}")),
        ("POST", format!("/v2/tasks/{task}/cancel")),
        ("POST", format!("/v2/tasks/{task}/retry")),
        ("DELETE", format!("/v2/tasks/{task}")),
    ] {
        app.request(method, &path).by(&other).send().await.fails(404, "NOT_FOUND");
    }
    let listed = app.request("GET", "/v2/tasks").by(&other).send().await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 0);
    let body = serde_json::json!({"input": task.to_string()}).to_string();
    let stolen = app.request("POST", "/v2/export/url").by(&other).body(body).send().await;
    assert!(stolen.fails(422, "INVALID_DATA")["errors"]["input"].is_array());
}

#[tokio::test]
async fn creations_are_counted_by_key() {
    let app = App::with(|config| config.limits.creations_per_minute_max = 2).await;
    let make = || app.post("/v2/import/upload", serde_json::json!({}));
    for left in ["1", "0"] {
        let reply = make().await;
        assert_eq!(reply.status, 201);
        assert_eq!((reply.header("x-ratelimit-limit"), reply.header("x-ratelimit-remaining")), ("2", left));
    }
    let refused = make().await;
    refused.fails(429, "TOO_MANY_REQUESTS");
    assert_eq!((refused.header("x-ratelimit-remaining"), refused.header("retry-after")), ("0", "30"));
    assert_eq!(app.get("/v2/tasks").await.header("x-ratelimit-limit"), "", "reading is not counted");
    let (other, _) = new_key(&app.state, "ann", &Scope::ALL).await;
    assert_eq!(app.request("POST", "/v2/import/upload").by(&other).send().await.status, 201);
    app.clock.advance(Duration::from_secs(30));
    assert_eq!(make().await.status, 201);
}

#[tokio::test]
async fn every_answer_forbids_sniffing_and_referring() {
    let app = App::new().await;
    for path in ["/", "/docs", "/nothing", "/v2/jobs", "/healthz"] {
        let reply = app.get(path).await;
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(reply.header("referrer-policy"), "no-referrer", "{path}");
    }
}
