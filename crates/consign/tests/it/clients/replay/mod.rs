//! The clients for PHP, Java, .NET and Ruby, replayed: their requests byte for byte, and their reading of the answers.

mod dialects;
mod reading;
mod wire;

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use testkit::clients::{Cell, Client, Via};

use self::dialects::{Dialect, UPLOADED};
use self::wire::{Answer, exchange, request};
use super::{Server, conclude, delivery};
use crate::program::{Program, Receiver};

const NOBODY: &str = "0d9b7a44-2d6f-4f0e-8a55-6f4d8f1f7a20";

/// A client that is played.
struct Replay {
    dialect: Dialect,
    server: Server,
    /// The address, and the second one on which everything waits.
    ports: [u16; 2],
}

fn signature(secret: &str, text: &[u8]) -> String {
    hex::encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), text))
}

fn fails(answer: Answer, status: u16, code: &str) -> Result<Value> {
    let body = answer.is(status)?.json()?;
    ensure!(reading::error(&body)? == code, "{body}");
    Ok(body)
}

fn named<'a>(job: &'a Value, name: &str) -> Result<&'a Value> {
    job["tasks"].as_array().context("tasks")?.iter().find(|task| task["name"] == name).context("no such task")
}

fn id(of: &Value) -> &str {
    of["id"].as_str().unwrap_or_default()
}

impl Replay {
    async fn start(dialect: Dialect) -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let waits = free();
        let program = Program::started(&[("SYNC_LISTEN", &format!("127.0.0.1:{waits}"))]).await;
        let base = format!("{}/s", program.base());
        let port = program.base().rsplit_once(':').unwrap().1.parse().unwrap();
        Self { dialect, server: Server::of(program, &base), ports: [port, waits] }
    }

    async fn call_as(&self, key: &str, method: &str, path: &str, waits: bool, body: Option<&str>) -> Result<Answer> {
        // Java replaces the path of its address, so that waiting has an address of its own.
        let port = self.ports[usize::from(waits && self.dialect == Dialect::Java)];
        exchange(port, &self.dialect.call(method, path, waits, key, body)).await
    }

    async fn call(&self, method: &str, path: &str, body: Option<&str>) -> Result<Answer> {
        self.call_as(self.server.program.key(), method, path, false, body).await
    }

    /// What the client makes of an answer with one resource.
    fn read(&self, answer: &Answer) -> Result<Value> {
        let kind = answer.header("content-type");
        ensure!(
            kind.split(';').next().is_some_and(|kind| kind.trim_end().ends_with("/json")),
            "Ruby takes {kind} for text"
        );
        let value = match self.dialect {
            Dialect::Java => reading::java(&answer.body)?,
            Dialect::Php | Dialect::DotNet | Dialect::Ruby => answer.json()?["data"].take(),
        };
        reading::resource(&value)?;
        Ok(value)
    }

    async fn get(&self, path: &str) -> Result<Value> {
        self.read(&self.call("GET", path, None).await?.is(200)?)
    }

    async fn wait(&self, path: &str) -> Result<Value> {
        let ended = self.call_as(self.server.program.key(), "GET", path, true, None).await?.is(200)?;
        self.read(&ended)
    }

    async fn make(&self, path: &str, body: &str) -> Result<Value> {
        self.read(&self.call("POST", path, Some(body)).await?.is(201)?)
    }

    /// Posts the file to a form, as it was got, without a key.
    async fn send_file(&self, task: &Value) -> Result<Answer> {
        let form = &task["result"]["form"];
        let fields = form["parameters"].as_object().context("parameters")?;
        let fields: Vec<_> =
            fields.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
        let (kind, body) = self.dialect.form(&fields);
        let url = form["url"].as_str().context("a URL")?;
        let path = &url[url.find("/upload/").context("a path")?..];
        let headers = ["Host: 127.0.0.1", &format!("Content-Type: {kind}"), &format!("Content-Length: {}", body.len())];
        exchange(self.ports[0], &request(&format!("POST {path}"), &headers, &body)).await
    }

    async fn user(&self) -> Result<Cell> {
        let user = self.get("/users/me").await?;
        for key in ["id", "username", "email", "created_at", "credits", "links"] {
            ensure!(!user[key].is_null(), "PHP throws on null: {key}");
        }
        Ok(Cell::Shown)
    }

    async fn create(&self) -> Result<Cell> {
        let job = self.make("/jobs", self.dialect.upload_job()).await?;
        ensure!(job["status"] == "waiting" && job["tasks"].as_array().is_some_and(|tasks| tasks.len() == 2), "{job}");
        let wanted = if self.dialect == Dialect::DotNet { json!("integration") } else { Value::Null };
        ensure!(job["tag"] == wanted, "{job}");
        let upload = self.make("/import/upload", "{}").await?;
        ensure!(upload.get("name").is_none() && upload["message"] == "Waiting for file upload", "{upload}");
        for (path, body, operation) in self.dialect.odd_creations() {
            let task = self.make(path, &body.replace("IN", id(&upload))).await.with_context(|| (*body).to_owned())?;
            ensure!(task["operation"] == *operation && task["status"] == "waiting", "{task}");
        }
        Ok(Cell::Shown)
    }

    async fn upload(&self) -> Result<Cell> {
        let task = self.make("/import/upload", "{}").await?;
        let answer = self.send_file(&task).await?.is(201)?;
        ensure!(answer.reason == "Created" && answer.header("content-type") == "application/xml", "{answer:?}");
        let ended = self.wait(&format!("/tasks/{}", id(&task))).await?;
        let file = &ended["result"]["files"][0];
        ensure!(file["filename"] == self.dialect.uploaded_name() && file["size"] == UPLOADED.1.len(), "{file}");
        Ok(Cell::Shown)
    }

    async fn wait_for_end(&self) -> Result<Cell> {
        let job = self.make("/jobs", self.dialect.upload_job()).await?;
        let path = format!("/jobs/{}", id(&job));
        let (ended, sent) = tokio::join!(self.wait(&path), async {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            self.send_file(named(&job, "in")?).await
        });
        sent?.is(201)?;
        ensure!(ended?["status"] == "finished");
        let legacy = self.call("GET", &format!("/tasks/{}/wait", id(named(&job, "out")?)), None).await?.is(200)?;
        ensure!(self.read(&legacy)?["status"] == "finished");
        Ok(Cell::Shown)
    }

    async fn show(&self) -> Result<Cell> {
        let job = self.make("/jobs", self.dialect.upload_job()).await?;
        ensure!(self.get(&format!("/jobs/{}", id(&job))).await? == job);
        let task = named(&job, "in")?;
        // .NET sends an empty one.
        ensure!(self.get(&format!("/tasks/{}?include=", id(task))).await? == *task);
        Ok(Cell::Shown)
    }

    async fn list(&self) -> Result<Cell> {
        let job = self.make("/jobs", self.dialect.upload_job()).await?;
        let answer = self.call("GET", &format!("/tasks{}", self.dialect.list_query(id(&job))), None).await?.is(200)?;
        let body = answer.json()?;
        let tasks = reading::list(&body)?;
        ensure!(tasks.len() == 2, "{body}");
        // What was asked for comes as lists, which is what Ruby and PHP read.
        for task in tasks {
            ensure!(task.get("depends_on_tasks").is_none_or(Value::is_array), "{task}");
            if self.dialect != Dialect::Java {
                reading::task(task)?;
            }
        }
        let jobs =
            self.call("GET", "/jobs?filter[status]=&filter[tag]=&include=&per_page=&page=", None).await?.is(200)?;
        reading::list(&jobs.json()?)?.iter().try_for_each(reading::job)?;
        Ok(Cell::Shown)
    }

    async fn cancel(&self) -> Result<Cell> {
        let task = self.make("/import/upload", "{}").await?;
        let path = format!("/tasks/{}/cancel", id(&task));
        let cancelled = self.read(&self.call("POST", &path, None).await?.is(200)?)?;
        ensure!(cancelled["status"] == "error" && cancelled["code"] == "CANCELLED", "{cancelled}");
        let body = fails(self.call("POST", &path, None).await?, 422, "INVALID_DATA")?;
        ensure!(body["errors"]["status"][0] == "Cannot change status: task already completed.", "{body}");
        Ok(Cell::Shown)
    }

    async fn retry(&self) -> Result<Cell> {
        let task = self.make("/import/upload", "{}").await?;
        self.call("POST", &format!("/tasks/{}/cancel", id(&task)), None).await?.is(200)?;
        let again = self.read(&self.call("POST", &format!("/tasks/{}/retry", id(&task)), None).await?.is(201)?)?;
        ensure!(again["status"] == "waiting" && again["retry_of_task_id"] == task["id"], "{again}");
        ensure!(again["copy_of_task_id"] == task["id"] && again["id"] != task["id"], "{again}");
        self.send_file(&again).await?.is(201)?;
        ensure!(self.wait(&format!("/tasks/{}", id(&again))).await?["status"] == "finished");
        Ok(Cell::Shown)
    }

    async fn delete(&self) -> Result<Cell> {
        let job = self.make("/jobs", self.dialect.upload_job()).await?;
        let path = format!("/jobs/{}", id(&job));
        let deleted = self.call("DELETE", &path, None).await?.is(204)?;
        ensure!(deleted.header("content-type").is_empty() && deleted.body.is_empty(), "{deleted:?}");
        fails(self.call("GET", &path, None).await?, 404, "NOT_FOUND")?;
        Ok(Cell::Shown)
    }

    async fn download(&self) -> Result<Cell> {
        let job = self.make("/jobs", self.dialect.upload_job()).await?;
        self.send_file(named(&job, "in")?).await?.is(201)?;
        let ended = self.wait(&format!("/jobs/{}", id(&job))).await?;
        let url = named(&ended, "out")?["result"]["files"][0]["url"].as_str().context("a link")?;
        // Ruby takes the query apart and writes it anew.
        let (path, query) = url[url.find("/files/").context("a path")?..].split_once('?').context("a query")?;
        let mut pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        pairs.sort();
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
        let headers = ["Accept-Encoding: gzip;q=1.0,deflate;q=0.6,identity;q=0.3", "Host: 127.0.0.1"];
        let line = format!("GET {path}?{query}");
        let file = exchange(self.ports[0], &request(&line, &headers, b"")).await?.is(200)?;
        ensure!(file.body == UPLOADED.1 && file.header("content-encoding").is_empty(), "{file:?}");
        Ok(Cell::Shown)
    }

    async fn failed(&self) -> Result<Cell> {
        let missing = format!("{}/missing", self.server.program.base());
        let body = json!({"tasks": {"in": {"operation": "import/url", "url": missing},
            "out": {"operation": "export/url", "input": ["in"]}}});
        let job = self.make("/jobs", &body.to_string()).await?;
        let ended = self.wait(&format!("/jobs/{}", id(&job))).await?;
        let (cause, result) = (named(&ended, "in")?, named(&ended, "out")?);
        ensure!(ended["status"] == "error" && cause["code"] != result["code"], "{ended}");
        ensure!(result["code"] == "INPUT_TASK_FAILED" && result["message"] == "Input task has failed", "{ended}");
        Ok(Cell::Shown)
    }

    async fn unauthenticated(&self) -> Result<Cell> {
        let answer = self.call_as("wrong", "GET", "/users/me", false, None).await?;
        ensure!(answer.reason == "Unauthorized" && !answer.header("content-type").is_empty(), "{answer:?}");
        let body = fails(answer, 401, "UNAUTHENTICATED")?;
        ensure!(body["message"] == "Unauthenticated.", "{body}");
        Ok(Cell::Shown)
    }

    async fn not_found(&self) -> Result<Cell> {
        let answer = self.call("GET", &format!("/tasks/{NOBODY}"), None).await?;
        ensure!(answer.reason == "Not Found", "{answer:?}");
        fails(answer, 404, "NOT_FOUND")?;
        fails(self.call("GET", "/no/such/route", None).await?, 404, "NOT_FOUND")?;
        Ok(Cell::Shown)
    }

    async fn invalid(&self) -> Result<Cell> {
        let answer = self.call("POST", "/jobs", Some(self.dialect.empty_job())).await?;
        ensure!(answer.reason.starts_with("Unprocessable "), "{answer:?}");
        let body = fails(answer, 422, "INVALID_DATA")?;
        ensure!(body["errors"] == json!({"tasks": ["The tasks field is required."]}), "{body}");
        Ok(Cell::Shown)
    }

    async fn webhooks(&self) -> Result<Cell> {
        if self.dialect.lacks_webhooks() {
            return Ok(Cell::Excluded("the client has no method for it".to_owned()));
        }
        let body = r#"{"url":"http://some-url.com","events":["job.created","job.failed","job.finished"]}"#;
        let made = self.make("/webhooks", body).await?;
        ensure!(made["id"].is_u64() && made["signing_secret"].is_string(), "{made}");
        let listed = self.call("GET", "/users/me/webhooks?per_page=100&page=1", None).await?.is(200)?.json()?;
        ensure!(reading::list(&listed)?.iter().any(|hook| hook["id"] == made["id"]), "{listed}");
        self.call("DELETE", &format!("/webhooks/{}", made["id"]), None).await?.is(204)?;
        Ok(Cell::Shown)
    }

    async fn signature(&self) -> Result<Cell> {
        let hook = Receiver::start().await;
        let body = json!({"url": hook.url("/ok"), "events": ["job.created"]}).to_string();
        let made = self.make("/webhooks", &body).await?;
        let secret = made["signing_secret"].as_str().context("a secret")?;
        let job = self.make("/jobs", self.dialect.upload_job()).await?;
        let kept = delivery(&hook, "job.created", id(&job)).await;
        ensure!(kept.header("cloudconvert-signature") == signature(secret, &kept.body), "it is of other bytes");
        let body: Value = serde_json::from_slice(&kept.body)?;
        let keys: Vec<_> = body.as_object().context("an object")?.keys().map(String::as_str).collect();
        ensure!(keys == ["event", "job"], "{keys:?}");
        reading::job(&body["job"])?;
        Ok(Cell::Shown)
    }

    async fn signed_url(&self) -> Result<Cell> {
        let (base, secret) = &self.server.signed;
        let job = URL_SAFE_NO_PAD.encode(self.dialect.signed_job());
        for (secret, status) in [(secret.as_str(), 302), (secret, 302), ("another", 403)] {
            let url = format!("{base}?job={job}&cache_key=mykey");
            let target = url[url.find("/s/").context("a path")?..].to_owned();
            let line = format!("GET {target}&s={}", signature(secret, url.as_bytes()));
            let host = base.split('/').nth(2).context("a host")?;
            let answer =
                exchange(self.ports[0], &request(&line, &[&format!("Host: {host}")], b"")).await?.is(status)?;
            if status == 302 {
                let link = answer.header("location");
                let line = format!("GET {}", &link[link.find("/files/").context("a link")?..]);
                let file = exchange(self.ports[0], &request(&line, &["Host: 127.0.0.1"], b"")).await?.is(200)?;
                ensure!(file.body == "héllo>>>???".as_bytes(), "{file:?}");
                ensure!(file.header("content-disposition").starts_with("inline"), "{file:?}");
            }
        }
        Ok(Cell::Shown)
    }
}

async fn play(dialect: Dialect) {
    let it = Replay::start(dialect).await;
    let excluded = |reason: &str| Ok(Cell::Excluded(reason.to_owned()));
    let flows = [
        ("user", it.user().await),
        ("create", it.create().await),
        ("upload", it.upload().await),
        ("wait", it.wait_for_end().await),
        ("show", it.show().await),
        ("list", it.list().await),
        ("cancel", it.cancel().await),
        ("retry", it.retry().await),
        ("delete", it.delete().await),
        ("download", it.download().await),
        ("redirect", excluded("the client has no method for it")),
        ("failed", it.failed().await),
        ("unauthenticated", it.unauthenticated().await),
        ("not-found", it.not_found().await),
        ("invalid", it.invalid().await),
        ("webhooks", it.webhooks().await),
        ("signature", it.signature().await),
        ("standard-signature", excluded("the client knows its own signature only")),
        ("signed-url", it.signed_url().await),
        ("live", excluded("the client has no sockets")),
        ("live-late", excluded("the client has no sockets")),
    ];
    let ends: BTreeMap<_, _> =
        flows.into_iter().map(|(flow, end)| (flow.to_owned(), end.map_err(|error| format!("{error:?}")))).collect();
    let (name, version) = dialect.name();
    let client = Client { name: name.to_owned(), version: version.to_owned(), via: Via::Replay };
    conclude(&client, ends, &it.server);
}

#[tokio::test(flavor = "multi_thread")]
async fn php() {
    play(Dialect::Php).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn java() {
    play(Dialect::Java).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dotnet() {
    play(Dialect::DotNet).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ruby() {
    play(Dialect::Ruby).await;
}
