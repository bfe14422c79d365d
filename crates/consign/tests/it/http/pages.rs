//! What operators and newcomers look at: health, metrics, the OpenAPI document, the manual, the status page.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::app::App;

#[tokio::test]
async fn health_and_readiness() {
    let app = App::new().await;
    assert_eq!(app.request("GET", "/healthz").anonymous().send().await.status, 200);
    let ready = app.request("GET", "/readyz").anonymous().send().await;
    assert_eq!(
        ready.text(),
        r#"{"ready":true,"reasons":[],"checks":[{"name":"database","ok":true},{"name":"clock","ok":true},{"name":"file_store","ok":true},{"name":"serving","ok":true}]}"#
    );
    std::fs::remove_dir_all(app.files_folder()).unwrap();
    // Whoever probes often is given the same answer for half a second.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let not = app.get("/readyz").await;
    assert_eq!(not.status, 503);
    let failed: Vec<Value> =
        not.json()["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false).cloned().collect();
    assert_eq!(failed.len(), 1, "{}", not.text());
    assert_eq!((&failed[0]["name"], &failed[0]["reason"]), (&json!("file_store"), &not.json()["reasons"][0]));
    assert!(failed[0]["reason"].as_str().unwrap().contains("make room"), "what to do");
    assert!(!not.text().contains(app.files_folder().to_str().unwrap()), "no path of the machine");
}

#[tokio::test]
async fn a_server_that_is_about_to_stop_or_has_lost_its_leases_is_not_ready_but_lives() {
    let app = App::new().await;
    let fenced = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&fenced);
    app.state.health.watch("runner", move || asked.load(Ordering::Relaxed).then_some("It has lost its leases."));
    let failing = async || {
        let body = app.get("/readyz").await.json();
        let failed: Vec<Value> =
            body["checks"].as_array().unwrap().iter().filter(|c| c["ok"] == false).cloned().collect();
        assert_eq!(body["ready"] == true, failed.is_empty(), "{body}");
        failed.iter().map(|check| check["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(failing().await, [""; 0]);
    fenced.store(true, Ordering::Relaxed);
    assert_eq!(failing().await, ["runner"], "at once, though the other checks are remembered");
    assert!(app.get("/metrics").await.text().contains("consign_ready 0"));
    fenced.store(false, Ordering::Relaxed);
    assert_eq!(failing().await, [""; 0]);
    app.state.health.drain();
    assert_eq!(failing().await, ["serving"]);
    assert_eq!(app.get("/healthz").await.status, 200);
    assert_eq!(app.get("/v2/users/me").await.status, 200, "requests are still served");
}

#[tokio::test]
async fn probes_and_scrapes_share_what_was_looked_up() {
    let app = App::new().await;
    let queued = async || {
        let text = app.get("/metrics").await.text();
        let find = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        (find("consign_tasks_queued "), find("consign_store_seconds_count{call=\"count\"} "))
    };
    assert_eq!(queued().await, ("0".to_owned(), "1".to_owned()));
    app.small_job().await;
    assert_eq!(queued().await, ("0".to_owned(), "1".to_owned()), "the database is read every 5 s at the most");
    // However many ask at once, the database is written to once.
    let pings = || {
        let text = app.state.metrics.text();
        let line = text.lines().find_map(|line| line.strip_prefix("consign_store_seconds_count{call=\"ping\"} "));
        line.unwrap().parse::<u32>().unwrap()
    };
    tokio::time::sleep(Duration::from_millis(600)).await;
    let before = pings();
    let all = futures_util::future::join_all((0..50).map(|_| app.get("/readyz"))).await;
    assert!(all.iter().all(|reply| reply.status == 200));
    assert_eq!(pings() - before, 1);
}

#[tokio::test]
async fn counts_that_cannot_be_read_any_more_grow_old() {
    let app = App::new().await;
    let age = async || {
        let text = app.get("/metrics").await.text();
        let line = text.lines().find_map(|line| line.strip_prefix("consign_counts_age_seconds ")).unwrap().to_owned();
        line.parse::<u64>().unwrap()
    };
    assert!(age().await < 5);
    // Those that were read hold for five seconds; they are read again then.
    tokio::time::sleep(Duration::from_millis(5100)).await;
    assert!(age().await < 5);
    app.state.store.close().await;
    tokio::time::sleep(Duration::from_millis(5100)).await;
    assert!(age().await >= 5, "nobody has counted since");
    assert!(app.get("/metrics").await.text().contains("consign_database_up 0"));
}

#[tokio::test]
async fn a_request_has_an_id_that_the_client_may_choose() {
    let app = App::new().await;
    let id = async |given: Option<&str>| {
        let mut request = app.request("GET", "/v2/users/me");
        if let Some(given) = given {
            request = request.header("x-request-id", given);
        }
        request.send().await.headers["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(id(Some("abc-1.2_3")).await, "abc-1.2_3");
    let (first, second) = (id(None).await, id(None).await);
    assert!(first != second && first.len() == 16, "{first}, {second}");
    let long = "a".repeat(65);
    for bad in ["", "a b", "a\"b", "{x}", long.as_str()] {
        assert_ne!(id(Some(bad)).await, bad);
    }
    let lost = app.request("GET", "/nowhere").anonymous().send().await;
    assert!(lost.headers.contains_key("x-request-id"), "errors have one too");
}

#[tokio::test]
async fn metrics_count_requests_by_template_and_never_by_path() {
    let app = App::new().await;
    app.small_job().await;
    let id = "00000000-0000-0000-0000-00000000abcd";
    app.get(&format!("/v2/jobs/{id}")).await;
    app.get(&format!("/files/{id}/secret-name?temp_url_sig=abc&temp_url_expires=1")).await;
    app.request("BREW", "/v2/jobs").send().await;
    app.get("/made-up-path").await;
    let text = app.get("/metrics").await.text();
    for line in [
        r#"consign_http_requests_total{method="POST",route="/v2/jobs",status="201"} 1"#,
        r#"consign_http_requests_total{method="GET",route="/v2/jobs/{id}",status="404"} 1"#,
        r#"consign_http_requests_total{method="GET",route="/files/{task}/{name}",status="404"} 1"#,
        r#"consign_http_requests_total{method="OTHER",route="/v2/jobs",status="405"} 1"#,
        r#"consign_http_requests_total{method="GET",route="none",status="404"} 1"#,
        "consign_tasks_queued 1",
        "consign_tasks_waiting 1",
        "consign_users 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("abcd") && !text.contains("secret-name") && !text.contains("made-up"));
}

#[tokio::test]
async fn the_document_describes_every_operation_and_resolves_every_reference() {
    let app = App::new().await;
    let document = app.request("GET", "/openapi.json").anonymous().send().await.json();
    assert_eq!(document["openapi"], "3.1.0");
    for entry in consign::operations::all() {
        let post = &document["paths"][format!("/v2/{}", entry.name)]["post"];
        assert!(post["requestBody"].is_object(), "{}", entry.name);
        for status in ["201", "400", "401", "403", "413", "422", "429", "500", "503", "504"] {
            assert!(post["responses"][status].is_object(), "{} {status}", entry.name);
        }
        assert!(document["components"]["schemas"][entry.name.replace('/', ".")].is_object());
    }
    let mut references = BTreeSet::new();
    collect(&document, &mut references);
    assert!(references.len() > 5);
    for reference in references {
        assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference} leads nowhere");
    }
}

fn collect(value: &Value, references: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            references.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| collect(member, references));
        }
        Value::Array(entries) => entries.iter().for_each(|entry| collect(entry, references)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[tokio::test]
async fn pages_load_nothing_from_elsewhere_and_run_no_script() {
    let app = App::new().await;
    for path in ["/", "/docs"] {
        let page = app.request("GET", path).anonymous().send().await;
        assert_eq!(page.status, 200);
        assert!(page.header("content-type").starts_with("text/html"));
        assert!(page.header("content-security-policy").starts_with("default-src 'none'"));
        let text = page.text();
        assert!(!text.contains("<script") && !text.contains("src=") && !text.contains("@import"), "{path}");
    }
    let manual = app.get("/docs").await.text();
    for entry in consign::operations::all() {
        assert!(manual.contains(&format!("<code>/v2/{}</code>", entry.name)), "{}", entry.name);
    }
    assert!(manual.contains("result.form.parameters.Policy"), "shapes are unfolded");
}
