//! Two processes of the API behind the balancer that ships with the program, restarted one after the other.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use connectors::Limits;
use connectors::egress::Guard;
use connectors::http::{Body, Client, tls_config};
use http::{Method, Request, StatusCode};
use serde_json::{Value, json};
use testkit::{or_skip, tool};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Child;
use tokio::time::sleep;

use super::fleet::Fleet;
use super::harness::{FORM_TYPE, MIB, Program, Signal, eventually, form, id, task};

/// Clients that ask without a pause.
const CLIENTS: usize = 4;
/// Longer than the balancer needs to notice that a process is back.
const NOTICED: Duration = Duration::from_secs(3);
/// Processes behind the balancer.
const PROCESSES: usize = 2;
/// Pieces of an upload, one a second, after all processes were asked to stop: for longer than these take requests.
const PIECES_AFTER: usize = 6;
/// Pieces in all, before the restarts are given up.
const PIECES_MAX: usize = 180;

/// The balancer of `deploy/Caddyfile`, on a port of its own and with these processes behind it.
async fn balancer(folder: &Path, behind: [SocketAddr; 2]) -> Option<(SocketAddr, Child)> {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let shipped =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/Caddyfile")).unwrap();
    let names = "api-1:8080 api-2:8080";
    assert!(shipped.contains("\n:8080 {\n") && shipped.contains(names));
    let own = shipped
        .replace(names, &format!("{} {}", behind[0], behind[1]))
        .replace("\n:8080 {", &format!("\nhttp://{free} {{"));
    std::fs::write(folder.join("Caddyfile"), format!("{{\n\tadmin off\n}}\n{own}")).unwrap();
    let mut command = or_skip(tool::command("caddy"))?;
    let log = std::fs::File::create(folder.join("caddy.log")).unwrap();
    command.args(["run", "--adapter", "caddyfile", "--config", "Caddyfile"]).current_dir(folder);
    command.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder).stderr(log);
    let child = command.spawn().unwrap();
    eventually("the balancer", async || connect(free).await).await;
    Some((free, child))
}

async fn connect(address: SocketAddr) -> Option<TcpStream> {
    TcpSocket::new_v4().unwrap().connect(address).await.ok()
}

/// A client of the balancer.
#[derive(Clone)]
struct Caller {
    client: Client,
    base: String,
    key: String,
}

impl Caller {
    fn new(address: SocketAddr, key: &str) -> Self {
        let guard = Guard::new(["127.0.0.0/8".parse().unwrap()]);
        let client = Client::new(guard, tls_config(&[]).unwrap(), &Limits::default());
        Self { client, base: format!("http://{address}"), key: key.to_owned() }
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let request = request.header("authorization", format!("Bearer {}", self.key));
        let request = request.header("content-type", "application/json").body(body.to_string().into()).unwrap();
        let answer = self.client.send(request, "calling").await.unwrap();
        let status = answer.status();
        let body = answer.into_body().bytes(MIB).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        let request =
            Request::get(format!("{}{path}", self.base)).header("authorization", format!("Bearer {}", self.key));
        let answer = self.client.send(request.body(Body::empty()).unwrap(), "calling").await.unwrap();
        let status = answer.status();
        (status, serde_json::from_slice(&answer.into_body().bytes(MIB).await.unwrap()).unwrap_or_default())
    }

    /// A job from its creation to its end; whoever waits for it may be told to ask again.
    async fn job(&self) {
        let raw = json!({"tasks": {"in": {"operation": "import/raw", "file": "a", "filename": "a"}}});
        let (status, made) = self.call(Method::POST, "/v2/jobs", &raw).await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        let path = format!("/v2/jobs/{}", id(&made["data"]));
        loop {
            let (status, ended) = self.get(&format!("{path}/wait")).await;
            if status == StatusCode::OK {
                assert_eq!(ended["data"]["status"], "finished", "{ended}");
                break;
            }
            assert_eq!(
                (status, ended["code"].as_str()),
                (StatusCode::SERVICE_UNAVAILABLE, Some("UNAVAILABLE")),
                "{ended}"
            );
        }
        let (status, shown) = self.get(&path).await;
        assert_eq!(status, StatusCode::OK, "{shown}");
    }
}

/// Sends a file through the balancer, a piece a second, until all processes were asked to stop and some pieces longer.
/// Gives the answer, and when the last piece had been sent.
async fn slow_upload(
    address: SocketAddr,
    path: &str,
    (head, tail): (String, String),
    asked: &AtomicUsize,
) -> (String, Instant) {
    let mut stream = connect(address).await.unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: {FORM_TYPE}\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    send_chunk(&mut stream, head.as_bytes()).await;
    let (piece, mut sent, mut after) = (vec![7_u8; MIB], 0, 0);
    while after < PIECES_AFTER {
        assert!(sent < PIECES_MAX, "the restarts take too long");
        sent += 1;
        after += usize::from(asked.load(Ordering::Relaxed) == PROCESSES);
        send_chunk(&mut stream, &piece).await;
        sleep(Duration::from_secs(1)).await;
    }
    let last = Instant::now();
    send_chunk(&mut stream, tail.as_bytes()).await;
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    (answer, last)
}

async fn send_chunk(stream: &mut TcpStream, bytes: &[u8]) {
    let framed = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    stream.write_all(&framed).await.unwrap();
}

/// Whether a process has the upload: then it has a file open with a piece in it.
fn has_upload(api: &Program) -> bool {
    let open = std::fs::read_dir(format!("/proc/{}/fd", api.pid().as_raw_nonzero())).unwrap();
    // Some may be closed before they are looked at.
    let mut open = open.filter_map(|entry| std::fs::metadata(entry.ok()?.path()).ok());
    open.any(|file| file.is_file() && file.len() >= MIB as u64)
}

/// Restarts a process, and says when it had ended.
async fn restart(api: &mut Program, asked: &AtomicUsize) -> Instant {
    let port = api.address().port();
    api.signal(Signal::TERM);
    asked.fetch_add(1, Ordering::Relaxed);
    assert!(api.exit(Duration::from_mins(1)).await.success());
    let ended = Instant::now();
    api.start_with(port, &["--role", "api"]).await;
    sleep(NOTICED).await;
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_request() {
    let Some(server) = or_skip(testkit::postgres().await) else { return };
    let fleet = Fleet::new(&server).await;
    // As the compose file and the unit have it; and long enough for the upload on a slow machine.
    let settings =
        [("LIMITS__DRAIN_DELAY", "3s"), ("LIMITS__STOP_GRACE", "60s"), ("LIMITS__CREATIONS_PER_MINUTE_MAX", "1000000")];
    let mut first = fleet.api_with(None, &settings).await;
    let mut second = fleet.api_with(Some(&first), &settings).await;
    let _runner = fleet.runner();
    let folder = tempfile::tempdir().unwrap();
    let Some((address, _balancer)) = balancer(folder.path(), [first.address(), second.address()]).await else { return };
    let caller = Caller::new(address, first.key());

    // Metrics are for operators, whatever the path looks like; all else passes.
    for path in ["/metrics", "/metrics/", "//metrics", "//metrics//"] {
        assert_eq!(caller.get(path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(caller.get("/readyz").await.0, StatusCode::OK);

    let waiting = json!({"tasks": {"in": {"operation": "import/upload"}}});
    let (_, open) = caller.call(Method::POST, "/v2/jobs", &waiting).await;
    let waiting = task(&open["data"], "in").clone();
    let form_url = waiting["result"]["form"]["url"].as_str().unwrap();
    let path = form_url[form_url.find("/upload/").unwrap()..].to_owned();
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&asked);
    let upload = tokio::spawn(async move { slow_upload(address, &path, form(&waiting, "slow.bin"), &seen).await });
    let at = eventually("the upload", async || [&first, &second].into_iter().position(has_upload)).await;
    // The process that has the upload is the last one, so that the upload is under way in both restarts.
    if at == 0 {
        std::mem::swap(&mut first, &mut second);
    }

    let (is_over, jobs) = (AtomicBool::new(false), AtomicUsize::new(0));
    let asking = async || {
        while !is_over.load(Ordering::Relaxed) {
            caller.job().await;
            jobs.fetch_add(1, Ordering::Relaxed);
        }
    };
    let restarting = async {
        restart(&mut first, &asked).await;
        assert!(has_upload(&second), "the upload is under way when its process is asked to stop");
        let ended = restart(&mut second, &asked).await;
        is_over.store(true, Ordering::Relaxed);
        ended
    };
    let (ended, _) = tokio::join!(restarting, futures_util::future::join_all((0..CLIENTS).map(|_| asking())));
    let jobs = jobs.into_inner();
    println!("{jobs} jobs from their creation to their end meanwhile");
    assert!(jobs > 20, "{jobs}");
    let (answer, last) = upload.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(last < ended, "its process ended before the upload did");
}
