//! A server of ours in a process of its own, with the settings that a measurement needs, and a client that reads its figures.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use connectors::Limits;
use connectors::egress::Guard;
use connectors::http::{Body, Client, tls_config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use tokio::process::{Child, Command};

use crate::bench::cost::{cpu_secs, reset_peak};

/// How long a request may be silent, such as one that waits for a job.
const PATIENCE: Duration = Duration::from_mins(5);
/// How long the server may take to start.
const START_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest answer of the API that is read: a job of 10,000 tasks, or a task of 100,000 files.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A running server with an API key.
#[derive(Debug)]
pub(super) struct Served {
    program: PathBuf,
    settings: Vec<(String, String)>,
    process: Child,
    url: String,
    key: String,
    client: Client,
    database: PathBuf,
}

/// What a server is started with.
#[derive(Clone, Debug)]
pub(super) struct Setup<'a> {
    pub(super) program: &'a Path,
    /// Where its data directory is made.
    pub(super) folder: &'a Path,
    /// Certificates that it trusts.
    pub(super) ca_file: Option<&'a Path>,
    /// It serves TLS with this certificate and key.
    pub(super) tls: Option<(&'a Path, &'a Path)>,
    /// Further settings, by the name of their environment.
    pub(super) more: &'a [(&'a str, &'a str)],
}

impl<'a> Setup<'a> {
    /// As shipped, but that loopback may be reached and that one key may create as much as it likes.
    pub(super) fn new(program: &'a Path, folder: &'a Path) -> Self {
        Self { program, folder, ca_file: None, tls: None, more: &[] }
    }
}

#[expect(clippy::disallowed_methods, reason = "a chore runs programs")]
pub(super) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.kill_on_drop(true);
    command
}

impl Served {
    /// Starts a server with an empty data directory.
    ///
    /// # Errors
    /// When it does not get ready.
    pub(super) async fn start(setup: &Setup<'_>) -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let scheme = if setup.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{port}");
        let data = setup.folder.join("data");
        let mut settings = vec![
            ("CONSIGN_LISTEN".to_owned(), format!("127.0.0.1:{port}")),
            ("CONSIGN_PUBLIC_URL".to_owned(), url.clone()),
            ("CONSIGN_DATA_DIR".to_owned(), data.display().to_string()),
            ("CONSIGN_EGRESS__ALLOW".to_owned(), "127.0.0.0/8".to_owned()),
            ("CONSIGN_LOG__LEVEL".to_owned(), "warn".to_owned()),
            ("CONSIGN_LIMITS__CREATIONS_PER_MINUTE_MAX".to_owned(), "100000000".to_owned()),
        ];
        if let Some(ca_file) = setup.ca_file {
            settings.push(("CONSIGN_EGRESS__CA_FILE".to_owned(), ca_file.display().to_string()));
        }
        let mut trusted = Vec::new();
        if let Some((cert, key)) = setup.tls {
            settings.push(("CONSIGN_TLS__CERT".to_owned(), cert.display().to_string()));
            settings.push(("CONSIGN_TLS__KEY".to_owned(), key.display().to_string()));
            trusted.push(CertificateDer::from_pem_file(cert)?);
        }
        settings.extend(setup.more.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        let process =
            command(setup.program).arg("serve").envs(settings.clone()).stdout(std::process::Stdio::null()).spawn()?;
        let guard = Guard::new(["127.0.0.0/8".parse().context("a network")?]);
        let limits = Limits { idle_timeout: PATIENCE, ..Limits::default() };
        let client = Client::new(guard, tls_config(&trusted)?, &limits);
        let (program, database) = (setup.program.to_owned(), data.join("consign.db"));
        let mut server = Self { program, settings, process, url, key: String::new(), client, database };
        let until = Instant::now() + START_TIMEOUT;
        while server.call("GET", "/readyz", None).await.is_err() {
            ensure!(Instant::now() < until, "the server does not get ready");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server.key = server.new_key("bench").await?;
        Ok(server)
    }

    /// Makes a key of a user, who is made too if new.
    ///
    /// # Errors
    /// When the command fails.
    pub(super) async fn new_key(&self, user: &str) -> Result<String> {
        let settings = self.settings.iter().map(|(name, value)| (name, value));
        let made = command(&self.program).args(["key", "create", user, "--user", user]).envs(settings).output().await?;
        ensure!(made.status.success(), "key create: {}", String::from_utf8_lossy(&made.stderr));
        Ok(String::from_utf8(made.stdout)?.trim().to_owned())
    }

    /// Calls the API, and reads the answer.
    ///
    /// # Errors
    /// When it is not a success.
    pub(super) async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        self.call_as(&self.key, method, path, body).await
    }

    /// The same with another key.
    ///
    /// # Errors
    /// When it is not a success.
    pub(super) async fn call_as(&self, key: &str, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        Ok(serde_json::from_slice(&self.bytes_as(key, method, path, body).await?).unwrap_or_default())
    }

    /// The bytes of an answer.
    ///
    /// # Errors
    /// When it is not a success.
    pub(super) async fn bytes(&self, path: &str) -> Result<bytes::Bytes> {
        self.bytes_as(&self.key, "GET", path, None).await
    }

    async fn bytes_as(&self, key: &str, method: &str, path: &str, body: Option<&Value>) -> Result<bytes::Bytes> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json")
            .body(Body::from(bytes::Bytes::from(body)))?;
        let answer = self.client.send(request, "calling the API").await?;
        let status = answer.status();
        let answer = answer.into_body().bytes(ANSWER_BYTES_MAX).await?;
        ensure!(
            status.is_success(),
            "{path}: {status}: {}",
            String::from_utf8_lossy(&answer[..answer.len().min(2000)])
        );
        Ok(answer)
    }

    /// Runs a job to its end, and gives it.
    ///
    /// # Errors
    /// When it does not finish.
    pub(super) async fn run(&self, tasks: Value) -> Result<Value> {
        let mut job = self.call("POST", "/sync/v2/jobs", Some(&serde_json::json!({ "tasks": tasks }))).await?;
        ensure!(job["data"]["status"] == "finished", "a job did not finish: {}", failed(&job));
        Ok(job["data"].take())
    }

    /// Removes a job and its files.
    ///
    /// # Errors
    /// When it is not there.
    pub(super) async fn remove(&self, job: &Value) -> Result<()> {
        let id = job["id"].as_str().context("a job without id")?;
        // A job whose end is not told yet is not removed yet.
        for _ in 0..100 {
            if self.call("DELETE", &format!("/v2/jobs/{id}"), None).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("a job cannot be removed")
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// The file of its database.
    pub(super) fn database(&self) -> &Path {
        &self.database
    }

    /// User and system time so far, in seconds.
    ///
    /// # Errors
    /// When the process has ended.
    pub(super) fn cpu_secs(&self) -> Result<f64> {
        cpu_secs(self.pid()?)
    }

    /// Resident set in bytes.
    ///
    /// # Errors
    /// When the process has ended.
    pub(super) fn resident_bytes(&self) -> Result<f64> {
        figure(self.pid()?, "VmRSS:")
    }

    /// Largest resident set in bytes since [`Self::reset_peak`].
    ///
    /// # Errors
    /// When the process has ended.
    pub(super) fn peak_bytes(&self) -> Result<f64> {
        figure(self.pid()?, "VmHWM:")
    }

    /// Forgets the peak so far.
    ///
    /// # Errors
    /// When the process has ended.
    pub(super) fn reset_peak(&self) -> Result<()> {
        reset_peak(self.pid()?)
    }

    fn pid(&self) -> Result<u32> {
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

/// What a job that failed says of its tasks.
fn failed(job: &Value) -> String {
    let tasks = job["data"]["tasks"].as_array().into_iter().flatten();
    let failed = tasks.filter(|task| task["status"] != "finished").take(3);
    let told = failed.map(|task| format!("{} {} {}", task["operation"], task["code"], task["message"]));
    told.collect::<Vec<_>>().join("; ")
}

/// A line of `/proc/PID/status` that is in KiB, in bytes.
fn figure(pid: u32, name: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| name.to_owned())?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024.0)
}
