//! A fleet whose connections to the database a pooler shares, as `deploy/pgbouncer.ini` sets it up.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use http::{Method, StatusCode};
use serde_json::json;
use testkit::{POOLER_CONNECTIONS, or_skip};
use tokio::time::{Instant, timeout};

use super::fleet::Fleet;
use super::harness::{id, task};

/// Jobs that are made at once.
const JOBS: usize = 30;
/// Longer than a process takes to look by itself, and sooner than a wait that nobody wakes reads again.
const SOON: Duration = Duration::from_secs(9);

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_works_through_a_pooler_that_shares_connections() {
    let Some(server) = or_skip(testkit::postgres().await) else { return };
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/pgbouncer.ini");
    let Some(pooler) = or_skip(testkit::pooler(&server, &shipped).await) else { return };
    let direct = server.database().await.unwrap();
    let fleet = Fleet::at(pooler.url(&direct).unwrap());
    let one = fleet.api(None).await;
    let other = fleet.api(Some(&one)).await;
    let (_first, _second) = (fleet.runner(), fleet.runner());
    assert!(one.log().contains("a pooler shares the connections"), "{}", one.log());

    let raw = || json!({"in": {"operation": "import/raw", "file": "a", "filename": "a"}, "link": {"operation": "export/url", "input": "in"}});
    let jobs = join_all((0..JOBS).map(|n| if n % 2 == 0 { one.job(raw()) } else { other.job(raw()) })).await;
    join_all(jobs.iter().map(|job| one.finished(job))).await;

    // What happens at one process the others notice soon, though nobody tells them.
    let made = one.job(json!({"up": {"operation": "import/upload"}})).await;
    let waiting = async {
        let (status, ended) = one.call(Method::GET, &format!("/v2/jobs/{}/wait", id(&made)), None).await;
        assert_eq!((status, ended["data"]["status"].as_str()), (StatusCode::OK, Some("finished")), "{ended}");
    };
    let began = Instant::now();
    let both = async { tokio::join!(waiting, other.upload(task(&made, "up"), "a", b"hello")) };
    timeout(SOON * 4, both).await.expect("it ends");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());

    let name = direct.rsplit('/').next().unwrap();
    let count = format!("SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '{name}'");
    let connections: u32 = server.psql("postgres", &count).await.unwrap().parse().unwrap();
    assert!((1..=POOLER_CONNECTIONS).contains(&connections), "{connections}: they are shared");
    // None of them was left without a bound, or to read whole tables.
    let set = "SELECT concat_ws(' ', current_setting('statement_timeout'), current_setting('plan_cache_mode'), current_setting('enable_seqscan'))";
    for _ in 0..20 {
        let told =
            testkit::tool::run("psql", &["-X", "-A", "-t", "-q", "-d", &pooler.url(&direct).unwrap(), "-c", set]).await;
        assert_eq!(String::from_utf8(told.unwrap()).unwrap().trim(), "15s force_generic_plan off");
    }
    one.nothing_is_lost().await;
    other.nothing_is_lost().await;
}
