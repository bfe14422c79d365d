//! The store on PostgreSQL keeps the contract; what only PostgreSQL has: many processes, lost connections, restarts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use connectors::{OpenUpload, Part, Secret};
use consign::id::{DeliveryId, SessionId, TaskId};
use consign::model::EventKind;
use consign::store::contract::{Made, Scene};
use consign::store::postgres::{OpenError, Options};
use consign::store::{
    Applied, Cancellation, Creation, Error, Heartbeat, NewDelivery, NewWebhook, PostgresStore, Recipient, Store,
    contract,
};
use futures_util::future::join_all;
use sqlx::Connection as _;
use testkit::Postgres;
use tokio::runtime::Handle;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

const OPTIONS: Options = Options { connections_max: 8, listen: true };
/// Longer than a hint takes on a busy machine, shorter than anything that comes round by itself.
const HEARD_WITHIN: Duration = Duration::from_secs(9);

macro_rules! contract_parts {
    ($($part:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $part() {
            let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
            let make = async || {
                let store: Arc<dyn Store> = Arc::new(fresh(&server).await);
                store
            };
            contract::$part::all(&make).await;
        }
    )+};
}

contract_parts!(accounts, making, lists, ending, leases, ledger, removal, fairness, signed_urls, walk, webhooks);

#[tokio::test(flavor = "multi_thread")]
async fn races() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let urls = Mutex::new(Vec::new());
    let make = async || {
        let url = server.database().await.unwrap();
        let store: Arc<dyn Store> = Arc::new(open(&url).await);
        urls.lock().unwrap().push(url);
        store
    };
    contract::races::all(&make).await;
    assert_no_deadlocks(&server, &urls.into_inner().unwrap()).await;
}

/// Waits until so many sessions of a database wait for a lock.
async fn wait_for_lock(server: &Postgres, url: &str, sessions: u32) {
    let name = url.rsplit('/').next().unwrap();
    let count = format!("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '{name}' AND wait_event_type = 'Lock'");
    while server.psql("postgres", &count).await.unwrap() != sessions.to_string() {
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_task_and_the_deletion_of_its_job_come_one_after_the_other() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    let scene = Scene::new(Arc::new(open(&url).await)).await;
    let made = scene.job("a; b").await;
    let claim = scene.claim_one_of_many().await;
    // Somebody holds the task, so that both are under way before either can go on.
    let mut other = sqlx::PgConnection::connect(&url).await.unwrap();
    let hold = format!("BEGIN; SELECT 1 FROM tasks WHERE id = '{}' FOR UPDATE", claim.task.id);
    sqlx::raw_sql(sqlx::AssertSqlSafe(hold)).execute(&mut other).await.unwrap();
    let (store, now, user) = (Arc::clone(&scene.store), scene.now(), scene.user);
    let (id, token) = (claim.task.id, claim.token);
    let finishing = tokio::spawn(async move { store.finish(id, token, &[], now).await.unwrap() });
    wait_for_lock(&server, &url, 1).await;
    let (store, job) = (Arc::clone(&scene.store), made.id);
    let deleting = tokio::spawn(async move { store.delete_job(user, job, now).await.unwrap() });
    wait_for_lock(&server, &url, 2).await;
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
    assert_eq!(finishing.await.unwrap(), Applied::Done);
    deleting.await.unwrap();
    assert_no_deadlocks(&server, &[url]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_names_what_somebody_is_just_removing_hears_that_it_is_gone() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    let scene = Scene::new(Arc::new(open(&url).await)).await;
    let webhook = NewWebhook {
        user_id: scene.user,
        url: b"sealed".to_vec(),
        events: vec![EventKind::JobCreated],
        secret: b"sealed".to_vec(),
    };
    let webhook = scene.store.create_webhook(webhook, 1, scene.now()).await.unwrap().unwrap();
    scene.job("a").await;
    let claim = scene.claim_one().await;
    let (id, token, now) = (claim.task.id, claim.token, scene.now());
    let open = OpenUpload {
        target: "t".to_owned(),
        handle: "h".to_owned(),
        sha256: String::new(),
        part_bytes: 5,
        parts: BTreeMap::new(),
    };
    assert!(scene.store.ledger_open(id, token, &open, now).await.unwrap());
    let mut remover = held(&url, "DELETE FROM ledger; DELETE FROM webhooks").await;
    let store = Arc::clone(&scene.store);
    let part = Part { size: 5, etag: "e".to_owned(), checksum: None };
    let noting = tokio::spawn(async move { store.ledger_part(id, token, "t", 1, &part).await.unwrap() });
    let (store, line) = (Arc::clone(&scene.store), scene.store.outbox(1).await.unwrap()[0]);
    let delivery = NewDelivery { id: DeliveryId::new(now), to: Recipient::Webhook(webhook.id), body: Vec::new() };
    let telling = tokio::spawn(async move { store.tell(line, vec![delivery], now).await.unwrap() });
    wait_for_lock(&server, &url, 2).await;
    sqlx::raw_sql("COMMIT").execute(&mut remover).await.unwrap();
    assert!(!noting.await.unwrap(), "there is no upload whose part it is");
    assert!(telling.await.unwrap(), "those who are left are told: nobody");
    assert_eq!(scene.store.counts(now).await.unwrap().deliveries, 0);
}

/// Somebody who stands still in the middle of a transaction.
async fn held(url: &str, rows: &str) -> sqlx::PgConnection {
    let mut other = sqlx::PgConnection::connect(url).await.unwrap();
    let hold = format!("BEGIN; {rows}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(hold)).execute(&mut other).await.unwrap();
    other
}

/// Claims, and waits for nobody.
async fn claim_at_once(scene: &Scene, tasks_max: u32) -> Vec<TaskId> {
    let claims = timeout(Duration::from_secs(2), scene.claim(tasks_max)).await.expect("a claim waits for no job");
    claims.into_iter().map(|claim| claim.task.id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_somebody_holds_is_left_out_of_claims() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    let scene = Scene::new(Arc::new(open(&url).await)).await;
    // Longer than what a claim looks at, so that it would hide what comes behind it.
    let graph = (0..300).map(|n| format!("t{n}")).collect::<Vec<_>>().join("; ");
    let (first, second) = (scene.job(&graph).await, scene.job("a").await);
    let eve = scene.store.ensure_user("eve", scene.now()).await.unwrap().id;
    let (other, last) = (scene.job_of(eve, "b").await, scene.job_of(eve, "c").await);
    let mut holder = held(&url, &format!("SELECT 1 FROM jobs WHERE id = '{}' FOR UPDATE", first.id)).await;
    // The first task of either user has the same turn, so that one of the two is held.
    assert_eq!(claim_at_once(&scene, 2).await, [other.task("b"), last.task("c")]);
    assert!(scene.store.hints().take_left_out(), "it is to be asked for again");
    let turn = "SELECT vt FROM users WHERE name = 'ada'";
    let turn = server.psql(url.rsplit('/').next().unwrap(), turn).await.unwrap();
    assert_eq!(turn, "0", "what is left out is not taken");
    assert_eq!(claim_at_once(&scene, 10).await, [second.task("a")]);
    assert!(claim_at_once(&scene, 10).await.is_empty());
    assert!(scene.store.hints().take_left_out());
    sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
    assert_eq!(claim_at_once(&scene, 1).await, [first.task("t0")], "its turn is what it was");
    assert_eq!(claim_at_once(&scene, 1000).await.len(), 299);
    assert!(!scene.store.hints().take_left_out(), "nobody holds anything");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_somebody_holds_is_left_out_of_claims() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    let scene = Scene::new(Arc::new(open(&url).await)).await;
    let (first, second) = (scene.job("a; b; c").await, scene.job("d").await);
    let alone = scene.single(&[]);
    let (single, a) = (alone.task.id, first.task("a"));
    assert_eq!(scene.store.create_task(alone).await.unwrap(), Creation::Created);
    // As the creation of a task does that takes files from these.
    let mut holder = held(&url, &format!("SELECT 1 FROM tasks WHERE id IN ('{a}', '{single}') FOR SHARE")).await;
    assert_eq!(claim_at_once(&scene, 2).await, [first.task("b"), first.task("c")]);
    assert_eq!(claim_at_once(&scene, 2).await, [second.task("d")]);
    sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
    assert_eq!(claim_at_once(&scene, 2).await, [a, single]);
}

/// What races for the same rows takes them in the same order. A deadlock is run again, but after a second in which it holds up
/// all others.
async fn assert_no_deadlocks(server: &Postgres, urls: &[String]) {
    // A session reports what it has counted a second later, at the latest.
    sleep(Duration::from_millis(1500)).await;
    let names: Vec<String> = urls.iter().map(|url| format!("'{}'", url.rsplit('/').next().unwrap())).collect();
    let count = format!("SELECT SUM(deadlocks) FROM pg_stat_database WHERE datname IN ({})", names.join(", "));
    assert_eq!(server.psql("postgres", &count).await.unwrap(), "0", "transactions waited for each other in a circle");
}

async fn fresh(server: &Postgres) -> PostgresStore {
    open(&server.database().await.unwrap()).await
}

async fn open(url: &str) -> PostgresStore {
    PostgresStore::open(&Secret::new(url), OPTIONS).await.unwrap()
}

#[tokio::test]
async fn an_address_that_leads_nowhere_is_told_without_its_password() {
    let told = |error: OpenError| {
        let text = format!("{error} {error:?}");
        assert!(!text.contains("hunter2"), "{text}");
        text
    };
    let closed = PostgresStore::open(&Secret::new("postgres://ada:hunter2@127.0.0.1:1/x"), OPTIONS).await;
    assert!(told(closed.unwrap_err()).contains("127.0.0.1:1/x"));
    let nonsense = PostgresStore::open(&Secret::new("postgres://ada:hunter2@[/x"), OPTIONS).await;
    assert!(matches!(nonsense, Err(OpenError::Address)));
    told(nonsense.unwrap_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn several_processes_start_at_once_on_an_empty_database() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    let stores = join_all((0..6).map(|_| open(&url))).await;
    for store in &stores {
        store.ping().await.unwrap();
    }
    let agreed = join_all(stores.iter().zip(1..).map(|(store, own)| store.agree_on("x", own))).await;
    let first = agreed[0].as_ref().unwrap();
    assert!(agreed.iter().all(|number| number.as_ref().unwrap() == first), "{agreed:?}");
}

#[tokio::test]
async fn a_database_that_is_ahead_is_used_only_if_it_says_so() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    let name = url.rsplit('/').next().unwrap();
    open(&url).await.close().await;
    let later = "INSERT INTO _sqlx_migrations VALUES (9999, 'later', now(), TRUE, '', 0)";
    server.psql(name, later).await.unwrap();
    open(&url).await.ping().await.unwrap();
    server.psql(name, "UPDATE meta SET value = 9999 WHERE name = 'schema_floor'").await.unwrap();
    let refused = PostgresStore::open(&Secret::new(url.as_str()), OPTIONS).await.expect_err("it is newer");
    assert!(matches!(refused, OpenError::NewerSchema { found: 9999, floor: 9999, .. }), "{refused}");
    server
        .psql(
            name,
            "UPDATE _sqlx_migrations SET checksum = 'x' WHERE version = 1; DELETE FROM _sqlx_migrations \
                       WHERE version = 9999",
        )
        .await
        .unwrap();
    let refused = PostgresStore::open(&Secret::new(url.as_str()), OPTIONS).await.expect_err("it is another");
    assert!(matches!(refused, OpenError::OtherSchema(1)), "{refused}");
}

/// How long a call may be held up by a change of the schema: longer than that waits for a table, shorter than a call waits for a
/// row.
const HELD_UP_MAX: Duration = Duration::from_secs(6);

/// Whoever wants to write to a table waits behind whoever waits for it to change it: he must give up, and try again.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_schema_that_has_to_wait_holds_up_nobody_for_long() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    let name = url.rsplit('/').next().unwrap();
    let scene = Scene::new(Arc::new(open(&url).await)).await;
    let earlier = "DROP INDEX tasks_ready; DELETE FROM _sqlx_migrations WHERE version = 4";
    server.psql(name, earlier).await.unwrap();
    // Somebody has written to the table, and stands still.
    let mut holder = held(&url, "LOCK TABLE tasks IN ROW EXCLUSIVE MODE").await;
    let later = url.clone();
    let upgrading = spawn_blocking(move || Handle::current().block_on(open(&later)));
    for _ in 0..2 {
        wait_for_lock(&server, &url, 1).await;
        timeout(HELD_UP_MAX, scene.job("a")).await.expect("it waits no longer than the upgrade");
    }
    assert!(!upgrading.is_finished(), "it tries again");
    sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
    upgrading.await.unwrap().ping().await.unwrap();
    let made = "SELECT COUNT(*) FROM pg_class WHERE relname = 'tasks_ready'";
    assert_eq!(server.psql(name, made).await.unwrap(), "1");
    // One that somebody built before the upgrade, while all others went on, is taken.
    server.psql(name, "DELETE FROM _sqlx_migrations WHERE version = 4").await.unwrap();
    open(&url).await.ping().await.unwrap();
}

/// Jobs that are made while connections and servers come and go.
const JOBS: usize = 40;

/// Makes jobs, claims and finishes them; every call must succeed. Returns the jobs.
async fn work(store: Arc<PostgresStore>, count: Arc<AtomicUsize>) -> (Scene, Vec<Made>) {
    let scene = Scene::new(store).await;
    let mut made = Vec::new();
    while count.fetch_add(1, Ordering::Relaxed) < JOBS {
        made.push(scene.job("a; b: a").await);
        for _ in 0..2 {
            for claim in scene.claim(4).await {
                // An end whose answer was lost in a crash is stale when it is written again.
                let _ = scene.try_finish(&claim).await;
            }
        }
    }
    (scene, made)
}

/// Nothing acknowledged is missing, and all of it can be brought to its end.
async fn check(scene: &mut Scene, made: &[Made]) {
    // Claims whose answer came before a crash are held by a session that does not know of them.
    scene.wait(60);
    scene.store.expire_sessions(scene.now(), 100, scene.now()).await.unwrap();
    scene.session = SessionId::new(scene.now());
    scene.store.open_session(scene.session, "host-a", false, scene.now()).await.unwrap();
    scene.run_all(&[]).await;
    for job in made {
        assert_eq!(scene.states(job).await, "finished: a finished, b finished");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_of_the_server_are_waited_out() {
    let Some(mut server) = testkit::or_skip(testkit::own_postgres().await) else { return };
    let url = server.server().database().await.unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let working = tokio::spawn(work(Arc::new(open(&url).await), Arc::clone(&count)));
    for restart_at in [2, JOBS / 3, JOBS / 2] {
        while count.load(Ordering::Relaxed) < restart_at {
            sleep(Duration::from_millis(5)).await;
        }
        server.restart().await.unwrap();
    }
    let (mut scene, made) = working.await.unwrap();
    check(&mut scene, &made).await;
}

/// A client that was told that its job is being processed must not find it waiting again.
#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_was_seen_survives_a_crash() {
    let Some(mut server) = testkit::or_skip(testkit::own_postgres().await) else { return };
    // What does not wait for the disk would be written by chance, a moment later.
    for setting in ["wal_writer_delay = '10s'", "bgwriter_delay = '10s'"] {
        server.server().psql("postgres", &format!("ALTER SYSTEM SET {setting}")).await.unwrap();
    }
    server.restart().await.unwrap();
    let url = server.server().database().await.unwrap();
    let options = Options { listen: false, ..OPTIONS };
    let store = PostgresStore::open(&Secret::new(url.as_str()), options).await.unwrap();
    let scene = Scene::new(Arc::new(store)).await;
    for _ in 0..2 {
        let made = scene.job("a; b: a").await;
        scene.claim_one().await;
        let seen = scene.read(&made).await;
        assert_eq!(scene.states(&made).await, "processing: a running, b blocked");
        server.restart().await.unwrap();
        assert_eq!(scene.read(&made).await, seen);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loss_of_every_connection_costs_nothing() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    let name = url.rsplit('/').next().unwrap();
    let working = tokio::spawn(work(Arc::new(open(&url).await), Arc::default()));
    while !working.is_finished() {
        sleep(Duration::from_millis(100)).await;
        server.end_sessions(name, "").await.unwrap();
    }
    let (mut scene, made) = working.await.unwrap();
    check(&mut scene, &made).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_callers_than_connections_take_turns() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    let few = Options { connections_max: 2, listen: true };
    let scene = Scene::new(Arc::new(PostgresStore::open(&Secret::new(url.as_str()), few).await.unwrap())).await;
    let scene = &scene;
    // These share transactions, so that there are never more than two.
    let made = join_all((0..60).map(|_| scene.job("a; b: a"))).await;
    // Each of these has a transaction of its own.
    let calling = made.iter().map(|made| async move {
        let (store, user, now, ids) = (&scene.store, scene.user, scene.now(), [made.task("a")]);
        let (created, claims, read, listed, cancelled) = tokio::join!(
            store.create_task(scene.single(&[])),
            scene.claim(1),
            store.job(user, made.id),
            store.tasks(user, &ids),
            store.cancel(user, made.task("b"), now),
        );
        assert_eq!(created.unwrap(), Creation::Created);
        assert_eq!((read.unwrap().unwrap().id, listed.unwrap().len()), (made.id, 1));
        assert_eq!(cancelled.unwrap(), Cancellation::Done);
        claims.len()
    });
    let claimed: usize = join_all(calling).await.into_iter().sum();
    let counts = scene.store.counts(scene.now()).await.unwrap();
    assert_eq!((counts.queued + counts.running, counts.running), (120, claimed as u64), "an `a` and one alone each");
}

/// How long a sign of life may take: far less than others wait for a row.
const BEAT_WITHIN: Duration = Duration::from_secs(2);

/// Somebody stands still with a job, and all connections of a process wait for it. Its calls fail in time, with an error that says
/// that they may be made again; and meanwhile it does not lose its leases.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_whose_connections_all_wait_goes_on_saying_that_it_lives() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    let few = Options { connections_max: 2, listen: false };
    let scene = Scene::new(Arc::new(PostgresStore::open(&Secret::new(url.as_str()), few).await.unwrap())).await;
    let made = scene.job("a; b; c; d; e; f").await;
    let beat = async || {
        let beating = async {
            let now = scene.store.session_time(scene.now()).await?;
            scene.store.heartbeat(scene.session, &[], now).await
        };
        let answer = timeout(BEAT_WITHIN, beating).await.expect("it waits for no other call");
        assert_eq!(answer.unwrap(), Heartbeat::Alive);
    };
    let mut holder = held(&url, "SELECT 1 FROM jobs FOR UPDATE").await;
    let cancel = |id: &TaskId| {
        let (store, user, id, now) = (Arc::clone(&scene.store), scene.user, *id, scene.now());
        tokio::spawn(async move { store.cancel(user, id, now).await })
    };
    let cancelling: Vec<_> = made.tasks.values().map(cancel).collect();
    wait_for_lock(&server, &url, 2).await;
    while !cancelling.iter().all(tokio::task::JoinHandle::is_finished) {
        beat().await;
        sleep(Duration::from_millis(300)).await;
    }
    for ended in join_all(cancelling).await {
        let error = ended.unwrap().expect_err("somebody holds the job");
        assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    }
    sqlx::raw_sql("COMMIT").execute(&mut holder).await.unwrap();
    // A connection that is lost is made anew.
    let name = url.rsplit('/').next().unwrap();
    server.end_sessions(name, "").await.unwrap();
    beat().await;
    let cancelled = scene.store.cancel(scene.user, made.task("a"), scene.now()).await;
    assert_eq!(cancelled.unwrap(), Cancellation::Done);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_process_does_another_hears_of_at_once() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    let name = url.rsplit('/').next().unwrap();
    let scene = Scene::new(Arc::new(open(&url).await)).await;
    let polling = Options { listen: false, ..OPTIONS };
    let polling = PostgresStore::open(&Secret::new(url.as_str()), polling).await.unwrap();
    let listening = open(&url).await;
    // Listening begins a moment after opening, and says so by announcing everything.
    sleep(Duration::from_millis(500)).await;
    for _ in 0..3 {
        let made = scene.job("a").await;
        for store in [&listening, &polling] {
            let mut watcher = store.hints().watch(made.id.0);
            let mut commits = store.hints().commits();
            scene.store.cancel(scene.user, made.task("a"), scene.now()).await.unwrap();
            timeout(HEARD_WITHIN, watcher.changed()).await.expect("a hint");
            timeout(HEARD_WITHIN, commits.recv()).await.expect("a commit").unwrap();
        }
        let told = timeout(HEARD_WITHIN, listening.hints().ready());
        scene.job("b").await;
        told.await.expect("there is work");
        // Whoever listens is cut off, and hears again a moment later.
        server.end_sessions(name, "LISTEN").await.unwrap();
        sleep(Duration::from_millis(1500)).await;
    }
}

/// What it costs grows with what happens meanwhile, so that it must be seen.
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_somebody_holds_stops_nobody_and_is_seen() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    let mut scene = Scene::new(Arc::new(open(&url).await)).await;
    let mut other = sqlx::PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT * FROM tasks").execute(&mut other).await.unwrap();
    let mut made = Vec::new();
    for _ in 0..20 {
        made.push(scene.job("a; b: a").await);
        scene.run_all(&[]).await;
    }
    check(&mut scene, &made).await;
    sleep(Duration::from_millis(1100)).await;
    assert!(scene.store.counts(scene.now()).await.unwrap().oldest_snapshot_secs >= 1, "it is open for longer");
    sqlx::raw_sql("COMMIT; BEGIN; SELECT 1").execute(&mut other).await.unwrap();
    sleep(Duration::from_millis(1100)).await;
    assert_eq!(scene.store.counts(scene.now()).await.unwrap().oldest_snapshot_secs, 0, "it holds nothing any more");
    // Who has written holds as much as who reads.
    sqlx::raw_sql("UPDATE users SET vt = vt").execute(&mut other).await.unwrap();
    assert!(scene.store.counts(scene.now()).await.unwrap().oldest_snapshot_secs >= 1, "it is open for longer");
}

#[test]
fn agrees_with_memory() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some(server) = testkit::or_skip(runtime.block_on(testkit::postgres())) else { return };
    crate::model::agrees_with_memory(async || {
        let store: Arc<dyn Store> = Arc::new(fresh(&server).await);
        store
    });
}

/// How often many hands are set on a few rows.
const ROUNDS: u64 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn many_hands() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let seed = crate::model::seed();
    for round in 0..ROUNDS {
        let url = server.database().await.unwrap();
        // Each with a pool of its own, as processes have.
        let stores: Vec<Arc<dyn Store>> =
            vec![Arc::new(open(&url).await), Arc::new(open(&url).await), Arc::new(open(&url).await)];
        crate::model::many_hands(&stores, seed.wrapping_add(round)).await;
    }
}
