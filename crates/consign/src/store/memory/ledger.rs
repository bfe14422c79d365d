//! Uploads that are open at destinations.

use async_trait::async_trait;
use connectors::{OpenUpload, Part};

use super::{Line, MemoryStore};
use crate::clock::Timestamp;
use crate::id::{TaskId, Token};
use crate::model::LedgerEntry;
use crate::store::{Ledger, Result};

#[async_trait]
impl Ledger for MemoryStore {
    async fn ledger_open(&self, id: TaskId, token: Token, open: &OpenUpload, _now: Timestamp) -> Result<bool> {
        Ok(self.change(|rows| {
            let Some(row) = rows.tasks.get(&id).filter(|row| row.is_held_by(token)) else { return false };
            let (operation, payload) = (row.task.operation.clone(), row.payload.clone());
            let line = Line { operation, payload, open: open.clone(), due_at: None, abort_tries: 0 };
            rows.ledger.insert((id, open.target.clone()), line);
            true
        }))
    }

    async fn ledger_part(&self, id: TaskId, token: Token, target: &str, number: u32, part: &Part) -> Result<bool> {
        Ok(self.change(|rows| {
            let is_held = rows.tasks.get(&id).is_some_and(|row| row.is_held_by(token));
            let line = rows.ledger.get_mut(&(id, target.to_owned())).filter(|_| is_held);
            line.map(|line| line.open.parts.insert(number, part.clone())).is_some()
        }))
    }

    async fn ledger_close(&self, id: TaskId, target: &str) -> Result<()> {
        self.change(|rows| rows.ledger.remove(&(id, target.to_owned())));
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

    async fn ledger_abort_failed(&self, id: TaskId, target: &str, again_at: Timestamp) -> Result<()> {
        self.change(|rows| {
            let line = rows.ledger.get_mut(&(id, target.to_owned())).filter(|line| line.due_at.is_some());
            if let Some(line) = line {
                line.abort_tries += 1;
                line.due_at = Some(again_at);
            }
        });
        Ok(())
    }
}
