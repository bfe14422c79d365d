//! Webhooks from end to end: the real server and a real receiver, with failures and kills between them.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::harness::{Program, eventually, id, task};
use super::receiver::{Heard, Receiver};

const EVENTS: [&str; 3] = ["job.created", "job.finished", "job.failed"];

fn raw() -> Value {
    json!({"in": {"operation": "import/raw", "file": "hello", "filename": "hello.txt"},
        "out": {"operation": "export/url", "input": "in"}})
}

async fn hook(program: &Program, url: &str, events: &[&str]) -> Value {
    let asked = json!({"url": url, "events": events});
    let (status, mut answer) = program.call(Method::POST, "/v2/webhooks", Some(&asked)).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    answer["data"].take()
}

async fn read(program: &Program, webhook: &Value) -> Value {
    let (_, list) = program.call(Method::GET, "/v2/users/me/webhooks", None).await;
    let all = list["data"].as_array().unwrap();
    all.iter().find(|one| one["id"] == webhook["id"]).expect("there is such a webhook").clone()
}

async fn log(program: &Program, webhook: &Value) -> Vec<Value> {
    let path = format!("/v2/webhooks/{}/deliveries", webhook["id"]);
    let (status, list) = program.call(Method::GET, &path, None).await;
    assert_eq!(status, StatusCode::OK, "{list}");
    list["data"].as_array().unwrap().clone()
}

/// Waits until the log of a webhook satisfies.
async fn logged(program: &Program, webhook: &Value, is_so: fn(&[Value]) -> bool) -> Vec<Value> {
    eventually("what the log should say", async || Some(log(program, webhook).await).filter(|log| is_so(log))).await
}

fn secret(webhook: &Value) -> &str {
    webhook["signing_secret"].as_str().unwrap()
}

/// Both carry the same thing.
#[track_caller]
fn is_repeated(first: &Heard, second: &Heard) {
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!(first.body, second.body, "the bytes changed");
    assert_eq!(first.header("cloudconvert-signature"), second.header("cloudconvert-signature"));
}

#[tokio::test(flavor = "multi_thread")]
async fn exact_bytes_with_both_signatures() {
    let (program, receiver) = (Program::started(&[]).await, Receiver::start().await);
    let webhook = hook(&program, &receiver.url("/ok?a=b"), &EVENTS).await;
    let own = receiver.url("/own").replace("http://", "http://ann:p%40ss@");
    let asked = json!({"tag": "hooks", "webhook_url": own, "tasks": raw()});
    let (status, made) = program.call(Method::POST, "/v2/jobs", Some(&asked)).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let ended = program.finished(&made["data"]).await;

    let heard = receiver.hears("/ok", 2).await;
    let created = heard.iter().find(|heard| heard.event() == "job.created").unwrap();
    let finished = heard.iter().find(|heard| heard.event() == "job.finished").unwrap();
    assert_eq!(
        String::from_utf8_lossy(&created.body),
        json!({"event": "job.created", "job": made["data"]}).to_string()
    );
    assert_eq!(String::from_utf8_lossy(&finished.body), json!({"event": "job.finished", "job": ended}).to_string());
    for one in [created, finished] {
        one.is_signed_with(secret(&webhook));
        assert_eq!(one.header("content-type"), "application/json");
        assert!(one.header("user-agent").starts_with("consign/"), "{:?}", one.headers);
    }
    assert_ne!(created.header("webhook-id"), finished.header("webhook-id"));

    let own = receiver.hears("/own", 1).await.remove(0);
    assert_eq!(own.body, finished.body);
    assert_eq!(own.header("authorization"), "Basic YW5uOnBAc3M=");
    let output = program.run(&["webhook-secret"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed.trim().len(), 32, "{printed}");
    own.is_signed_with(printed.trim());
    let rotated = String::from_utf8(program.run(&["webhook-secret", "--rotate"]).stdout).unwrap();
    assert_ne!(rotated, printed);

    let (_, list) = program.call(Method::GET, &format!("/v2/jobs/{}/deliveries", id(&made["data"])), None).await;
    let own_line = list["data"].as_array().unwrap().iter().find(|line| line["webhook_id"].is_null()).unwrap();
    assert_eq!(own_line["id"], own.header("webhook-id"));
    let path = format!("/v2/deliveries/{}/redeliver", own.header("webhook-id"));
    assert_eq!(program.call(Method::POST, &path, None).await.0, StatusCode::ACCEPTED);
    let again = receiver.hears("/own", 2).await.remove(1);
    assert_eq!((again.header("webhook-id"), &again.body), (own.header("webhook-id"), &own.body));
    again.is_signed_with(rotated.trim());
    sleep(Duration::from_millis(500)).await;
    assert_eq!((receiver.heard("/ok").len(), receiver.heard("/own").len()), (2, 2), "nothing comes twice by itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_attempt_is_repeated_exactly() {
    let (program, receiver) = (Program::started(&[]).await, Receiver::start().await);
    let webhook = hook(&program, &receiver.url("/once/500"), &["job.finished"]).await;
    program.finished(&program.job(raw()).await).await;
    let first = logged(&program, &webhook, |log| !log.is_empty() && log[0]["attempts"][0].is_object()).await.remove(0);
    assert_eq!((&first["status"], &first["attempts"][0]["status"]), (&json!("pending"), &json!(500)));
    assert!(first["next_attempt_at"].is_string() && first["attempts"][0]["error"].is_string(), "{first}");
    assert_eq!(read(&program, &webhook).await["failing"], json!(true));
    let heard = receiver.hears("/once/500", 2).await;
    is_repeated(&heard[0], &heard[1]);
    let pause = heard[1].at - heard[0].at;
    assert!(pause >= Duration::from_secs(5) && pause < Duration::from_secs(20), "{pause:?}");
    heard[1].is_signed_with(secret(&webhook));
    let done = logged(&program, &webhook, |log| log[0]["status"] == "delivered").await;
    assert_eq!(done[0]["attempts"].as_array().unwrap().len(), 2);
    assert_eq!(read(&program, &webhook).await["failing"], json!(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_nothing_and_changes_no_byte() {
    let (mut program, receiver) = (Program::started(&[]).await, Receiver::start().await);
    let failing = hook(&program, &receiver.url("/once/500"), &["job.finished"]).await;
    hook(&program, &receiver.url("/once/hang"), &["job.finished"]).await;
    program.finished(&program.job(raw()).await).await;
    logged(&program, &failing, |log| !log.is_empty() && log[0]["attempts"][0].is_object()).await;
    receiver.hears("/once/hang", 1).await;
    // A change of address must not change what was to be said.
    program.set("PUBLIC_URL", "https://elsewhere.example.test");
    program.restart_after_kill().await;
    let began = Instant::now();
    for path in ["/once/hang", "/once/500"] {
        let heard = receiver.hears(path, 2).await;
        is_repeated(&heard[0], &heard[1]);
    }
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_gone_is_told_nothing_more() {
    let (program, receiver) = (Program::started(&[]).await, Receiver::start().await);
    let webhook = hook(&program, &receiver.url("/gone"), &["job.finished"]).await;
    program.finished(&program.job(raw()).await).await;
    let log = logged(&program, &webhook, |log| log.iter().any(|one| one["status"] == "failed")).await;
    assert_eq!(log[0]["attempts"][0]["status"], json!(410));
    assert_eq!(read(&program, &webhook).await["disabled"], json!(true));
    program.finished(&program.job(raw()).await).await;
    sleep(Duration::from_millis(500)).await;
    assert_eq!(receiver.heard("/gone").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_delays_nobody_else() {
    let (program, receiver) = (Program::started(&[]).await, Receiver::start().await);
    let slow = hook(&program, &receiver.url("/hang"), &EVENTS).await;
    let began = Instant::now();
    for _ in 0..40 {
        program.job(raw()).await;
    }
    receiver.hears("/hang", 4).await;
    let webhook = hook(&program, &receiver.url("/ok"), &["job.finished"]).await;
    let jobs = futures_util::future::join_all((0..10).map(async |_| program.job(raw()).await)).await;
    for job in &jobs {
        program.finished(job).await;
    }
    let ended = Instant::now();
    eventually("all ten at the other one", async || {
        let heard: Vec<Value> = receiver.heard("/ok").iter().map(|heard| heard.json()["job"]["id"].clone()).collect();
        jobs.iter().all(|job| heard.contains(&job["id"])).then_some(())
    })
    .await;
    assert!(ended.elapsed() < Duration::from_secs(12), "{:?} behind one that hangs", ended.elapsed());
    let rounds = 1 + began.elapsed().as_secs() / 15;
    assert!(receiver.heard("/hang").len() as u64 <= 4 * rounds, "it is sent four at once");
    logged(&program, &webhook, |log| log.len() >= 10 && log.iter().all(|one| one["status"] == "delivered")).await;
    assert!(log(&program, &slow).await.iter().all(|one| one["status"] == "pending"));
    let (_, metrics) = program.text("/metrics").await;
    assert!(metrics.contains(r#"consign_webhook_attempts_total{outcome="delivered"} "#), "{metrics}");
    assert!(!metrics.contains("consign_webhooks_pending 0\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_address_is_refused_until_it_is_allowed() {
    let mut program = Program::started(&[("EGRESS__ALLOW", "127.0.0.2")]).await;
    let receiver = Receiver::start().await;
    let webhook = hook(&program, &receiver.url("/ok"), &["job.finished"]).await;
    program.finished(&program.job(raw()).await).await;
    let refused =
        logged(&program, &webhook, |log| !log.is_empty() && log[0]["attempts"][0].is_object()).await.remove(0);
    assert_eq!((&refused["status"], &refused["attempts"][0]["status"]), (&json!("pending"), &Value::Null));
    let error = refused["attempts"][0]["error"].as_str().unwrap();
    assert!(error.contains("127.0.0.1") && error.contains("egress.allow"), "{error}");
    assert_eq!(receiver.heard("/ok").len(), 0);
    program.set("EGRESS__ALLOW", "127.0.0.1");
    program.restart_after_kill().await;
    let heard = receiver.hears("/ok", 1).await;
    assert_eq!(heard[0].header("webhook-id"), refused["id"], "nothing was lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_not_followed() {
    let (program, receiver) = (Program::started(&[]).await, Receiver::start().await);
    let webhook = hook(&program, &receiver.url("/redirect"), &["job.finished"]).await;
    program.finished(&program.job(raw()).await).await;
    let log = logged(&program, &webhook, |log| !log.is_empty() && log[0]["attempts"][0].is_object()).await;
    assert_eq!(log[0]["attempts"][0]["status"], json!(302));
    assert!(log[0]["attempts"][0]["error"].as_str().unwrap().contains("redirects are not followed"), "{log:?}");
    assert_eq!(log[0]["status"], "pending", "nobody has it: it is sent again");
    assert_eq!(receiver.heard("/ok").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_deleted_at_its_end_is_told_whole() {
    let (program, receiver) = (Program::started(&[]).await, Receiver::start().await);
    hook(&program, &receiver.url("/ok"), &["job.finished", "job.failed"]).await;
    let mut jobs = Vec::new();
    for _ in 0..10 {
        let job = program.job(raw()).await;
        let path = format!("/v2/jobs/{}", id(&job));
        program.call(Method::GET, &format!("{path}/wait"), None).await;
        assert_eq!(program.call(Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
        jobs.push(id(&job));
    }
    let waiting = program.job(json!({"in": {"operation": "import/upload"}})).await;
    program.call(Method::DELETE, &format!("/v2/jobs/{}", id(&waiting)), None).await;
    let heard = receiver.hears("/ok", 11).await;
    for job in jobs {
        let told: Vec<Value> = heard.iter().map(Heard::json).filter(|told| told["job"]["id"] == job).collect();
        assert_eq!(told.len(), 1, "{job}");
        assert_eq!(told[0]["event"], "job.finished");
        let file = &task(&told[0]["job"], "out")["result"]["files"][0];
        assert!(file["url"].is_string(), "{:#}", told[0]);
    }
    let failed: Vec<Value> = heard.iter().map(Heard::json).filter(|told| told["event"] == "job.failed").collect();
    assert_eq!((failed.len(), &failed[0]["job"]["tasks"][0]["code"]), (1, &json!("CANCELLED")));
}
