//! The store in plain maps: a model that the databases are compared with, simple enough to be obviously right. For tests.
//!
//! One lock, no statements, nothing clever: each method says in a few lines what the method of a database means. What a
//! database keeps as counters is here looked up or kept as the facts themselves.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use connectors::OpenUpload;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::state::{Imported, Line as StateLine};
use super::{Counts, Error, Hints, Load, OutboxLine, Result, Store};
use crate::clock::Timestamp;
use crate::id::{DeliveryId, EventId, JobId, SessionId, SignedUrlId, TaskId, Token, UserId, WebhookId};
use crate::model::{ApiKey, Delivery, DeliveryState, Job, SignedUrl, State, Task, User, Webhook};

mod accounts;
mod claim;
mod ending;
mod jobs;
mod ledger;
mod transitions;
mod webhooks;

/// The store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    rows: Mutex<Rows>,
    hints: Arc<Hints>,
}

#[derive(Debug, Default)]
struct Rows {
    users: BTreeMap<UserId, User>,
    keys: Vec<([u8; 32], ApiKey)>,
    jobs: BTreeMap<JobId, JobRow>,
    tasks: BTreeMap<TaskId, TaskRow>,
    /// Who takes files from a task; some may be gone.
    dependents: BTreeMap<TaskId, Vec<TaskId>>,
    sessions: BTreeMap<SessionId, Session>,
    ledger: BTreeMap<(TaskId, String), Line>,
    idempotency: BTreeMap<(UserId, String), Promise>,
    trash: BTreeMap<TaskId, Timestamp>,
    /// Until when somebody has what is in the trash.
    taken_trash: BTreeMap<TaskId, Timestamp>,
    outbox: Vec<(Timestamp, OutboxLine)>,
    /// Until when somebody has a line of it.
    taken_lines: BTreeMap<EventId, Timestamp>,
    webhooks: BTreeMap<WebhookId, Webhook>,
    webhooks_made: i32,
    webhook_secrets: BTreeMap<UserId, Vec<u8>>,
    deliveries: BTreeMap<DeliveryId, DeliveryRow>,
    signed_urls: Vec<SignedUrl>,
    signed_results: BTreeMap<(SignedUrlId, String), (JobId, Timestamp)>,
    agreed: BTreeMap<String, i64>,
    /// The turn that was last given away by a claim.
    turn: i64,
    /// The same of each user.
    claimed: BTreeMap<UserId, i64>,
}

#[derive(Debug)]
struct JobRow {
    /// Without its tasks.
    job: Job,
    /// Tasks that have not ended.
    open: BTreeSet<TaskId>,
    /// A task ended in an error that counts.
    has_failed: bool,
}

#[derive(Debug)]
struct TaskRow {
    task: Task,
    payload: Vec<u8>,
    position: usize,
    /// What it takes files from, each once, and how that ended.
    inputs: Vec<(TaskId, Option<Outcome>)>,
    /// Its error does not count.
    forgiven: bool,
    lease: Option<(Token, SessionId)>,
    turn: i64,
    ready_at: Option<Timestamp>,
    not_before: Option<Timestamp>,
}

/// How an input ended, for those that wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Finished,
    Forgiven,
    Failed,
}

#[derive(Debug)]
struct Session {
    host_name: String,
    last_seen: Timestamp,
}

#[derive(Debug)]
struct Line {
    operation: String,
    payload: Vec<u8>,
    open: OpenUpload,
    due_at: Option<Timestamp>,
    abort_tries: u32,
}

#[derive(Debug)]
struct Promise {
    request_hash: [u8; 32],
    answer: Vec<u8>,
    created_at: Timestamp,
}

#[derive(Debug)]
struct DeliveryRow {
    delivery: Delivery,
    /// The job's own address and the number of its host; none for a webhook.
    address: Option<(Vec<u8>, i64)>,
    body: Vec<u8>,
    sending: bool,
    attempts: u32,
    tries: u32,
}

impl TaskRow {
    /// How it ended, if it has.
    fn outcome(&self) -> Option<Outcome> {
        match self.task.state {
            State::Finished => Some(Outcome::Finished),
            State::Error if self.forgiven => Some(Outcome::Forgiven),
            State::Error => Some(Outcome::Failed),
            State::Blocked | State::Uploading | State::Queued | State::Delayed | State::Running => None,
        }
    }

    fn is_held_by(&self, token: Token) -> bool {
        self.lease.is_some_and(|(held, _)| held == token)
    }
}

impl Rows {
    fn task(&self, id: TaskId) -> &TaskRow {
        self.tasks.get(&id).expect("whoever asks has found it")
    }

    fn task_mut(&mut self, id: TaskId) -> &mut TaskRow {
        self.tasks.get_mut(&id).expect("whoever asks has found it")
    }

    /// Ids of the tasks that something is true of, in the order of their jobs.
    fn tasks_where(&self, is_wanted: impl Fn(&TaskRow) -> bool) -> Vec<TaskId> {
        let mut found: Vec<&TaskRow> = self.tasks.values().filter(|row| is_wanted(row)).collect();
        found.sort_by_key(|row| (row.task.job_id, row.position));
        found.into_iter().map(|row| row.task.id).collect()
    }

    /// The tasks of a job in their order.
    fn tasks_of(&self, job: JobId) -> Vec<Task> {
        let mut rows: Vec<&TaskRow> = self.tasks.values().filter(|row| row.task.job_id == Some(job)).collect();
        rows.sort_by_key(|row| row.position);
        rows.into_iter().map(|row| row.task.clone()).collect()
    }
}

impl MemoryStore {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn read(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes rows and then says that everything may have changed: a hint too many costs a look.
    fn change<T>(&self, change: impl FnOnce(&mut Rows) -> T) -> T {
        let mut rows = self.read();
        let mut ids: Vec<Uuid> = Vec::new();
        if self.hints.waiters() > 0 {
            ids.extend(rows.jobs.keys().map(|id| id.0).chain(rows.tasks.keys().map(|id| id.0)));
        }
        let changed = change(&mut rows);
        drop(rows);
        self.hints.announce_ready();
        self.hints.announce_sweep();
        self.hints.announce_outbox();
        self.hints.announce_deliveries();
        self.hints.announce(ids);
        changed
    }
}

fn seconds_since(moment: Option<Timestamp>, now: Timestamp) -> u64 {
    moment.map_or(0, |moment| now.since(moment).as_secs())
}

#[async_trait]
impl Store for MemoryStore {
    async fn ping(&self) -> Result<Option<Timestamp>> {
        Ok(None)
    }

    async fn counts(&self, now: Timestamp) -> Result<Counts> {
        let rows = self.read();
        let count = |states: &[State]| rows.tasks_where(|row| states.contains(&row.task.state)).len() as u64;
        let queued = rows.tasks.values().filter(|row| row.task.state == State::Queued);
        let pending = || rows.deliveries.values().filter(|row| row.delivery.state == DeliveryState::Pending);
        Ok(Counts {
            waiting: count(&[State::Blocked, State::Uploading]),
            queued: count(&[State::Queued]),
            delayed: count(&[State::Delayed]),
            running: count(&[State::Running]),
            oldest_queued_secs: seconds_since(queued.filter_map(|row| row.ready_at).min(), now),
            open_uploads: rows.ledger.len() as u64,
            users: rows.users.len() as u64,
            keys: rows.keys.iter().filter(|(_, key)| key.revoked_at.is_none()).count() as u64,
            oldest_event_secs: seconds_since(rows.outbox.iter().map(|(at, _)| *at).min(), now),
            deliveries: pending().count() as u64,
            oldest_delivery_secs: seconds_since(pending().map(|row| row.delivery.due_at).min(), now),
            oldest_snapshot_secs: 0,
        })
    }

    async fn loads(&self, limit: u32) -> Result<Vec<Load>> {
        let mut loads: BTreeMap<UserId, Load> = BTreeMap::new();
        for row in self.read().tasks.values() {
            let user = row.task.user_id;
            let (queued, running) = (row.task.state == State::Queued, row.task.state == State::Running);
            if queued || running {
                let load = loads.entry(user).or_insert(Load { user, queued: 0, running: 0 });
                load.queued += u64::from(queued);
                load.running += u64::from(running);
            }
        }
        let mut loads: Vec<Load> = loads.into_values().collect();
        loads.sort_by_key(|load| (Reverse(load.queued), Reverse(load.running), load.user));
        loads.truncate(limit as usize);
        Ok(loads)
    }

    async fn agree_on(&self, name: &str, value: i64) -> Result<i64> {
        Ok(*self.read().agreed.entry(name.to_owned()).or_insert(value))
    }

    async fn take_turn(&self, name: &str, now: Timestamp, until: Timestamp) -> Result<bool> {
        let mut rows = self.read();
        let taken = rows.agreed.get(name).is_some_and(|ends| (now.0 + 1..=until.0).contains(ends));
        if !taken {
            rows.agreed.insert(name.to_owned(), until.0);
        }
        Ok(!taken)
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }

    fn hints(&self) -> &Arc<Hints> {
        &self.hints
    }

    async fn close(&self) {}
}

/// A model has nothing to write down.
#[async_trait]
impl super::State for MemoryStore {
    async fn export_state(&self, _: mpsc::Sender<StateLine>) -> Result<()> {
        Err(Error::Broken("a model is not written down".into()))
    }

    async fn import_state(&self, _: mpsc::Receiver<Option<StateLine>>) -> Result<Imported> {
        Err(Error::Broken("a model is not read in".into()))
    }

    async fn others(&self) -> Result<u64> {
        Ok(0)
    }
}
