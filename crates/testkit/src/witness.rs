//! A client by another hand, kept running: it tells what a server really holds, one line of JSON for each question.
//!
//! `scripts/testbed/witness.py` has a section for each system, with the SDK of its vendor.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::Mutex;

use crate::{place, tool};

/// The systems that the script knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// boto3. Settings: `endpoint`, `region`, `bucket`, `key`, `secret`.
    S3,
    /// azure-storage-blob. Settings: `endpoint` (with the account), `account`, `key`, `container`.
    Azure,
    /// google-cloud-storage. Settings: `endpoint`, `bucket`, and `service_account` (the JSON of a key file) or nothing.
    Gcs,
    /// python-swiftclient. Settings: `auth_url`, `user`, `password`, `project`, `region`, `container`, `segments` (the
    /// container of the segments).
    Swift,
}

/// An object as the client read it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub struct Seen {
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of what was read, in lower-case hex.
    pub sha256: String,
    /// Media type.
    pub content_type: Option<String>,
}

/// The client. It ends when dropped.
#[derive(Debug)]
pub struct Witness {
    name: String,
    pipes: Mutex<Pipes>,
    _child: Child,
}

#[derive(Debug)]
struct Pipes {
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Ok(Value),
    Error(String),
}

impl Witness {
    /// Starts the client with its settings, which it is told over its standard input.
    ///
    /// # Errors
    /// [`Missing`](crate::Missing) without its Python (in CI a plain error); what the SDK says to the settings.
    pub async fn start(system: System, settings: &Value) -> Result<Self> {
        let (python, section) = match system {
            System::S3 => ("python", "s3"),
            System::Azure => ("python", "azure"),
            System::Gcs => ("python", "gcs"),
            System::Swift => ("python-openstack", "swift"),
        };
        let mut command = tool::command(python)?;
        command.arg(place::scripts().join("witness.py")).arg(section);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("{python} cannot be started"))?;
        let (to, from) = (child.stdin.take().context("a pipe")?, child.stdout.take().context("a pipe")?);
        let pipes = Mutex::new(Pipes { to, from: BufReader::new(from).lines() });
        let mut witness = Self { name: section.to_owned(), pipes, _child: child };
        let hello = witness.ask(settings).await?;
        hello.as_str().context("the name of the client")?.clone_into(&mut witness.name);
        Ok(witness)
    }

    /// What client it is, with its version: `boto3 1.44.5`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads an object whole; nothing when it is not there.
    ///
    /// # Errors
    /// The SDK's.
    pub async fn read(&self, name: &str) -> Result<Option<Seen>> {
        Ok(serde_json::from_value(self.ask(&json!({"do": "read", "name": name})).await?)?)
    }

    /// Reads all objects whose name begins with `prefix`, by name.
    ///
    /// # Errors
    /// The SDK's.
    pub async fn read_all(&self, prefix: &str) -> Result<BTreeMap<String, Seen>> {
        Ok(serde_json::from_value(self.ask(&json!({"do": "read_all", "prefix": prefix})).await?)?)
    }

    /// Names what is there for the sake of objects below `prefix` that are not: open uploads, uncommitted blocks,
    /// segments of no object. Of `handles` (addresses of upload sessions) those that are still open.
    ///
    /// # Errors
    /// The SDK's.
    pub async fn left_over(&self, prefix: &str, handles: &[String]) -> Result<Vec<String>> {
        let question = json!({"do": "left_over", "prefix": prefix, "handles": handles});
        Ok(serde_json::from_value(self.ask(&question).await?)?)
    }

    /// Runs a few lines of Python and gives what they left in `result`. They find the SDK's `client`, the `settings`,
    /// `json` and `hashlib`; bytes become hexadecimal.
    ///
    /// # Errors
    /// When they raise: the error shows the traceback.
    pub async fn run(&self, script: &str) -> Result<Value> {
        self.ask(&json!({"do": "run", "script": script})).await
    }

    async fn ask(&self, question: &Value) -> Result<Value> {
        let mut pipes = self.pipes.lock().await;
        pipes.to.write_all(format!("{question}\n").as_bytes()).await?;
        pipes.to.flush().await?;
        let line = tokio::time::timeout(tool::TIMEOUT, pipes.from.next_line()).await;
        let line = line.with_context(|| format!("{}: no answer after {:?}", self.name, tool::TIMEOUT))??;
        match serde_json::from_str(&line.with_context(|| format!("{} has ended", self.name))?)? {
            Answer::Ok(value) => Ok(value),
            Answer::Error(text) => bail!("{}: {text}", self.name),
        }
    }
}
