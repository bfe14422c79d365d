//! What a subscriber has been told of, so that it is told everything once.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::log::{Past, Step};
use crate::clock::Timestamp;

/// Jobs or tasks remembered for one subscriber; beyond, those that ended are forgotten first.
const MARKS_MAX: usize = 10_000;

/// How much of what is met for the first time counts as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Newcomer {
    /// What happened before this moment.
    Since(Timestamp),
    /// All but an end: what still goes on is told from now on.
    Settled,
}

/// Something that a subscriber has not been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A step, and when it was made.
    Step(Step, Timestamp),
    /// Progress in percent, or another small change.
    Progress,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    last: Step,
    percent: u8,
    ended: Option<Timestamp>,
}

/// What a subscriber has been told of.
#[derive(Debug, Default)]
pub(super) struct Marks {
    marks: BTreeMap<Uuid, Mark>,
    /// Ends up to this moment may have been forgotten, and have been told.
    forgotten_until: Option<Timestamp>,
}

impl Marks {
    /// Takes note of what a row says now, and returns what is new in it.
    pub(super) fn advance(&mut self, id: Uuid, past: &Past, newcomer: Newcomer) -> Vec<News> {
        let news = self.news(id, past, newcomer);
        let last = past.steps().last().map_or(Step::Created, |(step, _)| step);
        self.marks.insert(id, Mark { last, percent: past.percent, ended: past.ended_at() });
        if self.marks.len() > MARKS_MAX {
            self.forget();
        }
        news
    }

    /// Whether there is anything new in what a row says now.
    pub(super) fn has_news(&self, id: Uuid, past: &Past, newcomer: Newcomer) -> bool {
        !self.news(id, past, newcomer).is_empty()
    }

    fn news(&self, id: Uuid, past: &Past, newcomer: Newcomer) -> Vec<News> {
        let known = self.marks.get(&id);
        let is_new = |step: Step, at: Timestamp| match known {
            Some(mark) => step > mark.last,
            None => self.is_new(step, at, newcomer),
        };
        let mut news: Vec<News> =
            past.steps().filter(|(step, at)| is_new(*step, *at)).map(|(step, at)| News::Step(step, at)).collect();
        let has_moved = match known {
            Some(mark) => mark.percent != past.percent,
            None => newcomer != Newcomer::Settled && past.percent > 0,
        };
        if news.is_empty() && has_moved && !past.is_over() {
            news.push(News::Progress);
        }
        news
    }

    /// Those that have not ended.
    pub(super) fn open(&self) -> impl Iterator<Item = Uuid> {
        self.marks.iter().filter(|(_, mark)| mark.ended.is_none()).map(|(id, _)| *id)
    }

    fn is_new(&self, step: Step, at: Timestamp, newcomer: Newcomer) -> bool {
        let was_told = self.forgotten_until.is_some_and(|until| at <= until);
        !was_told
            && match newcomer {
                Newcomer::Since(since) => at >= since,
                Newcomer::Settled => step == Step::Ended,
            }
    }

    fn forget(&mut self) {
        let last_end = self.marks.values().filter_map(|mark| mark.ended).max();
        self.forgotten_until = self.forgotten_until.max(last_end);
        self.marks.retain(|_, mark| mark.ended.is_none());
        while self.marks.len() > MARKS_MAX {
            // What is forgotten here is only told less exactly.
            self.marks.pop_first();
        }
    }
}
