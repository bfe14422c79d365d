//! A process with a part of the server, and an address on which everything waits.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Duration;

use consign::model::State;
use consign::store::Jobs as _;
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use super::harness::{Program, eventually, id, task};

#[tokio::test(flavor = "multi_thread")]
async fn one_process_takes_jobs_and_another_runs_them() {
    let mut program = Program::new(&[]);
    program.start_with(0, &["--role", "api"]).await;
    let job = program.job(json!({"in": {"operation": "import/raw", "file": "a", "filename": "a"}})).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let path = format!("/v2/jobs/{}", id(&job));
    assert_eq!(program.show(&path).await["status"], "waiting", "nobody runs it");
    program.kill();

    let mut runner = program.command(&["serve", "--role", "runner"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(runner.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "Consign's runner is ready");
    let store = program.store().await;
    let task = id(task(&job, "in")).parse().unwrap();
    eventually("the end of the task", async || {
        (store.task_of_link(task).await.unwrap().unwrap().state == State::Finished).then_some(())
    })
    .await;
    runner.kill().unwrap();
    runner.wait().unwrap();

    program.start_with(0, &["--role", "api"]).await;
    assert_eq!(program.show(&path).await["status"], "finished");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_second_address_everything_waits() {
    let program = Program::started(&[("SYNC_LISTEN", "127.0.0.1:0")]).await;
    let printed = program.printed();
    let address = printed.split_once("Requests to http://").unwrap().1.split_whitespace().next().unwrap();
    let ask = async |body: String| {
        let mut client = TcpSocket::new_v4().unwrap().connect(address.parse().unwrap()).await.unwrap();
        let head = format!(
            "POST /v2/jobs HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            program.key(),
            body.len()
        );
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let raw = json!({"tasks": {"in": {"operation": "import/raw", "file": "a", "filename": "a"}}});
    let waited = ask(raw.to_string()).await;
    assert!(waited.starts_with("HTTP/1.1 201") && waited.contains("\"status\":\"finished\""), "{waited}");
    let (_, first) = program.call(Method::POST, "/v2/jobs", Some(&raw)).await;
    assert_eq!(first["data"]["status"], "waiting", "the first address answers at once");
}
