//! A server that dies at a point, is started again, and must end as if it had not.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::time::Duration;

use consign::clock::Clock;
use consign::store::{Accounts as _, Cancellation, Jobs as _, Transitions as _};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::super::harness::{FORM_TYPE, MIB, Program, eventually, form, id, task};
use super::super::receiver::Receiver;

/// Small parts, so that a file of a few MiB has several.
pub(super) const SETTINGS: [(&str, &str); 3] =
    [("TRANSFER__PART_BYTES", "5MiB"), ("TRANSFER__PARTS_IN_FLIGHT", "2"), ("SWIFT__SEGMENT_BYTES", "5MiB")];
/// A file of three parts.
pub(super) const LARGE: usize = 11 * MIB;
/// A file that goes in one piece.
pub(super) const SMALL: usize = 1000;
/// How long a server may live that is to die.
const DIES_WITHIN: Duration = Duration::from_mins(1);
/// `abort` ends a process like this.
const ABORTED: i32 = 6;

/// A server and a receiver of its webhooks.
pub(super) struct Life {
    pub(super) program: Program,
    receiver: Receiver,
    /// All jobs so far.
    jobs: Vec<Value>,
    is_running: bool,
}

impl Life {
    pub(super) async fn new(settings: &[(&str, &str)]) -> Self {
        let mut program = Program::new(&SETTINGS);
        for (name, value) in settings {
            program.set(name, value);
        }
        Self { program, receiver: Receiver::start().await, jobs: Vec::new(), is_running: false }
    }

    /// Starts a server that dies at this point.
    pub(super) async fn doomed(&mut self, point: &str) {
        self.program.set("TEST_FAIL_POINT", point);
        self.again().await;
        println!("to die at {point}");
    }

    /// Starts the server anew.
    pub(super) async fn again(&mut self) {
        if self.is_running {
            self.program.kill();
        }
        self.program.start().await;
        self.is_running = true;
    }

    /// Waits until the server has died, and starts one that does not.
    pub(super) async fn dies(&mut self) {
        self.has_died().await;
        self.program.unset("TEST_FAIL_POINT");
        self.again().await;
    }

    /// Waits until the server has died.
    async fn has_died(&mut self) {
        let status = self.program.exit(DIES_WITHIN).await;
        assert_eq!(status.signal(), Some(ABORTED), "it did not die at the point: {status}");
        self.is_running = false;
    }

    fn body(&self, tasks: &Value) -> String {
        json!({"tasks": tasks, "webhook_url": self.receiver.url("/ok")}).to_string()
    }

    /// Makes a job while nothing goes wrong.
    pub(super) async fn job(&mut self, tasks: &Value) -> Value {
        let body: Value = serde_json::from_str(&self.body(tasks)).unwrap();
        let (status, mut answer) = self.program.call(Method::POST, "/v2/jobs", Some(&body)).await;
        assert_eq!(status, StatusCode::CREATED, "{answer}");
        self.jobs.push(answer["data"].take());
        self.jobs.last().unwrap().clone()
    }

    /// Asks for a job, without an answer if need be; asks again with the same key after the death.
    pub(super) async fn job_that_kills(&mut self, tasks: &Value) -> Value {
        let body = self.body(tasks);
        let key = format!("Idempotency-Key: job {}\r\nContent-Type: application/json\r\n", self.jobs.len());
        self.post("/v2/jobs", &key, body.as_bytes()).await;
        self.dies().await;
        let (status, answer) = self.post("/v2/jobs", &key, body.as_bytes()).await.expect("nobody dies any more");
        let mut answer: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(status, 201, "{answer}");
        self.jobs.push(answer["data"].take());
        self.jobs.last().unwrap().clone()
    }

    /// Uploads a file to the job's task `in`, without an answer if need be; once more after the death if the task still waits
    /// for it.
    pub(super) async fn upload_that_kills(&mut self, job: &Value, bytes: &[u8]) {
        self.upload(job, bytes).await;
        self.dies().await;
        let shown = self.program.show(&format!("/v2/tasks/{}", id(task(job, "in")))).await;
        if shown["status"] == "waiting" {
            assert_eq!(self.upload(job, bytes).await, Some(201));
        }
    }

    async fn upload(&self, job: &Value, bytes: &[u8]) -> Option<u16> {
        let waiting = task(job, "in");
        let (head, tail) = form(waiting, "out.bin");
        let body = [head.as_bytes(), bytes, tail.as_bytes()].concat();
        let url = self.program.form_url(waiting);
        let path = url.strip_prefix(self.program.base()).unwrap();
        Some(self.post(path, &format!("Content-Type: {FORM_TYPE}\r\n"), &body).await?.0)
    }

    /// Uploads a file, at which the server dies, and cancels a task before the next one starts, as another process would.
    pub(super) async fn upload_that_kills_and_cancel(&mut self, job: &Value, bytes: &[u8], name: &str) {
        self.upload(job, bytes).await;
        self.has_died().await;
        let (store, now) = (self.program.store().await, Clock::system().now());
        let user = store.ensure_user("admin", now).await.unwrap().id;
        let cancelled = store.cancel(user, id(task(job, name)).parse().unwrap(), now).await.unwrap();
        assert_eq!(cancelled, Cancellation::Done);
        consign::store::Store::close(&store).await;
    }

    /// The ledger has no line any more.
    pub(super) async fn nothing_is_open(&self) {
        let store = self.program.store().await;
        eventually("an empty ledger", async || {
            let counts = consign::store::Store::counts(&store, consign::clock::Timestamp(0)).await.unwrap();
            (counts.open_uploads == 0).then_some(())
        })
        .await;
    }

    /// Asks for something and takes it that no answer comes.
    pub(super) async fn ask_without_answer(&self, method: &str, path: &str) {
        drop(self.send(method, path, "", b"").await);
    }

    async fn post(&self, path: &str, headers: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
        self.send("POST", path, headers, body).await
    }

    #[expect(clippy::disallowed_methods, reason = "loopback only, and no part of the program")]
    async fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\nAuthorization: Bearer {}\r\n{headers}\
             Content-Length: {}\r\n\r\n",
            self.program.key(),
            body.len()
        );
        let mut stream = TcpStream::connect(self.program.address()).await.ok()?;
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(body).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
        let status = std::str::from_utf8(&answer).ok()?.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer.split_off(end + 4)))
    }

    /// The job ends well, its receiver is told so, and the server keeps no file that no row names.
    pub(super) async fn ends_well(&self, job: &Value) -> Value {
        let ended = self.program.finished(job).await;
        self.is_told(job, "job.finished").await;
        self.keeps_what_is_named().await;
        ended
    }

    /// The receiver hears of the job's end: once, or again with the same id.
    pub(super) async fn is_told(&self, job: &Value, event: &str) {
        let ids = eventually(&format!("{event} of {}", id(job)), async || {
            let heard = self.receiver.heard("/ok").into_iter().filter(|heard| id(&heard.json()["job"]) == id(job));
            let heard: Vec<_> = heard.inspect(|heard| assert_eq!(heard.event(), event)).collect();
            let ids: BTreeSet<String> = heard.iter().map(|heard| heard.header("webhook-id").to_owned()).collect();
            (!ids.is_empty()).then_some(ids)
        })
        .await;
        assert_eq!(ids.len(), 1, "one event has one id");
    }

    /// The file store has the files that rows name, and nothing else.
    pub(super) async fn keeps_what_is_named(&self) {
        let store = self.program.store().await;
        let tasks = self.jobs.iter().flat_map(|job| job["tasks"].as_array().unwrap());
        let tasks: Vec<_> = tasks.map(|task| id(task).parse().unwrap()).collect();
        let kept = eventually("a file store with nothing else", async || {
            let rows = store.blobs(&tasks).await.unwrap();
            let named: BTreeSet<PathBuf> =
                rows.iter().flat_map(|(_, _, blobs)| blobs).map(|blob| PathBuf::from(blob.as_str())).collect();
            (self.program.files() == named).then_some(())
        });
        let kept = tokio::time::timeout(Duration::from_secs(20), kept).await;
        assert!(kept.is_ok(), "files that nobody names: {:?}", self.program.files());
        // What is still to be told would be told by the next server, which may be there to die at that.
        eventually("an end of all deliveries", async || {
            let counts = consign::store::Store::counts(&store, consign::clock::Timestamp(0)).await.unwrap();
            let lines = consign::store::Webhooks::outbox(&store, 1).await.unwrap();
            (counts.deliveries == 0 && lines.is_empty()).then_some(())
        })
        .await;
        consign::store::Store::close(&store).await;
    }

    /// What the link of an `export/url` task gives.
    pub(super) async fn fetched(&self, ended: &Value, name: &str) -> Vec<u8> {
        let url = task(ended, name)["result"]["files"][0]["url"].as_str().unwrap();
        let (status, bytes) = self.program.fetch(url).await;
        assert_eq!(status, StatusCode::OK);
        bytes.to_vec()
    }
}
