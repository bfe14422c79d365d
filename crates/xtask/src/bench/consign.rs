//! The server that is measured, as its users run it: a release build in a process of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use connectors::Limits;
use connectors::egress::Guard;
use connectors::http::{Body, Client, tls_config};
use serde_json::Value;
use tokio::process::{Child, Command};

use super::cost::{Cost, cpu_secs, peak_bytes, reset_peak};

/// How long a task may take.
const TASK_TIMEOUT: Duration = Duration::from_mins(10);
/// How long the server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest answer of the API that is read.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    process: Child,
    /// The server's data directory.
    data: PathBuf,
    url: String,
    key: String,
    client: Client,
}

/// A task that ran.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) cost: Cost,
    pub(super) task_id: String,
}

#[expect(clippy::disallowed_methods, reason = "a chore runs programs")]
fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.kill_on_drop(true);
    command
}

impl Server {
    /// Starts a server with its data directory in `folder`, and with these settings beside those that every benchmark needs.
    ///
    /// # Errors
    /// When it does not get ready.
    pub(super) async fn start(program: &Path, folder: &Path, more: &[(&str, String)]) -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let url = format!("http://127.0.0.1:{port}");
        let data = folder.join("data");
        let settings = [
            ("CONSIGN_LISTEN", format!("127.0.0.1:{port}")),
            ("CONSIGN_DATA_DIR", data.display().to_string()),
            ("CONSIGN_EGRESS__ALLOW", "127.0.0.0/8".to_owned()),
            ("CONSIGN_LOG__LEVEL", "warn".to_owned()),
        ];
        let settings: Vec<(&str, String)> = settings.into_iter().chain(more.iter().cloned()).collect();
        let process = command(program).arg("serve").envs(settings.clone()).stdout(Stdio::null()).spawn()?;
        let guard = Guard::new(["127.0.0.0/8".parse().context("a network")?]);
        let limits = Limits { idle_timeout: TASK_TIMEOUT, ..Limits::default() };
        let client = Client::new(guard, tls_config(&[])?, &limits);
        let mut server = Self { process, data, url, key: String::new(), client };
        server.ready().await?;
        let key = command(program).args(["key", "create", "bench"]).envs(settings).output().await?;
        ensure!(key.status.success(), "key create: {}", String::from_utf8_lossy(&key.stderr));
        String::from_utf8(key.stdout)?.trim().clone_into(&mut server.key);
        Ok(server)
    }

    async fn ready(&self) -> Result<()> {
        let until = Instant::now() + START_TIMEOUT;
        while self.call("GET", "/readyz", None).await.is_err() {
            ensure!(Instant::now() < until, "the server does not get ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Calls the API.
    ///
    /// # Errors
    /// When it cannot be reached or does not answer with a success.
    pub(super) async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {}", self.key))
            .header("content-type", "application/json")
            .body(Body::from(bytes::Bytes::from(body)))?;
        let answer = self.client.send(request, "calling the API").await?;
        let status = answer.status();
        let answer = answer.into_body().bytes(ANSWER_BYTES_MAX).await?;
        ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&answer));
        Ok(serde_json::from_slice(&answer).unwrap_or_default())
    }

    /// Runs a task to its end, and tells what it cost. The task stays, for a look at its files, until it is [deleted](Self::delete).
    ///
    /// # Errors
    /// When the task does not finish.
    pub(super) async fn run(&self, path: &str, body: &Value) -> Result<Ran> {
        let pid = self.pid()?;
        reset_peak(pid)?;
        let cpu = cpu_secs(pid)?;
        let began = Instant::now();
        let task = self.call("POST", path, Some(body)).await?;
        let wall_secs = began.elapsed().as_secs_f64();
        let cpu_secs = cpu_secs(pid)? - cpu;
        let peak_bytes = peak_bytes(pid)?;
        if task["data"]["status"] != "finished" {
            bail!("{path}: {task:#}");
        }
        let task_id = task["data"]["id"].as_str().context("the task has no id")?.to_owned();
        Ok(Ran { cost: Cost { wall_secs, cpu_secs, peak_bytes }, task_id })
    }

    /// The files that a task holds, on the disk of the server.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub(super) fn files(&self, task_id: &str) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for token in std::fs::read_dir(self.data.join("files").join(task_id))? {
            found.extend(std::fs::read_dir(token?.path())?.flatten().map(|file| file.path()));
        }
        Ok(found)
    }

    /// Deletes a task and its files.
    ///
    /// # Errors
    /// When the server refuses.
    pub(super) async fn delete(&self, task_id: &str) -> Result<()> {
        self.call("DELETE", &format!("/v2/tasks/{task_id}"), None).await.map(drop)
    }

    /// The server's process.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn pid(&self) -> Result<u32> {
        self.process.id().context("the server has ended")
    }

    /// Stops the server.
    ///
    /// # Errors
    /// When it has ended already.
    pub(super) async fn stop(mut self) -> Result<()> {
        self.process.kill().await.context("stopping the server")
    }
}
