//! What operators and newcomers look at: health, metrics, the OpenAPI document, the manual, the status page.

use std::collections::BTreeSet;

use serde_json::Value;

use super::app::App;

#[tokio::test]
async fn health_and_readiness() {
    let app = App::new().await;
    assert_eq!(app.request("GET", "/healthz").anonymous().send().await.status, 200);
    let ready = app.request("GET", "/readyz").anonymous().send().await;
    assert_eq!(ready.text(), r#"{"ready":true,"reasons":[]}"#);
    std::fs::remove_dir_all(app.files_folder()).unwrap();
    let not = app.get("/readyz").await;
    assert_eq!(not.status, 503);
    assert_eq!(not.json()["reasons"].as_array().unwrap().len(), 1);
    assert!(!not.text().contains(app.files_folder().to_str().unwrap()), "no path of the machine");
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
