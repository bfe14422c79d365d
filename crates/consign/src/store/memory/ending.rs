//! What follows when tasks end.

use std::collections::BTreeMap;

use super::{Outcome, Rows, TaskRow};
use crate::clock::Timestamp;
use crate::error::Code;
use crate::id::{EventId, JobId, TaskId, UserId};
use crate::model::{EventKind, State, WireStatus};
use crate::store::OutboxLine;

/// How a task ends.
#[derive(Clone, Debug)]
pub(super) enum End {
    Finished,
    /// In an error that counts unless the task ignores it.
    Error {
        code: String,
        message: String,
    },
    /// Because of its inputs; `forgiven` when none of their errors counts.
    Inputs {
        forgiven: bool,
    },
}

impl End {
    pub(super) fn error(code: Code, message: &str) -> Self {
        Self::Error { code: code.wire().to_owned(), message: message.to_owned() }
    }
}

/// What a blocked task's inputs say.
enum Verdict {
    Wait,
    Ready,
    End { forgiven: bool },
}

impl TaskRow {
    fn verdict(&self) -> Verdict {
        let are = |wanted: Option<Outcome>| self.inputs.iter().any(|(_, outcome)| *outcome == wanted);
        if are(Some(Outcome::Failed)) {
            Verdict::End { forgiven: false }
        } else if are(None) {
            Verdict::Wait
        } else if are(Some(Outcome::Finished)) || self.inputs.is_empty() {
            Verdict::Ready
        } else {
            Verdict::End { forgiven: true }
        }
    }
}

impl Rows {
    /// Ends tasks, and whatever ends or becomes ready because of that.
    pub(super) fn end_all(&mut self, ids: &[TaskId], end: &End, now: Timestamp) {
        for &id in ids {
            self.end_row(id, end, now);
        }
        self.draw_consequences(ids.to_vec(), Vec::new(), now);
    }

    /// Moves new tasks on as far as their inputs let them.
    pub(super) fn begin(&mut self, ids: &[TaskId], now: Timestamp) {
        let (mut ended, mut ready) = (Vec::new(), Vec::new());
        for &id in ids {
            self.judge(id, &mut ended, &mut ready, now);
        }
        self.draw_consequences(ended, ready, now);
    }

    /// Tells those that wait for a task how it ended, and so on for those that end because of it.
    fn draw_consequences(&mut self, mut ended: Vec<TaskId>, mut ready: Vec<TaskId>, now: Timestamp) {
        while let Some(id) = ended.pop() {
            let outcome = self.task(id).outcome();
            for waiting in self.dependents.get(&id).cloned().unwrap_or_default() {
                let Some(row) = self.tasks.get_mut(&waiting) else { continue };
                row.inputs.iter_mut().filter(|(input, _)| *input == id).for_each(|(_, known)| *known = outcome);
                self.judge(waiting, &mut ended, &mut ready, now);
            }
        }
        let mut turns = BTreeMap::new();
        for id in ready {
            let user = self.task(id).task.user_id;
            let turn = turns.entry(user).or_insert_with(|| self.next_turn(user));
            let row = self.task_mut(id);
            (row.task.state, row.turn, row.ready_at) = (State::Queued, *turn, Some(now));
            *turn += 1;
        }
    }

    /// Ends a blocked task, or calls it ready, if its inputs say so.
    fn judge(&mut self, id: TaskId, ended: &mut Vec<TaskId>, ready: &mut Vec<TaskId>, now: Timestamp) {
        if self.task(id).task.state != State::Blocked {
            return;
        }
        match self.task(id).verdict() {
            Verdict::Wait => {}
            Verdict::Ready => ready.push(id),
            Verdict::End { forgiven } => {
                self.end_row(id, &End::Inputs { forgiven }, now);
                ended.push(id);
            }
        }
    }

    /// A newcomer's turn is now; others come behind their own last one, whether it is queued or was claimed.
    fn next_turn(&self, user: UserId) -> i64 {
        let queued = self.tasks.values().filter(|row| row.task.state == State::Queued && row.task.user_id == user);
        let last = queued.map(|row| row.turn).chain(self.claimed.get(&user).copied()).max().unwrap_or(0);
        self.turn.max(last + 1)
    }

    /// Writes the end of one task, and of its job if it was the last.
    fn end_row(&mut self, id: TaskId, end: &End, now: Timestamp) {
        let row = self.task_mut(id);
        let task = &mut row.task;
        task.ended_at = Some(now);
        match end {
            End::Finished => (task.state, task.percent) = (State::Finished, 100),
            End::Error { code, message } => {
                (task.state, task.code, task.message) = (State::Error, Some(code.clone()), Some(message.clone()));
                row.forgiven = task.ignore_error;
            }
            End::Inputs { forgiven } => {
                task.state = State::Error;
                task.code = Some(Code::InputTaskFailed.wire().to_owned());
                task.message = Some("Input task has failed".to_owned());
                task.started_at = Some(now);
                row.forgiven = task.ignore_error || *forgiven;
            }
        }
        (row.lease, row.not_before) = (None, None);
        let (job, outcome) = (row.task.job_id, row.outcome());
        for ((task, _), line) in &mut self.ledger {
            if *task == id && line.due_at.is_none() {
                line.due_at = Some(now);
            }
        }
        if let Some(job) = job {
            self.end_in_job(job, id, outcome, now);
        }
    }

    fn end_in_job(&mut self, id: JobId, task: TaskId, outcome: Option<Outcome>, now: Timestamp) {
        let row = self.jobs.get_mut(&id).expect("a job stays as long as its tasks");
        row.open.remove(&task);
        row.has_failed |= outcome == Some(Outcome::Failed);
        if !row.open.is_empty() {
            return;
        }
        row.job.ended_at = Some(now);
        let (status, event) = if row.has_failed {
            (WireStatus::Error, EventKind::JobFailed)
        } else {
            (WireStatus::Finished, EventKind::JobFinished)
        };
        row.job.status = status;
        self.note(id, event, now);
    }

    /// A task of this job started: the job has too.
    pub(super) fn start_job(&mut self, id: Option<JobId>, now: Timestamp) {
        let Some(row) = id.and_then(|id| self.jobs.get_mut(&id)) else { return };
        if row.job.status == WireStatus::Waiting {
            (row.job.status, row.job.started_at) = (WireStatus::Processing, Some(now));
        }
    }

    /// Writes a line of the outbox, if there is somebody to be told.
    pub(super) fn note(&mut self, job: JobId, event: EventKind, now: Timestamp) {
        let about = &self.jobs[&job].job;
        let user_id = about.user_id;
        let has_webhook = self.webhooks.values().any(|webhook| webhook.user_id == user_id && !webhook.disabled);
        if has_webhook || (event.is_end() && about.webhook_url.is_some()) {
            self.outbox.push((now, OutboxLine { id: EventId::new(now), user_id, job_id: job, event }));
        }
    }

    pub(super) fn is_untold(&self, job: JobId) -> bool {
        self.outbox.iter().any(|(_, line)| line.job_id == job)
    }
}
