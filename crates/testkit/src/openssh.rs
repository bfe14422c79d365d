//! OpenSSH's `sftp` as a client by another hand: it reads back what was delivered to any SFTP server.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::witness::Seen;
use crate::{bytes, tool};

/// What no file that was delivered has in its name.
const TEMPORARY: &str = ".consign-";

/// The program with an account on one server. Each question is a session of its own.
#[derive(Debug)]
pub struct Sftp {
    name: String,
    addr: SocketAddr,
    user: String,
    folder: TempDir,
}

impl Sftp {
    /// Makes a client that logs in with a private key in OpenSSH's own format.
    ///
    /// # Errors
    /// [`Missing`](crate::Missing) without `sftp` (in CI a plain error).
    pub async fn new(addr: SocketAddr, user: &str, private_key: &str) -> Result<Self> {
        tool::find("sftp")?;
        let folder = tempfile::tempdir()?;
        let key = folder.path().join("key");
        fs::write(&key, private_key)?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        let mut asked = tool::command("ssh")?;
        let told = asked.arg("-V").output().await?.stderr;
        let told = String::from_utf8_lossy(&told).into_owned();
        let version = told.split([' ', ',']).next().unwrap_or_default().replace('_', " ");
        Ok(Self { name: format!("{version} sftp"), addr, user: user.to_owned(), folder })
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
            Some(_) => Ok(Some(seen(&file)?)),
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
        Ok(listed.lines().filter(|name| name.contains(TEMPORARY)).map(str::to_owned).collect())
    }

    /// Runs one command; nothing when what it names is not there.
    async fn run(&self, line: &str) -> Result<Option<String>> {
        let batch = tempfile::NamedTempFile::new_in(self.folder.path())?;
        fs::write(batch.path(), format!("{line}\n"))?;
        let mut command = tool::command("sftp")?;
        let known_hosts = "UserKnownHostsFile=/dev/null";
        for option in ["StrictHostKeyChecking=no", known_hosts, "IdentitiesOnly=yes", "LogLevel=ERROR"] {
            command.args(["-o", option]);
        }
        command.arg("-b").arg(batch.path()).arg("-i").arg(self.folder.path().join("key"));
        command.args(["-q", "-P", &self.addr.port().to_string(), &format!("{}@{}", self.user, self.addr.ip())]);
        let ended = tokio::time::timeout(tool::TIMEOUT, command.output()).await.context("sftp does not end")??;
        let (output, errors) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        if ended.status.success() {
            // The program repeats each command behind its prompt.
            return Ok(Some(output.lines().filter(|line| !line.starts_with("sftp> ")).collect::<Vec<_>>().join("\n")));
        }
        if ["not found", "No such file"].iter().any(|words| errors.contains(words)) {
            return Ok(None);
        }
        bail!("sftp: {line}: {errors}")
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
