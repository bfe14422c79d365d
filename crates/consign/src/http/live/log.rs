//! What happened to a job and its tasks, derived from the moments in their rows: each was created, most were started, and
//! each ends. So there is a log of events that can be read again at any time, without being written anywhere.

use std::fmt;
use std::str::FromStr;

use crate::clock::Timestamp;
use crate::model::{Job, State, Task, WireStatus};

/// A step in the life of a job or a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// It was accepted.
    Created,
    /// It was started.
    Started,
    /// It ended, well or badly.
    Ended,
}

/// What a row tells of its past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Past {
    created: Timestamp,
    started: Option<Timestamp>,
    ended: Option<Timestamp>,
    /// It ended badly.
    has_failed: bool,
    /// Progress in percent.
    pub(super) percent: u8,
}

impl Past {
    /// Of a job.
    pub(super) fn of_job(job: &Job) -> Self {
        let has_failed = job.status == WireStatus::Error;
        Self { created: job.created_at, started: job.started_at, ended: job.ended_at, has_failed, percent: 0 }
    }

    /// Of a task.
    pub(super) fn of_task(task: &Task) -> Self {
        let has_failed = task.state == State::Error;
        // A task whose input failed is said to have started when it ended, but it never did.
        let started = task.started_at.filter(|_| !has_failed || task.started_at != task.ended_at);
        Self { created: task.created_at, started, ended: task.ended_at, has_failed, percent: task.percent }
    }

    /// Whether nothing follows.
    pub(super) fn is_over(&self) -> bool {
        self.ended.is_some()
    }

    /// When it ended.
    pub(super) fn ended_at(&self) -> Option<Timestamp> {
        self.ended
    }

    /// All steps so far in their order.
    pub(super) fn steps(&self) -> impl Iterator<Item = (Step, Timestamp)> + use<> {
        let steps = [(Step::Created, Some(self.created)), (Step::Started, self.started), (Step::Ended, self.ended)];
        steps.into_iter().filter_map(|(step, at)| Some((step, at?)))
    }
}

/// The name of an event about a job.
pub(super) fn job_event(step: Step, past: &Past) -> &'static str {
    match step {
        Step::Created => "job.created",
        Step::Started => "job.updated",
        Step::Ended if past.has_failed => "job.failed",
        Step::Ended => "job.finished",
    }
}

/// The name of an event about a task.
pub(super) fn task_event(step: Step, past: &Past) -> &'static str {
    match step {
        Step::Created => "task.created",
        Step::Started => "task.updated",
        Step::Ended if past.has_failed => "task.failed",
        Step::Ended => "task.finished",
    }
}

/// Names an event of a job's log, always the same one by the same name; its order is that of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventId {
    /// When it happened.
    pub at: Timestamp,
    /// What comes first of what happened in the same moment: jobs begin before their tasks and end after them.
    rank: u8,
    /// The task's position in the job, from 0.
    position: u32,
}

impl EventId {
    /// Of a step of the job.
    pub(super) fn of_job(step: Step, at: Timestamp) -> Self {
        let rank = match step {
            Step::Created => 0,
            Step::Started => 2,
            Step::Ended => 5,
        };
        Self { at, rank, position: 0 }
    }

    /// Of a step of the task at this position in the job.
    pub(super) fn of_task(position: usize, step: Step, at: Timestamp) -> Self {
        let rank = match step {
            Step::Created => 1,
            Step::Started => 3,
            Step::Ended => 4,
        };
        Self { at, rank, position: u32::try_from(position).unwrap_or(u32::MAX) }
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.at.0, self.rank, self.position)
    }
}

impl FromStr for EventId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '-');
        let mut part = || parts.next().ok_or(());
        let at = Timestamp(part()?.parse().map_err(|_| ())?);
        let rank = part()?.parse().map_err(|_| ())?;
        let position = part()?.parse().map_err(|_| ())?;
        Ok(Self { at, rank, position })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back_and_sort_as_it_happened() {
        let (early, late) = (Timestamp(1_000), Timestamp(2_000));
        let log = [
            EventId::of_job(Step::Created, early),
            EventId::of_task(0, Step::Created, early),
            EventId::of_task(1, Step::Created, early),
            EventId::of_job(Step::Started, early),
            EventId::of_task(1, Step::Started, early),
            EventId::of_task(0, Step::Ended, early),
            EventId::of_task(1, Step::Ended, late),
            EventId::of_job(Step::Ended, late),
        ];
        assert!(log.is_sorted());
        for id in log {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for wrong in ["", "1", "1-2", "1-2-", "x-0-0", "1-0-0-0", "1-999-0"] {
            assert_eq!(wrong.parse::<EventId>(), Err(()), "{wrong}");
        }
    }
}
