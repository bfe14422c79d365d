//! A PostgreSQL server: one shared by all tests, with a fresh database for each, or one of a test's own that it may crash.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use crate::{Missing, place, server, tool};

/// How long the server may take to answer again after a crash.
const RECOVERY_MAX: Duration = Duration::from_mins(1);

/// A server that runs.
#[derive(Clone, Debug, Deserialize)]
pub struct Postgres {
    /// Its port on loopback.
    pub port: u16,
    /// The superuser; there are no passwords.
    pub user: String,
    /// Its version.
    pub version: String,
}

/// The server that all tests share. It is fast and survives no crash.
///
/// # Errors
/// [`Missing`] when it is not installed; when it cannot be started.
pub async fn postgres() -> Result<Postgres> {
    server::shared("postgres", "postgres").await
}

impl Postgres {
    /// The address of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://{}@127.0.0.1:{}/{database}", self.user, self.port)
    }

    /// Makes an empty database and gives its address. It goes with the server.
    ///
    /// # Errors
    /// What `psql` says.
    pub async fn database(&self) -> Result<String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        self.psql("postgres", &format!("CREATE DATABASE {name} STRATEGY wal_log")).await?;
        Ok(self.url(&name))
    }

    /// Runs statements in a database and gives what they answer, one row a line, columns between `|`.
    ///
    /// # Errors
    /// What `psql` says.
    pub async fn psql(&self, database: &str, sql: &str) -> Result<String> {
        let url = self.url(database);
        let told = tool::run("psql", &["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", &url, "-c", sql]).await?;
        Ok(String::from_utf8_lossy(&told).trim().to_owned())
    }

    /// Ends the sessions of a database whose last statement begins with this text.
    ///
    /// # Errors
    /// What `psql` says.
    pub async fn end_sessions(&self, database: &str, statement: &str) -> Result<()> {
        let end = format!(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = '{database}' AND query LIKE '{statement}%'"
        );
        self.psql("postgres", &end).await.map(drop)
    }
}

/// A server of one test's own, on a disk that it waits for; stopped and removed when dropped.
#[derive(Debug)]
pub struct OwnPostgres {
    server: Postgres,
    folder: TempDir,
    again: Option<Child>,
}

/// Starts a server that a test may crash: what it has acknowledged survives.
///
/// # Errors
/// [`Missing`] when it is not installed; when it cannot be started.
pub async fn own_postgres() -> Result<OwnPostgres> {
    if !place::cache().join("bin/postgres").exists() {
        let missing = Missing::new("postgres", "run scripts/testbed/setup.sh");
        return Err(if place::in_ci() { anyhow::anyhow!("{missing}") } else { missing.into() });
    }
    let folder = tempfile::tempdir()?;
    script("postgres-up.sh", folder.path()).await?;
    let state = std::fs::read(folder.path().join("postgres/state.json"))?;
    Ok(OwnPostgres { server: serde_json::from_slice(&state)?, folder, again: None })
}

#[expect(clippy::disallowed_methods, reason = "starting programs is what this crate is for")]
async fn script(name: &str, run: &Path) -> Result<()> {
    let mut command = Command::new("bash");
    command.arg(place::scripts().join(name)).stdin(Stdio::null());
    command.env("CONSIGN_TEST_CACHE", place::cache()).env("CONSIGN_TEST_RUN", run);
    command.env("CONSIGN_TEST_IDLE_SECS", "0").env("POSTGRES_DURABLE", "1");
    tool::output(name, command).await.map(drop)
}

impl OwnPostgres {
    /// The server.
    pub fn server(&self) -> &Postgres {
        &self.server
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("postgres")
    }

    /// Stops it as a crash would: no checkpoint, every connection cut.
    ///
    /// # Errors
    /// When its process is not known.
    pub async fn crash(&mut self) -> Result<()> {
        let pid = match &self.again {
            Some(child) => child.id().context("the server is gone")?,
            None => std::fs::read_to_string(self.dir().join("postgres.pid"))?
                .split(' ')
                .next()
                .context("a number")?
                .parse()?,
        };
        tool::run("kill", &["-QUIT", &pid.to_string()]).await?;
        let end = Instant::now() + RECOVERY_MAX;
        match &mut self.again {
            Some(child) => drop(child.wait().await?),
            None => {
                while is_running(pid) {
                    ensure!(Instant::now() < end, "the server does not stop");
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
        self.again = None;
        Ok(())
    }

    /// Starts it again and waits until it answers.
    ///
    /// # Errors
    /// When it does not come back.
    #[expect(clippy::disallowed_methods, reason = "starting programs is what this crate is for")]
    pub async fn start(&mut self) -> Result<()> {
        let mut serve = Command::new(self.dir().join("serve"));
        self.again = Some(serve.stdin(Stdio::null()).kill_on_drop(true).spawn()?);
        let end = Instant::now() + RECOVERY_MAX;
        while self.server.psql("postgres", "SELECT 1").await.is_err() {
            ensure!(Instant::now() < end, "the server does not come back");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Crashes it and starts it again.
    ///
    /// # Errors
    /// Those of [`Self::crash`] and [`Self::start`].
    pub async fn restart(&mut self) -> Result<()> {
        self.crash().await?;
        self.start().await
    }
}

/// Whether a process is there and not only waiting to be reaped.
fn is_running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(") ").next().unwrap_or_default().starts_with('Z'))
}

impl Drop for OwnPostgres {
    #[expect(clippy::disallowed_methods, reason = "starting programs is what this crate is for")]
    fn drop(&mut self) {
        if let Some(child) = &self.again
            && let Some(pid) = child.id()
        {
            let quit = std::process::Command::new("kill").args(["-QUIT", &pid.to_string()]).status();
            drop(quit);
        }
        let mut down = std::process::Command::new("bash");
        down.arg(place::scripts().join("postgres-down.sh")).stdin(Stdio::null());
        down.env("CONSIGN_TEST_CACHE", place::cache()).env("CONSIGN_TEST_RUN", self.folder.path());
        // Nothing can be done about a failure here; the folder goes in any case.
        drop(down.output());
    }
}
