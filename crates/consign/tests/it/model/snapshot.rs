//! Everything that can be read of a store, in an order that does not depend on it, and what must be true of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write as _};

use consign::clock::Timestamp;
use consign::id::{JobId, TaskId, Token, UserId};
use consign::model::{Job, Page, State, Task, WireStatus};
use consign::store::{DeliveryFilter, JobFilter, Store, TaskFilter};

const ALL: Page = Page { number: 1, size: 10_000 };

/// Whom and what to ask for.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) users: Vec<UserId>,
    pub(super) jobs: Vec<(JobId, UserId)>,
    pub(super) tasks: Vec<(TaskId, UserId)>,
    pub(super) leases: Vec<(TaskId, Token)>,
}

/// Everything there is.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) jobs: Vec<Job>,
    pub(super) tasks: Vec<Task>,
    /// The leases that hold.
    pub(super) held: Vec<(TaskId, Token)>,
    /// The rest as text: what it is of, and what it is.
    pub(super) rest: BTreeMap<String, String>,
}

impl Snapshot {
    /// Reads everything.
    pub(super) async fn read(store: &dyn Store, known: &Known, now: Timestamp) -> Self {
        let (mut jobs, mut tasks, mut rest) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut add = |name: String, what: &dyn Debug| drop(rest.insert(name, format!("{what:?}")));
        for &user_id in &known.users {
            let all = JobFilter { user_id, status: None, tag: None, key_id: None, with_tasks: true };
            jobs.extend(store.list_jobs(&all, ALL).await.unwrap().0);
            let all = TaskFilter { user_id, job_id: None, status: None, operation: None };
            tasks.extend(store.list_tasks(&all, ALL).await.unwrap().0);
            add(format!("webhooks {user_id:?}"), &store.webhooks(user_id).await.unwrap());
        }
        let mut held = Vec::new();
        for &(id, token) in &known.leases {
            if store.holds(id, token).await.unwrap() {
                held.push((id, token));
            }
        }
        for &(id, user) in &known.jobs {
            let told = store.deliveries(user, DeliveryFilter::Job(id), ALL).await.unwrap();
            add(format!("deliveries {id:?}"), &told);
        }
        let mut lines: Vec<_> = store.outbox(u32::MAX).await.unwrap().iter().map(|l| (l.job_id, l.event)).collect();
        lines.sort_unstable();
        add("outbox".to_owned(), &lines);
        let trash: BTreeSet<TaskId> = store.trash(u32::MAX).await.unwrap().into_iter().collect();
        add("trash".to_owned(), &trash);
        let far = now.plus(std::time::Duration::from_hours(10_000));
        for entry in store.ledger_orphans(far, u32::MAX).await.unwrap() {
            let open = serde_json::to_string(&entry.open).unwrap();
            add(format!("orphan {} {}", entry.task_id, entry.open.target), &(entry, open));
        }
        add("orphans due".to_owned(), &store.ledger_orphans(now, u32::MAX).await.unwrap().len());
        add("counts".to_owned(), &store.counts(now).await.unwrap());
        add("next delivery".to_owned(), &store.next_delivery().await.unwrap());
        let ids: Vec<TaskId> = known.tasks.iter().map(|(id, _)| *id).collect();
        let mut blobs = store.blobs(&ids).await.unwrap();
        blobs.sort_by_key(|(id, ..)| *id);
        add("blobs".to_owned(), &blobs);
        Self { jobs, tasks, held, rest }
    }

    /// Fails where the two differ.
    pub(super) fn assert_same(&self, model: &Self) {
        assert_eq!(self.jobs, model.jobs, "jobs: the database, then the model");
        assert_eq!(self.tasks, model.tasks, "tasks: the database, then the model");
        assert_eq!(self.held, model.held, "leases: the database, then the model");
        for name in self.rest.keys().chain(model.rest.keys()) {
            assert_eq!(self.rest.get(name), model.rest.get(name), "{name}: the database, then the model");
        }
    }

    /// Fails where a store contradicts itself.
    pub(super) fn check(&self) {
        let states: BTreeMap<TaskId, State> = self.tasks.iter().map(|task| (task.id, task.state)).collect();
        for task in &self.tasks {
            let tokens = self.held.iter().filter(|(id, _)| *id == task.id).count();
            assert_eq!(tokens, usize::from(task.state == State::Running), "one live token, if it runs: {task:?}");
            let waits = task.depends_on.iter().any(|id| states.get(id).is_some_and(|state| !state.is_terminal()));
            if task.state == State::Blocked {
                assert!(waits, "it waits for nothing: {task:?}");
            } else if task.state != State::Error {
                assert!(!waits, "it did not wait: {task:?}");
            }
            assert_eq!(task.state.is_terminal(), task.ended_at.is_some(), "{task:?}");
            assert_eq!(task.state == State::Error, task.code.is_some(), "{task:?}");
        }
        for job in &self.jobs {
            let is_open = job.tasks.iter().any(|task| !task.state.is_terminal());
            assert_eq!(job.ended_at.is_none(), is_open, "a job ends with its last task: {job:?}");
            let has_ended = matches!(job.status, WireStatus::Finished | WireStatus::Error);
            assert_eq!(has_ended, !is_open, "{job:?}");
        }
    }
}

/// What lists with a filter say.
pub(super) async fn lists(store: &dyn Store, users: &[UserId]) -> String {
    let mut text = String::new();
    let pages = [ALL, Page { number: 2, size: 2 }];
    for &user_id in users {
        for status in WireStatus::ALL {
            for page in pages {
                let filter = JobFilter { user_id, status: Some(status), tag: None, key_id: None, with_tasks: false };
                writeln!(text, "{:?}", store.list_jobs(&filter, page).await.unwrap()).unwrap();
                let filter = TaskFilter { user_id, job_id: None, status: Some(status), operation: None };
                writeln!(text, "{:?}", store.list_tasks(&filter, page).await.unwrap()).unwrap();
            }
        }
    }
    text
}
