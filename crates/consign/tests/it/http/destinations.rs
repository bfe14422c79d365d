//! `POST /v2/destinations/test` as a route: faults, limits, and refusals that are no errors.

use serde_json::{Value, json};

use super::app::{App, new_key};
use consign::model::Scope;

const PATH: &str = "/v2/destinations/test";

fn task(endpoint: &str) -> Value {
    json!({"operation": "export/s3", "endpoint": endpoint, "region": "r", "bucket": "b", "key_prefix": "p/",
        "access_key_id": "k", "secret_access_key": "canary-secret", "colour": "red"})
}

#[tokio::test]
async fn faults_are_told_by_field_as_at_creation() {
    let app = App::new().await;
    for (body, field) in [
        (json!({}), "operation"),
        (json!({"operation": "export/url"}), "operation"),
        (json!({"operation": "import/s3"}), "operation"),
        (json!({"operation": "export/s3", "bucket": "b"}), "region"),
        (json!({"operation": "export/s3", "bucket": "b"}), "access_key_id"),
    ] {
        let reply = app.post(PATH, body.clone()).await;
        assert!(reply.fails(422, "INVALID_DATA")["errors"][field].is_array(), "{body}: {}", reply.text());
    }
    app.request("POST", PATH).body("{").send().await.fails(400, "BAD_REQUEST");
}

#[tokio::test]
async fn a_private_address_is_a_refused_step_in_the_words_of_an_export() {
    let app = App::new().await;
    let reply = app.post(PATH, task("http://10.0.0.1:9000")).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("x-ratelimit-remaining"), "999", "it counts as a creation");
    assert!(!reply.text().contains("canary"), "{}", reply.text());
    let data = &reply.json()["data"];
    assert_eq!((&data["operation"], &data["ok"]), (&json!("export/s3"), &json!(false)));
    assert_eq!(data["warnings"].as_array().unwrap().len(), 1);
    let steps = data["steps"].as_array().unwrap();
    let names: Vec<&str> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(names, ["arguments", "connect", "credentials", "write", "abort", "stat", "read", "list", "delete"]);
    assert_eq!((&steps[0]["status"], &steps[1]["status"]), (&json!("ok"), &json!("refused")));
    assert_eq!(steps[1]["code"], "HOST_NOT_ALLOWED");
    assert!(steps[1]["message"].as_str().unwrap().contains("egress.allow"), "{}", steps[1]);
    assert!(steps[2..].iter().all(|step| step["status"] == "skipped"), "{data:#}");
    let policy: Value = serde_json::from_str(data["permissions"]["needed"]["grant"].as_str().unwrap()).unwrap();
    assert_eq!(policy["Statement"][0]["Resource"], json!(["arn:aws:s3:::b/p/*"]));
}

#[tokio::test]
async fn tests_at_once_are_bounded() {
    let app = App::new().await;
    let (other, user) = new_key(&app.state, "bob", &Scope::ALL).await;
    let turns: Vec<_> = std::iter::from_fn(|| app.state.trials.admit(user).ok()).collect();
    let ask = || app.request("POST", PATH).by(&other).body(task("http://10.0.0.1").to_string());
    let refused = ask().send().await;
    refused.fails(429, "TOO_MANY_REQUESTS");
    assert_eq!(refused.header("retry-after"), "5");
    assert_eq!(app.post(PATH, task("http://10.0.0.1")).await.status, 200, "another user's");
    drop(turns);
    assert_eq!(ask().send().await.status, 200);
}
