//! Several processes on one PostgreSQL database and one file store.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use http::{Method, StatusCode};
use rustix::process::{Pid, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::Postgres;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::{Instant, sleep, timeout};

use super::harness::{MIB, Program, Signal, eventually, id, task};

/// Longer than any hint takes, shorter than the look that whoever waits takes by himself.
const SOON: Duration = Duration::from_secs(9);

/// What the processes of a fleet share.
pub(super) struct Fleet {
    files: TempDir,
    database: String,
}

impl Fleet {
    pub(super) async fn new(server: &Postgres) -> Self {
        Self::at(server.database().await.unwrap())
    }

    /// On a database that is reached in some other way.
    pub(super) fn at(database: String) -> Self {
        Self { files: TempDir::new().unwrap(), database }
    }

    /// A process that is not started yet.
    pub(super) fn member(&self, settings: &[(&str, &str)]) -> Program {
        let mut program = Program::new(settings);
        program.set("DATABASE_URL", &self.database);
        program.set("FILES_URL", &format!("file://{}", self.files.path().display()));
        program.set("SECRET_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
        program
    }

    /// A process that answers the API; the second one and all after it take the key of the first.
    pub(super) async fn api(&self, first: Option<&Program>) -> Program {
        self.api_with(first, &[]).await
    }

    /// The same with settings of its own.
    pub(super) async fn api_with(&self, first: Option<&Program>, settings: &[(&str, &str)]) -> Program {
        let mut program = self.member(settings);
        match first {
            Some(first) => program.take_key(first),
            None => program.make_key("admin"),
        }
        program.start_with(0, &["--role", "api"]).await;
        program
    }

    pub(super) fn runner(&self) -> Runner {
        let program = self.member(&[("LIMITS__TASKS_RUNNING_MAX", "4"), ("PUBLIC_URL", "http://127.0.0.1:1")]);
        let log = File::create(program.folder().join("log")).unwrap();
        let mut serve = program.command(&["serve", "--role", "runner"]);
        let mut process = serve.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let ready = lines.next().map(|line| line.unwrap()).unwrap_or_default();
        assert_eq!(ready, "Consign's runner is ready", "{}", program.log());
        Runner { program, process }
    }
}

/// A process that runs tasks; killed when dropped.
pub(super) struct Runner {
    program: Program,
    process: Child,
}

impl Runner {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn job() -> Value {
    json!({
        "up": {"operation": "import/upload"},
        "link": {"operation": "export/url", "input": "up"},
    })
}

/// Whichever process is the first: no key comes into its log, and the command that the guides name makes one, whatever its name.
#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_makes_no_key_by_itself() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let fleet = Fleet::new(&server).await;
    let _runner = fleet.runner();
    let mut api = fleet.member(&[]);
    // Anything, so that it does not wait for a key to be shown.
    api.talk_with("nobody");
    api.start_with(0, &["--role", "api"]).await;
    let printed = api.printed();
    assert!(!printed.contains("first API key") && printed.contains("consign key create NAME"), "{printed}");
    assert_eq!(api.call(Method::GET, "/v2/users/me", None).await.0, StatusCode::UNAUTHORIZED);
    api.make_key("admin");
    assert_eq!(api.call(Method::GET, "/v2/users/me", None).await.0, StatusCode::OK);
    let second = fleet.api(Some(&api)).await;
    assert!(!second.printed().contains("key"), "{}", second.printed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_in_at_one_door_comes_out_at_another() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let fleet = Fleet::new(&server).await;
    let one = fleet.api(None).await;
    let other = fleet.api(Some(&one)).await;
    let _runner = fleet.runner();

    let made = one.job(job()).await;
    // Somebody waits at the first door; the file comes through the other.
    let waiting = async {
        let (status, ended) = one.call(Method::GET, &format!("/v2/jobs/{}/wait", id(&made)), None).await;
        assert_eq!((status, ended["data"]["status"].as_str()), (StatusCode::OK, Some("finished")), "{ended}");
        ended["data"].clone()
    };
    let content = vec![7; 3 * MIB];
    let uploading = other.upload(task(&made, "up"), "a.bin", &content);
    let began = Instant::now();
    let (ended, ()) = timeout(SOON * 4, async { tokio::join!(waiting, uploading) }).await.expect("it ends");
    assert!(began.elapsed() < SOON, "the wait was not told: {:?}", began.elapsed());
    let url = task(&ended, "link")["result"]["files"][0]["url"].as_str().unwrap();
    for program in [&one, &other] {
        let (status, bytes) = program.fetch(url).await;
        assert_eq!((status, bytes.len()), (StatusCode::OK, 3 * MIB));
    }
}

/// Somebody follows at one door what was made, and ends, at another.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_events_tells_at_once_what_other_processes_did() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let fleet = Fleet::new(&server).await;
    let one = fleet.api(None).await;
    let other = fleet.api(Some(&one)).await;
    let _runner = fleet.runner();
    let made = one.job(job()).await;
    let mut stream = TcpSocket::new_v4().unwrap().connect(other.address()).await.unwrap();
    stream.write_all(other.head(&format!("/v2/jobs/{}/events", id(&made))).as_bytes()).await.unwrap();
    let mut told = String::new();
    let mut until = async |event: &str| {
        let mut piece = [0; 4096];
        while !told.contains(&format!("event: {event}\n")) {
            let length = timeout(SOON * 4, stream.read(&mut piece)).await.expect("it is told").unwrap();
            assert!(length > 0, "the stream ends before {event}: {told}");
            told.push_str(std::str::from_utf8(&piece[..length]).unwrap());
        }
    };
    until("task.created").await;
    // The stream has read all there is, and looks again by itself much later.
    sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    one.upload(task(&made, "up"), "a.txt", b"hello").await;
    until("job.finished").await;
    assert!(began.elapsed() < SOON, "the stream was not told: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_or_frozen_runner_held_another_takes() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let fleet = Fleet::new(&server).await;
    let api = fleet.api(None).await;
    let first = fleet.runner();
    // Whoever listens and never accepts keeps the task running.
    let source = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x", source.local_addr().unwrap());
    let import = json!({"in": {"operation": "import/url", "url": url}});
    let held = api.job(import).await;
    let held = id(task(&held, "in"));
    eventually("the task to be taken", async || {
        (api.show(&format!("/v2/tasks/{held}")).await["status"] == "processing").then_some(())
    })
    .await;
    let attempts = async || -> String {
        let sql = format!("SELECT attempt || ' ' || state FROM tasks WHERE id = '{held}'");
        server.psql(fleet.database.rsplit('/').next().unwrap(), &sql).await.unwrap()
    };
    assert_eq!(attempts().await, "1 running");
    let second = fleet.runner();
    first.signal(Signal::STOP);
    eventually("the other to take it", async || (attempts().await == "2 running").then_some(())).await;
    first.signal(Signal::CONT);
    let third = fleet.runner();
    second.signal(Signal::KILL);
    eventually("yet another to take it", async || (attempts().await == "3 running").then_some(())).await;
    // What was asleep noticed that it is declared dead, and lives on under a new name.
    eventually("it to notice", async || first.program.log().contains("declared dead").then_some(())).await;
    let (status, _) = api.call(Method::POST, &format!("/v2/tasks/{held}/cancel"), None).await;
    assert_eq!(status, StatusCode::OK);
    drop((second, third));
    let last = api.job(json!({"in": {"operation": "import/raw", "file": "a", "filename": "a"}})).await;
    api.finished(&last).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_another_secret_key_is_refused() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let fleet = Fleet::new(&server).await;
    let _api = fleet.api(None).await;
    let mut stranger = fleet.member(&[]);
    stranger.set("SECRET_KEY", "IAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    let refused = stranger.run(&["serve", "--listen", "127.0.0.1:0"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(refused.status.code() == Some(2) && said.contains("secret_key is not the one"), "{said}");
}

fn succeeds(program: &Program, command: &[&str]) {
    let done = program.run(command);
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_moves_from_sqlite_to_postgresql_and_back() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let mut program = Program::started(&[]).await;
    let made = program.job(job()).await;
    let busy = program.run(&["export-state", "state.jsonl"]);
    assert!(!busy.status.success(), "the server runs");
    program.upload(task(&made, "up"), "a.txt", b"hello").await;
    program.finished(&made).await;
    let open = program.job(job()).await;
    program.kill();

    let database = server.database().await.unwrap();
    succeeds(&program, &["export-state", "state.jsonl"]);
    program.set("DATABASE_URL", &database);
    succeeds(&program, &["import-state", "state.jsonl"]);
    program.start().await;
    let busy = program.run(&["export-state", "state.jsonl"]);
    assert!(String::from_utf8_lossy(&busy.stderr).contains("stop all processes first"));
    let there = program.finished(&made).await;
    let url = task(&there, "link")["result"]["files"][0]["url"].as_str().unwrap();
    assert_eq!(program.fetch(url).await, (StatusCode::OK, "hello".into()));
    program.upload(task(&open, "up"), "b.txt", b"later").await;
    program.finished(&open).await;
    program.kill();

    // The connections of a process that was killed vanish a moment later.
    eventually("the way back", async || program.run(&["export-state", "back.jsonl"]).status.success().then_some(()))
        .await;
    program.unset("DATABASE_URL");
    std::fs::rename(program.data_dir().join("consign.db"), program.folder().join("old.db")).unwrap();
    let _ = std::fs::remove_file(program.data_dir().join("consign.db-wal"));
    let _ = std::fs::remove_file(program.data_dir().join("consign.db-shm"));
    let whole = std::fs::read_to_string(program.folder().join("back.jsonl")).unwrap();
    std::fs::write(program.folder().join("half.jsonl"), &whole[..whole.len() / 2]).unwrap();
    let refused = String::from_utf8(program.run(&["import-state", "half.jsonl"]).stderr).unwrap();
    assert!(refused.contains("not whole"), "{refused}");
    std::fs::write(program.folder().join("later.jsonl"), whole.replacen("\"tag\"", "\"tag\",\"colour\"", 1)).unwrap();
    let refused = String::from_utf8(program.run(&["import-state", "later.jsonl"]).stderr).unwrap();
    assert!(refused.contains("written by a later version") && refused.contains("jobs.colour"), "{refused}");
    succeeds(&program, &["import-state", "back.jsonl"]);
    program.start().await;
    program.finished(&open).await;
    program.nothing_is_lost().await;
}
