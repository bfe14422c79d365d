//! SIGTERM while clients are there: who moves bytes may go on for the grace time, who does not is shown out at once.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use super::harness::{FORM_TYPE, MIB, Program, Signal, form, id, task};

/// Longer than the 10 s that a stop once left to transfers, whatever the settings said.
const TRANSFER: Duration = Duration::from_secs(12);
/// Far longer than the transfers: nothing but their end lets the server stop before.
const GRACE: &str = "120s";
/// Sooner than a slow machine needs for nothing, and far sooner than the grace time.
const AT_ONCE: Duration = Duration::from_secs(15);
/// More than the kernel takes of who is not read from, so that the server has still to send when it is asked to stop.
const DOWNLOAD_BYTES: usize = 32 * MIB;

async fn connect(program: &Program) -> TcpStream {
    TcpSocket::new_v4().unwrap().connect(program.address()).await.unwrap()
}

/// Bytes that the server has sent on a connection and the client has not read: on their way, or arrived.
fn unread(client: &TcpStream) -> usize {
    let ends = (client.local_addr().unwrap().port(), client.peer_addr().unwrap().port());
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap(), 16).unwrap();
    let connections = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let queues = connections.lines().skip(1).filter_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        let (to_send, to_read) = columns[4].split_once(':')?;
        let (here, there) = (port(columns[1]), port(columns[2]));
        if (here, there) == ends { Some(to_read) } else { ((there, here) == ends).then_some(to_send) }
    });
    let queues: Vec<usize> = queues.map(|bytes| usize::from_str_radix(bytes, 16).unwrap()).collect();
    assert_eq!(queues.len(), 2, "both ends are on this machine");
    queues.iter().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_and_a_download_under_way_end_well() {
    let mut program = Program::started(&[("LIMITS__STOP_GRACE", GRACE)]).await;
    let tasks = json!({"in": {"operation": "import/upload"}, "link": {"operation": "export/url", "input": "in"}});
    let kept = program.job(tasks.clone()).await;
    let content = testkit::bytes::pattern(3, DOWNLOAD_BYTES);
    program.upload(task(&kept, "in"), "large.bin", &content).await;
    let ended = program.finished(&kept).await;
    let url = task(&ended, "link")["result"]["files"][0]["url"].as_str().unwrap().to_owned();
    let path = url.strip_prefix(program.base()).unwrap();

    let mut download = connect(&program).await;
    download.write_all(program.head(path).replace("Host", "Connection: close\r\nHost").as_bytes()).await.unwrap();
    let mut got = vec![0; 64 * 1024];
    download.read_exact(&mut got).await.unwrap();

    let open = program.job(tasks).await;
    let (head, tail) = form(task(&open, "in"), "slow.bin");
    let pieces = usize::try_from(TRANSFER.as_secs()).unwrap();
    let length = head.len() + pieces * MIB + tail.len();
    let form_path = program.form_url(task(&open, "in")).strip_prefix(program.base()).unwrap().to_owned();
    let mut upload = connect(&program).await;
    let request = format!(
        "POST {form_path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Type: {FORM_TYPE}\r\nContent-Length: {length}\r\n\r\n{head}"
    );
    upload.write_all(request.as_bytes()).await.unwrap();

    program.signal(Signal::TERM);
    let sent = got.len() + unread(&download);
    assert!(sent < DOWNLOAD_BYTES, "{sent} bytes were sent: nothing of the download was left to be waited for");
    for _ in 0..pieces {
        upload.write_all(&vec![7; MIB]).await.expect("the upload goes on");
        sleep(Duration::from_secs(1)).await;
    }
    upload.write_all(tail.as_bytes()).await.unwrap();
    let mut answer = String::new();
    upload.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    download.read_to_end(&mut got).await.expect("the download goes on");
    assert!(got.ends_with(&content), "it came whole");
    let status = program.exit(AT_ONCE).await;
    assert_eq!(status.code(), Some(0), "and then nothing holds the server up");

    program.start().await;
    program.finished(&open).await;
    program.nothing_is_lost().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_moves_no_bytes_does_not_hold_the_server_up() {
    let mut program = Program::started(&[("LIMITS__STOP_GRACE", GRACE)]).await;
    let waiting = program.job(json!({"in": {"operation": "import/upload"}})).await;
    let mut idle = connect(&program).await;
    idle.write_all(program.head("/v2/users/me").as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    let silent = connect(&program).await;
    let mut half = connect(&program).await;
    half.write_all(b"GET /v2/jobs HTTP/1.1\r\nHost: h\r\n").await.unwrap();
    let mut events = connect(&program).await;
    events.write_all(program.head(&format!("/v2/jobs/{}/events", id(&waiting))).as_bytes()).await.unwrap();
    events.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    // Waits are told to ask again, which takes some seconds, in which what runs may still end.
    let path = format!("/v2/jobs/{}/wait", id(&waiting));
    let wait = program.call(Method::GET, &path, None);
    let stopping = async {
        sleep(Duration::from_secs(1)).await;
        program.signal(Signal::TERM);
        Instant::now()
    };
    let ((status, answer), began) = tokio::join!(wait, stopping);
    assert_eq!(status, http::StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    let status = program.exit(AT_ONCE).await;
    println!("stopped in {:?}", began.elapsed());
    assert_eq!(status.code(), Some(0));
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    drop((idle, silent, half, events));
}
