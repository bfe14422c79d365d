//! All the ways to wait, and what ends a wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use consign::config::Period;
use consign::model::{Download, File};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio::task::JoinHandle;

use super::app::{App, Reply, URL};

#[tokio::test]
async fn every_way_to_wait_waits_and_the_others_do_not() {
    let app = App::with(|config| config.limits.wait_max = Period("50ms".parse::<Period>().unwrap().0)).await;
    let (job, import, _) = app.small_job().await;
    for resource in [format!("jobs/{job}"), format!("tasks/{import}")] {
        for (target, host, waits) in [
            (format!("/v2/{resource}"), "api.example.test", false),
            (format!("/.api.cloudconvert.com/v2/{resource}"), "127.0.0.1:8443", false),
            (format!("https://api.cloudconvert.com/v2/{resource}"), "api.cloudconvert.com", false),
            (format!("/v2/{resource}"), "sync.api.example.test", true),
            (format!("/v2/{resource}"), "eu-central.sync.api.example.test:8443", true),
            (format!("/sync/v2/{resource}"), "localhost", true),
            (format!("/.sync.api.cloudconvert.com/v2/{resource}"), "127.0.0.1:8443", true),
            (format!("https://sync.api.cloudconvert.com/v2/{resource}"), "127.0.0.1", true),
            (format!("/v2/{resource}/wait"), "localhost", true),
        ] {
            let reply = app.request("GET", &target).header("host", host).send().await;
            if waits {
                reply.fails(504, "WAIT_TIMEOUT");
            } else {
                assert_eq!(reply.status, 200, "{target} at {host}");
            }
        }
        let listener = app.request("GET", &format!("/v2/{resource}")).through(app.waiting_router());
        listener.send().await.fails(504, "WAIT_TIMEOUT");
    }
}

/// Somebody who waits for a job, and does so by now.
async fn waiter(app: &Arc<App>, job: &str) -> JoinHandle<Reply> {
    let (app, path) = (Arc::clone(app), format!("/v2/jobs/{job}/wait"));
    let waiter = tokio::spawn(async move { app.get(&path).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    waiter
}

#[tokio::test]
async fn a_waiter_is_woken_when_its_job_ends() {
    let app = Arc::new(App::new().await);
    let (job, ..) = app.small_job().await;
    let waiter = waiter(&app, &job).await;
    let import = app.claim().await;
    let file = app.keep(&import, 1, "a.txt", b"hello").await;
    app.finish(&import, &[file]).await;
    let export = app.claim().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waiter.is_finished(), "the job has not ended");
    let ended = Instant::now();
    app.finish(&export, &[]).await;
    let reply = waiter.await.unwrap();
    assert!(ended.elapsed() < Duration::from_secs(8), "a hint wakes it, not the next look");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["data"]["status"], "finished");
}

#[tokio::test]
async fn a_deleted_job_ends_the_wait_at_once() {
    let app = Arc::new(App::new().await);
    let (job, ..) = app.small_job().await;
    let path = format!("/v2/jobs/{job}");
    let waiter = tokio::spawn({
        let (app, path) = (Arc::clone(&app), format!("{path}/wait"));
        async move { app.get(&path).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(app.request("DELETE", &path).send().await.status, 204);
    let reply = tokio::time::timeout(Duration::from_secs(1), waiter).await.unwrap().unwrap();
    reply.fails(404, "NOT_FOUND");
}

#[tokio::test]
async fn a_task_that_has_ended_is_answered_at_once() {
    let app = App::new().await;
    let task = app.post("/v2/import/upload", json!({})).await.json()["data"]["id"].as_str().unwrap().to_owned();
    app.request("POST", &format!("/v2/tasks/{task}/cancel")).send().await;
    let reply = app.get(&format!("/sync/v2/tasks/{task}?include=payload")).await;
    assert_eq!(reply.json()["data"]["payload"]["operation"], "import/upload");
}

#[tokio::test]
async fn creating_where_requests_wait_answers_with_the_ended_job_unless_it_needs_an_upload() {
    let app = Arc::new(App::new().await);
    let body = json!({"tasks": {"in": {"operation": "import/url", "url": "http://h.test/x"}}}).to_string();
    let create = tokio::spawn({
        let (app, body) = (Arc::clone(&app), body.clone());
        async move { app.request("POST", "/sync/v2/jobs").header("idempotency-key", "k").body(body).send().await }
    });
    let import = loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if app.state.store.counts(app.clock.now()).await.unwrap().queued == 1 {
            break app.claim().await;
        }
    };
    app.finish(&import, &[]).await;
    let reply = create.await.unwrap();
    assert_eq!((reply.status, &reply.json()["data"]["status"]), (StatusCode::CREATED, &json!("finished")));
    let again = app.request("POST", "/sync/v2/jobs").header("idempotency-key", "k").body(body).send().await;
    assert_eq!((again.body, again.headers.contains_key("idempotent-replayed")), (reply.body, true));
    let upload = json!({"tasks": {"in": {"operation": "import/upload"}}}).to_string();
    let ask = || app.request("POST", "/sync/v2/jobs").header("idempotency-key", "u").body(upload.clone()).send();
    let first = ask().await;
    let again = tokio::time::timeout(Duration::from_secs(5), ask()).await.expect("its form is in the answer again");
    assert_eq!((again.status, again.body), (first.status, first.body));
    let upload = app.post("/sync/v2/import/upload", json!({})).await;
    assert_eq!(upload.json()["data"]["status"], "waiting");
    let job = app.post("/sync/v2/jobs", json!({"tasks": {"in": {"operation": "import/upload"}}})).await;
    assert_eq!(job.json()["data"]["status"], "waiting");
}

#[tokio::test]
async fn a_replay_redirects_as_the_first_answer_did() {
    let app = Arc::new(App::new().await);
    let tasks = json!({"out": {"operation": "import/raw", "file": "a", "filename": "a"},
        "link": {"operation": "export/url", "input": "out"}});
    let body = json!({"redirect": "1", "tasks": tasks}).to_string();
    let ask = {
        let (app, body) = (Arc::clone(&app), body.clone());
        move || app.request("POST", "/sync/v2/jobs").header("idempotency-key", "r").body(body.clone()).send()
    };
    let first = tokio::spawn(ask());
    let import = loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if app.state.store.counts(app.clock.now()).await.unwrap().queued == 1 {
            break app.claim().await;
        }
    };
    let file = app.keep(&import, 1, "a", b"a").await;
    app.finish(&import, &[file]).await;
    let export = app.claim().await;
    app.publish(&export, "a", b"a", false, "text/plain").await;
    let (first, again) = (first.await.unwrap(), ask().await);
    assert_eq!((first.status, again.status), (StatusCode::FOUND, StatusCode::FOUND));
    assert_eq!(first.header("location"), again.header("location"));
}

#[tokio::test]
async fn a_finished_job_redirects_to_its_first_file() {
    let app = App::new().await;
    let (link, export) = app.link_to("a.txt", b"hello", false).await;
    let job = app.get(&format!("/v2/tasks/{export}")).await.json()["data"]["job_id"].as_str().unwrap().to_owned();
    for path in [format!("/v2/jobs/{job}?redirect=true"), format!("/sync/v2/jobs/{job}?redirect=1")] {
        let reply = app.get(&path).await;
        assert_eq!((reply.status, reply.body.len()), (StatusCode::FOUND, 0));
        assert!(reply.header("location").ends_with(&link));
    }
    assert_eq!(app.get(&format!("/v2/jobs/{job}?redirect=false")).await.status, 200);
    let (running, ..) = app.small_job().await;
    assert_eq!(app.get(&format!("/v2/jobs/{running}?redirect=true")).await.status, 200);
}

#[tokio::test]
async fn a_client_that_leaves_is_forgotten() {
    let app = App::new().await;
    let (job, ..) = app.small_job().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(axum::serve(listener, app.router()).into_future());
    let mut client = TcpSocket::new_v4().unwrap().connect(address).await.unwrap();
    let request = format!("GET /v2/jobs/{job}/wait HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\n\r\n", app.key);
    client.write_all(request.as_bytes()).await.unwrap();
    let hints = Arc::clone(app.state.store.hints());
    let watching = || format!("{hints:?}").contains(&job);
    let until = async |wanted: bool| {
        for _ in 0..100 {
            if watching() == wanted {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    };
    assert!(until(true).await, "the request waits");
    let mut answer = [0; 1];
    assert!(tokio::time::timeout(Duration::from_millis(50), client.read(&mut answer)).await.is_err());
    drop(client);
    assert!(until(false).await, "nobody waits any more");
    server.abort();
}

#[tokio::test]
async fn recovery_shows_processing_while_waiting_again() {
    let app = App::new().await;
    let (_, import, _) = app.small_job().await;
    let claim = app.claim().await;
    let until = app.clock.now().plus(Duration::from_mins(1));
    let _ = app.state.store.delay(import, claim.token, until, app.clock.now()).await.unwrap();
    assert_eq!(app.get(&format!("/v2/tasks/{import}")).await.json()["data"]["status"], "processing");
}

#[tokio::test]
async fn a_failed_job_is_shown_and_not_redirected() {
    let app = Arc::new(App::new().await);
    let (job, ..) = app.small_job().await;
    let import = app.claim().await;
    app.fail(&import).await;
    for path in [format!("/v2/jobs/{job}?redirect=true"), format!("/sync/v2/jobs/{job}?redirect=true")] {
        let reply = app.get(&path).await;
        assert_eq!((reply.status, &reply.json()["data"]["status"]), (StatusCode::OK, &json!("error")), "{path}");
    }
}

#[tokio::test]
async fn a_job_made_where_requests_wait_redirects_when_it_ended_well() {
    for is_good in [true, false] {
        let app = Arc::new(App::new().await);
        let body = json!({"redirect": true, "tasks": {
            "in": {"operation": "import/url", "url": "http://h.test/x"},
            "out": {"operation": "export/url", "input": "in"},
        }});
        let create = tokio::spawn({
            let app = Arc::clone(&app);
            async move { app.request("POST", "/v2/jobs").header("host", "sync.h.test").body(body.to_string()).send().await }
        });
        while app.state.store.counts(app.clock.now()).await.unwrap().queued == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let import = app.claim().await;
        if !is_good {
            app.fail(&import).await;
            let reply = create.await.unwrap();
            assert_eq!((reply.status, &reply.json()["data"]["status"]), (StatusCode::CREATED, &json!("error")));
            continue;
        }
        let file = app.keep(&import, 1, "a.txt", b"hello").await;
        app.finish(&import, std::slice::from_ref(&file)).await;
        let export = app.claim().await;
        let expires_at = app.clock.now().plus(Duration::from_hours(24));
        let file = app.keep(&export, 1, "a.txt", b"hello").await;
        app.finish(&export, &[File { download: Some(Download { inline: false, expires_at }), ..file }]).await;
        let reply = create.await.unwrap();
        assert_eq!(reply.status, StatusCode::FOUND, "{}", reply.text());
        let link = reply.header("location").strip_prefix(URL).unwrap().to_owned();
        assert_eq!(app.get(&link).await.text(), "hello");
    }
}

#[tokio::test]
async fn waiters_are_told_to_ask_again_when_the_server_stops() {
    let app = Arc::new(App::with(|config| config.limits.stop_grace = "200ms".parse().unwrap()).await);
    let (job, import, _) = app.small_job().await;
    let waiters = [format!("/v2/jobs/{job}/wait"), format!("/sync/v2/tasks/{import}")].map(|path| {
        let app = Arc::clone(&app);
        tokio::spawn(async move { app.get(&path).await })
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    app.state.stopping.cancel();
    for waiter in waiters {
        let reply = tokio::time::timeout(Duration::from_secs(2), waiter).await.unwrap().unwrap();
        reply.fails(503, "UNAVAILABLE");
        assert_eq!(reply.header("retry-after"), "5");
    }
    assert_eq!(app.state.store.hints().waiters(), 0);
}

#[tokio::test]
async fn a_job_that_ends_while_the_server_stops_is_still_answered() {
    let app = Arc::new(App::new().await);
    let (job, ..) = app.small_job().await;
    let waiter = waiter(&app, &job).await;
    app.state.stopping.cancel();
    app.run_small_job().await;
    assert_eq!(waiter.await.unwrap().json()["data"]["status"], "finished");
}
