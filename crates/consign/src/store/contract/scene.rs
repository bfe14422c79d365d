//! What the cases are told with: a store with one user and one session, graphs as text, and states as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use connectors::Digests;

use crate::clock::{Clock, Timestamp};
use crate::id::{JobId, SessionId, TaskId, Token, UserId};
use crate::model::{BlobKey, File, Job, Origin, State, Task, WireStatus};
use crate::store::{Applied, Claim, ClaimRequest, Creation, NewJob, NewTask, Store};

/// A store with a user and a session.
#[derive(Debug)]
pub struct Scene {
    /// The store.
    pub store: Arc<dyn Store>,
    /// A clock that stands still.
    pub clock: Clock,
    /// A user.
    pub user: UserId,
    /// A session that lives.
    pub session: SessionId,
}

/// A job that was made.
#[derive(Debug)]
pub struct Made {
    /// Its id.
    pub id: JobId,
    /// Its tasks by name.
    pub tasks: BTreeMap<String, TaskId>,
}

impl Made {
    /// The task of that name.
    pub fn task(&self, name: &str) -> TaskId {
        self.tasks[name]
    }
}

/// A file as a runner would record it.
pub fn file(task: TaskId, token: Token) -> File {
    File {
        name: "a file.txt".to_owned(),
        size: 12,
        digests: Digests { md5: Some([1; 16]), sha256: [2; 32], crc32c: 0xffff_fffe },
        content_type: "text/plain".to_owned(),
        blob: Some(BlobKey::new(task, token, 1)),
        download: None,
        receipt: None,
    }
}

impl Scene {
    /// Adds the user and the session to an empty store.
    pub async fn new(store: Arc<dyn Store>) -> Self {
        let clock = Clock::manual(Timestamp(1_800_000_000_000_000));
        let user = store.ensure_user("ada", clock.now()).await.unwrap().id;
        let session = SessionId::new(clock.now());
        store.open_session(session, "host-a", false, clock.now()).await.unwrap();
        Self { store, clock, user, session }
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Lets time pass.
    pub fn wait(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    /// Builds a job from text: `"fetch; log!: fetch; up^; save: fetch up"` has four tasks, `log` ignores its error,
    /// `up` waits for an upload, and `save` takes files from `fetch` and `up`.
    pub fn new_job(&self, user: UserId, graph: &str) -> NewJob {
        let job = JobId::new(self.now());
        let nodes: Vec<(&str, Vec<&str>)> = graph
            .split(';')
            .map(|node| {
                let (name, inputs) = node.split_once(':').unwrap_or((node, ""));
                (name.trim(), inputs.split_whitespace().collect())
            })
            .collect();
        let ids: BTreeMap<&str, TaskId> =
            nodes.iter().map(|(name, _)| (name.trim_end_matches(['!', '^']), TaskId::new(self.now()))).collect();
        let tasks: Vec<Task> = nodes
            .iter()
            .map(|(marked, inputs)| {
                let name = marked.trim_end_matches(['!', '^']);
                Task {
                    job_id: Some(job),
                    name: Some(name.to_owned()),
                    ignore_error: marked.contains('!'),
                    depends_on: inputs.iter().map(|input| ids[input]).collect(),
                    ..self.new_task(user, ids[name], marked.contains('^'))
                }
            })
            .collect();
        NewJob {
            payloads: tasks.iter().map(|task| format!("sealed {}", task.id).into_bytes()).collect(),
            job: Job {
                id: job,
                user_id: user,
                tag: None,
                webhook_url: None,
                status: WireStatus::Waiting,
                created_at: self.now(),
                started_at: None,
                ended_at: None,
                origin: Origin::NoKey,
                tasks,
            },
            idempotency: None,
        }
    }

    fn new_task(&self, user: UserId, id: TaskId, is_upload: bool) -> Task {
        Task {
            id,
            user_id: user,
            job_id: None,
            name: None,
            operation: if is_upload { "import/upload" } else { "import/url" }.to_owned(),
            state: if is_upload { State::Uploading } else { State::Queued },
            ignore_error: false,
            percent: 0,
            code: None,
            message: None,
            warnings: Vec::new(),
            files: Vec::new(),
            attempt: 0,
            created_at: self.now(),
            started_at: None,
            ended_at: None,
            upload_expires_at: is_upload.then(|| self.now().plus(Duration::from_mins(1))),
            retry_of: None,
            depends_on: Vec::new(),
            host_name: None,
        }
    }

    /// Stores a job of the scene's user.
    pub async fn job(&self, graph: &str) -> Made {
        self.job_of(self.user, graph).await
    }

    /// Stores a job of somebody.
    pub async fn job_of(&self, user: UserId, graph: &str) -> Made {
        let new = self.new_job(user, graph);
        let made = Made {
            id: new.job.id,
            tasks: new.job.tasks.iter().map(|task| (task.name.clone().unwrap_or_default(), task.id)).collect(),
        };
        assert_eq!(self.store.create_job(new).await.unwrap(), Creation::Created);
        made
    }

    /// A task of its own that takes files from others, not stored yet.
    pub fn single(&self, inputs: &[TaskId]) -> NewTask {
        let task = Task { depends_on: inputs.to_vec(), ..self.new_task(self.user, TaskId::new(self.now()), false) };
        NewTask { task, payload: b"sealed".to_vec(), idempotency: None }
    }

    /// Claims up to `tasks_max` tasks for the scene's session.
    pub async fn claim(&self, tasks_max: u32) -> Vec<Claim> {
        self.claim_limited(tasks_max, u32::MAX).await
    }

    /// Claims with a limit per user.
    pub async fn claim_limited(&self, tasks_max: u32, per_user_max: u32) -> Vec<Claim> {
        let request = ClaimRequest { session: self.session, tasks_max, per_user_max, now: self.now() };
        self.store.claim(&request).await.unwrap()
    }

    /// Claims the only task that is ready.
    pub async fn claim_one(&self) -> Claim {
        let mut claims = self.claim(100).await;
        assert_eq!(claims.len(), 1, "one task is ready: {claims:?}");
        claims.remove(0)
    }

    /// Claims the task that comes next.
    pub async fn claim_one_of_many(&self) -> Claim {
        let mut claims = self.claim(1).await;
        assert_eq!(claims.len(), 1, "a task is ready");
        claims.remove(0)
    }

    /// Ends a claimed task well, with one file.
    pub async fn finish(&self, claim: &Claim) {
        assert_eq!(self.try_finish(claim).await, Applied::Done);
    }

    /// Ends a claimed task badly.
    pub async fn fail(&self, claim: &Claim) {
        assert_eq!(self.try_fail(claim).await, Applied::Done);
    }

    /// Tries to end a claimed task well.
    pub async fn try_finish(&self, claim: &Claim) -> Applied {
        let files = [file(claim.task.id, claim.token)];
        self.store.finish(claim.task.id, claim.token, &files, self.now()).await.unwrap()
    }

    /// Tries to end a claimed task badly.
    pub async fn try_fail(&self, claim: &Claim) -> Applied {
        self.store.fail(claim.task.id, claim.token, "FILE_NOT_FOUND", "It is gone.", self.now()).await.unwrap()
    }

    /// Claims everything that is ready, again and again, and ends those in `failing` badly, all others well.
    pub async fn run_all(&self, failing: &[TaskId]) {
        loop {
            let claims = self.claim(1000).await;
            if claims.is_empty() {
                return;
            }
            for claim in claims {
                if failing.contains(&claim.task.id) {
                    self.fail(&claim).await;
                } else {
                    self.finish(&claim).await;
                }
            }
        }
    }

    /// Reads a task.
    pub async fn task(&self, id: TaskId) -> Task {
        self.store.task(self.user, id).await.unwrap().expect("the task exists")
    }

    /// Reads a job.
    pub async fn read(&self, made: &Made) -> Job {
        self.store.job(self.user, made.id).await.unwrap().expect("the job exists")
    }

    /// Where a job and its tasks stand: `"processing: a finished, b error INPUT_TASK_FAILED"`.
    pub async fn states(&self, made: &Made) -> String {
        let job = self.read(made).await;
        let mut text = format!("{}:", job.status.wire());
        for task in &job.tasks {
            let comma = if text.ends_with(':') { "" } else { "," };
            write!(text, "{comma} {} {}", task.name.as_deref().unwrap_or("?"), task.state.name()).unwrap();
            if let Some(code) = &task.code {
                write!(text, " {code}").unwrap();
            }
        }
        text
    }
}
