//! A server without a socket: every part real but the runner, whose moves a test makes by hand.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{self, HeaderMap, Method, Request, StatusCode};
use connectors::egress::Guard;
use connectors::http::tls_config;
use connectors::{Limits, Network, Progress};
use consign::auth;
use consign::clock::{Clock, Timestamp};
use consign::config::{Config, Period};
use consign::files::Files;
use consign::http::live::Periods;
use consign::http::{AppState, router};
use consign::id::{KeyId, SessionId, TaskId, UserId};
use consign::model::{BlobKey, Download, File, Scope};
use consign::operations::trial::Trials;
use consign::secret::Vault;
use consign::store::{Applied, Claim, ClaimRequest, NewKey, SqliteStore, Store, TaskProgress};
use consign::telemetry::metrics::Metrics;
use futures_util::stream;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt as _;

/// 2026-01-05T09:00:00Z.
pub(crate) const START: Timestamp = Timestamp(1_767_603_600_000_000);
pub(crate) const URL: &str = "https://cc.example.test";

pub(crate) struct App {
    pub(crate) state: AppState,
    pub(crate) clock: Clock,
    pub(crate) key: String,
    router: Router,
    session: SessionId,
    folder: TempDir,
}

impl App {
    pub(crate) async fn new() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = TempDir::new().unwrap();
        let clock = Clock::manual(START);
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&folder.path().join("consign.db")).await.unwrap());
        let files = Files::open(&folder.path().join("files")).await.unwrap();
        let mut config = Config::default();
        config.limits.wait_max = Period::from_secs(20);
        change(&mut config);
        let vault = Arc::new(Vault::new(&[7; 32]));
        let state = AppState::new(
            store,
            files,
            vault,
            clock.clone(),
            Arc::new(config),
            URL,
            Arc::new(Metrics::default()),
            trials(),
        );
        let session = SessionId::new(clock.now());
        state.store.open_session(session, "worker-1", true, clock.now()).await.unwrap();
        let (key, _) = new_key(&state, "ann", &Scope::ALL).await;
        Self { router: router(state.clone(), false), state, clock, key, session, folder }
    }

    /// The same with other patience on live connections.
    pub(crate) fn hurried(mut self, change: impl FnOnce(&mut Periods)) -> Self {
        change(&mut self.state.live.periods);
        self.router = router(self.state.clone(), false);
        self
    }

    /// A router on which every show and create waits.
    pub(crate) fn waiting_router(&self) -> Router {
        router(self.state.clone(), true)
    }

    pub(crate) fn router(&self) -> Router {
        self.router.clone()
    }

    pub(crate) fn files_folder(&self) -> std::path::PathBuf {
        self.folder.path().join("files")
    }

    pub(crate) fn request(&self, method: &str, target: &str) -> Asked {
        Asked {
            router: self.router.clone(),
            request: Request::builder()
                .method(Method::from_bytes(method.as_bytes()).unwrap())
                .uri(target)
                .header("host", "cc.example.test")
                .header("authorization", format!("Bearer {}", self.key)),
            body: Body::empty(),
        }
    }

    pub(crate) async fn get(&self, target: &str) -> Reply {
        self.request("GET", target).send().await
    }

    pub(crate) async fn post(&self, target: &str, body: Value) -> Reply {
        self.request("POST", target).body(body.to_string()).send().await
    }

    /// Makes a job of `import/url` and `export/url` and gives their ids.
    pub(crate) async fn small_job(&self) -> (String, TaskId, TaskId) {
        let job = self
            .post(
                "/v2/jobs",
                serde_json::json!({"tag": "small", "tasks": {
                    "in": {"operation": "import/url", "url": "https://files.example.test/a.txt"},
                    "out": {"operation": "export/url", "input": "in"},
                }}),
            )
            .await;
        assert_eq!(job.status, StatusCode::CREATED, "{}", job.text());
        let job = job.json();
        let id = |index: usize| job["data"]["tasks"][index]["id"].as_str().unwrap().parse().unwrap();
        (job["data"]["id"].as_str().unwrap().to_owned(), id(0), id(1))
    }

    /// Takes the next ready task, as a runner would.
    pub(crate) async fn claim(&self) -> Claim {
        let request = ClaimRequest { session: self.session, tasks_max: 1, per_user_max: 10, now: self.clock.now() };
        self.state.store.claim(&request).await.unwrap().pop().expect("a task is ready")
    }

    /// Ends a claimed task with these files.
    pub(crate) async fn finish(&self, claim: &Claim, files: &[File]) {
        let now = self.clock.now();
        assert_eq!(self.state.store.finish(claim.task.id, claim.token, files, now).await.unwrap(), Applied::Done);
    }

    /// Ends a claimed task badly.
    pub(crate) async fn fail(&self, claim: &Claim) {
        let now = self.clock.now();
        let failed = self.state.store.fail(claim.task.id, claim.token, "FILE_NOT_FOUND", "It is not there.", now).await;
        assert_eq!(failed.unwrap(), Applied::Done);
    }

    /// Says how far a claimed task is.
    pub(crate) async fn progress(&self, claim: &Claim, percent: u8) {
        let progress = [TaskProgress { id: claim.task.id, token: claim.token, percent }];
        self.state.store.heartbeat(self.session, &progress, self.clock.now()).await.unwrap();
    }

    /// Runs all that is ready to its end, without files.
    pub(crate) async fn run_small_job(&self) {
        for _ in 0..2 {
            self.run_one().await;
        }
    }

    /// Runs the next ready task to its end, without files.
    pub(crate) async fn run_one(&self) {
        let claim = self.claim().await;
        self.finish(&claim, &[]).await;
    }

    /// Revokes the key that everything is asked with.
    pub(crate) async fn revoke_key(&self) {
        let (key, _) = self.state.store.list_keys().await.unwrap().remove(0);
        assert!(self.state.store.revoke_key(&key.name, self.clock.now()).await.unwrap());
    }

    /// Keeps a file for a claimed task.
    pub(crate) async fn keep(&self, claim: &Claim, number: u32, name: &str, content: &[u8]) -> File {
        let blob = BlobKey::new(claim.task.id, claim.token, number);
        let bytes = bytes::Bytes::copy_from_slice(content);
        let stream = Box::pin(stream::iter([Ok(bytes)]));
        let received = self.state.files.receive(&blob, stream, None, 1 << 30, &Progress::default()).await.unwrap();
        File {
            name: name.to_owned(),
            size: received.size,
            digests: received.digests,
            content_type: consign::files::name::content_type(name),
            blob: Some(blob),
            download: None,
            receipt: None,
        }
    }

    /// Runs the small job to its end and gives the link of its file.
    pub(crate) async fn link_to(&self, name: &str, content: &[u8], inline: bool) -> (String, TaskId) {
        self.link_to_typed(name, content, inline, &consign::files::name::content_type(name)).await
    }

    /// The same for a file whose media type somebody told.
    pub(crate) async fn link_to_typed(
        &self,
        name: &str,
        content: &[u8],
        inline: bool,
        content_type: &str,
    ) -> (String, TaskId) {
        let (job, ..) = self.small_job().await;
        let import = self.claim().await;
        let file = self.keep(&import, 1, name, content).await;
        self.finish(&import, &[file]).await;
        let export = self.claim().await;
        self.publish(&export, name, content, inline, content_type).await;
        let job = self.get(&format!("/v2/jobs/{job}")).await.json();
        let url = job["data"]["tasks"][1]["result"]["files"][0]["url"].as_str().unwrap();
        (url.strip_prefix(URL).unwrap().to_owned(), export.task.id)
    }

    /// Ends a claimed `export/url` task with one file to download.
    pub(crate) async fn publish(&self, export: &Claim, name: &str, content: &[u8], inline: bool, content_type: &str) {
        let file = self.keep(export, 1, name, content).await;
        let expires_at = self.clock.now().plus(Duration::from_hours(24));
        let download = Some(Download { inline, expires_at });
        self.finish(export, &[File { content_type: content_type.to_owned(), download, ..file }]).await;
    }
}

/// Trials over a network that leads to public addresses only.
fn trials() -> Trials {
    Trials::new(Network::new(Guard::new([]), tls_config(&[]).unwrap(), Limits::default(), 4))
}

/// Makes a key for a user.
pub(crate) async fn new_key(state: &AppState, user: &str, scopes: &[Scope]) -> (String, UserId) {
    let now = state.clock.now();
    let user = state.store.ensure_user(user, now).await.unwrap();
    let key = auth::new_key();
    let id = KeyId::new(now);
    let new = NewKey {
        id,
        user_id: user.id,
        name: id.to_string(),
        hash: auth::hash(&key),
        scopes: scopes.to_vec(),
        expires_at: None,
    };
    state.store.create_key(new, now).await.unwrap().unwrap();
    (key, user.id)
}

/// Whether a folder holds no file, however deep.
pub(crate) fn holds_no_file(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return true };
    entries.flatten().all(|entry| entry.path().is_dir() && holds_no_file(&entry.path()))
}

/// A request that is being put together.
pub(crate) struct Asked {
    router: Router,
    request: http::request::Builder,
    body: Body,
}

impl Asked {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        if let Some(headers) = self.request.headers_mut() {
            headers.insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        self
    }

    pub(crate) fn anonymous(mut self) -> Self {
        self.request.headers_mut().unwrap().remove("authorization");
        self
    }

    pub(crate) fn by(self, key: &str) -> Self {
        self.header("authorization", &format!("Bearer {key}"))
    }

    pub(crate) fn through(self, router: Router) -> Self {
        Self { router, ..self }
    }

    pub(crate) fn body(self, body: impl Into<Body>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// The head of the answer, with a body that is still to be read.
    pub(crate) async fn open(self) -> http::Response<Body> {
        self.router.oneshot(self.request.body(self.body).unwrap()).await.unwrap()
    }

    pub(crate) async fn send(self) -> Reply {
        let response = self.open().await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: parts.status, headers: parts.headers, body: body.to_vec() }
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Checks that it is an error of that code.
    #[track_caller]
    pub(crate) fn fails(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        let body = self.json();
        assert_eq!(body["code"], code, "{body}");
        assert!(body["message"].as_str().is_some_and(|message| message.ends_with('.')), "{body}");
        body
    }
}
