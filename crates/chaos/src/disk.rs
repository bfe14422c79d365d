//! A small disk of a process's own that can be made full: a tmpfs in a mount namespace, kept by a process that sleeps.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

/// Its size when it is not full. A tmpfs takes only as much memory as it holds.
const SIZE: &str = "16g";

/// Looks at a disk that grows while it is being filled.
const FILL_TRIES: u32 = 50;

/// It goes, with all on it, when dropped.
#[derive(Debug)]
pub(crate) struct Disk {
    path: PathBuf,
    keeper: Child,
    is_root: bool,
}

impl Disk {
    /// Why this machine lets nobody have a disk of his own, if so.
    pub(crate) async fn why_not() -> Option<String> {
        let ended = unshare(is_root()).arg("true").stdin(Stdio::null()).output().await;
        let why = match ended {
            Ok(ended) if ended.status.success() => return None,
            Ok(ended) => String::from_utf8_lossy(&ended.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        Some(format!("the machine allows no namespaces of mounts: {why}"))
    }

    /// Makes a disk that is seen at this path.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub(crate) async fn mount(path: &Path) -> Result<Self> {
        let is_root = is_root();
        // It ends with this process, however that ends: then its standard input does.
        let script = format!("mount -t tmpfs -o size={SIZE},mode=0700 chaos \"$0\" && echo mounted && exec cat");
        let mut keeper = unshare(is_root);
        keeper.args(["sh", "-c", &script]).arg(path).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut keeper = keeper.spawn().context("unshare")?;
        let mut said = BufReader::new(keeper.stdout.take().context("a pipe")?).lines();
        ensure!(said.next_line().await?.is_some(), "a disk cannot be mounted in a namespace");
        Ok(Self { path: path.to_owned(), keeper, is_root })
    }

    /// The arguments of `nsenter` for a program that is to see the disk.
    pub(crate) fn enter(&self) -> Vec<String> {
        let keeper = self.keeper.id().unwrap_or_default().to_string();
        let mut arguments = vec!["--target".to_owned(), keeper, "--mount".to_owned()];
        if !self.is_root {
            arguments.extend(["--user".to_owned(), "--preserve-credentials".to_owned()]);
        }
        arguments
    }

    /// The path of something on it for who does not see it.
    pub(crate) fn seen_from_outside(&self, path: &Path) -> PathBuf {
        let keeper = self.keeper.id().unwrap_or_default();
        Path::new("/proc").join(keeper.to_string()).join("root").join(path.strip_prefix("/").unwrap_or(path))
    }

    /// From now on nothing fits.
    pub(crate) async fn fill(&self) -> Result<()> {
        let mut tries = 0;
        loop {
            let used = self.sh("df --block-size=1 --output=used \"$0\" | tail -n 1").await?;
            let used: u64 = used.trim().parse().context("df")?;
            // Refused when it has grown meanwhile.
            match self.resize(&used.max(4096).to_string()).await {
                Err(_) if tries < FILL_TRIES => tries += 1,
                filled => return filled,
            }
        }
    }

    /// There is room again.
    pub(crate) async fn empty(&self) -> Result<()> {
        self.resize(SIZE).await
    }

    async fn resize(&self, size: &str) -> Result<()> {
        self.sh(&format!("mount -o remount,size={size} \"$0\"")).await.map(drop)
    }

    #[expect(clippy::disallowed_methods, reason = "starting programs is what this crate is for")]
    async fn sh(&self, script: &str) -> Result<String> {
        let mut command = Command::new("nsenter");
        command.args(self.enter()).args(["--", "sh", "-c", script]).arg(&self.path);
        let ended = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
        ensure!(ended.status.success(), "{script}: {}", String::from_utf8_lossy(&ended.stderr));
        Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What gives a program a namespace of mounts.
#[expect(clippy::disallowed_methods, reason = "starting programs is what this crate is for")]
fn unshare(is_root: bool) -> Command {
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !is_root {
        command.args(["--user", "--map-root-user"]);
    }
    command
}
