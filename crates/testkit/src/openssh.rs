//! OpenSSH's `sftp` as a client by another hand: it reads back what was delivered to any SFTP server.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::sync::Mutex;

use crate::witness::Seen;
use crate::{bytes, tool};

/// What no file that was delivered has in its name.
const TEMPORARY: &str = ".consign-";
/// What the program says when it has ended a command.
const END: &str = "--- end of the answer ---";

/// The program, logged in to one server. It ends when dropped.
#[derive(Debug)]
pub struct Sftp {
    name: String,
    pipes: Mutex<Pipes>,
    _child: Child,
    /// Where its private key lies.
    _folder: TempDir,
}

#[derive(Debug)]
struct Pipes {
    to: ChildStdin,
    from: Lines<BufReader<ChildStdout>>,
}

impl Sftp {
    /// Logs in with a private key in OpenSSH's own format.
    ///
    /// # Errors
    /// [`Missing`](crate::Missing) without `sftp` (in CI a plain error); what it says to the account.
    pub async fn log_in(addr: SocketAddr, user: &str, private_key: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let key = folder.path().join("key");
        fs::write(&key, private_key)?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        let told = tool::command("ssh")?.arg("-V").output().await?.stderr;
        let told = String::from_utf8_lossy(&told).into_owned();
        let version = told.split([' ', ',']).next().unwrap_or_default().replace('_', " ");
        let program = tool::find("sftp")?;
        let mut command = tool::command("sh")?;
        // Errors and answers in one pipe, in their order.
        command.args(["-c", "exec \"$@\" 2>&1", "sh"]).arg(program);
        for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes"] {
            command.args(["-o", option]);
        }
        command.args(["-o", "LogLevel=ERROR", "-q", "-b", "-", "-i"]).arg(&key);
        command.args(["-P", &addr.port().to_string(), &format!("{user}@{}", addr.ip())]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (to, from) = (child.stdin.take().context("a pipe")?, child.stdout.take().context("a pipe")?);
        let pipes = Mutex::new(Pipes { to, from: BufReader::new(from).lines() });
        let client = Self { name: format!("{version} sftp"), pipes, _child: child, _folder: folder };
        client.run("pwd").await?.context("the program knows no folder")?;
        Ok(client)
    }

    /// What client it is, with its version: `OpenSSH 9.2p1 sftp`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Reads a file whole; nothing when it is not there.
    ///
    /// # Errors
    /// The program's.
    pub async fn read(&self, path: &str) -> Result<Option<Seen>> {
        let copy = tempfile::tempdir()?;
        let file = copy.path().join("file");
        match self.run(&format!("get {} {}", quoted(path), file.display())).await? {
            Some(answer) => Ok(Some(seen(&file).with_context(|| answer)?)),
            None => Ok(None),
        }
    }

    /// Reads all files below the directory `prefix`, which ends with `/`, by path.
    ///
    /// # Errors
    /// The program's.
    pub async fn read_all(&self, prefix: &str) -> Result<BTreeMap<String, Seen>> {
        let copy = tempfile::tempdir()?;
        let place = copy.path().join("all");
        let mut found = BTreeMap::new();
        if self.run(&format!("get -r {} {}", quoted(prefix.trim_end_matches('/')), place.display())).await?.is_some() {
            collect(&place, prefix, &mut found)?;
        }
        Ok(found)
    }

    /// Names the temporary files in the directory `prefix`.
    ///
    /// # Errors
    /// The program's.
    pub async fn left_over(&self, prefix: &str) -> Result<Vec<String>> {
        let listed = self.run(&format!("ls -1a {}", quoted(prefix))).await?.unwrap_or_default();
        if let Some(complaint) = listed.lines().find(|line| !line.starts_with(prefix)) {
            bail!("{prefix} cannot be listed: {complaint}");
        }
        Ok(listed.lines().filter(|name| name.contains(TEMPORARY)).map(str::to_owned).collect())
    }

    /// Runs one command; nothing when what it names is not there.
    async fn run(&self, line: &str) -> Result<Option<String>> {
        let mut pipes = self.pipes.lock().await;
        // With a dash in front the program goes on after an error.
        pipes.to.write_all(format!("-{line}\n!echo '{END}'\n").as_bytes()).await?;
        pipes.to.flush().await?;
        let mut answer = Vec::new();
        loop {
            let next = tokio::time::timeout(tool::TIMEOUT, pipes.from.next_line()).await;
            let next = next.with_context(|| format!("sftp: {line}: no answer after {:?}", tool::TIMEOUT))??;
            match next {
                Some(line) if line == END => break,
                // The program repeats each command behind its prompt.
                Some(line) if line.starts_with("sftp> ") => {}
                Some(line) => answer.push(line),
                None => bail!("sftp has ended: {}", answer.join("\n")),
            }
        }
        let is_missing = |line: &String| line.trim_end_matches('.').ends_with("\" not found");
        if answer.iter().any(is_missing) {
            return Ok(None);
        }
        Ok(Some(answer.join("\n")))
    }
}

fn seen(file: &Path) -> Result<Seen> {
    let digests = bytes::digest_file(file)?;
    Ok(Seen { size: digests.size, sha256: digests.sha256, content_type: None })
}

fn collect(place: &Path, prefix: &str, found: &mut BTreeMap<String, Seen>) -> Result<()> {
    for entry in fs::read_dir(place)? {
        let entry = entry?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), &format!("{name}/"), found)?;
        } else {
            found.insert(name, seen(&entry.path())?);
        }
    }
    Ok(())
}

/// A path as the program's command line wants it: it expands patterns, inside of quotes too.
fn quoted(path: &str) -> String {
    let mut quoted = String::with_capacity(path.len());
    for c in path.chars() {
        if " *?[]\\\"'{}#".contains(c) {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}
