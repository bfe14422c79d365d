//! What goes by itself: ended jobs after the retention, uploads that never come.

use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde_json::json;

use sqlx::ConnectOptions as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::harness::{Program, eventually, id, task};

/// A destination that takes connections and never answers.
async fn silent() -> (TcpListener, std::net::SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_does_not_answer_holds_nothing_else_up() {
    let (dead, dead_at) = silent().await;
    let (alive, alive_at) = silent().await;
    let (asked, mut requests) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = alive.accept().await {
            let mut head = [0; 4096];
            let length = client.read(&mut head).await.unwrap_or(0);
            asked.send(String::from_utf8_lossy(&head[..length]).into_owned()).unwrap();
            let _ = client.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n").await;
        }
    });
    let program = Program::started(&[("RETENTION", "2s"), ("TRANSFER__IDLE_TIMEOUT", "120s")]).await;
    let export = |at: std::net::SocketAddr| {
        json!({"operation": "export/s3", "input": "in", "bucket": "bucket", "key": "k", "path_style": true,
            "endpoint": format!("http://{at}"), "region": "us-east-1",
            "access_key_id": "a", "secret_access_key": "s"})
    };
    let tasks = json!({"in": {"operation": "import/upload"}, "dead": export(dead_at), "alive": export(alive_at)});
    let job = program.job(tasks).await;
    // As if their tasks had been cancelled in the middle; those of the dead destination are due first.
    let path = program.data_dir().join("consign.db");
    let mut database = sqlx::sqlite::SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    for number in 0..40 {
        let (name, due) = if number < 39 { ("dead", 1) } else { ("alive", 2) };
        let written = sqlx::query(
            "INSERT INTO ledger (task_id, target, handle, sha256, part_bytes, operation, payload, opened_at, due_at, \
             abort_tries) SELECT t.id, $1, $2, '', 5242880, t.operation, d.payload, 1, $3, 0 \
             FROM tasks t JOIN task_docs d ON d.task_id = t.id WHERE t.name = $4",
        )
        .bind(format!("bucket/target-{number}"))
        .bind(format!("handle-{number}"))
        .bind(due)
        .bind(name)
        .execute(&mut database)
        .await;
        assert_eq!(written.unwrap().rows_affected(), 1);
    }
    let began = Instant::now();
    let raw = json!({"in": {"operation": "import/raw", "file": "hello", "filename": "hello.txt"}});
    let short = program.job(raw).await;
    program.finished(&short).await;
    // What is removed lets the server look what else is to be cleared away.
    let trifle = program.job(json!({"in": {"operation": "import/upload"}})).await;
    program.call(Method::DELETE, &format!("/v2/jobs/{}", id(&trifle)), None).await;
    let request = tokio::time::timeout(Duration::from_secs(15), requests.recv()).await.unwrap().unwrap();
    assert!(request.starts_with("DELETE ") && request.contains("handle-39"), "{request}");
    let path = format!("/v2/jobs/{}", id(&short));
    eventually("the end of the retention", async || {
        (program.call(Method::GET, &path, None).await.0 == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
    let mut connections = Vec::new();
    while let Ok(Ok(connection)) = tokio::time::timeout(Duration::from_millis(100), dead.accept()).await {
        connections.push(connection);
    }
    assert_eq!(connections.len(), 1, "one upload at a time is asked for");
    drop(job);
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_jobs_go_with_their_files_after_the_retention() {
    let program = Program::started(&[("RETENTION", "2s")]).await;
    let raw = json!({"operation": "import/raw", "file": "hello", "filename": "hello.txt"});
    let job = program.job(json!({"in": raw, "out": {"operation": "export/url", "input": "in"}})).await;
    let began = Instant::now();
    let ended = program.finished(&job).await;
    let link = task(&ended, "out")["result"]["files"][0]["url"].as_str().unwrap();
    let path = format!("/v2/jobs/{}", id(&job));
    eventually("the end of the retention", async || {
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

/// Whole files, as a crash leaves them between their publication and the row that names them.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_no_row_names_go_at_the_next_start() {
    let mut program = Program::started(&[]).await;
    let raw = json!({"in": {"operation": "import/raw", "file": "hello", "filename": "hello.txt"}});
    let job = program.job(raw).await;
    let own = id(task(&program.finished(&job).await, "in"));
    let named = program.files();
    assert!(named.len() == 1 && named.iter().all(|path| path.starts_with(&own)), "{named:?}");
    program.kill();
    let root = program.data_dir().join("files");
    let unknown = format!("00000000-0000-7000-8000-000000000001/{:016x}", 1);
    for attempt in [unknown, format!("{own}/{:016x}", 1)] {
        std::fs::create_dir_all(root.join(&attempt)).unwrap();
        std::fs::write(root.join(attempt).join("1"), "whole").unwrap();
    }
    assert_eq!(program.files().len(), 3);
    program.start().await;
    eventually("the end of what nobody names", async || (program.files() == named).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(program.files(), named, "what is named stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_does_not_outlast_its_time() {
    let (quiet, at) = silent().await;
    let program = Program::started(&[("LIMITS__TASK_TIMEOUT", "2s")]).await;
    let began = Instant::now();
    let job = program.job(json!({"in": {"operation": "import/url", "url": format!("http://{at}/never")}})).await;
    let _open = quiet.accept().await.unwrap();
    let ended = program.follow(&job).await;
    assert_eq!(task(&ended, "in")["code"], "TIMEOUT", "{ended:#}");
    assert!((Duration::from_secs(2)..Duration::from_secs(12)).contains(&began.elapsed()), "{:?}", began.elapsed());
}

/// A server that takes the lock knows that nobody else is alive: it need not wait for a lease to end.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_taken_on_at_once_after_a_restart() {
    let (quiet, at) = silent().await;
    let mut program = Program::started(&[]).await;
    program.job(json!({"in": {"operation": "import/url", "url": format!("http://{at}/never")}})).await;
    let _first = quiet.accept().await.unwrap();
    program.restart_after_kill().await;
    let _second =
        tokio::time::timeout(Duration::from_secs(5), quiet.accept()).await.expect("it is asked again").unwrap();
}
