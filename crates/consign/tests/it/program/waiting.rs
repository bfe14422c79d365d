//! Thousands of clients that wait at the same server: what they cost, how soon they are answered, what they hear when
//! the server stops.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::Method;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::harness::{Program, Signal, id};

const WAITERS: usize = 2_000;
const JOBS: usize = 40;
/// What a waiting connection may cost in memory; in bytes, with the buffers of an unoptimised build.
const WAITER_BYTES_MAX: usize = 64 * 1024;
/// Processor time that all of them together may take while nothing happens, as a part of one processor.
const IDLE_SHARE_MAX: f64 = 0.35;
/// A waiter that nobody wakes is answered when its wait ends, much later than this, however busy the machine is.
const ANSWERED_WITHIN: Duration = Duration::from_mins(1);
/// Sooner than the 20 s after which a server cuts off what does not end by itself.
const STOPPED_WITHIN: Duration = Duration::from_secs(15);

/// Lets this process open as many files as it may, as the server does.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
}

/// Asks and gives the status line, or nothing if the connection was cut.
async fn ask(address: SocketAddr, head: String) -> Option<String> {
    let mut stream = TcpSocket::new_v4().unwrap().connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 16];
    stream.read_exact(&mut answer).await.ok()?;
    Some(String::from_utf8_lossy(&answer[9..12]).into_owned())
}

impl Program {
    fn resident_kib(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid().as_raw_nonzero())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn open_files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid().as_raw_nonzero())).unwrap().count()
    }

    /// Processor time so far in hundredths of a second.
    fn ticks(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid().as_raw_nonzero())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_waiters_cost_little_and_are_answered_soon() {
    raise_file_limit();
    let program = Program::started(&[]).await;
    let mut tasks = Vec::new();
    let mut jobs = Vec::new();
    for _ in 0..JOBS {
        let job = program.job(json!({"in": {"operation": "import/upload"}})).await;
        tasks.push(id(&job["tasks"][0]));
        jobs.push(id(&job));
    }
    let before = program.resident_kib();
    let mut waiters = JoinSet::new();
    for at in 0..WAITERS {
        waiters.spawn(ask(program.address(), program.head(&format!("/sync/v2/jobs/{}", jobs[at % JOBS]))));
        if at % 100 == 0 {
            sleep(Duration::from_millis(20)).await;
        }
    }
    while program.open_files() < WAITERS {
        assert!(waiters.try_join_next().is_none(), "nobody is answered yet");
        sleep(Duration::from_millis(100)).await;
    }
    // Connected is not yet read: until the last of them has asked.
    sleep(Duration::from_secs(3)).await;
    let each = program.resident_kib().saturating_sub(before) * 1024 / WAITERS;
    let (began, ticks) = (Instant::now(), program.ticks());
    sleep(Duration::from_secs(10)).await;
    let idle = (program.ticks() - ticks) / 100.0 / began.elapsed().as_secs_f64();
    assert!(waiters.try_join_next().is_none(), "nobody was answered yet");
    let began = Instant::now();
    for task in &tasks {
        program.call(Method::POST, &format!("/v2/tasks/{task}/cancel"), None).await;
    }
    let cancelled = began.elapsed();
    while let Some(answer) = waiters.join_next().await {
        assert_eq!(answer.unwrap().as_deref(), Some("200"));
    }
    let answered = began.elapsed();
    println!(
        "{WAITERS} waiters: {each} bytes each, {:.1} % of a processor while nothing happens; \
         {JOBS} jobs ended in {cancelled:?}, all answered after {answered:?}",
        idle * 100.0
    );
    assert!(each < WAITER_BYTES_MAX, "{each} bytes a waiter");
    assert!(idle < IDLE_SHARE_MAX, "{idle} of a processor");
    assert!(answered < ANSWERED_WITHIN, "{answered:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn live_connections_end_in_peace_when_the_server_stops() {
    let mut program = Program::started(&[]).await;
    let job = id(&program.job(json!({"in": {"operation": "import/upload"}})).await);
    let mut stream = TcpSocket::new_v4().unwrap().connect(program.address()).await.unwrap();
    stream.write_all(program.head(&format!("/v2/jobs/{job}/events")).as_bytes()).await.unwrap();
    let upgrade = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
    let mut socket = TcpSocket::new_v4().unwrap().connect(program.address()).await.unwrap();
    socket.write_all(upgrade.as_bytes()).await.unwrap();
    sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    program.signal(Signal::TERM);
    let (mut told, mut said) = (Vec::new(), Vec::new());
    stream.read_to_end(&mut told).await.unwrap();
    socket.read_to_end(&mut said).await.unwrap();
    assert!(String::from_utf8(told).unwrap().ends_with("\r\n0\r\n\r\n"), "the answer ends as it should");
    assert!(String::from_utf8_lossy(&said).starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
    assert_eq!(program.exit(STOPPED_WITHIN).await.code(), Some(0));
    assert!(began.elapsed() < STOPPED_WITHIN, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn waiters_are_told_to_ask_again_when_the_server_stops() {
    let mut program = Program::started(&[("LIMITS__STOP_GRACE", "1s")]).await;
    let job = id(&program.job(json!({"in": {"operation": "import/upload"}})).await);
    let mut waiters = JoinSet::new();
    for _ in 0..20 {
        waiters.spawn(ask(program.address(), program.head(&format!("/v2/jobs/{job}/wait"))));
    }
    sleep(Duration::from_millis(300)).await;
    program.signal(Signal::TERM);
    assert_eq!(program.exit(STOPPED_WITHIN).await.code(), Some(0));
    while let Some(answer) = waiters.join_next().await {
        assert_eq!(answer.unwrap().as_deref(), Some("503"));
    }
}
