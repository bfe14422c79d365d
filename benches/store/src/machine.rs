//! What the machine says: time spent computing, what the disk can do.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testkit::Postgres;

/// How long the disk is measured.
const DISK_TIME: Duration = Duration::from_secs(2);
/// A tick of `/proc` in microseconds, on every Linux that Rust runs on.
const TICK_MICROS: u64 = 10_000;

/// Fields of `/proc/PID/stat` behind the name: the third of all is the first here.
fn stat(pid: &str) -> Option<Vec<u64>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').map(|field| field.trim().parse().unwrap_or(0)).collect())
}

/// Microseconds of computing of this process.
pub(crate) fn own_cpu_micros() -> u64 {
    stat("self").map_or(0, |stat| (stat[11] + stat[12]) * TICK_MICROS)
}

/// The server's processes, by the id of the first one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Postmaster(u64);

impl Postmaster {
    /// Asks the server where its data is, and there for its process.
    pub(crate) async fn of(server: &Postgres) -> Result<Self> {
        let data = server.psql("postgres", "SHOW data_directory").await?;
        let pid = fs::read_to_string(Path::new(&data).join("postmaster.pid"))?;
        Ok(Self(pid.lines().next().context("a process id")?.parse()?))
    }

    /// Microseconds of computing of the server and all its processes, those that have ended too.
    pub(crate) fn cpu_micros(self) -> u64 {
        let mut ticks = stat(&self.0.to_string()).map_or(0, |stat| stat[11..15].iter().sum());
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            if let Some(stat) = name.to_str().filter(|name| name.parse::<u32>().is_ok()).and_then(stat)
                && stat[1] == self.0
            {
                ticks += stat[11] + stat[12];
            }
        }
        ticks * TICK_MICROS
    }
}

/// Writes of 8 KiB a second that this folder's disk can take one after the other, waiting for each.
pub(crate) fn syncs_per_sec(folder: &Path) -> Result<f64> {
    let path = folder.join("sync");
    let mut file = File::create(&path)?;
    file.write_all(&vec![1; 1 << 20])?;
    file.sync_all()?;
    let (began, mut writes) = (Instant::now(), 0_u32);
    while began.elapsed() < DISK_TIME {
        file.write_all_at(&[2; 8192], u64::from(writes % 128) * 8192)?;
        file.sync_data()?;
        writes += 1;
    }
    let rate = f64::from(writes) / began.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(rate)
}

/// What file system the folder is on.
///
/// # Errors
/// When it is in memory: that would measure nothing.
pub(crate) fn disk(folder: &Path) -> Result<String> {
    let folder = folder.canonicalize()?;
    let mounts = fs::read_to_string("/proc/mounts")?;
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = fields
        .filter(|fields| fields.len() > 2 && folder.starts_with(fields[1]))
        .max_by_key(|fields| fields[1].len())
        .context("the folder is on no file system")?;
    ensure!(mount[2] != "tmpfs" && mount[2] != "ramfs", "{} is in memory; give --folder", folder.display());
    Ok(format!("{} on {}", mount[2], mount[0]))
}

/// Bytes of all files in a folder.
pub(crate) fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}
