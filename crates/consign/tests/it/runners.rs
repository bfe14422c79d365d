//! Several runners on one PostgreSQL database, each with a clock, a pool and files of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use connectors::egress::Guard;
use connectors::http::tls_config;
use connectors::{Limits, Network, OpenUpload, Secret};
use consign::clock::Clock;
use consign::config::Config;
use consign::files::Files;
use consign::id::TaskId;
use consign::runner::{Runner, Tools};
use consign::secret::Vault;
use consign::store::contract::Scene;
use consign::store::postgres::Options;
use consign::store::{Applied, Creation, PostgresStore, Store};
use consign::telemetry::metrics::Metrics;
use serde_json::json;
use sqlx::Connection as _;
use tempfile::TempDir;
use testkit::Postgres;
use tokio::net::TcpListener;
use tokio::time::sleep;

use crate::program::eventually;

/// What seals the arguments of all.
const KEY: [u8; 32] = [7; 32];

/// What runners share.
struct Fleet {
    server: Postgres,
    database: String,
    folders: Vec<TempDir>,
}

impl Fleet {
    /// Of none yet; nothing when the machine has no server.
    async fn new() -> Option<Self> {
        let server = testkit::or_skip(testkit::postgres().await)?;
        let database = server.database().await.unwrap();
        Some(Self { server, database, folders: Vec::new() })
    }

    async fn store(&self) -> Arc<dyn Store> {
        let options = Options { connections_max: 8, listen: true };
        Arc::new(PostgresStore::open(&Secret::new(self.database.as_str()), options).await.unwrap())
    }

    /// One more, and what it counts.
    async fn runner(&mut self, clock: Clock) -> (Runner, Arc<Metrics>) {
        let folder = TempDir::new().unwrap();
        let files = Files::open(folder.path()).await.unwrap();
        let host_name = format!("host-{}", self.folders.len());
        self.folders.push(folder);
        let metrics = Arc::new(Metrics::default());
        let guard = Guard::new(["127.0.0.0/8".parse().unwrap()]);
        let tools = Tools {
            store: self.store().await,
            files,
            network: Network::new(guard, tls_config(&[]).unwrap(), Limits::default(), 4),
            vault: Arc::new(Vault::new(&KEY)),
            clock,
            config: Arc::new(Config::default()),
            metrics: Arc::clone(&metrics),
            host_name,
            exclusive: false,
        };
        (Runner::start(tools).await.unwrap(), metrics)
    }

    async fn ask(&self, sql: &str) -> String {
        self.server.psql(self.database.rsplit('/').next().unwrap(), sql).await.unwrap()
    }
}

/// A destination that takes connections and never answers; how many have come.
async fn silent() -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (addr, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            held.push(connection);
        }
    });
    (addr, count)
}

/// An upload that a task left open when it ended.
async fn orphan(store: Arc<dyn Store>, destination: std::net::SocketAddr) {
    let mut scene = Scene::new(store).await;
    scene.clock = Clock::system();
    let args = json!({
        "bucket": "b", "region": "r", "key": "k", "endpoint": format!("http://{destination}"), "access_key_id": "a",
        "secret_access_key": "s",
    });
    let mut new = scene.new_job(scene.user, "a");
    "export/s3".clone_into(&mut new.job.tasks[0].operation);
    new.payloads[0] = Vault::new(&KEY).seal(args.to_string().as_bytes());
    assert_eq!(scene.store.create_job(new).await.unwrap(), Creation::Created);
    let claim = scene.claim_one().await;
    let open = OpenUpload {
        target: "k".to_owned(),
        handle: "upload".to_owned(),
        sha256: "ab".repeat(32),
        part_bytes: 5 << 20,
        parts: std::collections::BTreeMap::new(),
    };
    assert!(scene.store.ledger_open(claim.task.id, claim.token, &open, scene.now()).await.unwrap());
    scene.fail(&claim).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_tries_to_abort_an_upload() {
    let Some(mut fleet) = Fleet::new().await else { return };
    let (destination, asked) = silent().await;
    orphan(fleet.store().await, destination).await;
    let mut runners = Vec::new();
    for _ in 0..3 {
        runners.push(fleet.runner(Clock::system()).await);
    }
    eventually("the first try", async || (asked.load(Ordering::Relaxed) > 0).then_some(())).await;
    // Longer than the others need for a look, shorter than anybody waits for an answer.
    sleep(Duration::from_secs(2)).await;
    assert_eq!(asked.load(Ordering::Relaxed), 1, "one asks, the others leave it alone");
    assert_eq!(fleet.ask("SELECT abort_tries FROM ledger").await, "0", "it is not decided yet");
    for (runner, _) in runners {
        runner.stop(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_cost_nobody_a_lease() {
    const HOUR: Duration = Duration::from_hours(1);

    let Some(mut fleet) = Fleet::new().await else { return };
    let now = Clock::system().now();
    let clocks = [Clock::manual(now.minus(HOUR)), Clock::system(), Clock::manual(now.plus(HOUR))];
    let mut runners = Vec::new();
    for clock in clocks {
        runners.push(fleet.runner(clock).await);
    }
    let sessions = "SELECT host_name, id FROM sessions ORDER BY host_name";
    let opened = fleet.ask(sessions).await;
    assert_eq!(opened.lines().count(), 3, "{opened}");
    // Each has had a heartbeat, and has looked after the others, some times.
    sleep(consign::runner::HEARTBEAT_EVERY * 2).await;
    assert_eq!(fleet.ask(sessions).await, opened, "all live on under the same name");
    for (runner, _) in runners {
        runner.stop(Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_far_ahead_removes_and_ends_nothing() {
    let Some(mut fleet) = Fleet::new().await else { return };
    let mut scene = Scene::new(fleet.store().await).await;
    scene.clock = Clock::system();
    let (ended, waits, delayed) = (scene.job("a").await, scene.job("up^").await, scene.job("a").await);
    let claims = scene.claim(2).await;
    let of = |task: TaskId| claims.iter().find(|claim| claim.task.id == task).unwrap();
    scene.finish(of(ended.task("a"))).await;
    let (claim, until) = (of(delayed.task("a")), scene.now().plus(Duration::from_hours(1)));
    let applied = scene.store.delay(claim.task.id, claim.token, until, scene.now()).await.unwrap();
    assert_eq!(applied, Applied::Done);
    let retention = Config::default().retention.0;
    let (runner, _) = fleet.runner(Clock::manual(scene.now().plus(retention * 2))).await;
    // It has looked for what has expired when it started, and for what is due at each heartbeat since.
    sleep(consign::runner::HEARTBEAT_EVERY * 2).await;
    assert_eq!(scene.states(&ended).await, "finished: a finished", "it is kept");
    assert_eq!(scene.states(&waits).await, "waiting: up uploading", "there is time left");
    assert_eq!(scene.states(&delayed).await, "processing: a delayed", "it is not due");
    runner.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn trash_that_another_has_taken_is_left_alone() {
    let Some(mut fleet) = Fleet::new().await else { return };
    let mut scene = Scene::new(fleet.store().await).await;
    scene.clock = Clock::system();
    let delete = async || {
        let single = scene.single(&[]);
        let id = single.task.id;
        assert_eq!(scene.store.create_task(single).await.unwrap(), Creation::Created);
        assert!(scene.store.delete_task(scene.user, id, scene.now()).await.unwrap());
        id
    };
    let taken = delete().await;
    let until = scene.now().plus(Duration::from_hours(1));
    assert_eq!(scene.store.take_trash(9, scene.now(), until).await.unwrap(), [taken]);
    delete().await;
    let (runner, _) = fleet.runner(Clock::system()).await;
    let trash = async || fleet.ask("SELECT task_id FROM trash").await;
    eventually("the other's end", async || (trash().await == taken.to_string()).then_some(())).await;
    // A sweep more, after a hint.
    delete().await;
    eventually("an end of that as well", async || (trash().await == taken.to_string()).then_some(())).await;
    runner.stop(Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_claim_leaves_out_is_asked_for_again_soon() {
    let Some(mut fleet) = Fleet::new().await else { return };
    let mut scene = Scene::new(fleet.store().await).await;
    scene.clock = Clock::system();
    let mut new = scene.new_job(scene.user, "a");
    "import/raw".clone_into(&mut new.job.tasks[0].operation);
    new.payloads[0] = Vault::new(&KEY).seal(json!({"file": "hello", "filename": "a.txt"}).to_string().as_bytes());
    let id = new.job.id;
    assert_eq!(scene.store.create_job(new).await.unwrap(), Creation::Created);
    let mut holder = sqlx::PgConnection::connect(&fleet.database).await.unwrap();
    let hold = format!("BEGIN; SELECT 1 FROM jobs WHERE id = '{id}' FOR UPDATE");
    sqlx::raw_sql(sqlx::AssertSqlSafe(hold)).execute(&mut holder).await.unwrap();
    let (runner, metrics) = fleet.runner(Clock::system()).await;
    // Left alone, a runner looks every 2 s.
    sleep(Duration::from_millis(1500)).await;
    let text = metrics.text();
    let claims = text.lines().find_map(|line| line.strip_prefix("consign_store_seconds_count{call=\"claim\"} "));
    let claims: u32 = claims.map_or(0, |count| count.parse().unwrap());
    assert!((4..30).contains(&claims), "{claims} claims: often at first, then less often");
    assert_eq!(fleet.ask("SELECT state FROM tasks").await, "queued");
    sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
    eventually("its end", async || (fleet.ask("SELECT state FROM tasks").await == "finished").then_some(())).await;
    runner.stop(Duration::ZERO).await;
}
