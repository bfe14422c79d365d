//! Many hands at once on the same few rows: whatever their order, nothing happens twice, nothing gets stuck, nothing is
//! forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use consign::clock::Timestamp;
use consign::id::{DeliveryId, EventId, JobId, SessionId, TaskId, Token, UserId, WebhookId};
use consign::model::{DeliveryAttempt, EventKind, Job, Origin, Page, State, Task, WireStatus};
use consign::store::{
    Applied, AttemptEnd, Cancellation, ClaimRequest, Creation, Deletion, DeliveryClaim, DeliveryFilter, NewDelivery,
    NewJob, NewWebhook, OutboxLine, Recipient, Store, TaskFilter,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::snapshot::{Known, Snapshot};
use super::world::{file, part, upload};

/// Hands at work at the same time.
const HANDS: u64 = 8;
/// Things that each of them does.
const DEEDS: usize = 80;
/// Jobs, tasks and leases that are looked at: the newest.
const FEW: usize = 5;
/// An hour.
const HOUR_MICROS: i64 = 3_600_000_000;
/// Tasks that may run at once.
const RUNNING_MAX: u32 = 4;
const ALL: Page = Page { number: 1, size: 10_000 };

/// What all hands know, and what was answered to them.
#[derive(Default)]
struct Seen {
    jobs: Vec<JobId>,
    tasks: Vec<TaskId>,
    leases: Vec<(TaskId, Token)>,
    parcels: Vec<(DeliveryId, u32)>,
    lines: Vec<OutboxLine>,
    claims: BTreeMap<TaskId, u32>,
    given_back: BTreeMap<TaskId, u32>,
    /// Tasks that were ended, by how many.
    ended: BTreeMap<TaskId, u32>,
    /// Tasks as they were once they had ended.
    last: BTreeMap<TaskId, Task>,
    told: BTreeMap<(JobId, EventKind), u32>,
    deleted: BTreeSet<TaskId>,
    delivered: BTreeSet<DeliveryId>,
}

struct Hand {
    store: Arc<dyn Store>,
    user: UserId,
    webhook: WebhookId,
    session: SessionId,
    clock: Arc<AtomicI64>,
    seen: Arc<Mutex<Seen>>,
    random: StdRng,
}

/// Lets many hands loose on a database that is empty; each uses one of `stores`, which must all be open on it.
pub(crate) async fn many_hands(stores: &[Arc<dyn Store>], seed: u64) {
    println!("CONSIGN_TEST_SEED={seed}");
    let clock = Arc::new(AtomicI64::new(1_800_000_000_000_000));
    let now = Timestamp(clock.load(Ordering::Relaxed));
    let user = stores[0].ensure_user("ada", now).await.unwrap().id;
    let new = NewWebhook { user_id: user, url: vec![1], events: EventKind::ALL.to_vec(), secret: vec![2] };
    let webhook = stores[0].create_webhook(new, 1, now).await.unwrap().unwrap().id;
    let seen = Arc::new(Mutex::new(Seen::default()));
    let mut hands = Vec::new();
    for (n, store) in (0..HANDS).zip(stores.iter().cycle()) {
        let mut hand = Hand {
            store: Arc::clone(store),
            user,
            webhook,
            session: SessionId::new(now),
            clock: Arc::clone(&clock),
            seen: Arc::clone(&seen),
            random: StdRng::seed_from_u64(seed.wrapping_mul(HANDS).wrapping_add(n)),
        };
        hands.push(tokio::spawn(async move {
            hand.open_session().await;
            for _ in 0..DEEDS {
                hand.deed().await;
            }
            hand
        }));
    }
    let mut last = None;
    for hand in hands {
        last = Some(hand.await.unwrap());
    }
    last.unwrap().add_up().await;
}

impl Hand {
    fn now(&self) -> Timestamp {
        Timestamp(self.clock.fetch_add(1_000_000, Ordering::Relaxed))
    }

    /// What is known, for a moment.
    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        look(&mut self.seen.lock().unwrap())
    }

    /// One of the newest.
    fn few<T: Copy>(&mut self, things: impl FnOnce(&Seen) -> &Vec<T>) -> Option<T> {
        let back = self.random.random_range(0..FEW);
        self.seen(|seen| things(seen).iter().rev().nth(back).copied())
    }

    async fn open_session(&mut self) {
        let now = self.now();
        self.session = SessionId::new(now);
        self.store.open_session(self.session, "host", false, now).await.unwrap();
    }

    async fn deed(&mut self) {
        match self.random.random_range(0..100) {
            0..8 => self.create().await,
            8..26 => self.claim().await,
            26..56 => self.hold().await,
            56..70 => self.client().await,
            70..78 => self.recover().await,
            78..90 => self.tell().await,
            _ => self.look().await,
        }
    }

    async fn create(&mut self) {
        let now = self.now();
        let id = JobId::new(now);
        let mut tasks: Vec<Task> = Vec::new();
        for n in 0..self.random.random_range(1..5) {
            let mut inputs: Vec<TaskId> =
                tasks.iter().filter(|_| self.random.random_bool(0.5)).map(|task| task.id).collect();
            if self.random.random_bool(0.3) {
                inputs.extend(self.few(|seen| &seen.tasks));
            }
            let is_upload = inputs.is_empty() && self.random.random_bool(0.2);
            tasks.push(Task {
                id: TaskId::new(now),
                user_id: self.user,
                job_id: Some(id),
                name: Some(format!("task {n}")),
                operation: if is_upload { "import/upload" } else { "import/url" }.to_owned(),
                state: if is_upload { State::Uploading } else { State::Queued },
                ignore_error: self.random.random_bool(0.4),
                percent: 0,
                code: None,
                message: None,
                warnings: Vec::new(),
                files: Vec::new(),
                attempt: 0,
                created_at: now,
                started_at: None,
                ended_at: None,
                upload_expires_at: is_upload.then(|| now.plus(Duration::from_mins(2))),
                retry_of: None,
                depends_on: inputs,
                host_name: None,
            });
        }
        let ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
        let payloads = vec![vec![3]; tasks.len()];
        let job = Job {
            id,
            user_id: self.user,
            tag: None,
            webhook_url: None,
            status: WireStatus::Waiting,
            created_at: now,
            started_at: None,
            ended_at: None,
            origin: Origin::NoKey,
            tasks,
        };
        let made = self.store.create_job(NewJob { job, payloads, idempotency: None }).await.unwrap();
        if made == Creation::Created {
            self.seen(|seen| {
                seen.jobs.push(id);
                seen.tasks.extend(ids);
            });
        }
    }

    async fn claim(&mut self) {
        let now = self.now();
        let tasks_max = self.random.random_range(1..4);
        let request = ClaimRequest { session: self.session, tasks_max, per_user_max: RUNNING_MAX, now };
        let claims = self.store.claim(&request).await.unwrap();
        assert!(claims.len() <= tasks_max as usize);
        self.seen(|seen| {
            for claim in claims {
                seen.leases.push((claim.task.id, claim.token));
                *seen.claims.entry(claim.task.id).or_default() += 1;
            }
        });
    }

    /// The holder of a lease, or of one that was lost.
    async fn hold(&mut self) {
        let Some((id, token)) = self.few(|seen| &seen.leases) else { return };
        let now = self.now();
        match self.random.random_range(0..10) {
            0..4 => {
                let applied = self.store.finish(id, token, &[file(id, token, 1)], now).await.unwrap();
                self.note_end(id, applied == Applied::Done);
            }
            4 => {
                let applied = self.store.fail(id, token, "CODE", "Words.", now).await.unwrap();
                self.note_end(id, applied == Applied::Done);
            }
            5 => self.store.delay(id, token, now.plus(Duration::from_secs(3)), now).await.map(drop).unwrap(),
            6 => {
                if self.store.give_back(id, token, now).await.unwrap() == Applied::Done {
                    self.seen(|seen| *seen.given_back.entry(id).or_default() += 1);
                }
            }
            7 => drop(self.store.ledger_open(id, token, &upload(0, 1), now).await.unwrap()),
            8 => drop(self.store.ledger_part(id, token, &upload(0, 0).target, 2, &part(2)).await.unwrap()),
            _ => drop(self.store.ledger_close(id, token, &upload(0, 0).target).await.unwrap()),
        }
    }

    fn note_end(&self, id: TaskId, has_happened: bool) {
        if has_happened {
            self.seen(|seen| *seen.ended.entry(id).or_default() += 1);
        }
    }

    async fn client(&mut self) {
        let Some(id) = self.few(|seen| &seen.tasks) else { return };
        let now = self.now();
        match self.random.random_range(0..10) {
            0..4 => {
                let applied = self.store.finish_upload(id, &file(id, Token(1), 1), now).await.unwrap();
                self.note_end(id, applied == Applied::Done);
            }
            4..7 => {
                let cancelled = self.store.cancel(self.user, id, now).await.unwrap();
                self.note_end(id, cancelled == Cancellation::Done);
            }
            7..9 => {
                if self.store.delete_task(self.user, id, now).await.unwrap() {
                    self.seen(|seen| assert!(seen.deleted.insert(id), "deleted twice"));
                }
            }
            _ => {
                let Some(job) = self.few(|seen| &seen.jobs) else { return };
                let deleted = self.store.delete_job(self.user, job, now).await.unwrap();
                let told = self.seen(|seen| EventKind::ALL.map(|event| seen.told.contains_key(&(job, event))));
                let is_told = told[0] && (told[1] || told[2]);
                assert!(deleted != Deletion::Done || is_told, "it went and nobody was told");
            }
        }
    }

    async fn recover(&mut self) {
        let now = self.now();
        match self.random.random_range(0..6) {
            0..2 => drop(self.store.release_due(now).await.unwrap()),
            2 => drop(self.store.expire_uploads(now).await.unwrap()),
            3 => drop(self.store.heartbeat(self.session, &[], now).await.unwrap()),
            4 => self.store.close_session(self.session, now).await.unwrap(),
            _ => drop(self.store.expire_sessions(now.minus(Duration::from_mins(1)), 3, now).await.unwrap()),
        }
        // Whether it was this one's that ended or not, a new one is a process more.
        self.open_session().await;
    }

    async fn tell(&mut self) {
        let now = self.now();
        let line = self.store.outbox(3).await.unwrap().first().copied().or_else(|| self.few(|seen| &seen.lines));
        if let Some(line) = line {
            let new = NewDelivery {
                id: DeliveryId::new(now),
                to: Recipient::Webhook(self.webhook),
                body: line.job_id.to_string().into_bytes(),
            };
            let job = line.job_id;
            // Noted before, because another may delete the job at once.
            self.seen(|seen| *seen.told.entry((job, line.event)).or_default() += 1);
            if !self.store.tell(line, vec![new], now).await.unwrap() {
                self.seen(|seen| *seen.told.get_mut(&(job, line.event)).unwrap() -= 1);
            }
            self.seen(|seen| seen.lines.push(line));
        }
        self.deliver(now).await;
    }

    async fn deliver(&mut self, now: Timestamp) {
        let lease_until = now.plus(Duration::from_secs(2));
        let claim =
            DeliveryClaim { max: 2, per_receiver_max: 2, per_user_max: 2, sending: Vec::new(), lease_until, now };
        let parcels = self.store.claim_deliveries(claim).await.unwrap();
        self.seen(|seen| {
            for parcel in parcels {
                let is_new = !seen.parcels.contains(&(parcel.id, parcel.number));
                assert!(is_new, "two have the same attempt {} at {:?}", parcel.number, parcel.id);
                seen.parcels.push((parcel.id, parcel.number));
            }
        });
        let Some((id, number)) = self.few(|seen| &seen.parcels) else { return };
        let attempt = DeliveryAttempt { number, at: now, status: Some(200), error: None, duration_ms: 1 };
        let is_delivered = self.random.random_bool(0.5);
        let end = if is_delivered { AttemptEnd::Delivered } else { AttemptEnd::Again(now) };
        if self.store.end_attempt(id, attempt, end, now).await.unwrap() && is_delivered {
            self.seen(|seen| assert!(seen.delivered.insert(id), "{id} was delivered twice"));
        }
    }

    /// Looks, and finds nothing odd.
    async fn look(&mut self) {
        let Some(id) = self.few(|seen| &seen.jobs) else { return };
        let all = TaskFilter { user_id: self.user, job_id: None, status: None, operation: None };
        let tasks = self.store.list_tasks(&all, ALL).await.unwrap().0;
        let running = tasks.iter().filter(|task| task.state == State::Running).count();
        assert!(running <= RUNNING_MAX as usize, "{running} tasks run");
        let Some(job) = self.store.job(self.user, id).await.unwrap() else { return };
        let is_open = job.tasks.iter().any(|task| !task.state.is_terminal());
        assert_eq!(job.ended_at.is_none(), is_open, "a job ends with its last task: {job:?}");
        let now_ended = job.tasks.into_iter().chain(tasks).filter(|task| task.state.is_terminal());
        self.seen(|seen| {
            for task in now_ended {
                let before = seen.last.entry(task.id).or_insert_with(|| task.clone());
                assert_eq!(*before, task, "an end is an end");
            }
        });
    }

    /// Everything is ended and told, and then everything must add up.
    async fn add_up(mut self) {
        self.check().await;
        let now = self.now();
        self.session = SessionId::new(now);
        self.store.open_session(self.session, "host", true, now).await.unwrap();
        loop {
            // Later than anything is delayed or may be uploaded: what is not due now never will be.
            let now = Timestamp(self.clock.fetch_add(HOUR_MICROS, Ordering::Relaxed) + HOUR_MICROS);
            self.store.release_due(now).await.unwrap();
            self.store.expire_uploads(now).await.unwrap();
            let request = ClaimRequest { session: self.session, tasks_max: 100, per_user_max: 100, now };
            let claims = self.store.claim(&request).await.unwrap();
            if claims.is_empty() {
                break;
            }
            for claim in claims {
                let (id, token) = (claim.task.id, claim.token);
                self.seen(|seen| {
                    *seen.claims.entry(id).or_default() += 1;
                    seen.leases.push((id, token));
                });
                assert_eq!(self.store.finish(id, token, &[], now).await.unwrap(), Applied::Done);
                self.note_end(id, true);
            }
        }
        let counts = self.check().await;
        assert_eq!(counts, 0, "nothing is stuck");
    }

    /// Checks everything there is; returns how many tasks are open.
    async fn check(&self) -> usize {
        let now = self.now();
        let known = self.seen(|seen| Known {
            users: vec![self.user],
            jobs: seen.jobs.iter().map(|job| (*job, self.user)).collect(),
            tasks: seen.tasks.iter().map(|task| (*task, self.user)).collect(),
            leases: seen.leases.clone(),
        });
        let snapshot = Snapshot::read(&*self.store, &known, now).await;
        snapshot.check();
        let trash = self.store.trash(u32::MAX).await.unwrap();
        let untold = self.store.outbox(u32::MAX).await.unwrap();
        let ids: BTreeSet<EventId> = untold.iter().map(|line| line.id).collect();
        assert_eq!(ids.len(), untold.len());
        for task in &snapshot.tasks {
            self.check_task(task);
        }
        self.seen(|seen| assert!(seen.deleted.iter().all(|id| trash.contains(id)), "their files are to go"));
        for job in &snapshot.jobs {
            self.check_events(job, &untold).await;
        }
        let open = snapshot.tasks.iter().filter(|task| !task.state.is_terminal()).count();
        if open == 0 {
            let orphans = self.store.ledger_orphans(now, u32::MAX).await.unwrap().len() as u64;
            let lines = self.store.counts(now).await.unwrap().open_uploads;
            assert_eq!(orphans, lines, "all that is open at a destination is to be aborted");
        }
        open
    }

    fn check_task(&self, task: &Task) {
        self.seen(|seen| {
            let count = |of: &BTreeMap<TaskId, u32>| of.get(&task.id).copied().unwrap_or_default();
            assert_eq!(task.attempt, count(&seen.claims) - count(&seen.given_back), "{task:?}");
            assert!(count(&seen.ended) <= 1, "it ended {} times: {task:?}", count(&seen.ended));
            if task.state == State::Finished {
                assert_eq!((count(&seen.ended), task.percent), (1, 100), "{task:?}");
            }
            if let Some(last) = seen.last.get(&task.id) {
                assert_eq!(last, task, "an end is an end");
            }
        });
    }

    /// Each job was told of once when it was made and once when it ended, or will be.
    async fn check_events(&self, job: &Job, untold: &[OutboxLine]) {
        let told = self.seen(|seen| EventKind::ALL.map(|event| seen.told.get(&(job.id, event)).copied().unwrap_or(0)));
        let waits = EventKind::ALL
            .map(|event| untold.iter().filter(|line| line.job_id == job.id && line.event == event).count());
        let of = |n: usize| told[n] as usize + waits[n];
        assert_eq!(of(0), 1, "made once: {job:?}");
        let ends = match job.status {
            WireStatus::Finished => [1, 0],
            WireStatus::Error => [0, 1],
            WireStatus::Waiting | WireStatus::Processing => [0, 0],
        };
        assert_eq!([of(1), of(2)], ends, "ended once: {job:?}");
        let deliveries = self.store.deliveries(self.user, DeliveryFilter::Job(job.id), ALL).await.unwrap().unwrap().0;
        assert_eq!(deliveries.len(), told.iter().sum::<u32>() as usize, "a delivery for each that was told");
    }
}
