//! The checker: a pure function over a recorded history that says which promises were broken.
//!
//! Operations are registers of single jobs and tasks, so a pass over the history is enough: no search for an order that
//! would explain it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::history::{Entry, Event, Status};
use crate::jobs::{Change, Place, Spec};
use crate::schedule::Kind;

/// After a fault was taken back, how long requests may still fail because of it.
const AFTERMATH_MS: u64 = 15_000;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// The history ends before the system settled, or holds nothing to check.
    Incomplete(String),
    /// A job that was acknowledged is not there.
    Lost(String),
    /// A job whose deletion was acknowledged is there.
    CameBack(String),
    /// The same creation made two jobs.
    Doubled(String),
    /// A job has not ended.
    NotSettled(String),
    /// A job or task failed although nobody gave it a reason to.
    Failed(String),
    /// A client saw a status after a later one.
    WentBack(String),
    /// An end became another one.
    EndChanged(String),
    /// A finished export has no object.
    NotDelivered(String),
    /// An object has bytes that are not those of its file.
    WrongBytes(String),
    /// An object that no job asked for.
    Stray(String),
    /// A webhook did not hear of an end, or heard of another one.
    Untold(String),
    /// A webhook was told with a wrong signature.
    Forged(String),
    /// More tasks ran than may.
    LimitExceeded(String),
    /// Something stayed that should be gone.
    LeftOver(String),
    /// A process ended by itself.
    Died(String),
    /// A request failed because a process was restarted gracefully.
    Refused(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, detail) = match self {
            Self::Incomplete(detail) => ("incomplete history", detail),
            Self::Lost(detail) => ("acknowledged job lost", detail),
            Self::CameBack(detail) => ("deleted job is back", detail),
            Self::Doubled(detail) => ("one creation, several jobs", detail),
            Self::NotSettled(detail) => ("job has not ended", detail),
            Self::Failed(detail) => ("failed without a reason", detail),
            Self::WentBack(detail) => ("status went backwards", detail),
            Self::EndChanged(detail) => ("terminal state changed", detail),
            Self::NotDelivered(detail) => ("finished but not delivered", detail),
            Self::WrongBytes(detail) => ("wrong bytes", detail),
            Self::Stray(detail) => ("object of no job", detail),
            Self::Untold(detail) => ("webhook missing", detail),
            Self::Forged(detail) => ("webhook with a wrong signature", detail),
            Self::LimitExceeded(detail) => ("limit exceeded", detail),
            Self::LeftOver(detail) => ("left over", detail),
            Self::Died(detail) => ("process ended by itself", detail),
            Self::Refused(detail) => ("request failed in a graceful restart", detail),
        };
        write!(f, "{what}: {detail}")
    }
}

/// Says which promises a history breaks; nothing when all were kept.
pub fn check(history: &[Entry]) -> BTreeSet<Violation> {
    let facts = Facts::of(history);
    let mut found = facts.broken.clone();
    facts.jobs(&mut found);
    facts.destinations(&mut found);
    facts.webhooks(&mut found);
    found.extend(refused(history));
    if !facts.is_settled {
        found.insert(Violation::Incomplete("the run did not come to its end".to_owned()));
    }
    if facts.accepted.is_empty() || facts.delivered.is_empty() {
        found.insert(Violation::Incomplete("nothing was accepted or delivered: it proves nothing".to_owned()));
    }
    found
}

/// What a history says, sorted by what it is about.
#[derive(Default)]
struct Facts<'a> {
    specs: BTreeMap<&'a str, &'a Spec>,
    /// Ids by tag, of acknowledged creations and of the list of all jobs.
    accepted: BTreeMap<&'a str, BTreeSet<&'a str>>,
    listed: BTreeMap<&'a str, BTreeSet<&'a str>>,
    deleting: BTreeSet<&'a str>,
    deleted: BTreeSet<&'a str>,
    /// Ends by tag and task, as somebody saw them.
    ends: BTreeMap<(&'a str, Option<&'a str>), Status>,
    finals: BTreeMap<&'a str, Option<Status>>,
    /// Codes of tasks that ended badly.
    codes: BTreeMap<&'a str, BTreeMap<&'a str, &'a str>>,
    delivered: BTreeMap<(&'a str, &'a str), &'a str>,
    heard: BTreeMap<&'a str, BTreeSet<&'a str>>,
    is_settled: bool,
    /// What a single event, or two of them, already prove.
    broken: BTreeSet<Violation>,
}

impl<'a> Facts<'a> {
    fn of(history: &'a [Entry]) -> Self {
        let mut facts = Self::default();
        let mut running_max = u64::MAX;
        let mut last = BTreeMap::new();
        for Entry { event, .. } in history {
            match event {
                Event::Began { running_max: max, .. } => running_max = *max,
                Event::Asked { spec } => _ = facts.specs.insert(&spec.tag, spec),
                Event::Accepted { tag, job } => _ = facts.accepted.entry(tag).or_default().insert(job),
                Event::Listed { tag, job } => _ = facts.listed.entry(tag).or_default().insert(job),
                Event::Seen { client, tag, task, status, code } => {
                    let before = last.insert((client, tag, task), *status);
                    facts.seen(client, tag, task.as_deref(), before, *status);
                    if let (Some(task), Some(code)) = (task, code) {
                        facts.codes.entry(tag).or_default().insert(task, code);
                    }
                }
                Event::Deleting { tag } => _ = facts.deleting.insert(tag),
                Event::Deleted { tag } => _ = facts.deleted.insert(tag),
                Event::Heard { tag, name, is_genuine } => {
                    facts.heard.entry(tag).or_default().insert(name);
                    if !is_genuine {
                        facts.broken.insert(Violation::Forged(format!("{name} of {tag}")));
                    }
                }
                Event::Running { count } if *count > running_max => {
                    let said = format!("{count} tasks of one user ran at once, {running_max} may");
                    facts.broken.insert(Violation::LimitExceeded(said));
                }
                Event::Final { tag, status } => {
                    facts.finals.insert(tag, *status);
                    if let Some(status) = status {
                        facts.ended(tag, None, *status);
                    }
                }
                Event::Delivered { place, name, sha256 } => {
                    facts.delivered.insert((place, name), sha256);
                }
                Event::LeftOver { place, what } => {
                    facts.broken.insert(Violation::LeftOver(format!("{place}: {what}")));
                }
                Event::Died { process, how } => {
                    facts.broken.insert(Violation::Died(format!("{process}: {how}")));
                }
                Event::Settled => facts.is_settled = true,
                Event::Running { .. }
                | Event::Fault { .. }
                | Event::Healed { .. }
                | Event::Ready { .. }
                | Event::Skipped { .. }
                | Event::Call { .. }
                | Event::Cancelling { .. }
                | Event::Calm => {}
            }
        }
        facts
    }

    /// A client saw a status, and another one before.
    fn seen(&mut self, client: &str, tag: &'a str, task: Option<&'a str>, before: Option<Status>, now: Status) {
        if let Some(before) = before.filter(|before| *before > now) {
            let what = task.unwrap_or("the job");
            let said = format!("{client} saw {what} of {tag} go from {before:?} to {now:?}");
            self.broken.insert(Violation::WentBack(said));
        }
        self.ended(tag, task, now);
    }

    /// Somebody saw a status: an end must be the same for everybody, for ever.
    fn ended(&mut self, tag: &'a str, task: Option<&'a str>, status: Status) {
        if !status.is_terminal() {
            return;
        }
        let first = *self.ends.entry((tag, task)).or_insert(status);
        if first != status {
            let what = task.unwrap_or("the job");
            self.broken.insert(Violation::EndChanged(format!("{what} of {tag} was {first:?} and became {status:?}")));
        }
    }

    fn jobs(&self, found: &mut BTreeSet<Violation>) {
        for (&tag, ids) in self.accepted.iter().chain(&self.listed) {
            if ids.len() > 1 {
                found.insert(Violation::Doubled(format!("{tag} is {ids:?}")));
            }
        }
        for &tag in self.accepted.keys() {
            match self.finals.get(tag).copied().flatten() {
                None if !self.deleting.contains(tag) => {
                    found.insert(Violation::Lost(tag.to_owned()));
                }
                None => {}
                Some(_) if self.deleted.contains(tag) => {
                    found.insert(Violation::CameBack(tag.to_owned()));
                }
                Some(status) if !status.is_terminal() => {
                    found.insert(Violation::NotSettled(format!("{tag} is {status:?}")));
                }
                Some(status) => found.extend(self.specs.get(tag).and_then(|spec| self.failed(spec, status))),
            }
        }
    }

    /// A job fails only when somebody cancelled something of it.
    fn failed(&self, spec: &Spec, status: Status) -> Option<Violation> {
        let nobody = BTreeMap::new();
        let codes = self.codes.get(spec.tag.as_str()).unwrap_or(&nobody);
        let is_cancelled = matches!(spec.change, Change::Cancel(_));
        let mut unexpected = codes.clone();
        unexpected.retain(|task, code| *task != LAME && !(is_cancelled && *code == "CANCELLED"));
        let is_wrong = !unexpected.is_empty() || status == Status::Error && !is_cancelled;
        is_wrong.then(|| Violation::Failed(format!("{} ended as {status:?}: {unexpected:?}", spec.tag)))
    }

    fn destinations(&self, found: &mut BTreeSet<Violation>) {
        let mut wanted: BTreeMap<(&str, String), &Spec> = BTreeMap::new();
        for spec in self.specs.values() {
            for place in &spec.exports {
                wanted.insert((place.name(), spec.object()), spec);
            }
        }
        for (&(place, name), &sha256) in &self.delivered {
            match wanted.get(&(place, name.to_owned())) {
                None => found.insert(Violation::Stray(format!("{place}: {name}"))),
                Some(spec) if spec.sha256() != sha256 => {
                    found.insert(Violation::WrongBytes(format!("{place}: {name} is {sha256}")))
                }
                Some(_) => false,
            };
        }
        for ((place, name), spec) in &wanted {
            let task = format!("to-{place}");
            let end = self.ends.get(&(spec.tag.as_str(), Some(task.as_str())));
            // A link dies with its job; an object does not.
            let is_gone = *place == Place::Url.name() && self.deleting.contains(spec.tag.as_str());
            if end == Some(&Status::Finished) && !is_gone && !self.delivered.contains_key(&(*place, name.as_str())) {
                found.insert(Violation::NotDelivered(format!("{place}: {name}")));
            }
        }
    }

    fn webhooks(&self, found: &mut BTreeSet<Violation>) {
        for (&tag, status) in &self.finals {
            let name = match status {
                Some(Status::Finished) => "job.finished",
                Some(Status::Error) => "job.failed",
                Some(Status::Waiting | Status::Processing) | None => continue,
            };
            let is_wanted = self.specs.get(tag).is_some_and(|spec| spec.has_webhook) && self.accepted.contains_key(tag);
            let nothing = BTreeSet::new();
            let heard = self.heard.get(tag).unwrap_or(&nothing);
            let is_right = heard.len() == 1 && heard.contains(name);
            if (is_wanted && heard.is_empty()) || (!heard.is_empty() && !is_right) {
                found.insert(Violation::Untold(format!("{tag} ended with {name}, heard was {heard:?}")));
            }
        }
    }
}

/// The input that fails and may.
pub(crate) const LAME: &str = "lame";

/// Requests that failed while processes of the API were restarted gracefully, and nothing else was wrong.
fn refused(history: &[Entry]) -> Vec<Violation> {
    let mut graceful = Vec::new();
    let mut harsh = Vec::new();
    for (number, kind, target, from, to) in windows(history) {
        // Tasks that run, and not requests, meet destinations and the runners.
        let is_graceful = kind == Kind::Restart && target == "api";
        if is_graceful {
            graceful.push((number, from, to));
        } else if !is_harmless(kind, target) {
            harsh.push((from, to.saturating_add(AFTERMATH_MS)));
        }
    }
    let mut found = Vec::new();
    for Entry { at_ms, event } in history {
        let Event::Call { action, began_ms, status, error } = event else { continue };
        let overlaps = |&(from, to): &(u64, u64)| *began_ms <= to && *at_ms >= from;
        // A wait is told to come back: that is its answer.
        let has_failed = error.is_some() || status.is_some_and(|status| status >= 500) && action != "wait";
        if has_failed && !harsh.iter().any(overlaps) {
            let during = graceful.iter().find(|(_, from, to)| overlaps(&(*from, *to)));
            if let Some((number, ..)) = during {
                let answer = error.clone().unwrap_or_else(|| format!("{status:?}"));
                found.push(Violation::Refused(format!("{action} at {at_ms} ms, fault {number}: {answer}")));
            }
        }
    }
    found
}

/// Whether requests of clients notice nothing of a fault.
fn is_harmless(kind: Kind, target: &str) -> bool {
    let is_runner = target.starts_with("runner");
    match kind {
        Kind::DestinationErrors | Kind::DestinationAnswersLost | Kind::DestinationCut => true,
        Kind::Kill | Kind::Freeze | Kind::Restart | Kind::DatabaseCut | Kind::FilesCut | Kind::DiskFull => is_runner,
        Kind::DatabaseCrash | Kind::BackendsEnded => false,
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

#[cfg(test)]
mod tests;
