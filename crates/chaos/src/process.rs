//! A process of the program: started, signalled, started again when it ends, on a disk and in a network of its own where there are.

use std::fs::{self, OpenOptions};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep, timeout};

use crate::disk::Disk;
use crate::history::{Event, History};

/// How long a start may take, tries included: a process that finds no database ends and is started again.
const START_TIMEOUT: Duration = Duration::from_secs(90);
/// Before a process that ended by itself is started again, as a supervisor would.
const RESTART_PAUSE: Duration = Duration::from_millis(500);
/// How long a process may take to end when it is asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);

/// How to start a process; the settings are those of all, and its own.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    role: &'static str,
    pub(crate) address: SocketAddr,
    program: PathBuf,
    folder: PathBuf,
    settings: Vec<(String, String)>,
    pub(crate) disk: Option<Disk>,
    /// The namespace of its network, if it has its own.
    namespace: Option<PathBuf>,
    child: Mutex<Option<Child>>,
}

/// A process that nobody else may signal, stop or start meanwhile.
pub(crate) struct Held<'a> {
    process: &'a Process,
    child: MutexGuard<'a, Option<Child>>,
}

impl Process {
    pub(crate) fn new(
        name: &str,
        role: &'static str,
        program: &Path,
        folder: &Path,
        settings: &[(String, String)],
    ) -> Result<Self> {
        let address = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let folder = folder.join(name);
        fs::create_dir_all(folder.join("data"))?;
        let (name, program, settings) = (name.to_owned(), program.to_owned(), settings.to_vec());
        let child = Mutex::default();
        Ok(Self { name, role, address, program, folder, settings, disk: None, namespace: None, child })
    }

    /// Gives the process a network of its own, in which it listens at this address.
    pub(crate) fn live_in(&mut self, namespace: PathBuf, address: IpAddr) {
        self.namespace = Some(namespace);
        self.address.set_ip(address);
    }

    /// Gives the process a disk of its own.
    pub(crate) async fn mount(&mut self) -> Result<()> {
        self.disk = Some(Disk::mount(&self.data_dir()).await?);
        Ok(())
    }

    pub(crate) fn is_runner(&self) -> bool {
        self.role != "api"
    }

    pub(crate) fn is_api(&self) -> bool {
        self.role != "runner"
    }

    pub(crate) fn role(&self) -> &'static str {
        self.role
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// A command of the program with the settings of this process.
    #[expect(clippy::disallowed_methods, reason = "the program itself is what is tested")]
    fn command(&self, arguments: &[&str]) -> Command {
        let network = self.namespace.iter().map(|namespace| format!("--net={}", namespace.display()));
        let enter: Vec<String> = self.disk.iter().flat_map(Disk::enter).chain(network).collect();
        let mut command = if enter.is_empty() {
            Command::new(&self.program)
        } else {
            let mut command = Command::new("nsenter");
            command.args(enter).arg("--").arg(&self.program);
            command
        };
        command.args(arguments).env_clear().envs(self.settings.iter().map(|(name, value)| (name, value)));
        command.env("CONSIGN_DATA_DIR", self.data_dir()).env("PATH", "/usr/bin:/bin").env("HOME", &self.folder);
        command.current_dir(&self.folder).stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs a command to its end and gives what it printed.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Result<String> {
        let ended = self.command(arguments).output().await?;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        ensure!(ended.status.success(), "consign {arguments:?}: {}: {said}", ended.status);
        Ok(String::from_utf8_lossy(&ended.stdout).trim().to_owned())
    }

    /// Keeps everybody else from it.
    pub(crate) async fn hold(&self) -> Held<'_> {
        Held { process: self, child: self.child.lock().await }
    }

    /// The same for who wants to strike it. If it ended by itself before, that is written down, and it is started again.
    pub(crate) async fn hold_alive(&self, history: &History) -> Result<Held<'_>> {
        let mut held = self.hold().await;
        held.revive(history).await?;
        Ok(held)
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The last lines of its log.
    pub(crate) fn log_tail(&self, lines: usize) -> String {
        let log = fs::read_to_string(self.log("log")).unwrap_or_default();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    async fn spawn(&self) -> Result<Child> {
        let listen = self.address.to_string();
        let (out, errors) = (self.log("out"), self.log("log"));
        let append = |path: &Path| OpenOptions::new().create(true).append(true).open(path);
        fs::write(&out, "")?;
        let mut serve = self.command(&["serve", "--role", self.role, "--listen", &listen]);
        let mut child = serve.stdout(append(&out)?).stderr(append(&errors)?).spawn().context("the program")?;
        loop {
            if fs::read_to_string(&out)?.contains(" ready") {
                return Ok(child);
            }
            if let Some(status) = child.try_wait()? {
                bail!("{} ended with {status} before it was ready", self.name);
            }
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Held<'_> {
    /// Starts it again when it ended although nobody told it to, as a supervisor would, and writes down how it ended.
    async fn revive(&mut self, history: &History) -> Result<()> {
        let Some(child) = self.child.as_mut() else { return Ok(()) };
        let Some(ended) = child.try_wait()? else { return Ok(()) };
        history.note(Event::Died { process: self.process.name.clone(), how: ended.to_string() });
        sleep(RESTART_PAUSE).await;
        self.start().await
    }

    /// Starts it and waits until it says that it is ready.
    pub(crate) async fn start(&mut self) -> Result<()> {
        let began = Instant::now();
        let left = || START_TIMEOUT.saturating_sub(began.elapsed());
        loop {
            let error = match timeout(left(), self.process.spawn()).await {
                Ok(Ok(child)) => {
                    *self.child = Some(child);
                    return Ok(());
                }
                Ok(Err(error)) => error,
                Err(_) => anyhow::anyhow!("{} is not ready after {START_TIMEOUT:?}", self.process.name),
            };
            if left().is_zero() {
                return Err(error.context(self.process.log_tail(5)));
            }
            sleep(RESTART_PAUSE).await;
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.as_ref().context("it does not run")?;
        let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).context("it has ended")?;
        Ok(kill_process(id, signal)?)
    }

    pub(crate) async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        child.start_kill()?;
        child.wait().await?;
        Ok(())
    }

    /// Asks it to stop, and waits until it has.
    pub(crate) async fn stop(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let mut child = self.child.take().context("it does not run")?;
        let status = timeout(STOP_TIMEOUT, child.wait()).await.context("it does not stop")??;
        ensure!(status.success(), "{} ended with {status} when it was asked to stop", self.process.name);
        Ok(())
    }

    /// Lets it stand still for a while.
    pub(crate) async fn freeze(&mut self, length: Duration) -> Result<()> {
        self.signal(Signal::STOP)?;
        sleep(length).await;
        self.signal(Signal::CONT)
    }
}

/// Starts a process again whenever it ends by itself, and writes that down.
pub(crate) async fn supervise(process: Arc<Process>, history: Arc<History>) {
    loop {
        // Whoever holds it has looked.
        if let Ok(child) = process.child.try_lock() {
            let mut held = Held { process: &process, child };
            if let Err(error) = held.revive(&history).await {
                let how = format!("it cannot be started again: {error:#}");
                history.note(Event::Died { process: process.name.clone(), how });
            }
        }
        sleep(RESTART_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says that it is ready, and ends by itself when it is first told to.
    const SCRIPT: &str = "echo ' ready'
until [ -e end ]; do sleep 0.01; done
rm end
exit 3";

    #[tokio::test]
    async fn an_end_before_a_fault_is_written_down_and_the_fault_finds_it_alive() {
        let folder = tempfile::tempdir().unwrap();
        let history = History::begin(&folder.path().join("history")).unwrap();
        // The shell takes the command `serve` for the name of a script.
        let process = Process::new("one", "runner", Path::new("/bin/sh"), folder.path(), &[]).unwrap();
        fs::write(process.log("serve"), SCRIPT).unwrap();
        process.hold().await.start().await.unwrap();
        drop(process.hold_alive(&history).await.unwrap());
        assert_eq!(history.entries(), []);
        fs::write(process.log("end"), "").unwrap();
        let wait = async {
            while history.entries().is_empty() {
                drop(process.hold_alive(&history).await.unwrap());
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(START_TIMEOUT, wait).await.unwrap();
        let events: Vec<Event> = history.entries().into_iter().map(|entry| entry.event).collect();
        assert_eq!(events, [Event::Died { process: "one".to_owned(), how: "exit status: 3".to_owned() }]);
        process.hold_alive(&history).await.unwrap().kill().await.unwrap();
        assert_eq!(history.entries().len(), 1, "the fault ended it");
    }
}
