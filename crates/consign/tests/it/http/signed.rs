//! Signed URLs: addresses that carry a job, as the official clients sign them.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use consign::config::Period;
use consign::id::SignedUrlId;
use consign::model::SignedUrl;
use consign::store::Applied;
use serde_json::Value;

use super::app::{App, Reply, URL};

/// Base and secret of the clients' own tests (API notes, section 7.4).
const ID: &str = "b3d85428-584e-4639-bc11-76b7dee9c109";
const SECRET: &str = "NT8dpJkttEyfSk3qlRgUJtvTkx64vhyX";

const JOB: &str = r#"{"tasks":{"in":{"operation":"import/url","url":"https://files.example.test/a.txt"},
    "out":{"operation":"export/url","input":"in","inline":true}}}"#;

async fn app(wait_secs: u64) -> App {
    let app = App::with(|config| config.limits.wait_max = Period::from_secs(wait_secs)).await;
    let user_id = app.state.store.ensure_user("ann", app.clock.now()).await.unwrap().id;
    let new = SignedUrl {
        id: ID.parse().unwrap(),
        user_id,
        name: "site".to_owned(),
        secret: app.state.vault.seal(SECRET.as_bytes()),
        created_at: app.clock.now(),
        revoked_at: None,
    };
    assert!(app.state.store.create_signed_url(new).await.unwrap());
    app
}

fn signature(text: &str) -> String {
    hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), text.as_bytes()))
}

/// Path and query of an address below the public URL that carries this job.
fn signed(job: &str, rest: &str) -> String {
    let query = format!("/s/{ID}?job={}{rest}", URL_SAFE_NO_PAD.encode(job));
    let signature = signature(&format!("{URL}{query}"));
    format!("{query}&s={signature}")
}

async fn fetch(app: &App, target: &str) -> Reply {
    app.request("GET", target).anonymous().send().await
}

/// Works on the two tasks of the next job.
async fn work(app: &App) {
    let import = app.claim().await;
    let file = app.keep(&import, 1, "a.txt", b"content").await;
    app.finish(&import, &[file]).await;
    let export = app.claim().await;
    app.publish(&export, "a.txt", b"content", true, "text/plain").await;
}

async fn jobs(app: &App) -> usize {
    app.get("/v2/jobs").await.json()["data"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_signed_url_runs_its_job_and_leads_to_the_file() {
    let app = app(20).await;
    let target = signed(JOB, "");
    let (answer, ()) = tokio::join!(fetch(&app, &target), async {
        while jobs(&app).await == 0 {
            tokio::task::yield_now().await;
        }
        work(&app).await;
    });
    assert_eq!(answer.status, 302, "{}", answer.text());
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    let file = fetch(&app, answer.header("location").strip_prefix(URL).unwrap()).await;
    assert_eq!((file.status.as_u16(), file.text().as_str()), (200, "content"));
    assert!(file.header("content-disposition").starts_with("inline"));
}

#[tokio::test]
async fn the_same_cache_key_gives_the_same_result_and_another_one_does_not() {
    let app = app(1).await;
    let target = signed(JOB, "&cache_key=logo_1-a");
    fetch(&app, &target).await.fails(504, "WAIT_TIMEOUT");
    fetch(&app, &target).await.fails(504, "WAIT_TIMEOUT");
    assert_eq!(jobs(&app).await, 1, "the second request waits for the job of the first");
    work(&app).await;
    let first = fetch(&app, &target).await;
    let again = fetch(&app, &target).await;
    assert_eq!((first.status.as_u16(), first.header("location")), (302, again.header("location")));
    assert_eq!(jobs(&app).await, 1);
    fetch(&app, &signed(JOB, "&cache_key=logo_2")).await.fails(504, "WAIT_TIMEOUT");
    fetch(&app, &signed(JOB, "")).await.fails(504, "WAIT_TIMEOUT");
    fetch(&app, &signed(JOB, "&cache_key=")).await.fails(504, "WAIT_TIMEOUT");
    assert_eq!(jobs(&app).await, 4, "without a key every request makes one");
}

async fn fail_next(app: &App) {
    let (import, now) = (app.claim().await, app.clock.now());
    let failed = app.state.store.fail(import.task.id, import.token, "FILE_NOT_FOUND", "It is not there.", now).await;
    assert_eq!(failed.unwrap(), Applied::Done);
}

#[tokio::test]
async fn a_failed_job_tells_its_first_cause() {
    let app = app(20).await;
    let target = signed(JOB, "&cache_key=k");
    let (answer, ()) = tokio::join!(fetch(&app, &target), async {
        while jobs(&app).await == 0 {
            tokio::task::yield_now().await;
        }
        fail_next(&app).await;
    });
    let body = answer.fails(422, "JOB_FAILED");
    assert_eq!(body["message"], "The job failed in import/url with FILE_NOT_FOUND: It is not there.");
}

#[tokio::test]
async fn a_failed_job_is_not_kept_for_its_cache_key() {
    let app = app(1).await;
    let target = signed(JOB, "&cache_key=k");
    fetch(&app, &target).await.fails(504, "WAIT_TIMEOUT");
    fail_next(&app).await;
    fetch(&app, &target).await.fails(504, "WAIT_TIMEOUT");
    assert_eq!(jobs(&app).await, 2);
}

#[tokio::test]
async fn nothing_of_a_signed_url_can_be_changed() {
    let app = app(1).await;
    let good = signed(JOB, "&cache_key=k");
    let (query, tag) = good.split_once("&s=").unwrap();
    for bad in [
        query.to_owned(),
        format!("{query}&s="),
        format!("{query}&s={}", "0".repeat(64)),
        format!("{query}x&s={tag}"),
        format!("{query}&redirect=1&s={tag}"),
        good.replace("cache_key=k", "cache_key=l"),
        good.replace("job=ey", "job=eY"),
    ] {
        fetch(&app, &bad).await.fails(403, "LINK_INVALID");
    }
    fetch(&app, &good.replace(ID, &SignedUrlId::new(app.clock.now()).to_string())).await.fails(404, "NOT_FOUND");
    fetch(&app, &good.replace(ID, "no-id")).await.fails(404, "NOT_FOUND");
    assert_eq!(jobs(&app).await, 0);
    fetch(&app, &format!("{good}&utm=1")).await.fails(504, "WAIT_TIMEOUT");
    assert!(app.state.store.revoke_signed_url("site", app.clock.now()).await.unwrap());
    fetch(&app, &good).await.fails(403, "LINK_INVALID");
}

#[tokio::test]
async fn a_job_that_cannot_be_run_by_a_link_is_refused() {
    let app = app(1).await;
    for (job, field) in [
        (r#"{"tasks":{"in":{"operation":"import/url","url":"https://a.test/b"}}}"#, "tasks"),
        (r#"{"tasks":{"in":{"operation":"import/upload"},"out":{"operation":"export/url","input":"in"}}}"#, "tasks"),
        (r#"{"tasks":{"in":{"operation":"import/url"}}}"#, "tasks.in.url"),
        (r#"{"tasks":[]}"#, "tasks"),
        ("[1]", "job"),
        ("not JSON", "job"),
    ] {
        let body = fetch(&app, &signed(job, "")).await.fails(422, "INVALID_DATA");
        assert!(body["errors"][field].is_array(), "{body}");
    }
    let body = fetch(&app, &signed(JOB, "&cache_key=a%20b")).await.fails(422, "INVALID_DATA");
    assert!(body["errors"]["cache_key"].is_array(), "{body}");
    assert_eq!(jobs(&app).await, 0);
}

#[tokio::test]
async fn so_many_jobs_a_minute_and_no_more() {
    let app = App::with(|config| {
        config.limits.wait_max = Period::from_secs(1);
        config.limits.creations_per_minute_max = 1;
    })
    .await;
    let user_id = app.state.store.ensure_user("ann", app.clock.now()).await.unwrap().id;
    let secret = app.state.vault.seal(SECRET.as_bytes());
    let created_at = app.clock.now();
    let new =
        SignedUrl { id: ID.parse().unwrap(), user_id, name: "site".to_owned(), secret, created_at, revoked_at: None };
    assert!(app.state.store.create_signed_url(new).await.unwrap());
    fetch(&app, &signed(JOB, "")).await.fails(504, "WAIT_TIMEOUT");
    let refused = fetch(&app, &signed(JOB, "")).await;
    refused.fails(429, "TOO_MANY_REQUESTS");
    assert_eq!(refused.header("retry-after"), "60");
}

type Encode = fn(&str) -> String;

/// What each client encodes, how, and its signature: facts of the clients' own tests.
const VECTORS: [(&str, Encode, &str, &str); 6] = [
    (
        "Node",
        |json| STANDARD_NO_PAD.encode(json).replacen('+', "-", 1).replacen('/', "_", 1),
        r#"{"tasks":{"import-it":{"operation":"import/url","url":"https://some.url","filename":"logo.png"},"export-it":{"operation":"export/url","input":"import-it","inline":true}}}"#,
        "209d54e4454a407de71a07e6e500f45155fecf58a4e53d68329fbf358efcd823",
    ),
    (
        "PHP",
        |json| URL_SAFE_NO_PAD.encode(json),
        r#"{"tasks":{"import-it":{"operation":"import\/url","url":"https:\/\/some.url","filename":"test.png"},"export-it":{"operation":"export\/url","input":"import-it","inline":true}},"tag":null,"webhook_url":null}"#,
        "fb2760b572f652316d2ca218cec980024057ff108a472425c9fcc6136709cbe8",
    ),
    (
        "Ruby",
        |json| URL_SAFE_NO_PAD.encode(json),
        r#"{"tasks":{"import-it":{"operation":"import/url","filename":"test.file","url":"http://invalid.url"},"convert-it":{"input":"import-it","operation":"convert","output_format":"pdf"}}}"#,
        "3fb529168264bccea28ba9a1d02f2a4662d1917029829ee77e753a7748b98904",
    ),
    (
        ".NET",
        |json| URL_SAFE_NO_PAD.encode(json),
        r#"{"tasks":{"import_example_1":{"operation":"import/upload"},"convert":{"operation":"convert","input":"import_example_1","input_format":"pdf","output_format":"docx"},"export":{"operation":"export/url","input":"convert"}}}"#,
        "81213540c2ccdf3330a0cf237642f14b381f57cf5bbffe293eb118468fde700b",
    ),
    (
        "Python",
        |json| URL_SAFE.encode(json),
        r#"{"tasks": {"import-file": {"operation": "import/url", "url": "https://github.com/cloudconvert/cloudconvert-php/raw/master/tests/Integration/files/input.pdf"}, "export-file": {"operation": "export/url", "input": "import-file"}}}"#,
        "6dd147217a39534249a3cb418b357ba8cceacf74fc0db0d52630a07cac1ca268",
    ),
    (
        "Java",
        |json| URL_SAFE_NO_PAD.encode(json),
        r#"{"tasks":{"import-my-file":{"url":"import-url","operation":"import/url"},"convert-my-file":{"input":["import-my-file"],"operation":"convert"},"export-my-file":{"input":["convert-my-file"],"operation":"export/url"}}}"#,
        "b04d8cf7d65ec56c839443c69dd2bb75e8792e006441019957c0d9824319612a",
    ),
];

#[tokio::test]
async fn what_the_official_clients_sign_is_genuine() {
    for (client, encode, json, tag) in VECTORS {
        let app = app(1).await;
        let query = format!("/{ID}?job={}&cache_key=mykey", encode(json));
        let target = format!("{query}&s={tag}");
        // The host that the clients know, where the path is the id alone.
        let there = app.request("GET", &target).header("host", "s.cloudconvert.com").anonymous().send().await;
        let is_runnable = !json.contains(r#""convert""#) && !json.contains("import/upload");
        if is_runnable {
            there.fails(504, "WAIT_TIMEOUT");
            let shown = app.get("/v2/jobs?include=tasks").await.json();
            let tasks = shown["data"][0]["tasks"].as_array().unwrap();
            let names: Vec<&Value> = tasks.iter().map(|task| &task["operation"]).collect();
            assert_eq!(names, ["import/url", "export/url"], "{client}");
        } else {
            let body = there.fails(422, "INVALID_DATA");
            assert!(body["errors"].get("job").is_none(), "{client}: the job was read: {body}");
        }
        let elsewhere = app.request("GET", &target).header("host", "s.example.test").anonymous().send().await;
        elsewhere.fails(403, "LINK_INVALID");
    }
}

#[tokio::test]
async fn plus_and_slash_in_the_job_stay_what_they_are() {
    let app = app(1).await;
    // Node replaces the first of each only, so that later ones arrive as they are.
    let job = r#"{"tag":"??>>??>>~~","tasks":{"in":{"operation":"import/url","url":"https://a.test/b"},"out":{"operation":"export/url","input":"in"}}}"#;
    for encoded in [
        STANDARD.encode(job),
        STANDARD_NO_PAD.encode(job),
        STANDARD_NO_PAD.encode(job).replacen('+', "-", 1).replacen('/', "_", 1),
        URL_SAFE.encode(job),
        STANDARD.encode(job).replace('+', "%2B").replace('/', "%2F").replace('=', "%3D"),
    ] {
        let before = jobs(&app).await;
        let query = format!("/s/{ID}?job={encoded}");
        let target = format!("{query}&s={}", signature(&format!("{URL}{query}")));
        fetch(&app, &target).await.fails(504, "WAIT_TIMEOUT");
        let shown = app.get("/v2/jobs").await.json();
        assert_eq!(shown["data"].as_array().unwrap().len(), before + 1, "{encoded}");
        assert_eq!(shown["data"][0]["tag"], "??>>??>>~~", "{encoded}");
    }
    assert!(STANDARD.encode(job).contains('+') && STANDARD.encode(job).contains('/'), "the test has something to test");
}
