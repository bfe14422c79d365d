//! The shapes of the contract: job, task, page. The order of keys, what is null and what is absent are part of it,
//! for clients parse by position.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::form::{self, FormBody};
use super::link;
use crate::model::{File, Job, State, Task};
use crate::secret::Vault;

/// What clients see while a task waits for its file.
const WAITING_FOR_UPLOAD: &str = "Waiting for file upload";
/// Every task has the same priority; the contract wants a number.
const PRIORITY: i32 = 0;

/// A task on the wire.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Task")]
pub struct TaskBody {
    /// Its id.
    pub id: String,
    /// Its name in its job; absent for a task of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its job.
    pub job_id: Option<String>,
    /// `waiting`, `processing`, `finished` or `error`.
    #[schemars(extend("enum" = ["waiting", "processing", "finished", "error"]))]
    pub status: &'static str,
    /// Always 0 once it ended: nothing is charged.
    pub credits: Option<i32>,
    /// Error code.
    pub code: Option<String>,
    /// A sentence that says what happened and what to do.
    pub message: Option<String>,
    /// Progress from 0 to 100.
    pub percent: u8,
    /// What it does.
    pub operation: String,
    /// Its files, or the form it waits for.
    pub result: Option<ResultBody>,
    /// When it was accepted.
    pub created_at: String,
    /// When it was first started.
    pub started_at: Option<String>,
    /// When it ended.
    pub ended_at: Option<String>,
    /// The task that it repeats.
    pub retry_of_task_id: Option<String>,
    /// The same.
    pub copy_of_task_id: Option<String>,
    /// Whose it is.
    pub user_id: i32,
    /// Always the same.
    pub priority: i32,
    /// Name of the process that ran it last.
    pub host_name: Option<String>,
    /// Always null.
    pub storage: Option<String>,
    /// The tasks it takes files from.
    pub depends_on_task_ids: Vec<String>,
    /// Where it can be read.
    pub links: SelfLink,
    /// What the client should know about its arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Its arguments without credentials; with `include=payload`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<Map<String, Value>>,
    /// The tasks that repeat it; with `include=retries`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<Vec<TaskBody>>,
    /// The tasks it takes files from; with `include=depends_on_tasks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depends_on_tasks: Option<Vec<TaskBody>>,
    /// Its job without tasks; with `include=job`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<Box<JobBody>>,
}

/// What a task has to show.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Result")]
pub struct ResultBody {
    /// The form to post the file to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<FormBody>,
    /// Its files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<FileBody>>,
}

/// A file on the wire: flat and scalar.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "File")]
pub struct FileBody {
    /// Its name.
    pub filename: String,
    /// Its length in bytes.
    pub size: u64,
    /// Where to fetch it, for `export/url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Where it was delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// SHA-256 in hex, for exports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// The destination's mark of the content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// The destination's version id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How the bytes were proved to have arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<String>,
    /// Fingerprint of the SSH host key that was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_key: Option<String>,
    /// What the client should know although it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// A job on the wire.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Job")]
pub struct JobBody {
    /// Its id.
    pub id: String,
    /// The client's label.
    pub tag: Option<String>,
    /// `waiting`, `processing`, `finished` or `error`.
    #[schemars(extend("enum" = ["waiting", "processing", "finished", "error"]))]
    pub status: &'static str,
    /// When it was accepted.
    pub created_at: String,
    /// When its first task started.
    pub started_at: Option<String>,
    /// When its last task ended.
    pub ended_at: Option<String>,
    /// Its tasks; in lists only with `include=tasks`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<TaskBody>>,
    /// Where it can be read.
    pub links: SelfLink,
}

/// Where something can be read.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SelfLink {
    /// Its address.
    #[serde(rename = "self")]
    pub this: String,
}

/// How answers are written: with which addresses, and to which client. Cheap to clone.
#[derive(Clone, Debug)]
pub struct View {
    public_url: Arc<str>,
    vault: Arc<Vault>,
    is_java: bool,
}

impl View {
    /// Writes addresses below `public_url`, which has no slash at the end.
    pub fn new(public_url: Arc<str>, vault: Arc<Vault>) -> Self {
        Self { public_url, vault, is_java: false }
    }

    /// Writes for the Java SDK, whose list of operations is closed and spells one differently.
    #[must_use]
    pub fn for_java(mut self) -> Self {
        self.is_java = true;
        self
    }

    /// How clients reach the server.
    pub fn public_url(&self) -> &str {
        &self.public_url
    }

    /// A job; its tasks too, if `with_tasks`.
    pub fn job(&self, job: &Job, with_tasks: bool) -> JobBody {
        JobBody {
            id: job.id.to_string(),
            tag: job.tag.clone(),
            status: job.status.wire(),
            created_at: job.created_at.wire(),
            started_at: job.started_at.map(crate::clock::Timestamp::wire),
            ended_at: job.ended_at.map(crate::clock::Timestamp::wire),
            tasks: with_tasks.then(|| job.tasks.iter().map(|task| self.task(task)).collect()),
            links: self.link("jobs", &job.id.to_string()),
        }
    }

    /// A task.
    pub fn task(&self, task: &Task) -> TaskBody {
        let message = match task.state {
            State::Uploading => Some(WAITING_FOR_UPLOAD.to_owned()),
            State::Blocked | State::Queued | State::Delayed | State::Running | State::Finished | State::Error => {
                task.message.clone()
            }
        };
        let retry_of = task.retry_of.map(|id| id.to_string());
        TaskBody {
            id: task.id.to_string(),
            name: task.job_id.and(task.name.clone()),
            job_id: task.job_id.map(|id| id.to_string()),
            status: task.state.wire(task.started_at.is_some()).wire(),
            credits: task.state.is_terminal().then_some(0),
            code: task.code.clone(),
            message,
            percent: task.percent,
            operation: self.operation(&task.operation).to_owned(),
            result: self.result(task),
            created_at: task.created_at.wire(),
            started_at: task.started_at.map(crate::clock::Timestamp::wire),
            ended_at: task.ended_at.map(crate::clock::Timestamp::wire),
            retry_of_task_id: retry_of.clone(),
            copy_of_task_id: retry_of,
            user_id: task.user_id.0,
            priority: PRIORITY,
            host_name: task.host_name.clone(),
            storage: None,
            depends_on_task_ids: task.depends_on.iter().map(ToString::to_string).collect(),
            links: self.link("tasks", &task.id.to_string()),
            warnings: task.warnings.clone(),
            payload: None,
            retries: None,
            depends_on_tasks: None,
            job: None,
        }
    }

    /// The address of something.
    pub fn link(&self, kind: &str, id: &str) -> SelfLink {
        SelfLink { this: format!("{}/v2/{kind}/{id}", self.public_url) }
    }

    /// The first download link of a finished job.
    pub fn first_download(&self, job: &Job) -> Option<String> {
        job.tasks.iter().find_map(|task| self.result(task)?.files?.into_iter().find_map(|file| file.url))
    }

    /// An operation's name as this client knows it.
    pub fn operation<'a>(&self, name: &'a str) -> &'a str {
        if self.is_java && name == "import/azure/blob" { "import/azure-blob" } else { name }
    }

    /// Whether this client can read an answer that names that operation.
    pub fn can_read(&self, operation: &str) -> bool {
        !self.is_java || operation != "export/upload"
    }

    fn result(&self, task: &Task) -> Option<ResultBody> {
        match task.state {
            State::Uploading => {
                Some(ResultBody { form: Some(form::of(&self.public_url, &self.vault, task)), files: None })
            }
            State::Error if task.files.is_empty() => None,
            State::Finished | State::Error => {
                let files = (1..).zip(&task.files).map(|(number, file)| self.file(task, number, file)).collect();
                Some(ResultBody { form: None, files: Some(files) })
            }
            State::Blocked | State::Queued | State::Delayed | State::Running => None,
        }
    }

    fn file(&self, task: &Task, number: u32, file: &File) -> FileBody {
        let receipt = file.receipt.as_ref();
        let is_export = receipt.is_some() || file.download.is_some();
        FileBody {
            filename: file.name.clone(),
            size: file.size,
            url: file.download.map(|download| {
                link::url(&self.public_url, &self.vault, task.id, number, &file.name, download.expires_at)
            }),
            location: receipt.map(|receipt| receipt.location.clone()),
            sha256: is_export.then(|| hex::encode(file.digests.sha256)),
            etag: receipt.and_then(|receipt| receipt.etag.clone()),
            version: receipt.and_then(|receipt| receipt.version.clone()),
            verified: receipt.map(|receipt| receipt.verified.clone()),
            host_key: receipt.and_then(|receipt| receipt.host_key.clone()),
            note: receipt.and_then(|receipt| receipt.note.clone()),
        }
    }
}

/// A single resource: exactly `{"data":` and the object and `}`, for the Java SDK cuts at fixed places.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}Data")]
pub struct Data<T> {
    /// The resource.
    pub data: T,
}

/// The compact bytes of a single resource.
pub fn data_bytes<T: Serialize>(resource: &T) -> Vec<u8> {
    // Maps have text keys and nothing else can fail, so that this is never the fallback.
    serde_json::to_vec(&Data { data: resource }).unwrap_or_else(|_| br#"{"data":null}"#.to_vec())
}

/// A single resource as an answer.
pub fn data<T: Serialize>(status: StatusCode, resource: &T) -> Response {
    json_bytes(status, data_bytes(resource))
}

/// Any JSON as an answer.
pub fn json<T: Serialize>(status: StatusCode, body: &T) -> Response {
    json_bytes(status, serde_json::to_vec(body).unwrap_or_else(|_| b"{}".to_vec()))
}

/// JSON that is written already as an answer.
pub fn json_bytes(status: StatusCode, bytes: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// An answer without a body, and so without a type of one.
pub fn no_content() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}
