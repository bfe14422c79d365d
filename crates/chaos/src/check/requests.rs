//! What became of requests: which failures a fault explains, and which nothing does.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::history::{Entry, Event};
use crate::schedule::Kind;

/// After a fault was taken back, how long requests may still fail because of it.
const AFTERMATH_MS: u64 = 15_000;

/// Faults by what they mean for requests.
struct Windows {
    /// Restarts of all processes of the API, one after the other: number, from, to.
    graceful: Vec<(usize, u64, u64)>,
    /// When requests may fail: from, to.
    harsh: Vec<(u64, u64)>,
}

impl Windows {
    fn of(history: &[Entry]) -> Self {
        let (mut graceful, mut harsh) = (Vec::new(), Vec::new());
        for (number, kind, target, from, to) in windows(history) {
            // Tasks that run, and not requests, meet destinations and the runners.
            let is_graceful = kind == Kind::Restart && target == "api";
            if is_graceful {
                graceful.push((number, from, to));
            } else if !is_harmless(kind, target) {
                harsh.push((from, to.saturating_add(AFTERMATH_MS)));
            }
        }
        Self { graceful, harsh }
    }

    /// Whether a request may fail at any time between these.
    fn is_excused(&self, began_ms: u64, ended_ms: u64) -> bool {
        self.harsh.iter().any(|&(from, to)| began_ms <= to && ended_ms >= from)
    }
}

/// How many rolling restarts there were, and in how many of them no harsh fault excused a request: these prove something.
pub(crate) fn rolling_restarts(history: &[Entry]) -> (usize, usize) {
    let windows = Windows::of(history);
    let clear = windows.graceful.iter().filter(|(_, from, to)| !windows.is_excused(*from, *to)).count();
    (windows.graceful.len(), clear)
}

/// Requests that failed while processes of the API were restarted gracefully, and nothing else was wrong.
pub(super) fn refused(history: &[Entry]) -> Vec<Violation> {
    let windows = Windows::of(history);
    let mut found = Vec::new();
    for Entry { at_ms, event } in history {
        let Event::Call { action, began_ms, status, error, .. } = event else { continue };
        // A wait is told to come back: that is its answer.
        let has_failed = error.is_some() || status.is_some_and(|status| status >= 500) && action != "wait";
        if has_failed && !windows.is_excused(*began_ms, *at_ms) {
            let during = windows.graceful.iter().find(|(_, from, to)| *began_ms <= *to && *at_ms >= *from);
            if let Some((number, ..)) = during {
                let answer = error.clone().unwrap_or_else(|| format!("{status:?}"));
                found.push(Violation::Refused(format!("{action} at {at_ms} ms, fault {number}: {answer}")));
            }
        }
    }
    found
}

/// Requests that were told that they are wrong, although no client here asks for anything wrong.
pub(super) fn rejected(history: &[Entry]) -> Vec<Violation> {
    let mut taken_back = BTreeSet::new();
    let mut uploaded = BTreeSet::new();
    let mut found = Vec::new();
    for Entry { at_ms, event } in history {
        if let Event::Deleting { tag } | Event::Cancelling { tag } = event {
            taken_back.insert(tag.as_str());
        }
        let Event::Call { action, tag, status, .. } = event else { continue };
        let tag = tag.as_deref().unwrap_or_default();
        let is_again = action == "upload" && !uploaded.insert(tag);
        let Some(status) = status.filter(|status| (400..500).contains(status)) else { continue };
        let is_expected = match (action.as_str(), status) {
            // The task has its file from a form whose answer was lost, or waits for none any more.
            ("upload", 409) => is_again || taken_back.contains(tag),
            // It ended a moment before.
            ("cancel", 422) => true,
            ("show" | "wait" | "events" | "upload" | "cancel" | "delete" | "fetch", 404) => taken_back.contains(tag),
            _ => false,
        };
        if !is_expected {
            found.push(Violation::Rejected(format!("{action} of {tag:?} at {at_ms} ms: {status}")));
        }
    }
    found
}

/// Whether requests of clients notice nothing of a fault.
fn is_harmless(kind: Kind, target: &str) -> bool {
    let is_runner = target.starts_with("runner");
    match kind {
        Kind::DestinationErrors | Kind::DestinationAnswersLost | Kind::DestinationCut => true,
        Kind::Kill
        | Kind::Freeze
        | Kind::Restart
        | Kind::DatabaseCut
        | Kind::FilesCut
        | Kind::WorldCut
        | Kind::Unplugged
        | Kind::DiskFull => is_runner,
        Kind::DatabaseCrash | Kind::BackendsEnded | Kind::FilesErrors | Kind::FilesAnswersLost => false,
    }
}

/// All faults with the time from their beginning to their end: number, kind, target, from, to.
pub(crate) fn windows(history: &[Entry]) -> Vec<(usize, Kind, &str, u64, u64)> {
    let mut found: BTreeMap<usize, (usize, Kind, &str, u64, u64)> = BTreeMap::new();
    for Entry { at_ms, event } in history {
        if let Event::Fault { number, kind, target } = event {
            found.insert(*number, (*number, *kind, target, *at_ms, u64::MAX));
        } else if let Event::Healed { number } = event
            && let Some(window) = found.get_mut(number)
        {
            window.4 = *at_ms;
        }
    }
    found.into_values().collect()
}
