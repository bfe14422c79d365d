//! The claim: which tasks may be taken, and which come next.

use std::collections::BTreeMap;

use super::{MemoryStore, Rows};
use crate::id::{TaskId, Token, UserId};
use crate::model::State;
use crate::store::{Claim, ClaimRequest, Input};

impl Rows {
    /// What comes next: the lowest turns whose owner is below the limit.
    pub(super) fn next_tasks(&self, request: &ClaimRequest) -> Vec<TaskId> {
        let mut queued = self.tasks_where(|row| row.task.state == State::Queued);
        queued.sort_by_key(|id| (self.task(*id).turn, *id));
        let mut running = self.running();
        let mut picked = Vec::new();
        for id in queued {
            let has = running.entry(self.task(id).task.user_id).or_default();
            if picked.len() < request.tasks_max as usize && *has < request.per_user_max {
                *has += 1;
                picked.push(id);
            }
        }
        picked
    }

    fn running(&self) -> BTreeMap<UserId, u32> {
        let mut running = BTreeMap::new();
        for row in self.tasks.values().filter(|row| row.task.state == State::Running) {
            *running.entry(row.task.user_id).or_default() += 1;
        }
        running
    }

    /// What is wrong with a claim of exactly these tasks, in whatever order.
    fn objection(&self, request: &ClaimRequest, ids: &[TaskId]) -> Option<String> {
        if !self.sessions.contains_key(&request.session) {
            return (!ids.is_empty()).then(|| "a dead session got tasks".to_owned());
        }
        let queued = |id: &&TaskId| self.tasks.get(id).is_none_or(|row| row.task.state != State::Queued);
        if let Some(id) = ids.iter().find(queued) {
            return Some(format!("{id} was not queued"));
        }
        let mut running = self.running();
        for id in ids {
            *running.entry(self.task(*id).task.user_id).or_default() += 1;
        }
        let own = |user: &UserId| ids.iter().any(|id| self.task(*id).task.user_id == *user);
        if let Some((user, tasks)) = running.iter().find(|(user, tasks)| own(user) && **tasks > request.per_user_max) {
            return Some(format!("{user:?} has {tasks} running, above the limit"));
        }
        let possible = self.next_tasks(request).len();
        (ids.len() != possible).then(|| format!("{} tasks were claimed, {possible} can be", ids.len()))
    }

    pub(super) fn lease(&mut self, request: &ClaimRequest, ids: &[TaskId], token: Token) -> Vec<Claim> {
        let mut claims = Vec::with_capacity(ids.len());
        for &id in ids {
            let host_name = self.sessions[&request.session].host_name.clone();
            let row = self.task_mut(id);
            row.lease = Some((token, request.session));
            row.task.state = State::Running;
            row.task.attempt += 1;
            row.task.host_name = Some(host_name);
            row.task.started_at.get_or_insert(request.now);
            let (turn, job, user) = (row.turn, row.task.job_id, row.task.user_id);
            self.turn = self.turn.max(turn);
            let claimed = self.claimed.entry(user).or_default();
            *claimed = turn.max(*claimed);
            self.start_job(job, request.now);
            claims.push(self.claimed(id, token));
        }
        claims
    }

    /// All that a runner needs; the task as a claim shows it, without files.
    fn claimed(&self, id: TaskId, token: Token) -> Claim {
        let row = self.task(id);
        let input = |&id: &TaskId| {
            let row = self.tasks.get(&id);
            Input {
                task_id: id,
                name: row.and_then(|row| row.task.name.clone()),
                files: row.map(|row| row.task.files.clone()).unwrap_or_default(),
            }
        };
        let open = self.ledger.iter().filter(|((task, _), line)| *task == id && line.due_at.is_none());
        Claim {
            task: row.task.clone(),
            payload: row.payload.clone(),
            token,
            ready_at: row.ready_at,
            inputs: row.task.depends_on.iter().map(input).collect(),
            open: open.map(|(_, line)| line.open.clone()).collect(),
        }
    }
}

impl MemoryStore {
    /// Follows a claim of another store, which may choose among the tasks that are possible: every task was queued, limits
    /// hold, and no slot was left empty that could be filled. Leases the same tasks with the same token.
    ///
    /// # Errors
    /// What is wrong with the claim.
    pub fn follow_claim(&self, request: &ClaimRequest, ids: &[TaskId], token: Token) -> Result<Vec<Claim>, String> {
        self.change(|rows| match rows.objection(request, ids) {
            Some(objection) => Err(objection),
            None => Ok(rows.lease(request, ids, token)),
        })
    }
}
