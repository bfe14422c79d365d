//! Requests that make or remove tasks of their own, run the job of a signed address, or have a webhook told again.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::super::harness::{eventually, id};
use super::life::{Life, link};

/// Points that tests here name themselves.
pub(super) const NAMED: [&str; 5] =
    ["task.created", "task.retried", "task.deleted", "signed.created", "webhook.due_again"];

const JSON: &str = "Content-Type: application/json\r\n";
const RAW: &str = r#"{"file": "hello", "filename": "a.txt"}"#;

async fn tasks(life: &Life) -> Vec<Value> {
    life.program.show("/v2/tasks").await.as_array().unwrap().clone()
}

async fn all_finish(life: &Life, count: usize) {
    let found = eventually("an end of all tasks", async || {
        let found = tasks(life).await;
        found.iter().all(|task| task["status"] == "finished").then_some(found)
    })
    .await;
    assert_eq!(found.len(), count, "{found:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_their_own() {
    let mut life = Life::new(&[]).await;
    life.doomed("task.created").await;
    let headers = format!("{JSON}Idempotency-Key: one\r\n");
    life.post("/v2/import/raw", &headers, RAW.as_bytes()).await;
    life.dies().await;
    let (status, answer) = life.post("/v2/import/raw", &headers, RAW.as_bytes()).await.unwrap();
    let first: Value = serde_json::from_slice::<Value>(&answer).unwrap()["data"].clone();
    assert_eq!(status, 201, "{first}");
    all_finish(&life, 1).await;
    life.watch(&first);
    life.keeps_what_is_named().await;

    life.doomed("task.retried").await;
    life.ask_without_answer("POST", &format!("/v2/tasks/{}/retry", id(&first))).await;
    life.dies().await;
    all_finish(&life, 2).await;
    let second = tasks(&life).await.into_iter().find(|task| id(task) != id(&first)).unwrap();
    life.watch(&second);
    life.keeps_what_is_named().await;

    life.doomed("task.deleted").await;
    life.ask_without_answer("DELETE", &format!("/v2/tasks/{}", id(&first))).await;
    life.dies().await;
    let (status, _) = life.program.call(Method::GET, &format!("/v2/tasks/{}", id(&first)), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    life.keeps_what_is_named().await;
    let names = life.names().await;
    assert!(names.len() == 1 && names.iter().all(|name| name.starts_with(&id(&second))), "{names:?}");
}

/// Path and query of a signed address that runs this job.
fn signed(base: &str, secret: &str, job: &Value, rest: &str) -> String {
    let query = format!("?job={}{rest}", URL_SAFE_NO_PAD.encode(job.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hex::encode(hmac::sign(&key, format!("{base}{query}").as_bytes()));
    format!("{}{query}&s={signature}", &base[base.find("/s/").unwrap()..])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_of_a_signed_address() {
    let mut life = Life::new(&[]).await;
    life.doomed("signed.created").await;
    let made = life.program.run(&["signed-url", "create", "web"]);
    let told = String::from_utf8(made.stdout).unwrap();
    let [base, secret] = told.lines().collect::<Vec<_>>()[..] else { panic!("a base and a secret: {told}") };
    // The port changes with every start: it is signed for the host that the client names.
    let base = format!("http://h{}", &base[base.find("/s/").unwrap()..]);
    let raw = json!({"operation": "import/raw", "file": "hello", "filename": "a.txt"});
    let job = json!({"tasks": {"in": raw, "out": link()}});
    // With a key the second request waits for the job of the first; without one each makes its own.
    for (rest, jobs) in [("&cache_key=k", 1), ("", 3)] {
        let target = signed(&base, secret, &job, rest);
        life.ask_without_answer("GET", &target).await;
        life.dies().await;
        let (status, answer) = life.send("GET", &target, "", b"").await.unwrap();
        assert_eq!(status, 302, "{}", String::from_utf8_lossy(&answer));
        eventually("an end of all jobs", async || {
            let found = life.program.show("/v2/jobs").await.as_array().unwrap().clone();
            let has_ended = found.iter().all(|job| job["status"] == "finished");
            has_ended.then(|| assert_eq!(found.len(), jobs, "{found:#?}"))
        })
        .await;
        life.doomed("signed.created").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_is_told_again() {
    let mut life = Life::new(&[]).await;
    life.again().await;
    let raw = json!({"operation": "import/raw", "file": "hello", "filename": "a.txt"});
    let job = life.job(&json!({"in": raw, "out": link()})).await;
    life.ends_well(&job).await;
    let deliveries = life.program.show(&format!("/v2/jobs/{}/deliveries", id(&job))).await;
    let path = format!("/v2/deliveries/{}/redeliver", deliveries[0]["id"].as_str().unwrap());
    life.doomed("webhook.due_again").await;
    life.ask_without_answer("POST", &path).await;
    life.dies().await;
    eventually("it to be told again", async || (life.heard(&job).len() == 2).then_some(())).await;
    life.is_told(&job, "job.finished").await;
}
