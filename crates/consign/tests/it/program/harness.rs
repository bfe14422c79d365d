//! The program as a process of its own: started, talked to, signalled, killed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use connectors::Limits;
use connectors::egress::Guard;
use connectors::http::{Body, Client, tls_config};
use consign::store::SqliteStore;
use http::{Method, Request, StatusCode};
use rustix::process::{Pid, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;

pub(crate) use rustix::process::Signal;

pub(crate) const MIB: usize = 1024 * 1024;
/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_mins(2);
/// What says in a file store whose the files are.
pub(crate) const MARK: &str = "consign-database";
/// Time between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Longest answer.
const ANSWER_BYTES_MAX: usize = 256 * MIB;

/// A data directory, the settings for it, and the server on it when one runs. Killed when dropped.
pub(crate) struct Program {
    folder: TempDir,
    settings: BTreeMap<String, String>,
    /// What stands before the program.
    launcher: Vec<OsString>,
    process: Option<Child>,
    printed: Arc<Mutex<String>>,
    base: String,
    key: String,
    client: Client,
    /// What was answered with 2xx and must never be lost.
    acknowledged: Mutex<BTreeSet<String>>,
}

impl Program {
    /// A new data directory; settings by the rest of their variables, such as `LIMITS__ATTEMPTS_MAX`.
    pub(crate) fn new(settings: &[(&str, &str)]) -> Self {
        let anywhere = ["0.0.0.0/0", "::/0"].map(|network| network.parse().unwrap());
        let client = Client::new(Guard::new(anywhere), tls_config(&[]).unwrap(), &Limits::default());
        let mut program = Self {
            folder: TempDir::new().unwrap(),
            settings: BTreeMap::new(),
            launcher: Vec::new(),
            process: None,
            printed: Arc::default(),
            base: String::new(),
            key: String::new(),
            client,
            acknowledged: Mutex::default(),
        };
        program.set("EGRESS__ALLOW", "127.0.0.0/8");
        program.set("LOG__LEVEL", "info,consign=debug");
        for (name, value) in settings {
            program.set(name, value);
        }
        program
    }

    /// A server with these settings that is ready.
    pub(crate) async fn started(settings: &[(&str, &str)]) -> Self {
        let mut program = Self::new(settings);
        program.start().await;
        program
    }

    /// Changes a setting for the next start.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.settings.insert(format!("CONSIGN_{name}"), value.to_owned());
    }

    /// Takes a setting back for the next start.
    pub(crate) fn unset(&mut self, name: &str) {
        self.settings.remove(&format!("CONSIGN_{name}"));
    }

    /// Starts the program by way of another from now on, which becomes it: in a namespace.
    pub(crate) fn launch_by(&mut self, launcher: &[OsString]) {
        launcher.clone_into(&mut self.launcher);
    }

    /// Where its commands run; the data directory is in it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the running server says that it is.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The API key that the first start made.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// Makes an API key, as operators of a fleet do, and talks with it.
    pub(crate) fn make_key(&mut self, name: &str) {
        let made = self.run(&["key", "create", name]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        String::from_utf8(made.stdout).unwrap().trim().clone_into(&mut self.key);
    }

    /// Talks with the API key of another server of the same fleet.
    pub(crate) fn take_key(&mut self, other: &Self) {
        self.key.clone_from(&other.key);
    }

    /// Talks with this API key, be it one or not.
    pub(crate) fn talk_with(&mut self, key: &str) {
        key.clone_into(&mut self.key);
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A command of the program on this data directory.
    #[expect(clippy::disallowed_methods, reason = "the program itself is what is tested")]
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut words = self.launcher.iter().cloned().chain([env!("CARGO_BIN_EXE_consign").into()]);
        let mut command = Command::new(words.next().expect("the program itself"));
        command.args(words).args(arguments).env_clear().envs(&self.settings).current_dir(self.folder.path());
        command.env("PATH", "/usr/bin:/bin").env("HOME", self.folder.path()).env("CONSIGN_DATA_DIR", self.data_dir());
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts the server on a free port and returns how long it took until it said that it is ready.
    pub(crate) async fn start(&mut self) -> Duration {
        self.start_with(0, &[]).await
    }

    /// The same on a port of one's choice.
    pub(crate) async fn start_at(&mut self, port: u16) -> Duration {
        self.start_with(port, &[]).await
    }

    /// The same with more on its command line.
    pub(crate) async fn start_with(&mut self, port: u16, more: &[&str]) -> Duration {
        assert!(self.process.is_none(), "it runs already");
        let errors = OpenOptions::new().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let began = Instant::now();
        let mut serve = self.command(&["serve", "--listen", &format!("127.0.0.1:{port}")]);
        serve.args(more);
        let mut process = serve.stdout(Stdio::piped()).stderr(errors).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        self.process = Some(process);
        self.printed = Arc::default();
        let printed = Arc::clone(&self.printed);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let mut printed = printed.lock().unwrap();
                printed.push_str(&line);
                printed.push('\n');
            }
        });
        let is_first = self.key.is_empty();
        let last = if is_first { "More keys:" } else { "Data is kept in" };
        let mut ready_after = None;
        while !self.printed().contains(last) {
            assert!(began.elapsed() < PATIENCE, "it is not ready: {}", self.log());
            if let Some(ended) = self.ended() {
                panic!("it ended with {ended}: {}", self.log());
            }
            if self.printed().contains("Consign is ready at ") {
                ready_after.get_or_insert_with(|| began.elapsed());
            }
            sleep(Duration::from_millis(5)).await;
        }
        let printed = self.printed();
        let after = |mark: &str| printed.split_once(mark).unwrap().1.split_whitespace().next().unwrap().to_owned();
        self.base = after("Consign is ready at ");
        if is_first {
            self.key = after("it is not shown again:");
        }
        ready_after.unwrap_or_else(|| began.elapsed())
    }

    /// What the running server printed on standard output.
    pub(crate) fn printed(&self) -> String {
        self.printed.lock().unwrap().clone()
    }

    /// What all starts wrote on standard error.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The end of that, for whoever reads of a failure.
    pub(crate) fn log_tail(&self) -> String {
        let log = self.log();
        let tail = log.len().saturating_sub(12_000);
        format!("…{}", &log[log.floor_char_boundary(tail)..])
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(self.process.as_ref().expect("it runs"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Kills the server and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().unwrap();
        let status = process.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "it ended by itself: {}", self.log());
    }

    pub(crate) async fn restart_after_kill(&mut self) {
        self.kill();
        self.start().await;
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().expect("it runs").try_wait().unwrap()
    }

    /// Waits until the server has ended by itself.
    pub(crate) async fn exit(&mut self, within: Duration) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                self.process = None;
                return status;
            }
            assert!(began.elapsed() < within, "it still runs after {within:?}");
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.base.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// The head of a request, for who wants to send it by hand.
    pub(crate) fn head(&self, path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\n\r\n", self.key)
    }

    /// Calls the API; the body of an answer that is no JSON is null.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
        self.call_as(&self.key, method, path, body).await
    }

    pub(crate) async fn call_as(
        &self,
        key: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> (StatusCode, Value) {
        let body = body.map_or_else(Body::empty, |body| body.to_string().into());
        let is_new = method == Method::POST;
        let request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        let request =
            request.header("authorization", format!("Bearer {key}")).header("content-type", "application/json");
        let answer = self.client.send(request.body(body).unwrap(), "calling").await.unwrap();
        let status = answer.status();
        let answer = answer.into_body().bytes(ANSWER_BYTES_MAX).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
        if is_new && status == StatusCode::CREATED && !path.starts_with("/v2/webhooks") {
            let kind = if answer["data"]["tasks"].is_array() { "jobs" } else { "tasks" };
            self.acknowledged.lock().unwrap().insert(format!("/v2/{kind}/{}", id(&answer["data"])));
        }
        (status, answer)
    }

    /// Makes a job of these tasks.
    pub(crate) async fn job(&self, tasks: Value) -> Value {
        let (status, mut answer) =
            self.call(Method::POST, "/v2/jobs", Some(&serde_json::json!({ "tasks": tasks }))).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        answer["data"].take()
    }

    pub(crate) async fn show(&self, path: &str) -> Value {
        let (status, mut answer) = self.call(Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer["data"].take()
    }

    /// Looks at a job until it has ended; no status may go back meanwhile.
    pub(crate) async fn follow(&self, job: &Value) -> Value {
        let began = Instant::now();
        let mut seen = BTreeMap::new();
        loop {
            let now = self.show(&format!("/v2/jobs/{}", id(job))).await;
            for one in now["tasks"].as_array().unwrap().iter().chain([&now]) {
                let (name, status) = (id(one), one["status"].as_str().unwrap().to_owned());
                let before = seen.insert(name, status.clone());
                let is_back = before.as_ref().is_some_and(|before| rank(before) > rank(&status));
                assert!(!is_back, "{} went from {before:?} to {status}", one["name"]);
            }
            if rank(now["status"].as_str().unwrap()) == 2 {
                return now;
            }
            assert!(began.elapsed() < PATIENCE, "{now:#}\n{}", self.log());
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Looks at a job until it has ended well.
    pub(crate) async fn finished(&self, job: &Value) -> Value {
        let ended = self.follow(job).await;
        assert_eq!(ended["status"], "finished", "{ended:#}\n{}", self.log());
        ended
    }

    /// Checks that everything that was answered with 2xx is there, and ends.
    pub(crate) async fn nothing_is_lost(&self) {
        let all = self.acknowledged.lock().unwrap().clone();
        assert!(!all.is_empty());
        for path in all {
            eventually(&format!("the end of {path}"), async || {
                let status = self.show(&path).await["status"].as_str().unwrap().to_owned();
                (rank(&status) == 2).then_some(())
            })
            .await;
        }
    }

    /// Posts a file to the form of an `import/upload` task.
    pub(crate) async fn upload(&self, task: &Value, name: &str, bytes: &[u8]) {
        let (head, tail) = form(task, name);
        let body: Bytes = [head.as_bytes(), bytes, tail.as_bytes()].concat().into();
        let request = Request::post(self.form_url(task)).header("content-type", FORM_TYPE).body(body.into()).unwrap();
        let answer = self.client.send(request, "uploading").await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
    }

    /// Where a form is now: a restart changes the port that tests run on.
    pub(crate) fn form_url(&self, task: &Value) -> String {
        let url = task["result"]["form"]["url"].as_str().unwrap();
        format!("{}{}", self.base, &url[url.find("/upload/").unwrap()..])
    }

    /// The status that a link answers with, and what it gives.
    pub(crate) async fn fetch(&self, url: &str) -> (StatusCode, Bytes) {
        let url = format!("{}{}", self.base, &url[url.find("/files/").unwrap()..]);
        let request = Request::get(url).body(Body::empty()).unwrap();
        let answer = self.client.send(request, "fetching").await.unwrap();
        (answer.status(), answer.into_body().bytes(ANSWER_BYTES_MAX).await.unwrap())
    }

    /// What a path without a key answers, as text.
    pub(crate) async fn text(&self, path: &str) -> (StatusCode, String) {
        let request = Request::get(format!("{}{path}", self.base)).body(Body::empty()).unwrap();
        let answer = self.client.send(request, "fetching").await.unwrap();
        let status = answer.status();
        (status, String::from_utf8(answer.into_body().bytes(ANSWER_BYTES_MAX).await.unwrap().to_vec()).unwrap())
    }

    /// All files in the file store, by their path in it, but for the mark that says whose they are.
    pub(crate) fn files(&self) -> BTreeSet<PathBuf> {
        let root = self.data_dir().join("files");
        let mut found = BTreeSet::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            // A folder may go while it is looked at.
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.insert(path.strip_prefix(&root).unwrap().to_owned());
                }
            }
        }
        found.remove(Path::new(MARK));
        found
    }

    /// Whether a file of this task is half-written.
    pub(crate) fn is_writing(&self, task: &Value) -> bool {
        let is_part = |path: &Path| path.starts_with(id(task)) && path.extension().is_some_and(|end| end == "part");
        let root = self.data_dir().join("files");
        self.files().iter().any(|path| is_part(path) && root.join(path).metadata().is_ok_and(|file| file.len() > 0))
    }

    /// The store behind the server's back, as another process would open it.
    pub(crate) async fn store(&self) -> SqliteStore {
        SqliteStore::open_shared(&self.data_dir().join("consign.db")).await.unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().ok();
            process.wait().ok();
        }
        if std::thread::panicking() {
            println!("{}", self.log_tail());
        }
    }
}

/// The order of the statuses on the wire.
fn rank(status: &str) -> u8 {
    match status {
        "waiting" => 0,
        "processing" => 1,
        "finished" | "error" => 2,
        other => panic!("there is no status {other}"),
    }
}

pub(crate) fn id(of: &Value) -> String {
    of["id"].as_str().unwrap_or_else(|| panic!("no id in {of}")).to_owned()
}

/// The task of this name in a job.
pub(crate) fn task<'a>(job: &'a Value, name: &str) -> &'a Value {
    job["tasks"].as_array().unwrap().iter().find(|task| task["name"] == name).unwrap()
}

const BOUNDARY: &str = "consign-tests-8f2a6c";
pub(crate) const FORM_TYPE: &str = "multipart/form-data; boundary=consign-tests-8f2a6c";

/// What is posted before and after the file.
pub(crate) fn form(task: &Value, name: &str) -> (String, String) {
    let mut head = String::new();
    for (field, value) in task["result"]["form"]["parameters"].as_object().unwrap() {
        let value = value.as_str().unwrap();
        write!(head, "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n").unwrap();
    }
    write!(head, "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n").unwrap();
    (head, format!("\r\n--{BOUNDARY}--\r\n"))
}

/// Looks until there is something.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what} does not come");
        sleep(LOOK_AGAIN).await;
    }
}

/// Random numbers that a failed run can be repeated with: `CONSIGN_TEST_SEED`.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new() -> Self {
        let given = std::env::var_os("CONSIGN_TEST_SEED").and_then(|seed| seed.to_str()?.parse().ok());
        let seed = given.unwrap_or_else(rand::random);
        println!("CONSIGN_TEST_SEED={seed}");
        Self(seed)
    }

    /// A number of `range` bytes.
    pub(crate) fn bytes(&mut self, range: std::ops::Range<usize>) -> u64 {
        let mut word = [0; 8];
        testkit::bytes::fill(self.0, 0, &mut word);
        self.0 = u64::from_le_bytes(word);
        range.start as u64 + self.0 % (range.end - range.start) as u64
    }
}
