//! A server that dies at a point, is started again, and must end as if it had not.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connectors::Secret;
use consign::clock::{Clock, Timestamp};
use consign::id::TaskId;
use consign::store::postgres::Options;
use consign::store::{Cancellation, PostgresStore, Store};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use testkit::{Ceph, Postgres};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::super::harness::{FORM_TYPE, MIB, Program, eventually, form, id, task};
use super::super::receiver::{Heard, Receiver};

/// The object that says which database the files in a bucket belong to.
const MARK: &str = "consign-database";

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
    /// All tasks so far whose files may be kept.
    tasks: Vec<TaskId>,
    fleet: Option<Fleet>,
    is_running: bool,
}

/// What a server shares with others: then none thinks that it is alone.
pub(super) struct Fleet {
    pub(super) postgres: Postgres,
    /// The address of its database.
    pub(super) database: String,
    pub(super) ceph: Ceph,
    /// The bucket of its files.
    pub(super) bucket: String,
}

impl Life {
    pub(super) async fn new(settings: &[(&str, &str)]) -> Self {
        let mut program = Program::new(&SETTINGS);
        for (name, value) in settings {
            program.set(name, value);
        }
        let receiver = Receiver::start().await;
        Self { program, receiver, jobs: Vec::new(), tasks: Vec::new(), fleet: None, is_running: false }
    }

    /// The same on PostgreSQL, with files in a bucket.
    pub(super) async fn of_fleet(fleet: Fleet, settings: &[(&str, &str)]) -> Self {
        let mut life = Self::new(settings).await;
        let Fleet { database, ceph, bucket, .. } = &fleet;
        let files = format!("s3://{bucket}?endpoint={}&region={}", ceph.endpoint, ceph.region);
        for (name, value) in [
            ("DATABASE_URL", database),
            ("FILES_URL", &files),
            ("FILES__ACCESS_KEY_ID", &ceph.account.access_key_id),
            ("FILES__SECRET_ACCESS_KEY", &ceph.account.secret_access_key),
        ] {
            life.program.set(name, value);
        }
        // Where processes share a database none makes a key by itself.
        life.program.make_key("admin");
        life.fleet = Some(fleet);
        life
    }

    /// What it shares with others.
    pub(super) fn fleet(&self) -> &Fleet {
        self.fleet.as_ref().expect("it is one of a fleet")
    }

    /// Starts a server that dies at this point.
    pub(super) async fn doomed(&mut self, point: &str) {
        self.program.set("TEST_FAIL_POINT", point);
        self.again().await;
        println!("to die at {point}");
    }

    /// Kills the server, if one runs.
    pub(super) fn kill(&mut self) {
        if std::mem::take(&mut self.is_running) {
            self.program.kill();
        }
    }

    /// Starts a server that dies at a point that it passes while it starts or a moment later, and then one that does not.
    pub(super) async fn dies_at_start(&mut self, point: &str) {
        self.kill();
        println!("to die at {point}");
        self.program.set("TEST_FAIL_POINT", point);
        let log = OpenOptions::new().create(true).append(true).open(self.program.folder().join("log")).unwrap();
        let mut serve = self.program.command(&["serve", "--listen", "127.0.0.1:0"]);
        let mut server = serve.stdout(std::process::Stdio::null()).stderr(log).spawn().unwrap();
        let began = Instant::now();
        let status = loop {
            if let Some(status) = server.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > DIES_WITHIN {
                server.kill().unwrap();
            }
            sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(status.signal(), Some(ABORTED), "{point}: it did not die there: {status}");
        self.program.unset("TEST_FAIL_POINT");
        self.again().await;
    }

    /// Starts the server anew.
    pub(super) async fn again(&mut self) {
        self.kill();
        self.program.start().await;
        self.is_running = true;
    }

    /// Waits until the server has died, and starts one that does not.
    pub(super) async fn dies(&mut self) {
        self.has_died().await;
        self.program.unset("TEST_FAIL_POINT");
        self.again().await;
    }

    /// Waits until the server has died, and starts one that is to die at another point.
    pub(super) async fn dies_and_then_at(&mut self, point: &str) {
        self.has_died().await;
        self.doomed(point).await;
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
        self.made(answer["data"].take())
    }

    fn made(&mut self, job: Value) -> Value {
        for task in job["tasks"].as_array().unwrap() {
            self.watch(task);
        }
        self.jobs.push(job.clone());
        job
    }

    /// From now on files of this task may be kept.
    pub(super) fn watch(&mut self, task: &Value) {
        self.tasks.push(id(task).parse().unwrap());
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
        self.made(answer["data"].take())
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
        let (store, now) = (self.store().await, Clock::system().now());
        let user = store.ensure_user("admin", now).await.unwrap().id;
        let cancelled = store.cancel(user, id(task(job, name)).parse().unwrap(), now).await.unwrap();
        assert_eq!(cancelled, Cancellation::Done);
        store.close().await;
    }

    /// The store behind the server's back, as another process would open it.
    pub(super) async fn store(&self) -> Arc<dyn Store> {
        let Some(Fleet { database, .. }) = &self.fleet else { return Arc::new(self.program.store().await) };
        let options = Options { connections_max: 2, listen: false };
        Arc::new(PostgresStore::open(&Secret::new(database), options).await.unwrap())
    }

    /// The ledger has no line any more.
    pub(super) async fn nothing_is_open(&self) {
        let store = self.store().await;
        eventually("an empty ledger", async || {
            (store.counts(Timestamp(0)).await.unwrap().open_uploads == 0).then_some(())
        })
        .await;
        store.close().await;
    }

    /// The names of all files in the file store.
    pub(super) async fn names(&self) -> BTreeSet<String> {
        let Some(Fleet { ceph, bucket, .. }) = &self.fleet else {
            return self.program.files().into_iter().map(|path| path.to_str().unwrap().to_owned()).collect();
        };
        let script =
            format!("result = [it['Key'] for it in s3.list_objects_v2(Bucket={bucket:?}).get('Contents', [])]");
        let mut names: BTreeSet<String> = serde_json::from_value(ceph.s3api(&script).await.unwrap()).unwrap();
        names.remove(MARK);
        names
    }

    /// Asks for something and takes it that no answer comes.
    pub(super) async fn ask_without_answer(&self, method: &str, path: &str) {
        drop(self.send(method, path, "", b"").await);
    }

    pub(super) async fn post(&self, path: &str, headers: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
        self.send("POST", path, headers, body).await
    }

    #[expect(clippy::disallowed_methods, reason = "loopback only, and no part of the program")]
    pub(super) async fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
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

    /// What the receiver heard of a job.
    pub(super) fn heard(&self, job: &Value) -> Vec<Heard> {
        self.receiver.heard("/ok").into_iter().filter(|heard| id(&heard.json()["job"]) == id(job)).collect()
    }

    /// The receiver hears of the job's end: once, or again with the same id.
    pub(super) async fn is_told(&self, job: &Value, event: &str) {
        let ids = eventually(&format!("{event} of {}", id(job)), async || {
            let heard = self.heard(job);
            assert!(heard.iter().all(|heard| heard.event() == event), "something else than {event}");
            let ids: BTreeSet<String> = heard.iter().map(|heard| heard.header("webhook-id").to_owned()).collect();
            (!ids.is_empty()).then_some(ids)
        })
        .await;
        assert_eq!(ids.len(), 1, "one event has one id");
    }

    /// The file store has the files that rows name, and nothing else.
    pub(super) async fn keeps_what_is_named(&self) {
        let store = self.store().await;
        let kept = eventually("a file store with nothing else", async || {
            let rows = store.blobs(&self.tasks).await.unwrap();
            let named: BTreeSet<String> =
                rows.iter().flat_map(|(_, _, blobs)| blobs).map(|blob| blob.as_str().to_owned()).collect();
            (self.names().await == named).then_some(())
        });
        let kept = tokio::time::timeout(Duration::from_secs(20), kept).await;
        assert!(kept.is_ok(), "files that nobody names: {:?}", self.names().await);
        // What is still to be told would be told by the next server, which may be there to die at that.
        eventually("an end of all deliveries", async || {
            let counts = store.counts(Timestamp(0)).await.unwrap();
            let lines = store.outbox(1).await.unwrap();
            (counts.deliveries == 0 && lines.is_empty()).then_some(())
        })
        .await;
        store.close().await;
    }

    /// What the link of an `export/url` task gives.
    pub(super) async fn fetched(&self, ended: &Value, name: &str) -> Vec<u8> {
        let url = task(ended, name)["result"]["files"][0]["url"].as_str().unwrap();
        let (status, bytes) = self.program.fetch(url).await;
        assert_eq!(status, StatusCode::OK);
        bytes.to_vec()
    }
}

/// A link to the file of the task `in`.
pub(super) fn link() -> Value {
    json!({"operation": "export/url", "input": "in"})
}
