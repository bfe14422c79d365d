//! What a run showed, as text: faults and recovery times, jobs by outcome, requests, violations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::check::{Violation, rolling_restarts};
use crate::history::{Entry, Event, Status, Whose};
use crate::recovery::{median_worst, recoveries};
use crate::schedule::Kind;

/// The summary of a history, with what the checker found in it.
pub fn summary(history: &[Entry], violations: &BTreeSet<Violation>) -> String {
    let mut text = String::new();
    for Entry { event, .. } in history {
        if let Event::Began(setup) = event {
            let overlap = if setup.overlap { "on" } else { "off" };
            let _ = writeln!(text, "seed {}, {}", setup.seed, setup.fleet);
            let _ = writeln!(text, "networks are cut by {}; transfer.overlap is {overlap}\n", setup.network);
        }
    }
    faults(history, &mut text);
    totals(history, &mut text);
    let _ = writeln!(text, "\n{} violations", violations.len());
    for violation in violations {
        let _ = writeln!(text, "  {violation}");
    }
    text
}

fn faults(history: &[Entry], text: &mut String) {
    let _ = writeln!(
        text,
        "{:<40} {:>5}  {:>15}  {:>15}  {:>15}  requests failed",
        "fault (median / worst in s)", "", "ready again", "next task done", "struck work done"
    );
    for ((kind, sort), recovery) in recoveries(history) {
        let [ready, next, struck] =
            [&recovery.ready, &recovery.next, &recovery.struck].map(|times| median_worst(times));
        let name = format!("{} ({sort}){}", kind.name(), if kind.lasts() { "*" } else { "" });
        let spoilt: Vec<String> = recovery.spoilt.iter().map(|(place, count)| format!("{count} {place}")).collect();
        let line = format!("{name:<40} {:>5}× {ready:>15}  {next:>15}  {struck:>15}", recovery.faults);
        let _ = writeln!(text, "{line}  {}", spoilt.join(", "));
    }
    let _ = writeln!(text, "* from its end; the others from their begin");
    for (kind, why) in not_done(history) {
        let _ = writeln!(text, "{:<40} NOT DONE: {why}", kind.name());
    }
}

/// What the machine did not allow.
pub(crate) fn not_done(history: &[Entry]) -> BTreeSet<(Kind, &str)> {
    let mut found = BTreeSet::new();
    for Entry { event, .. } in history {
        if let Event::Skipped { kind, why } = event {
            found.insert((*kind, why.as_str()));
        }
    }
    found
}

/// Kinds that were due, and neither struck nor could not be done.
pub(crate) fn missed(due: &BTreeSet<Kind>, history: &[Entry]) -> BTreeSet<Kind> {
    let mut missed = due.clone();
    for Entry { event, .. } in history {
        if let Event::Fault { kind, .. } | Event::Skipped { kind, .. } = event {
            missed.remove(kind);
        }
    }
    missed
}

/// What became of the jobs of a run, and what was checked of it.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) jobs: BTreeMap<&'static str, usize>,
    pub(crate) objects: BTreeMap<String, usize>,
    pub(crate) heard: usize,
    pub(crate) running: BTreeMap<Whose, u64>,
    pub(crate) counted: u64,
    /// None where nobody could look.
    pub(crate) ahead: Option<u64>,
    pub(crate) abandoned: u64,
    /// Requests that were answered, that were answered with 5xx, and those without an answer.
    pub(crate) requests: [usize; 3],
}

impl Totals {
    pub(crate) fn of(history: &[Entry]) -> Self {
        let mut totals = Self::default();
        for Entry { event, .. } in history {
            if let Event::Final { status, .. } = event {
                let outcome = match status {
                    None => "deleted",
                    Some(Status::Waiting | Status::Processing) => "not ended",
                    Some(Status::Finished) => "finished",
                    Some(Status::Error) => "cancelled",
                };
                *totals.jobs.entry(outcome).or_default() += 1;
            } else if let Event::Delivered { place, .. } = event {
                *totals.objects.entry(place.clone()).or_default() += 1;
            } else if let Event::Heard { .. } = event {
                totals.heard += 1;
            } else if let Event::Running { whose, count } = event {
                let most = totals.running.entry(*whose).or_default();
                *most = (*most).max(*count);
            } else if let Event::Counted { times } = event {
                totals.counted += times;
            } else if let Event::Ahead { uploads } = event {
                *totals.ahead.get_or_insert_default() += uploads;
            } else if let Event::Abandoned { uploads } = event {
                totals.abandoned += uploads;
            } else if let Event::Call { status, error, .. } = event {
                let became = if error.is_some() { 2 } else { usize::from(status.is_some_and(|status| status >= 500)) };
                totals.requests[became] += 1;
            }
        }
        totals
    }

    /// The most tasks of one that ran at once.
    pub(crate) fn most(&self, whose: Whose) -> u64 {
        self.running.get(&whose).copied().unwrap_or_default()
    }
}

fn totals(history: &[Entry], text: &mut String) {
    let totals = Totals::of(history);
    let jobs: Vec<String> = totals.jobs.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
    let objects: Vec<String> = totals.objects.iter().map(|(place, count)| format!("{count} {place}")).collect();
    let _ = writeln!(text, "\njobs: {}", jobs.join(", "));
    let _ = writeln!(text, "objects, all read back: {}", objects.join(", "));
    let _ = writeln!(text, "webhooks heard: {}", totals.heard);
    let _ = writeln!(
        text,
        "running tasks, counted {} times: at most {} of the user, {} of a process",
        totals.counted,
        totals.most(Whose::User),
        totals.most(Whose::Process)
    );
    let _ = writeln!(
        text,
        "uploads seen to go ahead: {}; left in the file store by the dead, and aborted: {}",
        totals.ahead.map_or_else(|| "not looked for".to_owned(), |uploads| uploads.to_string()),
        totals.abandoned
    );
    let at = |wanted: &Event| history.iter().find(|entry| entry.event == *wanted).map(|entry| entry.at_ms);
    if let (Some(calm), Some(settled)) = (at(&Event::Calm), at(&Event::Settled)) {
        let _ = writeln!(text, "settled {} ms after the last fault was taken back", settled.saturating_sub(calm));
    }
    let [answered, refused, failed] = totals.requests;
    let _ = writeln!(text, "requests: {answered} answered, {refused} answered with 5xx, {failed} without an answer");
    let (rolling, clear) = rolling_restarts(history);
    let _ = writeln!(text, "rolling restarts: {rolling}, of which {clear} clear of faults that excuse failed requests");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_never_struck_is_missed_unless_the_machine_cannot_do_it() {
        let due = BTreeSet::from([Kind::Kill, Kind::DiskFull, Kind::Unplugged]);
        let struck = Event::Fault { number: 0, kind: Kind::Kill, target: "api-1".to_owned() };
        let skipped = Event::Skipped { kind: Kind::DiskFull, why: "no root".to_owned() };
        let history = [struck, skipped].map(|event| Entry { at_ms: 0, event });
        assert_eq!(missed(&due, &history), [Kind::Unplugged].into());
        assert_eq!(missed(&due, &[]), due);
    }
}
