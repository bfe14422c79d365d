//! A network and a mount namespace of a test's own: a server may have port 443 there, and host names may lead to it.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;

use anyhow::Result;
use tokio::process::Command;

use crate::{place, tool};

/// Brings the loopback interface up, which a new namespace has but down: SIOCGIFFLAGS, then SIOCSIFFLAGS with `IFF_UP`.
const LOOPBACK_UP: &str = "import fcntl, socket, struct
with socket.socket() as any:
    flags = struct.unpack_from('16xH', fcntl.ioctl(any, 0x8913, struct.pack('16sH14x', b'lo', 0)))[0]
    fcntl.ioctl(any, 0x8914, struct.pack('16sH14x', b'lo', flags | 1))";

/// Puts the hosts file in its place, brings loopback up and becomes the program.
const SCRIPT: &str = "mount --bind \"$0\" /etc/hosts && \"$1\" -c \"$2\" && shift 2 && exec \"$@\"";

/// How processes get into the namespaces.
#[derive(Clone, Debug)]
pub struct Namespace {
    launcher: Vec<OsString>,
    is_root: bool,
}

impl Namespace {
    /// Finds out whether this machine lets tests have namespaces. `hosts` takes the place of the system's hosts file in them.
    ///
    /// That it does not is a rule of the machine, which no package changes: the test is noted as skipped, in CI too.
    ///
    /// # Errors
    /// When the test bed is not installed.
    #[expect(clippy::disallowed_methods, clippy::print_stderr, reason = "starting programs is what this crate is for")]
    pub async fn with_hosts(hosts: &Path) -> Result<Option<Self>> {
        let is_root = Command::new("id").arg("-u").output().await.is_ok_and(|id| id.stdout.trim_ascii() == b"0");
        let mut launcher: Vec<OsString> = ["unshare", "--mount", "--net"].map(OsString::from).into();
        if !is_root {
            launcher.push("--map-root-user".into());
        }
        launcher.extend(["sh", "-c", SCRIPT].map(OsString::from));
        launcher.extend([hosts.into(), tool::find("python")?.into(), LOOPBACK_UP.into()]);
        let namespace = Self { launcher, is_root };
        let mut trial = Command::new(&namespace.launcher[0]);
        trial.args(&namespace.launcher[1..]).arg("true").stdin(Stdio::null());
        let why = match trial.output().await {
            Ok(ended) if ended.status.success() => return Ok(Some(namespace)),
            Ok(ended) => String::from_utf8_lossy(&ended.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        let line = format!("skipped: this machine lets nobody have a namespace of network and mounts ({why})");
        eprintln!("{line}");
        place::note_skipped(&line);
        Ok(None)
    }

    /// What stands before a program that is to be the first one in new namespaces. The process becomes the program.
    pub fn launcher(&self) -> &[OsString] {
        &self.launcher
    }

    /// The same command in the namespaces of a process that was launched.
    #[expect(clippy::disallowed_methods, reason = "starting programs is what this crate is for")]
    pub fn join(&self, process: u32, command: &Command) -> Command {
        let command = command.as_std();
        let mut joined = Command::new("nsenter");
        joined.arg("--target").arg(process.to_string()).args(["--mount", "--net"]);
        if !self.is_root {
            joined.args(["--user", "--preserve-credentials"]);
        }
        joined.arg("--").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                joined.env(name, value);
            }
        }
        joined.stdin(Stdio::null()).kill_on_drop(true);
        joined
    }
}
