//! Webhooks as routes: what is made, listed and refused, the log, and what a delivery holds.

use std::time::Duration;

use consign::error::ApiResult;
use consign::model::{DeliveryAttempt, Scope};
use consign::store::{AttemptEnd, DeliveryClaim, Parcel};
use serde_json::{Value, json};

use super::app::{App, new_key};

const EVENTS: [&str; 3] = ["job.created", "job.finished", "job.failed"];

async fn hook(app: &App, url: &str) -> Value {
    let reply = app.post("/v2/webhooks", json!({"url": url, "events": EVENTS})).await;
    assert_eq!(reply.status, 201, "{}", reply.text());
    reply.json()["data"].take()
}

/// Does what the dispatcher does with the outbox.
async fn tell(app: &App) {
    for line in app.state.store.outbox(100).await.unwrap() {
        app.state.teller().tell(line).await.unwrap();
    }
}

async fn claim(app: &App) -> Vec<Parcel> {
    let now = app.clock.now();
    let claim = DeliveryClaim {
        max: 100,
        per_receiver_max: 100,
        per_user_max: 100,
        sending: Vec::new(),
        lease_until: now.plus(Duration::from_mins(1)),
        now,
    };
    app.state.store.claim_deliveries(claim).await.unwrap()
}

fn body_of(app: &App, parcel: &Parcel) -> String {
    String::from_utf8(app.state.vault.open(&parcel.body).unwrap()).unwrap()
}

#[tokio::test]
async fn a_webhook_is_made_as_clients_expect_it() {
    let app = App::new().await;
    let asked = json!({"url": "http://some-url.com", "events": ["job.failed", "job.created", "job.failed"]});
    let reply = app.post("/v2/webhooks", asked).await;
    assert_eq!(reply.status, 201);
    let secret = reply.json()["data"]["signing_secret"].as_str().unwrap().to_owned();
    assert_eq!(secret.len(), 32);
    let expected = r#"{"data":{"id":1,"url":"http://some-url.com","disabled":false,
"events":["job.failed","job.created"],"failing":false,"signing_secret":"SECRET",
"created_at":"2026-01-05T09:00:00+00:00","updated_at":"2026-01-05T09:00:00+00:00",
"links":{"self":"https://cc.example.test/v2/webhooks/1"}}}"#;
    assert_eq!(reply.text(), expected.replace('\n', "").replace("SECRET", &secret));
    assert_ne!(hook(&app, "http://some-url.com").await["signing_secret"], json!(secret));
}

#[tokio::test]
async fn faults_are_told_by_field() {
    let app = App::new().await;
    let good = "https://hook.example.test";
    for (body, field) in [
        (json!({"events": EVENTS}), "url"),
        (json!({"url": "", "events": EVENTS}), "url"),
        (json!({"url": "ftp://a.example", "events": EVENTS}), "url"),
        (json!({"url": "no address", "events": EVENTS}), "url"),
        (json!({"url": "http:// a", "events": EVENTS}), "url"),
        (json!({"url": ["http://a.example"], "events": EVENTS}), "url"),
        (json!({"url": format!("{good}/{}", "a".repeat(2048)), "events": EVENTS}), "url"),
        (json!({"url": good}), "events"),
        (json!({"url": good, "events": []}), "events"),
        (json!({"url": good, "events": "job.created"}), "events"),
        (json!({"url": good, "events": {"0": "job.created"}}), "events"),
        (json!({"url": good, "events": ["job.created", "task.created"]}), "events.1"),
        (json!({"url": good, "events": [1]}), "events.0"),
    ] {
        let reply = app.post("/v2/webhooks", body.clone()).await;
        assert!(reply.fails(422, "INVALID_DATA")["errors"][field].is_array(), "{body}: {}", reply.text());
    }
    app.request("POST", "/v2/webhooks").body("{").send().await.fails(400, "BAD_REQUEST");
    for _ in 0..100 {
        hook(&app, good).await;
    }
    let full = app.post("/v2/webhooks", json!({"url": good, "events": EVENTS})).await;
    assert!(full.fails(422, "INVALID_DATA")["errors"]["url"][0].as_str().unwrap().contains("100"), "{}", full.text());
}

#[tokio::test]
async fn webhooks_are_listed_by_address_and_deleted_by_their_owner() {
    let app = App::new().await;
    let (first, second) = (hook(&app, "https://a.example/?t=1").await, hook(&app, "https://b.example").await);
    let list = app.get("/v2/users/me/webhooks?filter[url]=").await.json();
    assert_eq!(list["data"], json!([second, first]));
    assert_eq!(list["links"]["first"], "https://cc.example.test/v2/users/me/webhooks?page=1");
    assert_eq!(list["meta"]["to"], 2);
    let found = app.get("/v2/users/me/webhooks?filter[url]=https%3A%2F%2Fa.example%2F%3Ft%3D1").await.json();
    assert_eq!(found["data"], json!([first]));
    let last = app.get("/v2/users/me/webhooks?per_page=1&page=2").await.json();
    assert_eq!((&last["data"], &last["links"]["next"]), (&json!([first]), &Value::Null));
    let next = app.get("/v2/users/me/webhooks?per_page=1").await.json()["links"]["next"].take();
    assert_eq!(next, "https://cc.example.test/v2/users/me/webhooks?per_page=1&page=2");
    assert_eq!(app.get("/v2/users/me/webhooks?page=9").await.json()["data"], json!([]));

    let (other, _) = new_key(&app.state, "bob", &Scope::ALL).await;
    let delete = |key: &str| app.request("DELETE", "/v2/webhooks/1").by(key).send();
    delete(&other).await.fails(404, "NOT_FOUND");
    let bobs = app.request("GET", "/v2/users/me/webhooks").by(&other).send().await.json();
    assert_eq!(bobs["data"], json!([]));
    let gone = delete(&app.key).await;
    assert_eq!((gone.status.as_u16(), gone.header("content-type"), gone.body.len()), (204, "", 0));
    delete(&app.key).await.fails(404, "NOT_FOUND");
    for id in ["x", "99999999999", "1.5"] {
        app.request("DELETE", &format!("/v2/webhooks/{id}")).send().await.fails(404, "NOT_FOUND");
    }
}

#[tokio::test]
async fn what_is_sent_is_the_job_as_it_was_however_late() {
    let app = App::new().await;
    hook(&app, "https://hook.example.test").await;
    let made = app
        .post(
            "/v2/jobs",
            json!({"tag": "t", "webhook_url": "https://ann:x@own.example.test/?a", "tasks": {
                "up": {"operation": "import/upload"},
                "in": {"operation": "import/url", "url": "https://files.example.test/a.txt"},
                "out": {"operation": "export/url", "input": "in"},
            }}),
        )
        .await;
    let made_text = made.text();
    let job = made.json()["data"]["id"].as_str().unwrap().to_owned();
    let up = made.json()["data"]["tasks"][0]["id"].as_str().unwrap().to_owned();
    app.clock.advance(Duration::from_secs(3));
    let import = app.claim().await;
    let file = app.keep(&import, 1, "a.txt", b"hello").await;
    app.finish(&import, &[file]).await;
    let export = app.claim().await;
    let file = app.keep(&export, 1, "a.txt", b"hello").await;
    app.finish(&export, &[file]).await;
    assert_eq!(app.request("POST", &format!("/v2/tasks/{up}/cancel")).send().await.status, 200);
    app.clock.advance(Duration::from_secs(3));
    tell(&app).await;

    let shown = app.get(&format!("/v2/jobs/{job}")).await.text();
    let inner = |text: &str| text.strip_prefix(r#"{"data":"#).unwrap().strip_suffix('}').unwrap().to_owned();
    let created = format!(r#"{{"event":"job.created","job":{}}}"#, inner(&made_text));
    let failed = format!(r#"{{"event":"job.failed","job":{}}}"#, inner(&shown));
    let parcels = claim(&app).await;
    let mut bodies: Vec<String> = parcels.iter().map(|parcel| body_of(&app, parcel)).collect();
    bodies.sort_unstable();
    assert_eq!(bodies, [created, failed.clone(), failed]);
    let own: Vec<&Parcel> = parcels.iter().filter(|parcel| parcel.secret.is_none()).collect();
    assert_eq!(own.len(), 1, "the job's own address hears of the end only");
    assert_eq!(app.state.vault.open(&own[0].url).unwrap(), b"https://ann:x@own.example.test/?a");
    assert!(own[0].receiver.number < 0);
}

#[tokio::test]
async fn a_job_that_is_deleted_at_once_is_told_whole() {
    let app = App::new().await;
    hook(&app, "https://hook.example.test").await;
    let (job, ..) = app.small_job().await;
    app.claim().await;
    let path = format!("/v2/jobs/{job}");
    assert_eq!(app.request("DELETE", &path).send().await.status, 204);
    app.get(&path).await.fails(404, "NOT_FOUND");
    let told: Vec<Value> =
        claim(&app).await.iter().map(|parcel| serde_json::from_str(&body_of(&app, parcel)).unwrap()).collect();
    let end = told.iter().find(|body| body["event"] == "job.failed").expect("its end is told");
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!((&end["job"]["id"], &end["job"]["status"]), (&json!(job), &json!("error")));
    assert_eq!(end["job"]["tasks"][0]["code"], "CANCELLED");
    assert_eq!(end["job"]["tasks"].as_array().unwrap().len(), 2);
    let log = app.get(&format!("{path}/deliveries")).await.json();
    assert_eq!(log["data"].as_array().unwrap().len(), 2, "the log outlives the job");
}

async fn end(app: &App, parcel: &Parcel, status: Option<u16>, end: AttemptEnd) {
    let at = app.clock.now();
    let error = (status != Some(200)).then(|| "It did not work.".to_owned());
    let attempt = DeliveryAttempt { number: parcel.number, at, status, error, duration_ms: 7 };
    assert!(app.state.store.end_attempt(parcel.id, attempt, end, at).await.unwrap());
}

#[tokio::test]
async fn the_log_shows_every_attempt_and_delivers_again() {
    let app = App::new().await;
    let id = hook(&app, "https://hook.example.test/?token=canary").await["id"].clone();
    let path = format!("/v2/webhooks/{id}/deliveries");
    assert_eq!(app.get(&path).await.json()["data"], json!([]));
    let (job, ..) = app.small_job().await;
    tell(&app).await;
    let parcel = claim(&app).await.remove(0);
    end(&app, &parcel, None, AttemptEnd::Again(app.clock.now().plus(Duration::from_secs(5)))).await;
    let expected = r#"{"id":"ID","webhook_id":1,"job_id":"JOB","event":"job.created","status":"pending",
"attempts":[{"number":1,"at":"2026-01-05T09:00:00+00:00","status":null,"error":"It did not work.","duration_ms":7}],
"next_attempt_at":"2026-01-05T09:00:05+00:00","created_at":"2026-01-05T09:00:00+00:00","ended_at":null}"#;
    let expected = expected.replace('\n', "").replace("ID", &parcel.id.to_string()).replace("JOB", &job);
    let list = app.get(&path).await;
    assert!(list.text().starts_with(&format!(r#"{{"data":[{expected}],"links":{{"first":"#)), "{}", list.text());
    assert_eq!(app.get(&format!("/v2/jobs/{job}/deliveries")).await.json()["data"], list.json()["data"]);
    assert!(!list.text().contains("canary"));

    app.clock.advance(Duration::from_secs(5));
    let again = claim(&app).await.remove(0);
    end(&app, &again, Some(200), AttemptEnd::Delivered).await;
    let shown = app.get(&path).await.json()["data"][0].take();
    assert_eq!((&shown["status"], &shown["next_attempt_at"]), (&json!("delivered"), &Value::Null));
    assert_eq!((&shown["attempts"][1]["status"], &shown["attempts"][1]["error"]), (&json!(200), &Value::Null));
    assert_eq!(shown["ended_at"], "2026-01-05T09:00:05+00:00");

    let redeliver = format!("/v2/deliveries/{}/redeliver", parcel.id);
    let (other, _) = new_key(&app.state, "bob", &Scope::ALL).await;
    app.request("POST", &redeliver).by(&other).send().await.fails(404, "NOT_FOUND");
    app.request("GET", &path).by(&other).send().await.fails(404, "NOT_FOUND");
    app.request("GET", &format!("/v2/jobs/{job}/deliveries")).by(&other).send().await.fails(404, "NOT_FOUND");
    let reply = app.request("POST", &redeliver).send().await;
    assert_eq!(reply.status, 202, "{}", reply.text());
    assert_eq!((&reply.json()["data"]["status"], &reply.json()["data"]["id"]), (&json!("pending"), &shown["id"]));
    let third = claim(&app).await.remove(0);
    assert_eq!((third.id, third.number, &third.body), (parcel.id, 3, &parcel.body));
    end(&app, &third, Some(410), AttemptEnd::Gone).await;
    app.request("POST", &redeliver).send().await.fails(409, "WEBHOOK_DISABLED");
    assert_eq!(app.get("/v2/users/me/webhooks").await.json()["data"][0]["disabled"], json!(true));
    app.request("POST", "/v2/deliveries/x/redeliver").send().await.fails(404, "NOT_FOUND");
    app.get("/v2/jobs/00000000-0000-0000-0000-000000000009/deliveries").await.fails(404, "NOT_FOUND");
    assert!(app.get("/metrics").await.text().contains("consign_webhooks_pending 0"));
}

#[tokio::test]
async fn without_webhooks_nothing_is_written() -> ApiResult<()> {
    let app = App::new().await;
    app.small_job().await;
    assert_eq!(app.state.store.outbox(10).await?, []);
    Ok(())
}
