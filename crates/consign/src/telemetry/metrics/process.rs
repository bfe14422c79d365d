//! What the system says of this process, read when it is asked for.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::table;

/// Reads `/proc/self`.
#[derive(Debug)]
pub(super) struct Process;

/// What is told. What cannot be read is left out.
#[derive(Debug, Default, PartialEq)]
struct Reading {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<u64>,
    open_files: Option<u64>,
    files_max: Option<u64>,
    started_at: Option<f64>,
}

impl Process {
    fn read() -> Reading {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
        let open = fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64);
        let limit = getrlimit(Resource::Nofile).current;
        Reading { open_files: open, files_max: limit, ..of_stat(&stat, &boot, clock_ticks_per_second(), page_size()) }
    }
}

/// Reads what the fields of `stat` say.
///
/// # Source
/// `proc_pid_stat(5)`: field 14 is `utime`, 15 `stime`, 22 `starttime`, 24 `rss`.
fn of_stat(stat: &str, boot: &str, ticks_per_second: u64, page_bytes: usize) -> Reading {
    // The name of the program, field 2, stands in parentheses and may hold blanks.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    #[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
    let seconds = |ticks: u64| ticks as f64 / ticks_per_second.max(1) as f64;
    let booted_at = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
    Reading {
        cpu_seconds: field(14).zip(field(15)).map(|(user, system)| seconds(user + system)),
        resident_bytes: field(24).map(|pages| pages.saturating_mul(page_bytes as u64)),
        started_at: booted_at.zip(field(22)).map(|(booted_at, started)| booted_at + seconds(started)),
        open_files: None,
        files_max: None,
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let reading = Self::read();
        // The registry ends what it is told with a full stop by itself.
        let help = |name| table::find(name).map_or_else(String::new, |entry| format!("{}.", entry.help));
        if let Some(seconds) = reading.cpu_seconds {
            let counter = ConstCounter::new(seconds);
            let help = help("process_cpu_seconds_total");
            counter.encode(encoder.encode_descriptor("process_cpu_seconds", &help, None, counter.metric_type())?)?;
        }
        let whole = |number: Option<u64>| number.map(|number| i64::try_from(number).unwrap_or(i64::MAX));
        for (name, value) in [
            ("process_resident_memory_bytes", whole(reading.resident_bytes)),
            ("process_open_fds", whole(reading.open_files)),
            ("process_max_fds", whole(reading.files_max)),
        ] {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, &help(name), None, gauge.metric_type())?)?;
        }
        if let Some(started_at) = reading.started_at {
            let (name, gauge) = ("process_start_time_seconds", ConstGauge::new(started_at));
            gauge.encode(encoder.encode_descriptor(name, &help(name), None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_the_manual() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 9 0 1000 123456 30 184467";
        let reading = of_stat(stat, "cpu 1\nbtime 1700000000\n", 100, 4096);
        assert_eq!(reading.cpu_seconds, Some(3.0));
        assert_eq!(reading.resident_bytes, Some(30 * 4096));
        assert_eq!(reading.started_at, Some(1_700_000_010.0));
        assert_eq!(of_stat("", "", 100, 4096), Reading::default());
    }

    #[test]
    fn this_process_is_read() {
        let reading = Process::read();
        assert!(reading.resident_bytes.is_some_and(|bytes| bytes > 1 << 20), "{reading:?}");
        assert!(reading.open_files.is_some_and(|files| files > 2), "{reading:?}");
        assert!(reading.started_at.is_some_and(|at| at > 1.6e9), "{reading:?}");
    }
}
