//! What asks a command to stop: Ctrl-C, `kill`, a terminal that is closed.

use std::io;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Where Linux tells which signals this process was started to ignore, as a mask in hex.
const OWN_STATUS: &str = "/proc/self/status";

/// The signals; from its making on they do not end the process by themselves.
#[derive(Debug)]
pub(super) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
    /// None under `nohup`, which means that the command is to outlive its terminal.
    hang_up: Option<Signal>,
}

impl Interrupts {
    pub(super) fn new() -> io::Result<Self> {
        let status = std::fs::read_to_string(OWN_STATUS).unwrap_or_default();
        let hang_up =
            if is_ignored(&status, SignalKind::hangup()) { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())?, hang_up })
    }

    /// Waits for one of them, and gives the exit code that shells expect then.
    pub(super) async fn next(&mut self) -> ExitCode {
        let hung_up = async {
            match &mut self.hang_up {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = hung_up => SignalKind::hangup(),
        };
        ExitCode::from(128 + u8::try_from(kind.as_raw_value()).unwrap_or(0))
    }
}

fn is_ignored(status: &str, kind: SignalKind) -> bool {
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (kind.as_raw_value() - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nohup_ignores_is_left_alone() {
        let status = "Name:\tx\nSigBlk:\t0000000000000001\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000000\n";
        assert!(is_ignored(status, SignalKind::hangup()));
        assert!(!is_ignored(status, SignalKind::interrupt()));
        assert!(!is_ignored("", SignalKind::hangup()));
    }
}
