//! The clients: each makes one job, feeds it, changes its mind or not, and follows it to its end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::check::LAME;
use crate::client::{Ask, Client};
use crate::destinations::Destinations;
use crate::history::{Event, History, Status};
use crate::jobs::{Change, Follow, Import, Spec};
use crate::outside::Outside;

/// Between two tries of a request that failed.
const PAUSE: Duration = Duration::from_millis(300);
/// Between two looks at a job.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long a creation or an upload is tried: longer than any fault lasts.
const PATIENCE: Duration = Duration::from_mins(3);
const BOUNDARY: &str = "chaos-8f2a6c";

/// What all clients share.
pub(crate) struct Clients {
    pub(crate) client: Client,
    pub(crate) history: Arc<History>,
    pub(crate) destinations: Arc<Destinations>,
    pub(crate) outside: Arc<Outside>,
    /// Where a single process keeps its files, as this process sees it.
    pub(crate) local_files: Option<PathBuf>,
}

impl Clients {
    /// Makes a job and follows it to its end.
    pub(crate) async fn perform(&self, spec: &Spec) -> Result<()> {
        self.history.note(Event::Asked { spec: spec.clone() });
        let job =
            timeout(PATIENCE, self.create(spec)).await.with_context(|| format!("{} is not taken", spec.tag))??;
        let id = job["id"].as_str().context("a job without an id")?.to_owned();
        let feed = async {
            match spec.import {
                Import::Upload => timeout(PATIENCE, self.upload(spec, &id, &job)).await.context("the upload")?,
                Import::Url | Import::Raw | Import::Base64 => Ok(()),
            }
        };
        let (fed, changed, followed) = tokio::join!(feed, self.change(spec, &id), self.follow(spec, &id));
        fed.and(changed).and(followed).with_context(|| spec.tag.clone())
    }

    /// Sends the creation as often as the spec says, and each until it is answered.
    async fn create(&self, spec: &Spec) -> Result<Value> {
        let body = self.job(spec)?.to_string();
        let mut first = None;
        for _ in 0..spec.sent {
            let job = loop {
                let ask = Ask::new("create", Method::POST, "/v2/jobs").about(&spec.tag);
                let ask = ask.sends("application/json", body.clone()).with("idempotency-key", spec.tag.clone());
                match self.client.call(&ask).await {
                    Ok((StatusCode::CREATED, mut answer)) => break answer["data"].take(),
                    Ok((status, answer)) if status.is_client_error() => bail!("{}: {status}: {answer}", spec.tag),
                    Ok(_) | Err(_) => sleep(PAUSE).await,
                }
            };
            let id = job["id"].as_str().unwrap_or_default().to_owned();
            self.history.note(Event::Accepted { tag: spec.tag.clone(), job: id });
            first.get_or_insert(job);
        }
        first.context("it was never sent")
    }

    fn job(&self, spec: &Spec) -> Result<Value> {
        let name = spec.object();
        let import = match spec.import {
            Import::Upload => json!({"operation": "import/upload"}),
            Import::Url => {
                json!({"operation": "import/url", "url": self.outside.file_url(spec.seed, spec.size, &name)})
            }
            Import::Raw => {
                json!({"operation": "import/raw", "file": String::from_utf8(spec.content())?, "filename": name})
            }
            Import::Base64 => {
                json!({"operation": "import/base64", "file": STANDARD.encode(spec.content()), "filename": name})
            }
        };
        let mut tasks = json!({ "in": import });
        if spec.has_lame_input {
            let url = self.outside.missing_url();
            tasks[LAME] = json!({"operation": "import/url", "url": url, "ignore_error": true});
        }
        for &place in &spec.exports {
            let mut task = self.destinations.task(place, spec)?;
            task["input"] = if spec.has_lame_input { json!(["in", LAME]) } else { json!("in") };
            tasks[Spec::task(place)] = task;
        }
        let mut job = json!({"tag": spec.tag, "tasks": tasks});
        if spec.has_webhook {
            job["webhook_url"] = json!(self.outside.hook_url(&spec.tag));
        }
        Ok(job)
    }

    /// Posts the file until it is taken, or nobody waits for it any more.
    async fn upload(&self, spec: &Spec, id: &str, job: &Value) -> Result<()> {
        let task = job["tasks"].as_array().into_iter().flatten().find(|task| task["name"] == "in");
        let form = &task.context("no task to upload to")?["result"]["form"];
        let url = form["url"].as_str().context("a form")?;
        let path = &url[url.find("/upload/").context("the address of the form")?..];
        let body = body(form, &spec.object(), &spec.content());
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        loop {
            let ask = Ask::new("upload", Method::POST, path).about(&spec.tag).sends(&kind, body.clone());
            match self.client.call(&ask).await {
                Ok((status, _)) if status.is_success() => return Ok(()),
                Ok((StatusCode::NOT_FOUND | StatusCode::GONE, _)) if self.may_be_gone(spec) => return Ok(()),
                Ok(_) | Err(_) => sleep(PAUSE).await,
            }
            // The answer may have been lost, and the file not.
            if let Ok((StatusCode::OK, job)) = self.client.show(&spec.tag, &format!("/v2/jobs/{id}")).await {
                let tasks = job["data"]["tasks"].as_array().into_iter().flatten();
                let is_over = |task: &&Value| task["name"] == "in" && task["status"] != "waiting";
                if tasks.clone().any(|task| is_over(&task)) {
                    return Ok(());
                }
            } else if self.may_be_gone(spec) {
                return Ok(());
            }
        }
    }

    fn may_be_gone(&self, spec: &Spec) -> bool {
        self.history.any(|event| matches!(event, Event::Deleting { tag } if *tag == spec.tag))
    }

    /// Cancels or deletes, as the spec says.
    async fn change(&self, spec: &Spec, id: &str) -> Result<()> {
        let path = format!("/v2/jobs/{id}");
        let (ask, event) = match spec.change {
            Change::Nothing => return Ok(()),
            Change::Cancel(after_ms) => {
                sleep(Duration::from_millis(after_ms)).await;
                let Ok((StatusCode::OK, job)) = self.client.show(&spec.tag, &path).await else { return Ok(()) };
                let name = Spec::task(*spec.exports.first().context("an export")?);
                let tasks = job["data"]["tasks"].as_array().into_iter().flatten();
                let Some(task) = tasks.clone().find(|task| task["name"] == name.as_str()) else { return Ok(()) };
                self.history.note(Event::Cancelling { tag: spec.tag.clone() });
                (format!("/v2/tasks/{}/cancel", task["id"].as_str().unwrap_or_default()), None)
            }
            Change::Delete(after_ms) => {
                sleep(Duration::from_millis(after_ms)).await;
                self.history.note(Event::Deleting { tag: spec.tag.clone() });
                (path, Some(Event::Deleted { tag: spec.tag.clone() }))
            }
        };
        let method = if event.is_some() { Method::DELETE } else { Method::POST };
        let action = if event.is_some() { "delete" } else { "cancel" };
        let until_answered = async {
            let ask = Ask::new(action, method, &ask).about(&spec.tag);
            while !self.client.call(&ask).await.is_ok_and(|(it, _)| it.as_u16() < 500) {
                sleep(PAUSE).await;
            }
        };
        timeout(PATIENCE, until_answered).await.with_context(|| format!("{action} is never answered"))?;
        if let Some(event) = event {
            self.history.note(event);
        }
        Ok(())
    }

    /// Looks until the job has ended or is gone.
    async fn follow(&self, spec: &Spec, id: &str) -> Result<()> {
        let mut watch = Watch { clients: self, spec, seen: BTreeMap::new() };
        let path = format!("/v2/jobs/{id}");
        loop {
            let looked = match spec.follow {
                Follow::Ask => self.client.show(&spec.tag, &path).await,
                Follow::Wait => {
                    let path = format!("{path}/wait");
                    self.client.call(&Ask::new("wait", Method::GET, &path).about(&spec.tag)).await
                }
                Follow::Stream => {
                    watch.stream(&path).await.ok();
                    self.client.show(&spec.tag, &path).await
                }
            };
            match looked {
                Ok((StatusCode::OK, answer)) => {
                    watch.saw(&answer["data"]);
                    if watch.is_over() {
                        return Ok(());
                    }
                }
                Ok((StatusCode::NOT_FOUND, _)) if self.may_be_gone(spec) => return Ok(()),
                // Whether it is lost is for the checker to say, when all is calm.
                Ok(_) | Err(_) => {}
            }
            sleep(LOOK_EVERY).await;
        }
    }
}

/// What one client saw of a job.
struct Watch<'a> {
    clients: &'a Clients,
    spec: &'a Spec,
    seen: BTreeMap<Option<String>, Status>,
}

impl Watch<'_> {
    fn is_over(&self) -> bool {
        self.seen.get(&None).is_some_and(|status| status.is_terminal())
    }

    /// Reads the stream of events until it ends.
    async fn stream(&mut self, path: &str) -> Result<()> {
        let path = format!("{path}/events");
        let ask = Ask::new("events", Method::GET, &path).about(&self.spec.tag);
        let mut answer = self.clients.client.open(&ask).await?.into_body();
        let mut text = Vec::new();
        while let Some(piece) = answer.chunk().await? {
            text.extend_from_slice(&piece);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = text.drain(..=end).collect();
                let data = line.strip_prefix(b"data: ").and_then(|data| serde_json::from_slice::<Value>(data).ok());
                match data {
                    Some(data) if data["job"].is_object() => self.saw(&data["job"]),
                    Some(data) if data["task"].is_object() => {
                        self.saw_one(&data["task"], data["task"]["name"].as_str());
                    }
                    Some(_) | None => {}
                }
            }
        }
        Ok(())
    }

    /// Notes the statuses of a job and of the tasks that come with it.
    fn saw(&mut self, job: &Value) {
        for task in job["tasks"].as_array().into_iter().flatten() {
            self.saw_one(task, task["name"].as_str());
        }
        self.saw_one(job, None);
    }

    fn saw_one(&mut self, one: &Value, task: Option<&str>) {
        let Ok(status) = serde_json::from_value::<Status>(one["status"].clone()) else { return };
        let task = task.map(str::to_owned);
        if self.seen.insert(task.clone(), status) != Some(status) {
            let code = one["code"].as_str().map(str::to_owned);
            let (client, tag) = (format!("follower of {}", self.spec.tag), self.spec.tag.clone());
            self.clients.history.note(Event::Seen { client, tag, task, status, code });
        }
    }
}

/// The multipart body of a form with a file.
fn body(form: &Value, name: &str, content: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, value) in form["parameters"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        let part = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n");
        body.extend_from_slice(part.as_bytes());
    }
    let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n");
    body.extend_from_slice(head.as_bytes());
    body.extend_from_slice(content);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    body
}
