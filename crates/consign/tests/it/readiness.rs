//! `readyz` and the metrics say it when PostgreSQL is gone, takes no writes or has another time, and when that is over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use connectors::Secret;
use consign::clock::Clock;
use consign::files::Files;
use consign::http::health;
use consign::store::PostgresStore;
use consign::store::postgres::Options;
use consign::telemetry::health::Health;
use consign::telemetry::metrics::Metrics;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tempfile::TempDir;
use testkit::Postgres;
use tokio::time::{Instant, sleep};
use tower::ServiceExt as _;

/// How long a change may take to be seen: longer than the server needs to come back.
const SEEN_WITHIN: Duration = Duration::from_secs(30);

/// What operators and balancers ask of a process on this database.
struct Process {
    router: Router,
    _folder: TempDir,
}

impl Process {
    async fn on(url: &str, clock: Clock) -> Self {
        let options = Options { connections_max: 4, listen: false };
        let store = Arc::new(PostgresStore::open(&Secret::new(url), options).await.unwrap());
        let folder = TempDir::new().unwrap();
        let files = Files::open(&folder.path().join("files")).await.unwrap();
        let health = Health::new(store, files, clock, Arc::new(Metrics::new()), folder.path().to_owned());
        Self { router: health::router(health), _folder: folder }
    }

    async fn ask(&self, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    /// The checks that fail, with what is to be done.
    async fn failing(&self) -> BTreeMap<String, String> {
        let (status, body) = self.ask("/readyz").await;
        let body: Value = serde_json::from_str(&body).unwrap();
        let failing = body["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let failing: BTreeMap<_, _> = failing.map(|check| (text(&check["name"]), text(&check["reason"]))).collect();
        assert_eq!(status, if failing.is_empty() { 200 } else { 503 }, "{body}");
        failing
    }

    /// Waits until just these checks fail; returns what is to be done about them.
    async fn until(&self, wanted: &[&str]) -> String {
        let end = Instant::now() + SEEN_WITHIN;
        loop {
            let failing = self.failing().await;
            if failing.keys().eq(wanted) {
                return failing.into_values().collect();
            }
            assert!(Instant::now() < end, "wanted are {wanted:?}, and not {failing:?}");
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// What the metrics say right after a probe.
    async fn has(&self, line: &str) -> bool {
        self.ask("/metrics").await.1.lines().any(|found| found == line)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_gone_is_said_to_be_so_until_it_is_back() {
    let Some(mut server) = testkit::or_skip(testkit::own_postgres().await) else { return };
    let process = Process::on(&server.server().database().await.unwrap(), Clock::system()).await;
    process.until(&[]).await;
    assert!(process.has("consign_database_up 1").await);
    server.crash().await.unwrap();
    let told = process.until(&["database"]).await;
    assert!(told.contains("see"), "what to do: {told}");
    assert!(process.has("consign_database_up 0").await && process.has("consign_ready 0").await);
    server.start().await.unwrap();
    process.until(&[]).await;
    assert!(process.has("consign_database_up 1").await && process.has("consign_ready 1").await);
}

/// Lets new sessions of a database write or not, and ends all others.
async fn set_read_only(server: &Postgres, name: &str, read_only: bool) {
    let set = if read_only { "SET default_transaction_read_only = on" } else { "RESET default_transaction_read_only" };
    server.psql("postgres", &format!("ALTER DATABASE {name} {set}")).await.unwrap();
    server.end_sessions(name, "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_takes_no_writes_is_not_up() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    let name = url.rsplit('/').next().unwrap();
    let process = Process::on(&url, Clock::system()).await;
    process.until(&[]).await;
    set_read_only(&server, name, true).await;
    let told = process.until(&["database"]).await;
    assert!(told.contains("cannot be written to"), "{told}");
    assert!(process.has("consign_database_up 0").await);
    set_read_only(&server, name, false).await;
    process.until(&[]).await;
    assert!(process.has("consign_database_up 1").await);
}

/// Somebody stands still in the middle of the very write that says that the database works: he holds up nobody.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_stands_still_makes_no_other_unready() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    let process = Process::on(&url, Clock::system()).await;
    let mut other = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.unwrap();
    sqlx::raw_sql("BEGIN; UPDATE meta SET value = value").execute(&mut other).await.unwrap();
    assert_eq!(process.failing().await, BTreeMap::new());
    sqlx::raw_sql("COMMIT").execute(&mut other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_goes_wrong_after_the_start_is_noticed() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    let clock = Clock::manual(Clock::system().now());
    let process = Process::on(&url, clock.clone()).await;
    // What it took to come here does not count.
    clock.advance(Clock::system().now().since(clock.now()));
    assert_eq!(process.failing().await, BTreeMap::new());
    clock.advance(Duration::from_hours(1));
    let told = process.until(&["clock"]).await;
    assert!(told.contains("NTP"), "what to do: {told}");
    assert!(process.has("consign_database_up 1").await && process.has("consign_ready 0").await);
    let behind = Process::on(&url, Clock::manual(Clock::system().now().minus(Duration::from_hours(1)))).await;
    behind.until(&["clock"]).await;
}
