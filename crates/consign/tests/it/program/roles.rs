//! A process with a part of the server, and an address on which everything waits.

use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use super::fleet::Fleet;
use super::harness::{Program, id};

#[tokio::test(flavor = "multi_thread")]
async fn one_process_takes_jobs_and_another_runs_them() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let fleet = Fleet::new(&server).await;
    let api = fleet.api(None).await;
    let job = api.job(json!({"in": {"operation": "import/raw", "file": "a", "filename": "a"}})).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(api.show(&format!("/v2/jobs/{}", id(&job))).await["status"], "waiting", "nobody runs it");
    let _runner = fleet.runner();
    api.finished(&job).await;
}

/// On SQLite a process with one role could only wait for another one, which the database does not let in.
#[test]
fn a_role_alone_needs_a_database_that_is_shared() {
    let program = Program::new(&[]);
    for role in ["api", "runner"] {
        let refused = program.run(&["serve", "--role", role, "--listen", "127.0.0.1:0"]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains(&format!("--role {role} needs")) && said.contains("database_url"), "{said}");
    }
    assert!(!program.data_dir().exists(), "nothing is made before");
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
