//! Names of hosts as labels: the name alone, and a bounded number of them.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use super::Metrics;
use super::labels::HostRetryLabels;
use crate::error::Code;

/// Hosts that a process tells apart; what comes later is [`OTHER`]. Who came first keeps its place until the restart, as series
/// that vanish and come again would be worse to reckon with: one user with many hosts can use them up.
pub const HOSTS_MAX: usize = 64;
/// Longest name of a host.
const NAME_BYTES_MAX: usize = 253;
/// Whoever has no label of its own.
pub const OTHER: &str = "other";

/// The hosts that have a label of their own.
#[derive(Debug, Default)]
pub(super) struct Hosts(Mutex<BTreeSet<String>>);

impl Hosts {
    /// The label of a host, which may come with its port.
    pub(super) fn label(&self, host: &str) -> String {
        let Some(name) = name(host) else { return OTHER.to_owned() };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(&name) {
            return name;
        }
        if known.len() >= HOSTS_MAX {
            return OTHER.to_owned();
        }
        known.insert(name.clone());
        name
    }
}

impl Metrics {
    /// Counts a request to a host that is made again while a file is moved.
    pub fn host_retried(&self, host: &str, reason: Code) {
        let labels = HostRetryLabels { host: self.hosts.label(host), reason: reason.wire() };
        self.host_retries.get_or_create(&labels).inc();
    }
}

/// The name alone: what is no name of a host may be anything, and is not shown.
fn name(host: &str) -> Option<String> {
    if host.contains(['@', '/']) {
        return None;
    }
    let bare = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None if host.matches(':').count() == 1 => host.split_once(':')?.0,
        None => host,
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
    let fits = !bare.is_empty() && bare.len() <= NAME_BYTES_MAX && bare.bytes().all(is_name);
    fits.then(|| bare.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_the_name_alone() {
        let hosts = Hosts::default();
        for (host, label) in [
            ("Files.Example.test:8443", "files.example.test"),
            ("[::1]:9000", "::1"),
            ("::1", "::1"),
            ("10.0.0.1", "10.0.0.1"),
            ("user:secret@host", OTHER),
            ("host/path?sig=x", OTHER),
            ("", OTHER),
        ] {
            assert_eq!(hosts.label(host), label, "{host}");
        }
    }

    #[test]
    fn the_number_of_hosts_is_bounded() {
        let hosts = Hosts::default();
        let labels: BTreeSet<String> = (0..1000).map(|n| hosts.label(&format!("h{n}.test"))).collect();
        assert_eq!(labels.len(), HOSTS_MAX + 1);
        assert!(labels.contains(OTHER) && labels.contains("h63.test") && !labels.contains("h64.test"));
        assert_eq!(hosts.label("h0.test"), "h0.test", "who was first keeps its label");
    }
}
