//! What a run cost: time, computing, memory.

use anyhow::{Context as _, Result};

/// Clock ticks in a second, as `/proc` counts CPU time (`USER_HZ`, 100 on every Linux).
const TICKS_PER_SEC: f64 = 100.0;

/// What one run took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// From start to end, in seconds.
    pub(super) wall_secs: f64,
    /// User and system time of the side that is measured, in seconds.
    pub(super) cpu_secs: f64,
    /// Largest resident set of that side, in bytes.
    pub(super) peak_bytes: u64,
}

/// User and system time of a process so far, in seconds (`proc_pid_stat(5)`, fields 14 and 15).
///
/// # Errors
/// When there is no such process.
pub(super) fn cpu_secs(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |field: usize| fields.get(field).and_then(|ticks| ticks.parse::<f64>().ok()).context("stat");
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SEC)
}

/// Forgets the largest resident set of a process, so that [`peak_bytes`] speaks of what comes after.
///
/// # Errors
/// When there is no such process, or it is another user's.
pub(super) fn reset_peak(pid: u32) -> Result<()> {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").context("resetting the peak")
}

/// Largest resident set of a process since it was reset, in bytes (`VmHWM`).
///
/// # Errors
/// When there is no such process.
pub(super) fn peak_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib * 1024)
}
