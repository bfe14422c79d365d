//! A small client of the API, for commands that talk to a server: this machine's own, or another.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use aws_lc_rs::digest::{Context as Hasher, SHA256};
use bytes::Bytes;
use connectors::egress::Guard;
use connectors::http::{Answer, Body, Client, tls_config};
use connectors::{ByteStream, Error, Kind, Limits, Retry, Secret};
use futures_util::StreamExt as _;
use futures_util::stream;
use http::{Method, Request, StatusCode, header};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, sleep};
use tokio_util::io::ReaderStream;
use url::Url;

/// Longest answer that is read into memory.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a job is asked for before the command gives up: a restart of the server takes less.
const PATIENCE: Duration = Duration::from_mins(2);
/// The same for a call that begins something: whoever mistyped the server's name wants to know soon.
const PATIENCE_TO_CHANGE: Duration = Duration::from_secs(10);
/// The first pause between two tries; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// The longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Bytes read from a file at once.
const READ_BYTES: usize = 128 * 1024;

/// Takes how many more bytes moved.
pub(super) type Meter = Arc<dyn Fn(u64) + Send + Sync>;

/// A client of one server.
#[derive(Clone, Debug)]
pub(super) struct Api {
    client: Client,
    base: String,
    key: Secret,
}

/// An answer that is not a success.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refused {
    status: StatusCode,
    message: String,
}

impl Refused {
    /// Whether the same call will be refused again: the job or the key is wrong, the server is not busy.
    pub(super) fn is_of_the_caller(&self) -> bool {
        self.status.is_client_error() && self.status != StatusCode::TOO_MANY_REQUESTS
    }
}

impl Api {
    /// A client of the server at `base`, with an API key.
    pub(super) fn new(base: &str, key: Secret) -> anyhow::Result<Self> {
        let is_web = Url::parse(base).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if !is_web {
            return Err(anyhow!("`{base}` is not the address of a server; write it as https://HOST"));
        }
        // Whoever runs this command chose the server, and what that server links to; both may be anywhere.
        let anywhere = ["0.0.0.0/0", "::/0"].into_iter().filter_map(|network| network.parse().ok());
        let client = Client::new(Guard::new(anywhere), tls_config(&[])?, &Limits::default());
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), key })
    }

    /// Calls the API and reads the JSON that it answers; again and again while the server, or the way to it, fails for
    /// a passing reason. The server carries a request out once, however often it comes.
    pub(super) async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let (once, began) = (format!("{:032x}", rand::random::<u128>()), Instant::now());
        let patience = if method == Method::GET { PATIENCE } else { PATIENCE_TO_CHANGE };
        let mut pause = PAUSE_FIRST;
        loop {
            match self.call_once(method.clone(), path, body, &once).await {
                Err(error) if is_passing(&error) && began.elapsed() + pause < patience => {
                    tracing::debug!(error = %error, "trying again");
                }
                done => return done,
            }
            sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn call_once(&self, method: Method, path: &str, body: Option<&Value>, once: &str) -> anyhow::Result<Value> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.key.expose()))
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", once)
            .body(body.map_or_else(Body::empty, |body| body.to_string().into()))?;
        let answer = self.client.send(request, "calling the server").await?;
        let status = answer.status();
        let bytes = answer.into_body().bytes(ANSWER_BYTES_MAX).await?;
        if status.is_success() {
            return Ok(if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes)? });
        }
        Err(Refused { status, message: explain(status, &bytes) }.into())
    }

    /// Posts a file to the form of an `import/upload` task.
    pub(super) async fn upload(&self, form: &Value, file: &Path, meter: Meter) -> anyhow::Result<()> {
        let name = file.file_name().unwrap_or_default().to_string_lossy().replace(['"', '\r', '\n'], "_");
        let content =
            tokio::fs::File::open(file).await.with_context(|| format!("{} cannot be read", file.display()))?;
        let size = content.metadata().await?.len();
        let stream = ReaderStream::with_capacity(content, READ_BYTES).map(move |read| {
            let bytes =
                read.map_err(|error| Error::new(Kind::Local, "reading the file", "it broke off").because(error))?;
            meter(bytes.len() as u64);
            Ok(bytes)
        });
        self.post_form(form, &name, size, Box::pin(stream)).await
    }

    /// Posts bytes to the form of an `import/upload` task.
    pub(super) async fn upload_bytes(&self, form: &Value, name: &str, bytes: &'static [u8]) -> anyhow::Result<()> {
        let stream = stream::iter([Ok(Bytes::from_static(bytes))]);
        self.post_form(form, name, bytes.len() as u64, Box::pin(stream)).await
    }

    async fn post_form(&self, form: &Value, name: &str, size: u64, file: ByteStream) -> anyhow::Result<()> {
        let url = form["url"].as_str().ok_or_else(|| anyhow!("the task has no upload form"))?;
        let boundary = format!("consign-{:032x}", rand::random::<u128>());
        let mut head = String::new();
        for (field, value) in form["parameters"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            let _ = write!(head, "--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n");
        }
        let _ = write!(
            head,
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        let length = head.len() as u64 + size + tail.len() as u64;
        let body = stream::iter([Ok(Bytes::from(head))]).chain(file).chain(stream::iter([Ok(Bytes::from(tail))]));
        let request = Request::post(url)
            .header(header::CONTENT_TYPE, format!("multipart/form-data; boundary={boundary}"))
            .body(Body::stream(length, Box::pin(body)))?;
        let answer = self.client.send(request, "uploading the file").await?;
        let status = answer.status();
        let bytes = answer.into_body().bytes(ANSWER_BYTES_MAX).await?;
        if status.is_success() { Ok(()) } else { Err(anyhow!("the upload was refused: {}", explain(status, &bytes))) }
    }

    /// Fetches a download link into a file, which appears only when it is whole. Returns its SHA-256.
    pub(super) async fn download(&self, url: &str, into: &Path, meter: Meter) -> anyhow::Result<[u8; 32]> {
        let partial = Partial(into.with_file_name(format!(
            ".{}.{:08x}.part",
            into.file_name().unwrap_or_default().to_string_lossy(),
            rand::random::<u32>()
        )));
        let digest = self.fetch(url, &partial.0, meter).await?;
        tokio::fs::rename(&partial.0, into).await?;
        Ok(digest)
    }

    async fn fetch(&self, url: &str, into: &Path, meter: Meter) -> anyhow::Result<[u8; 32]> {
        let mut answer = self.get(url).await?;
        let mut file =
            tokio::fs::File::create(into).await.with_context(|| format!("{} cannot be written", into.display()))?;
        let mut hasher = Hasher::new(&SHA256);
        while let Some(chunk) = answer.chunk().await? {
            hasher.update(&chunk);
            file.write_all(&chunk).await?;
            meter(chunk.len() as u64);
        }
        file.flush().await?;
        Ok(hasher.finish().as_ref().try_into().expect("a SHA-256 has 32 bytes"))
    }

    /// Opens a link.
    pub(super) async fn get(&self, url: &str) -> anyhow::Result<Answer> {
        let request = Request::get(url).body(Body::empty())?;
        let answer = self.client.send(request, "downloading the file").await?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let bytes = answer.into_body().bytes(ANSWER_BYTES_MAX).await?;
        Err(anyhow!("the download was refused: {}", explain(status, &bytes)))
    }
}

/// Half a download. It goes when it is dropped, also when the command is told to stop.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // What cannot be removed was not made, or has its real name.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Whether the same call may succeed in a moment.
fn is_passing(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Refused>().is_some_and(|refused| !refused.is_of_the_caller());
    let failed = error.downcast_ref::<Error>().is_some_and(|error| matches!(error.retry, Retry::Later(_)));
    refused || failed
}

/// Makes a readable text of an error answer: its message, and each fault on a line of its own.
fn explain(status: StatusCode, body: &[u8]) -> String {
    let Ok(answer) = serde_json::from_slice::<Value>(body) else {
        return format!("the server answered {status}");
    };
    let mut text = answer["message"].as_str().map_or_else(|| status.to_string(), str::to_owned);
    for (field, sentences) in answer["errors"].as_object().into_iter().flatten() {
        for sentence in sentences.as_array().into_iter().flatten() {
            let _ = write!(text, "\n  {field}: {}", sentence.as_str().unwrap_or_default());
        }
    }
    text
}
