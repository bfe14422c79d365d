//! Showing, cancelling, retrying and deleting tasks, and what can be had beside them.

use serde_json::{Value, json};

use super::app::App;

#[tokio::test]
async fn a_cancelled_task_ends_at_once_and_takes_its_dependents_along() {
    let app = App::new().await;
    let (job, import, export) = app.small_job().await;
    let cancelled = app.request("POST", &format!("/v2/tasks/{import}/cancel")).send().await;
    assert_eq!(cancelled.status, 200);
    let task = cancelled.json()["data"].clone();
    assert_eq!((&task["status"], &task["code"]), (&json!("error"), &json!("CANCELLED")));
    let dependent = app.get(&format!("/v2/tasks/{export}")).await.json()["data"].clone();
    assert_eq!((&dependent["status"], &dependent["code"]), (&json!("error"), &json!("INPUT_TASK_FAILED")));
    assert_eq!(app.get(&format!("/v2/jobs/{job}")).await.json()["data"]["status"], "error");
    let again = app.request("POST", &format!("/v2/tasks/{import}/cancel")).body("{}").send().await;
    assert_eq!(again.status, 422);
    assert_eq!(
        again.text(),
        r#"{"message":"The given data was invalid.","code":"INVALID_DATA","errors":{"status":["Cannot change status: task already completed."]}}"#
    );
}

#[tokio::test]
async fn a_retry_is_a_new_task_that_does_the_same() {
    let app = App::new().await;
    let made = app.post("/v2/import/upload", json!({})).await.json()["data"].clone();
    let id = made["id"].as_str().unwrap();
    app.request("POST", &format!("/v2/tasks/{id}/cancel")).send().await;
    let retried = app.request("POST", &format!("/v2/tasks/{id}/retry")).send().await;
    assert_eq!(retried.status, 201);
    let retry = retried.json()["data"].clone();
    assert_ne!(retry["id"], made["id"]);
    assert_eq!((&retry["retry_of_task_id"], &retry["copy_of_task_id"]), (&made["id"], &made["id"]));
    assert_eq!((&retry["status"], &retry["operation"]), (&json!("waiting"), &json!("import/upload")));
    assert_ne!(retry["result"]["form"]["url"], made["result"]["form"]["url"]);
    let original = app.get(&format!("/v2/tasks/{id}?include=retries")).await.json()["data"].clone();
    assert_eq!(original["code"], "CANCELLED");
    assert_eq!(original["retries"], json!([retry]));
}

#[tokio::test]
async fn includes_come_when_asked_for_and_only_then() {
    let app = App::new().await;
    let (job, import, export) = app.small_job().await;
    let bare = app.get(&format!("/v2/tasks/{export}?include=")).await.json()["data"].clone();
    for absent in ["payload", "retries", "depends_on_tasks", "job", "warnings"] {
        assert!(bare.get(absent).is_none(), "{absent}");
    }
    let all = app
        .get(&format!("/v2/tasks/{export}?include=retries,depends_on_tasks%2Cpayload,job,System.String%5B%5D"))
        .await;
    let all = all.json()["data"].clone();
    assert_eq!(all["retries"], json!([]));
    assert_eq!(all["depends_on_tasks"][0]["id"], import.to_string());
    assert_eq!(all["job"]["id"], job);
    assert!(all["job"].get("tasks").is_none());
    assert_eq!(all["payload"], json!({"operation": "export/url", "input": ["in"]}));
}

#[tokio::test]
async fn a_payload_is_shown_without_its_secrets() {
    let app = App::new().await;
    let args =
        json!({"url": "https://user:pass@h.test/x?token=sesame", "headers": {"X-Key": "hush"}, "filename": "f.txt"});
    let task = app.post("/v2/import/url", args).await.json()["data"].clone();
    let shown = app.get(&format!("/v2/tasks/{}?include=payload", task["id"].as_str().unwrap())).await;
    let text = shown.text();
    assert!(["user:pass", "sesame", "hush"].iter().all(|secret| !text.contains(secret)), "{text}");
    let payload = shown.json()["data"]["payload"].clone();
    assert_eq!((&payload["operation"], &payload["filename"]), (&json!("import/url"), &json!("f.txt")));
    assert!(payload.as_object().unwrap().keys().next().is_some_and(|first| first == "operation"));
    let (sealed, whole) =
        (app.state.store.payload(task["id"].as_str().unwrap().parse().unwrap()).await.unwrap().unwrap(), b"hush");
    assert!(!sealed.windows(whole.len()).any(|window| window == whole));
}

#[tokio::test]
async fn a_deleted_task_is_gone_and_the_answer_is_empty() {
    let app = App::new().await;
    let (job, import, _) = app.small_job().await;
    for path in [format!("/v2/tasks/{import}"), format!("/v2/jobs/{job}")] {
        let request = || app.request("DELETE", &path).header("content-type", "application/json");
        let deleted = request().send().await;
        assert_eq!((deleted.status.as_u16(), deleted.body.len()), (204, 0));
        assert_eq!(deleted.header("content-type"), "");
        request().send().await.fails(404, "NOT_FOUND");
        app.get(&path).await.fails(404, "NOT_FOUND");
    }
}

#[tokio::test]
async fn the_user_has_no_null_that_clients_cannot_read() {
    let app = App::new().await;
    let reply = app.get("/v2/users/me").await;
    assert!(reply.text().starts_with(r#"{"data":{"id":"#));
    let user = reply.json()["data"].clone();
    let keys: Vec<&str> = user.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        ["id", "username", "email", "created_at", "credits", "paying", "task_priority", "tasks_per_minute", "links"]
    );
    assert!(["id", "username", "email", "created_at", "credits", "links"].iter().all(|name| user[name] != Value::Null));
    assert_eq!(user["username"], "ann");
}

#[tokio::test]
async fn a_failed_task_keeps_its_code_for_people() {
    let app = App::new().await;
    let (job, import, _) = app.small_job().await;
    let claim = app.claim().await;
    let now = app.clock.now();
    let _ = app.state.store.fail(import, claim.token, "HOST_NOT_FOUND", "No such host.", now).await.unwrap();
    let job = app.get(&format!("/v2/jobs/{job}/wait")).await.json()["data"].clone();
    assert_eq!(job["status"], "error");
    assert_eq!(
        (&job["tasks"][0]["code"], &job["tasks"][0]["message"]),
        (&json!("HOST_NOT_FOUND"), &json!("No such host."))
    );
    assert_eq!(job["tasks"][1]["code"], "INPUT_TASK_FAILED");
}
