//! A PostgreSQL server of the run's own, which keeps what it has acknowledged: it can be stopped without warning.

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

/// Where Debian keeps the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The user and the database of the fleet.
const APP: &str = "app";

/// It is stopped when dropped.
#[derive(Debug)]
pub(crate) struct Postgres {
    programs: PathBuf,
    folder: PathBuf,
    address: SocketAddr,
    /// Who runs the server, where we are root: it refuses to be.
    user: Option<(u32, u32)>,
}

impl Postgres {
    /// Makes a cluster below `folder` and starts it. `fsync` is on, as in production.
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let address = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let folder = folder.join("postgres");
        std::fs::create_dir_all(&folder)?;
        let user = if rustix::process::geteuid().is_root() { Some(unprivileged()?) } else { None };
        if let Some((uid, gid)) = user {
            chown(&folder, Some(uid), Some(gid))?;
            for above in folder.ancestors().skip(1).take_while(|above| above.starts_with(std::env::temp_dir())) {
                let mode = std::fs::metadata(above)?.permissions().mode();
                std::fs::set_permissions(above, std::fs::Permissions::from_mode(mode | 0o111))?;
            }
        }
        let server = Self { programs: programs()?, folder, address, user };
        let data = server.data();
        server.run("initdb", &["-D", &data, "-U", APP, "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8"]).await?;
        let settings = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = ''\nmax_connections = 200\nfsync = on\n",
            address.port()
        );
        server.run("sh", &["-c", &format!("printf '%s' \"{settings}\" >>'{data}/postgresql.conf'")]).await?;
        server.control(&["start"]).await?;
        server.sql("postgres", "create database app").await?;
        Ok(server)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it is for who connects through `address`.
    pub(crate) fn url_at(address: SocketAddr) -> String {
        format!("postgres://{APP}@{address}/{APP}")
    }

    /// Stops it without warning and starts it again: it recovers from its log.
    pub(crate) async fn crash(&self) -> Result<()> {
        self.control(&["stop", "-m", "immediate"]).await?;
        self.control(&["start"]).await
    }

    /// Ends about half of all sessions.
    pub(crate) async fn end_backends(&self) -> Result<()> {
        let ask = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
                   where datname = 'app' and pid <> pg_backend_pid() and random() < 0.5";
        self.sql("postgres", ask).await.map(drop)
    }

    async fn sql(&self, database: &str, statement: &str) -> Result<String> {
        let (host, port) = (self.address.ip().to_string(), self.address.port().to_string());
        self.run("psql", &["-h", &host, "-p", &port, "-U", APP, "-Atqc", statement, database]).await
    }

    fn data(&self) -> String {
        self.folder.join("data").display().to_string()
    }

    async fn control(&self, what: &[&str]) -> Result<()> {
        let (data, log) = (self.data(), self.folder.join("log").display().to_string());
        let arguments = [&["-D", &data, "-w", "-t", "60", "-l", &log], what].concat();
        self.run("pg_ctl", &arguments).await.map(drop)
    }

    #[expect(clippy::disallowed_methods, reason = "starting programs is what this crate is for")]
    async fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let path = self.programs.join(program);
        let mut command = Command::new(if path.exists() { path.as_os_str() } else { program.as_ref() });
        command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C.UTF-8");
        command.current_dir("/").stdin(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        // The server would keep pipes open: its messages go to its log, and those of the programs to a file.
        let said = self.folder.join("said");
        let file = std::fs::File::create(&said)?;
        let is_server = program == "pg_ctl";
        if is_server {
            command.stdout(file.try_clone()?).stderr(file);
        }
        let ended = command.output().await.with_context(|| program.to_owned())?;
        let errors = if is_server { std::fs::read_to_string(said)? } else { String::from_utf8_lossy(&ended.stderr).into() };
        ensure!(ended.status.success(), "{program} {arguments:?}: {}: {errors}", ended.status);
        Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
    }
}

impl Drop for Postgres {
    #[expect(clippy::disallowed_methods, reason = "starting programs is what this crate is for")]
    fn drop(&mut self) {
        use std::os::unix::process::CommandExt as _;
        let mut command = std::process::Command::new(self.programs.join("pg_ctl"));
        command.args(["-D", &self.data(), "-w", "-m", "immediate", "stop"]).current_dir("/").stdout(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command.stderr(Stdio::null()).status().ok();
    }
}

/// The folder of the newest version's programs.
fn programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir(VERSIONS).into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    let newest = versions.filter(|path| path.join("pg_ctl").exists()).max();
    newest.with_context(|| format!("PostgreSQL is not installed below {VERSIONS}"))
}

/// User and group to run as: those of Debian's package, or nobody's.
fn unprivileged() -> Result<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd")?;
    let of = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2).map(str::parse);
        Some((fields.next()?.ok()?, fields.next()?.ok()?))
    };
    of("postgres").or_else(|| of("nobody")).context("a user to run PostgreSQL as")
}
