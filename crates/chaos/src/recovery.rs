//! How long it took to get over faults, by their kind and by whom they struck.
//!
//! Work is what clients saw of tasks: when each was first seen being worked on, and when it was first seen to have ended.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::windows;
use crate::history::{Entry, Event, Status};
use crate::schedule::Kind;

/// All faults of a kind that struck somebody of a sort. Times are in milliseconds: from the beginning of a fault, or from its end
/// where it lasts as long as the schedule says ([`Kind::lasts`]).
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    /// How often it struck.
    pub(crate) faults: usize,
    /// How long each lasted.
    pub(crate) lasted: Vec<u64>,
    /// Until what was struck said that it is ready.
    pub(crate) ready: Vec<u64>,
    /// Until the next task was seen to finish.
    pub(crate) next: Vec<u64>,
    /// Until the last of the tasks that were being worked on at its beginning had ended.
    pub(crate) struck: Vec<u64>,
    /// Requests that it failed, by place.
    pub(crate) spoilt: BTreeMap<String, u64>,
}

impl Recovery {
    /// Adds those of another run.
    pub(crate) fn add(&mut self, other: Self) {
        self.faults += other.faults;
        self.lasted.extend(other.lasted);
        self.ready.extend(other.ready);
        self.next.extend(other.next);
        self.struck.extend(other.struck);
        for (place, requests) in other.spoilt {
            *self.spoilt.entry(place).or_default() += requests;
        }
    }
}

/// By kind and sort of target, in that order.
pub(crate) fn recoveries(history: &[Entry]) -> BTreeMap<(Kind, String), Recovery> {
    let ready: BTreeMap<usize, u64> = (history.iter())
        .filter_map(|entry| if let Event::Ready { number } = entry.event { Some((number, entry.at_ms)) } else { None })
        .collect();
    let deleted: BTreeSet<&str> = (history.iter())
        .filter_map(|entry| if let Event::Deleting { tag } = &entry.event { Some(tag.as_str()) } else { None })
        .collect();
    let lives = lives(history);
    let of_others = lives.iter().filter(|((tag, _), _)| !deleted.contains(tag));
    let ends: Vec<(u64, u64)> = of_others.filter_map(|(_, life)| Some((life.began?, life.ended?))).collect();
    let mut found: BTreeMap<(Kind, String), Recovery> = BTreeMap::new();
    let mut keys = BTreeMap::new();
    for (number, kind, target, from, to) in windows(history) {
        let sort = target.split('-').next().unwrap_or(target);
        let key = (kind, sort.to_owned());
        let recovery = found.entry(key.clone()).or_default();
        keys.insert(number, key);
        recovery.faults += 1;
        let zero = if kind.lasts() { to } else { from };
        if zero == u64::MAX {
            continue;
        }
        recovery.lasted.push(to.saturating_sub(from));
        recovery.ready.extend(ready.get(&number).map(|at| at.saturating_sub(zero)));
        let next = ends.iter().map(|(_, ended)| *ended).filter(|ended| *ended >= zero).min();
        recovery.next.extend(next.map(|at| at - zero));
        let struck = ends.iter().filter(|(began, ended)| *began < from && *ended >= from);
        recovery.struck.extend(struck.map(|(_, ended)| ended.saturating_sub(zero)).max());
    }
    for Entry { event, .. } in history {
        if let Event::Spoilt { number, place, requests } = event
            && let Some(recovery) = keys.get(number).and_then(|key| found.get_mut(key))
        {
            *recovery.spoilt.entry(place.clone()).or_default() += requests;
        }
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

/// The median of some times and the worst of them, in seconds.
pub(crate) fn median_worst(times_ms: &[u64]) -> String {
    let mut sorted = times_ms.to_vec();
    sorted.sort_unstable();
    let seconds = |at_ms: u64| format!("{}.{}", at_ms / 1000, at_ms % 1000 / 100);
    match sorted.last() {
        None => "-".to_owned(),
        Some(worst) => format!("{} / {}", seconds(sorted[sorted.len() / 2]), seconds(*worst)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(number: usize, kind: Kind, target: &str) -> Event {
        Event::Fault { number, kind, target: target.to_owned() }
    }

    fn seen(task: &str, status: Status) -> Event {
        let (client, tag, task) = ("a".to_owned(), "t".to_owned(), Some(task.to_owned()));
        Event::Seen { client, tag, task, status, code: None }
    }

    #[test]
    fn times_begin_with_a_kill_and_end_with_a_cut() {
        let spoilt = Event::Spoilt { number: 1, place: "s3".to_owned(), requests: 3 };
        let events = [
            (0, seen("a", Status::Processing)),
            (1000, fault(0, Kind::Kill, "runner-2")),
            (1500, Event::Healed { number: 0 }),
            (1700, Event::Ready { number: 0 }),
            (2000, fault(1, Kind::DestinationErrors, "destinations")),
            (3000, seen("b", Status::Processing)),
            (6000, Event::Healed { number: 1 }),
            (6000, spoilt),
            (7000, seen("b", Status::Finished)),
            (9000, seen("a", Status::Finished)),
        ];
        let history: Vec<Entry> = events.into_iter().map(|(at_ms, event)| Entry { at_ms, event }).collect();
        let found = recoveries(&history);
        let kill = &found[&(Kind::Kill, "runner".to_owned())];
        assert_eq!((kill.faults, &kill.ready, &kill.next, &kill.struck), (1, &vec![700], &vec![6000], &vec![8000]));
        let errors = &found[&(Kind::DestinationErrors, "destinations".to_owned())];
        assert_eq!((&errors.lasted, &errors.next, &errors.struck), (&vec![4000], &vec![1000], &vec![3000]));
        assert_eq!(errors.spoilt["s3"], 3);
        assert_eq!(median_worst(&[300, 9999, 1000]), "1.0 / 9.9");
    }
}
