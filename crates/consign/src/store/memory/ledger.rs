//! Uploads that are open at destinations.

use async_trait::async_trait;
use connectors::{OpenUpload, Part};

use super::{Line, MemoryStore, Rows, TaskRow};
use crate::clock::Timestamp;
use crate::id::{TaskId, Token};
use crate::model::{Follower, LedgerEntry, State};
use crate::store::{Ledger, Result};

impl Rows {
    /// The token holds the task's lease, or that of one that the task waits for.
    fn may_write_lines(&self, row: &TaskRow, token: Token) -> bool {
        let is_held = |(id, _): &(TaskId, _)| self.tasks.get(id).is_some_and(|input| input.is_held_by(token));
        row.is_held_by(token) || (row.task.state == State::Blocked && row.inputs.iter().any(is_held))
    }
}

#[async_trait]
impl Ledger for MemoryStore {
    async fn follower(&self, id: TaskId, token: Token) -> Result<Option<Follower>> {
        let rows = self.read();
        if !rows.tasks.get(&id).is_some_and(|row| row.is_held_by(token)) {
            return Ok(None);
        }
        let mut dependents = rows.tasks.values().filter(|row| row.task.depends_on.contains(&id));
        let (Some(row), None) = (dependents.next(), dependents.next()) else { return Ok(None) };
        let lines = rows.ledger.iter().filter(|((task, _), line)| *task == row.task.id && line.due_at.is_none());
        let is_all = row.task.depends_on.len() == 1 && row.task.state == State::Blocked;
        Ok(is_all.then(|| Follower {
            id: row.task.id,
            operation: row.task.operation.clone(),
            payload: row.payload.clone(),
            open: lines.map(|(_, line)| line.open.clone()).collect(),
        }))
    }

    async fn ledger_open(&self, id: TaskId, token: Token, open: &OpenUpload, _now: Timestamp) -> Result<bool> {
        Ok(self.change(|rows| {
            let Some(row) = rows.tasks.get(&id).filter(|row| rows.may_write_lines(row, token)) else { return false };
            let (operation, payload) = (row.task.operation.clone(), row.payload.clone());
            let line = Line { operation, payload, open: open.clone(), due_at: None, abort_tries: 0 };
            rows.ledger.insert((id, open.target.clone()), line);
            true
        }))
    }

    async fn ledger_seal(&self, id: TaskId, token: Token, open: &OpenUpload) -> Result<bool> {
        Ok(self.change(|rows| {
            let is_held = rows.tasks.get(&id).is_some_and(|row| rows.may_write_lines(row, token));
            let line = rows.ledger.get_mut(&(id, open.target.clone())).filter(|_| is_held);
            let line = line.filter(|line| line.open.handle == open.handle);
            line.map(|line| line.open.sha256.clone_from(&open.sha256)).is_some()
        }))
    }

    async fn ledger_part(&self, id: TaskId, token: Token, target: &str, number: u32, part: &Part) -> Result<bool> {
        Ok(self.change(|rows| {
            let is_held = rows.tasks.get(&id).is_some_and(|row| rows.may_write_lines(row, token));
            let line = rows.ledger.get_mut(&(id, target.to_owned())).filter(|_| is_held);
            line.map(|line| line.open.parts.insert(number, part.clone())).is_some()
        }))
    }

    async fn ledger_close(&self, id: TaskId, token: Token, target: &str) -> Result<bool> {
        Ok(self.change(|rows| {
            let is_held = rows.tasks.get(&id).is_some_and(|row| rows.may_write_lines(row, token));
            if is_held {
                rows.ledger.remove(&(id, target.to_owned()));
            }
            is_held
        }))
    }

    async fn ledger_aborted(&self, id: TaskId, target: &str) -> Result<()> {
        let key = (id, target.to_owned());
        self.change(|rows| {
            if rows.ledger.get(&key).is_some_and(|line| line.due_at.is_some()) {
                rows.ledger.remove(&key);
            }
        });
        Ok(())
    }

    async fn ledger_orphans(&self, now: Timestamp, limit: u32) -> Result<Vec<LedgerEntry>> {
        let rows = self.read();
        let mut due: Vec<_> =
            rows.ledger.iter().filter(|(_, line)| line.due_at.is_some_and(|due_at| due_at <= now)).collect();
        due.sort_by_key(|(_, line)| line.due_at);
        due.truncate(limit as usize);
        Ok(due
            .into_iter()
            .map(|((task_id, _), line)| LedgerEntry {
                task_id: *task_id,
                operation: line.operation.clone(),
                payload: line.payload.clone(),
                open: line.open.clone(),
                abort_tries: line.abort_tries,
            })
            .collect())
    }

    async fn ledger_claim_abort(
        &self,
        id: TaskId,
        target: &str,
        tries: u32,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<bool> {
        Ok(self.change(|rows| {
            let is_free =
                |line: &&mut Line| line.abort_tries == tries && line.due_at.is_some_and(|due_at| due_at <= now);
            let line = rows.ledger.get_mut(&(id, target.to_owned())).filter(is_free);
            line.map(|line| line.due_at = Some(until)).is_some()
        }))
    }

    async fn ledger_abort_failed(&self, id: TaskId, target: &str, tries: u32, again_at: Timestamp) -> Result<()> {
        self.change(|rows| {
            let is_next = |line: &&mut Line| line.abort_tries == tries && line.due_at.is_some();
            if let Some(line) = rows.ledger.get_mut(&(id, target.to_owned())).filter(is_next) {
                line.abort_tries += 1;
                line.due_at = Some(again_at);
            }
        });
        Ok(())
    }
}
