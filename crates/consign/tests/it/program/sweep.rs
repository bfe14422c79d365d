//! What goes by itself: ended jobs after the retention, uploads that never come.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::json;

use super::harness::{Program, eventually, id, task};

#[tokio::test(flavor = "multi_thread")]
async fn ended_jobs_go_with_their_files_after_the_retention() {
    let program = Program::started(&[("RETENTION", "2s")]).await;
    let raw = || json!({"operation": "import/raw", "file": "hello", "filename": "hello.txt"});
    let job = program.job(json!({"in": raw(), "out": {"operation": "export/url", "input": "in"}})).await;
    let began = Instant::now();
    let ended = program.finished(&job).await;
    let link = task(&ended, "out")["result"]["files"][0]["url"].as_str().unwrap();
    let path = format!("/v2/jobs/{}", id(&job));
    eventually("the end of the retention", async || {
        // The end of any task lets the server look what else may go.
        program.call(Method::POST, "/v2/import/raw", Some(&raw())).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        (program.call(Method::GET, &path, None).await.0 == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
    assert!(began.elapsed() >= Duration::from_secs(2), "it went too early");
    assert_ne!(program.fetch(link).await.0, StatusCode::OK);
    let ids = [id(task(&job, "in")), id(task(&job, "out"))];
    eventually("the end of its files", async || {
        program.files().iter().all(|path| !ids.iter().any(|id| path.starts_with(id))).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_never_comes_times_out() {
    let program = Program::started(&[("LIMITS__UPLOAD_LIFETIME", "1s")]).await;
    let tasks = json!({"in": {"operation": "import/upload"}, "out": {"operation": "export/url", "input": "in"}});
    let job = program.job(tasks).await;
    let ended = program.follow(&job).await;
    assert_eq!(task(&ended, "in")["code"], "TIMEOUT", "{ended:#}");
    assert_eq!(task(&ended, "out")["code"], "INPUT_TASK_FAILED", "{ended:#}");
}
