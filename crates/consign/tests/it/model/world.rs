//! A database and the store in memory side by side, and what whoever uses them knows: ids, leases, parcels.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use connectors::{Digests, OpenUpload, Part, Receipt};
use consign::clock::Timestamp;
use consign::id::{DeliveryId, JobId, SessionId, SignedUrlId, TaskId, Token, UserId, WebhookId};
use consign::model::{BlobKey, EventKind, File, Job, Origin, State, Task, WireStatus};
use consign::store::{
    Creation, Idempotency, MemoryStore, NewJob, NewTask, NewWebhook, OutboxLine, Parcel, Result, Store,
};
use uuid::Uuid;

use super::command::{Command, Node, Pick, Promise, Run};
use super::snapshot::{Known, Snapshot, lists};

/// When the world begins.
const START: Timestamp = Timestamp(1_800_000_000_000_000);
/// How long an upload may take.
const UPLOAD_TIME: Duration = Duration::from_mins(1);

pub(super) struct World {
    pub(super) real: Arc<dyn Store>,
    pub(super) model: MemoryStore,
    pub(super) now: Timestamp,
    pub(super) known: Known,
    pub(super) sessions: Vec<SessionId>,
    pub(super) webhooks: Vec<(WebhookId, UserId)>,
    pub(super) parcels: Vec<(Parcel, UserId)>,
    /// Lines that were told, as the database and as the model name them.
    pub(super) told: Vec<(OutboxLine, OutboxLine)>,
    pub(super) signed_url: SignedUrlId,
    made: u64,
}

/// One of some things, the newest first.
pub(super) fn chosen<T: Clone>(things: &[T], pick: Pick) -> Option<T> {
    things.iter().rev().nth(usize::from(pick) % things.len().max(1)).cloned()
}

pub(super) fn file(task: TaskId, token: Token, number: u32) -> File {
    let receipt = Receipt {
        location: format!("there/{number}"),
        etag: Some(format!("\"{number}\"")),
        verified: "md5".to_owned(),
        ..Receipt::default()
    };
    File {
        name: format!("{number}.txt"),
        size: 12,
        digests: Digests { md5: Some([1; 16]), sha256: [2; 32], crc32c: 0xffff_fffe },
        content_type: "text/plain".to_owned(),
        blob: Some(BlobKey::new(task, token, number)),
        download: None,
        receipt: (number > 1).then_some(receipt),
    }
}

pub(super) fn upload(target: u8, parts: u8) -> OpenUpload {
    OpenUpload {
        target: format!("target {target}"),
        handle: format!("handle {parts}"),
        sha256: "ab".repeat(32),
        part_bytes: 5 << 20,
        parts: (1..=parts).map(|number| (number.into(), part(number))).collect(),
    }
}

pub(super) fn part(number: u8) -> Part {
    Part { size: u64::from(number) + 1, etag: format!("etag {number}"), checksum: Some("c".to_owned()) }
}

impl World {
    /// Two empty stores with the same users, a session, and a signed URL.
    pub(super) async fn new(real: Arc<dyn Store>) -> Self {
        let mut world = Self {
            real,
            model: MemoryStore::new(),
            now: START,
            known: Known::default(),
            sessions: Vec::new(),
            webhooks: Vec::new(),
            parcels: Vec::new(),
            told: Vec::new(),
            signed_url: SignedUrlId(Uuid::nil()),
            made: 0,
        };
        for name in ["ada", "eve"] {
            let user = world.both(async |store| store.ensure_user(name, START).await).await;
            world.known.users.push(user.id);
        }
        world.signed_url = SignedUrlId(world.id());
        let signed = consign::model::SignedUrl {
            id: world.signed_url,
            user_id: world.known.users[0],
            name: "signed".to_owned(),
            secret: b"sealed".to_vec(),
            created_at: START,
            revoked_at: None,
        };
        world.both(async |store| store.create_signed_url(signed.clone()).await).await;
        world.open_session(false).await;
        world
    }

    /// Asks both, and fails if they do not say the same.
    pub(super) async fn both<T: Debug>(&self, ask: impl AsyncFn(&dyn Store) -> Result<T>) -> T {
        let real = ask(&*self.real).await.unwrap();
        let model = ask(&self.model).await.unwrap();
        assert_eq!(format!("{real:#?}"), format!("{model:#?}"), "the answers: the database's, then the model's");
        real
    }

    /// The same, where the answer is of no further use.
    pub(super) async fn same<T: Debug>(&self, ask: impl AsyncFn(&dyn Store) -> Result<T>) {
        let _: T = self.both(ask).await;
    }

    /// A new id that is the same in every run, and sorts by time and order of making.
    pub(super) fn id(&mut self) -> Uuid {
        self.made += 1;
        let mut tail = [0; 10];
        tail[2..].copy_from_slice(&self.made.to_be_bytes());
        let millis = u64::try_from(self.now.0 / 1000).unwrap();
        uuid::Builder::from_unix_timestamp_millis(millis, &tail).into_uuid()
    }

    pub(super) fn user(&self, pick: Pick) -> UserId {
        self.known.users[usize::from(pick) % self.known.users.len()]
    }

    /// The owner, or somebody else.
    pub(super) fn whoever(&self, owner: UserId, is_foreign: bool) -> UserId {
        *self.known.users.iter().find(|user| (**user == owner) != is_foreign).unwrap()
    }

    /// Something happens to both; everything must then be the same.
    pub(super) async fn step(&mut self, command: Command) {
        self.follow(command).await;
        self.compare().await;
    }

    async fn compare(&self) {
        let real = Snapshot::read(&*self.real, &self.known, self.now).await;
        real.assert_same(&Snapshot::read(&self.model, &self.known, self.now).await);
        real.check();
    }

    /// Ends everything: what is stuck is found here.
    pub(super) async fn finish(&mut self) {
        let users = self.known.users.clone();
        self.same(async |store| Ok(lists(store, &users).await)).await;
        self.open_session(true).await;
        loop {
            self.now = self.now.plus(Duration::from_hours(30));
            self.follow(Command::Run(Run::ReleaseDue)).await;
            self.follow(Command::Run(Run::ExpireUploads)).await;
            let claimed = self.claim(0, 1000, 1000).await;
            if claimed.is_empty() {
                break;
            }
            for (id, token) in claimed {
                self.same(async |store| store.finish(id, token, &[file(id, token, 1)], self.now).await).await;
            }
        }
        self.compare().await;
        let counts = self.real.counts(self.now).await.unwrap();
        let open = counts.waiting + counts.queued + counts.delayed + counts.running;
        assert_eq!(open, 0, "nothing is stuck: {counts:?}");
    }

    pub(super) async fn open_session(&mut self, is_exclusive: bool) {
        let id = SessionId(self.id());
        let host = format!("host-{}", self.sessions.len());
        self.same(async |store| store.open_session(id, &host, is_exclusive, self.now).await).await;
        self.sessions.push(id);
    }

    /// The database chooses; the model says whether it may.
    pub(super) async fn claim(&mut self, session: Pick, tasks_max: u32, per_user_max: u32) -> Vec<(TaskId, Token)> {
        let session = chosen(&self.sessions, session).unwrap();
        let request = consign::store::ClaimRequest { session, tasks_max, per_user_max, now: self.now };
        let claims = self.real.claim(&request).await.unwrap();
        let ids: Vec<TaskId> = claims.iter().map(|claim| claim.task.id).collect();
        let token = claims.first().map_or(Token(0), |claim| claim.token);
        let expected = self.model.follow_claim(&request, &ids, token).unwrap();
        for (real, model) in claims.iter().zip(&expected) {
            assert_eq!(format!("{real:#?}"), format!("{model:#?}"), "the claims: the database's, then the model's");
            assert_eq!(real.open, model.open, "what is open: the database's, then the model's");
        }
        let claimed: Vec<(TaskId, Token)> = ids.into_iter().map(|id| (id, token)).collect();
        self.known.leases.extend(&claimed);
        claimed
    }

    fn task(&mut self, user: UserId, job: Option<JobId>, node: &Node, depends_on: Vec<TaskId>) -> Task {
        let is_upload = node.is_upload && depends_on.is_empty();
        let id = TaskId(self.id());
        Task {
            id,
            user_id: user,
            job_id: job,
            name: job.map(|_| format!("task {}", self.made)),
            operation: if is_upload { "import/upload" } else { "import/url" }.to_owned(),
            state: if is_upload { State::Uploading } else { State::Queued },
            ignore_error: node.ignores_error,
            percent: 0,
            code: None,
            message: None,
            warnings: if node.ignores_error { vec!["careful".to_owned()] } else { Vec::new() },
            files: Vec::new(),
            attempt: 0,
            created_at: self.now,
            started_at: None,
            ended_at: None,
            upload_expires_at: is_upload.then(|| self.now.plus(UPLOAD_TIME)),
            retry_of: None,
            depends_on,
            host_name: None,
        }
    }

    pub(super) fn new_job(&mut self, user: UserId, nodes: &[Node], has_url: bool, promise: Option<Promise>) -> NewJob {
        let id = JobId(self.id());
        let mut tasks: Vec<Task> = Vec::new();
        for node in nodes {
            let own = tasks.iter().enumerate().filter(|(n, _)| node.inputs >> (n % 8) & 1 == 1);
            let mut inputs: Vec<TaskId> = own.map(|(_, task)| task.id).collect();
            inputs.extend(node.foreign.and_then(|pick| chosen(&self.known.tasks, pick)).map(|(id, _)| id));
            let task = self.task(user, Some(id), node, inputs);
            tasks.push(task);
        }
        let job = Job {
            id,
            user_id: user,
            tag: Some("a tag".to_owned()),
            webhook_url: has_url.then(|| "sealed".to_owned()),
            status: WireStatus::Waiting,
            created_at: self.now,
            started_at: None,
            ended_at: None,
            origin: Origin::NoKey,
            tasks,
        };
        let payloads = job.tasks.iter().map(|task| task.id.to_string().into_bytes()).collect();
        NewJob { job, payloads, idempotency: promise.map(|promise| self.promise(promise)) }
    }

    fn promise(&self, promise: Promise) -> Idempotency {
        let Promise { key, request } = promise;
        Idempotency {
            key: format!("key {key}"),
            request_hash: [request; 32],
            answer: format!("answer {}", self.made).into_bytes(),
        }
    }

    pub(super) fn note_job(&mut self, job: &Job) {
        self.known.jobs.push((job.id, job.user_id));
        self.known.tasks.extend(job.tasks.iter().map(|task| (task.id, task.user_id)));
    }

    pub(super) async fn create_job(&mut self, user: Pick, nodes: &[Node], has_url: bool, promise: Option<Promise>) {
        let new = self.new_job(self.user(user), nodes, has_url, promise);
        if self.both(async |store| store.create_job(new.clone()).await).await == Creation::Created {
            self.note_job(&new.job);
        }
    }

    pub(super) async fn create_task(
        &mut self,
        user: Pick,
        inputs: &[Pick],
        retries: Option<Pick>,
        promise: Option<Promise>,
    ) {
        let user = self.user(user);
        let inputs = inputs.iter().filter_map(|pick| chosen(&self.known.tasks, *pick)).map(|(id, _)| id).collect();
        let node = Node { inputs: 0, foreign: None, ignores_error: false, is_upload: retries.is_some() };
        let mut task = self.task(user, None, &node, inputs);
        task.retry_of = retries.and_then(|pick| chosen(&self.known.tasks, pick)).map(|(id, _)| id);
        let retried = task.retry_of;
        let id = task.id;
        let idempotency = promise.map(|promise| self.promise(promise));
        let new = NewTask { task, payload: b"sealed".to_vec(), idempotency };
        if self.both(async |store| store.create_task(new.clone()).await).await == Creation::Created {
            self.known.tasks.push((id, user));
        }
        self.same(async |store| store.payload(id).await).await;
        if let Some(retried) = retried {
            self.same(async |store| store.retries(user, retried).await).await;
        }
    }

    pub(super) async fn create_webhook(&mut self, user: Pick) {
        let user_id = self.user(user);
        let new = NewWebhook {
            user_id,
            url: b"sealed url".to_vec(),
            events: EventKind::ALL.to_vec(),
            secret: self.id().as_bytes().to_vec(),
        };
        let made = self.both(async |store| store.create_webhook(new.clone(), 2, self.now).await).await;
        // Whoever does not know whether it was made runs it again.
        let again = self.both(async |store| store.create_webhook(new.clone(), 2, self.now).await).await;
        assert_eq!(again, made);
        self.webhooks.extend(made.map(|webhook| (webhook.id, user_id)));
    }

    pub(super) fn delivery_id(&mut self) -> DeliveryId {
        DeliveryId(self.id())
    }
}
