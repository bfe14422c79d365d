//! The checker: a pure function over a recorded history that says which promises were broken.
//!
//! Operations are registers of single jobs and tasks, so a pass over the history is enough: no search for an order that
//! would explain it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::history::{Entry, Event, Status, Whose};
use crate::jobs::{Change, Place, Spec};

mod requests;

pub(crate) use requests::{rolling_restarts, windows};

/// So many jobs whose file may go ahead make sure that one was seen to.
const JOBS_AHEAD: usize = 5;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Violation {
    /// The history ends before the system settled, or holds nothing to check.
    Incomplete(String),
    /// A job that was asked for was never acknowledged.
    NotTaken(String),
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
    /// A request was told that it is wrong, and was not.
    Rejected(String),
    /// A client gave up, or the harness itself failed.
    GaveUp(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, detail) = match self {
            Self::Incomplete(detail) => ("incomplete history", detail),
            Self::NotTaken(detail) => ("job asked for and never acknowledged", detail),
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
            Self::Rejected(detail) => ("request rejected without a reason", detail),
            Self::GaveUp(detail) => ("client gave up", detail),
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
    found.extend(requests::refused(history));
    found.extend(requests::rejected(history));
    found.extend(facts.missing().map(|what| Violation::Incomplete(what.to_owned())));
    found
}

/// What webhooks have to tell still, as a history says that is not at its end.
pub(crate) fn untold(history: &[Entry]) -> BTreeSet<Violation> {
    let mut found = BTreeSet::new();
    Facts::of(history).webhooks(&mut found);
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
    /// How often the running tasks were counted, and how many uploads were seen to go ahead.
    counted: u64,
    ahead: Option<u64>,
    has_overlap: bool,
    /// What a single event, or two of them, already prove.
    broken: BTreeSet<Violation>,
}

impl<'a> Facts<'a> {
    fn of(history: &'a [Entry]) -> Self {
        let mut facts = Self::default();
        let (mut per_user_max, mut per_process_max) = (u64::MAX, u64::MAX);
        let mut last = BTreeMap::new();
        for Entry { event, .. } in history {
            match event {
                Event::Began(setup) => {
                    (per_user_max, per_process_max) = (setup.per_user_max, setup.per_process_max);
                    facts.has_overlap = setup.overlap;
                }
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
                Event::Running { whose, count } => {
                    let (owner, max) = match whose {
                        Whose::User => ("user", per_user_max),
                        Whose::Process => ("process", per_process_max),
                    };
                    if *count > max {
                        let said = format!("{count} tasks of one {owner} ran at once, {max} may");
                        facts.broken.insert(Violation::LimitExceeded(said));
                    }
                }
                Event::Counted { times } => facts.counted += times,
                Event::Ahead { uploads } => facts.ahead = Some(*uploads),
                Event::GaveUp { why } => _ = facts.broken.insert(Violation::GaveUp(why.clone())),
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
                Event::Fault { .. }
                | Event::Healed { .. }
                | Event::Ready { .. }
                | Event::Spoilt { .. }
                | Event::Skipped { .. }
                | Event::Abandoned { .. }
                | Event::Call { .. }
                | Event::Cancelling { .. }
                | Event::Calm => {}
            }
        }
        facts
    }

    /// What a history lacks to prove anything.
    fn missing(&self) -> impl Iterator<Item = &'static str> {
        let may_go_ahead = self.accepted.keys().filter_map(|tag| self.specs.get(tag)).filter(|it| it.may_go_ahead());
        let is_ahead = self.has_overlap && self.ahead == Some(0) && may_go_ahead.count() >= JOBS_AHEAD;
        [
            (!self.is_settled, "the run did not come to its end"),
            (self.accepted.is_empty() || self.delivered.is_empty(), "nothing was accepted or delivered"),
            (self.counted == 0, "the running tasks were never counted"),
            (is_ahead, "no upload was seen to go ahead of its export, and some should"),
        ]
        .into_iter()
        .filter_map(|(is_missing, what)| is_missing.then_some(what))
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
        let is_taken = |tag: &&str| self.accepted.contains_key(*tag);
        found.extend(self.specs.keys().filter(|tag| !is_taken(tag)).map(|tag| Violation::NotTaken((*tag).to_owned())));
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

    /// Every end is told, also of jobs that are gone by now: a deletion ends a job before it removes it.
    fn webhooks(&self, found: &mut BTreeSet<Violation>) {
        let nothing = BTreeSet::new();
        for (&tag, spec) in &self.specs {
            let heard = self.heard.get(tag).unwrap_or(&nothing);
            let end = self.finals.get(tag).copied().flatten().filter(|status| status.is_terminal());
            let end = end.or_else(|| self.ends.get(&(tag, None)).copied()).map(|status| match status {
                Status::Error => "job.failed",
                Status::Waiting | Status::Processing | Status::Finished => "job.finished",
            });
            let is_gone = self.deleted.contains(tag) || self.finals.get(tag) == Some(&None);
            let is_due = spec.has_webhook && self.accepted.contains_key(tag) && (end.is_some() || is_gone);
            let is_right = heard.len() == 1 && end.is_none_or(|name| heard.contains(name));
            if (is_due && heard.is_empty()) || (!heard.is_empty() && !is_right) {
                let end = end.unwrap_or("an end that nobody saw");
                found.insert(Violation::Untold(format!("{tag} ended with {end}, heard was {heard:?}")));
            }
        }
    }
}

/// The input that fails and may.
pub(crate) const LAME: &str = "lame";

#[cfg(test)]
mod tests;
