//! What a run showed, as text: faults and recovery times, jobs by outcome, requests, violations.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::check::{Violation, windows};
use crate::history::{Entry, Event, Status};
use crate::schedule::Kind;

/// How long it took, in milliseconds, from the beginning of each fault of a kind.
#[derive(Debug, Default)]
struct Recovery {
    faults: usize,
    /// Until what was struck said that it is ready.
    ready: Vec<u64>,
    /// Until the next task was seen to finish.
    next: Vec<u64>,
    /// Until the last of the tasks that were being worked on had ended.
    struck: Vec<u64>,
}

/// The summary of a history, with what the checker found in it.
pub fn summary(history: &[Entry], violations: &BTreeSet<Violation>) -> String {
    let mut text = String::new();
    for Entry { event, .. } in history {
        if let Event::Began { seed, fleet, .. } = event {
            let _ = writeln!(text, "seed {seed}, {fleet}\n");
        }
    }
    faults(history, &mut text);
    jobs(history, &mut text);
    requests(history, &mut text);
    let _ = writeln!(text, "\n{} violations", violations.len());
    for violation in violations {
        let _ = writeln!(text, "  {violation}");
    }
    text
}

fn faults(history: &[Entry], text: &mut String) {
    let _ = writeln!(
        text,
        "{:<36} {:>6}  {:>17}  {:>17}  {:>17}",
        "fault (median / worst in s, from its begin)", "", "ready again", "next task done", "struck work done"
    );
    for (name, recovery) in recoveries(history) {
        let [ready, next, struck] =
            [&recovery.ready, &recovery.next, &recovery.struck].map(|times| median_worst(times));
        let _ = writeln!(text, "{name:<36} {:>6}× {ready:>17}  {next:>17}  {struck:>17}", recovery.faults);
    }
    for Entry { event, .. } in history {
        if let Event::Skipped { kind, why } = event {
            let _ = writeln!(text, "{:<36} not done: {why}", kind.name());
        }
    }
}

/// Recovery times by the kind of the fault and the sort of its target.
fn recoveries(history: &[Entry]) -> BTreeMap<String, Recovery> {
    let ready: BTreeMap<usize, u64> = (history.iter())
        .filter_map(|entry| if let Event::Ready { number } = entry.event { Some((number, entry.at_ms)) } else { None })
        .collect();
    let deleted: BTreeSet<&str> = (history.iter())
        .filter_map(|entry| if let Event::Deleting { tag } = &entry.event { Some(tag.as_str()) } else { None })
        .collect();
    let lives = lives(history);
    let mut found: BTreeMap<String, Recovery> = BTreeMap::new();
    for (number, kind, target, from, _) in windows(history) {
        let sort = target.split('-').next().unwrap_or(target);
        let recovery = found.entry(format!("{} ({sort})", kind.name())).or_default();
        recovery.faults += 1;
        recovery.ready.extend(ready.get(&number).map(|at| at - from));
        let of_others = lives.iter().filter(|((tag, _), _)| !deleted.contains(tag));
        let ends: Vec<(u64, u64)> = of_others.filter_map(|(_, life)| Some((life.began?, life.ended?))).collect();
        recovery
            .next
            .extend(ends.iter().map(|(_, ended)| *ended).filter(|ended| *ended >= from).min().map(|at| at - from));
        let struck = ends.iter().filter(|(began, ended)| *began < from && *ended >= from);
        recovery.struck.extend(struck.map(|(_, ended)| ended - from).max());
    }
    found
}

/// When a task was first seen at work, and when it was first seen to have ended.
#[derive(Debug, Default)]
struct Life {
    began: Option<u64>,
    ended: Option<u64>,
}

fn lives(history: &[Entry]) -> BTreeMap<(&str, &str), Life> {
    let mut lives: BTreeMap<(&str, &str), Life> = BTreeMap::new();
    for Entry { at_ms, event } in history {
        let Event::Seen { tag, task: Some(task), status, .. } = event else { continue };
        let life = lives.entry((tag, task)).or_default();
        if *status >= Status::Processing {
            life.began.get_or_insert(*at_ms);
        }
        if status.is_terminal() {
            life.ended.get_or_insert(*at_ms);
        }
    }
    lives
}

fn median_worst(times_ms: &[u64]) -> String {
    let mut sorted = times_ms.to_vec();
    sorted.sort_unstable();
    let seconds = |at_ms: u64| format!("{}.{}", at_ms / 1000, at_ms % 1000 / 100);
    match sorted.last() {
        None => "-".to_owned(),
        Some(worst) => format!("{} / {}", seconds(sorted[sorted.len() / 2]), seconds(*worst)),
    }
}

fn jobs(history: &[Entry], text: &mut String) {
    let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
    let mut objects: BTreeMap<&str, usize> = BTreeMap::new();
    let (mut calm, mut settled, mut heard, mut running) = (None, None, 0, 0);
    for Entry { at_ms, event } in history {
        if let Event::Final { status, .. } = event {
            let outcome = match status {
                None => "deleted",
                Some(Status::Waiting | Status::Processing) => "not ended",
                Some(Status::Finished) => "finished",
                Some(Status::Error) => "error (cancelled)",
            };
            *outcomes.entry(outcome).or_default() += 1;
        } else if let Event::Delivered { place, .. } = event {
            *objects.entry(place).or_default() += 1;
        } else if let Event::Heard { .. } = event {
            heard += 1;
        } else if let Event::Running { count } = event {
            running = running.max(*count);
        } else if *event == Event::Calm {
            calm = Some(*at_ms);
        } else if *event == Event::Settled {
            settled = Some(*at_ms);
        }
    }
    let list = |counts: &BTreeMap<&str, usize>| {
        counts.iter().map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
    };
    let _ = writeln!(text, "\njobs: {}", list(&outcomes));
    let _ = writeln!(text, "objects, all read back: {}", list(&objects));
    let _ = writeln!(text, "webhooks heard: {heard}; most tasks running at once: {running}");
    if let (Some(calm), Some(settled)) = (calm, settled) {
        let _ = writeln!(text, "settled {} ms after the last fault was taken back", settled.saturating_sub(calm));
    }
}

fn requests(history: &[Entry], text: &mut String) {
    let (mut answered, mut refused, mut failed) = (0, 0, 0);
    for Entry { event, .. } in history {
        let Event::Call { status, error, .. } = event else { continue };
        if error.is_some() {
            failed += 1;
        } else if status.is_some_and(|status| status >= 500) {
            refused += 1;
        } else {
            answered += 1;
        }
    }
    let rolling =
        windows(history).iter().filter(|(_, kind, target, ..)| *kind == Kind::Restart && *target == "api").count();
    let _ = writeln!(
        text,
        "requests: {answered} answered, {refused} answered with 5xx, {failed} without an answer; {rolling} rolling restarts"
    );
}
