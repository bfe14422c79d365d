//! Measures the store alone: jobs of three tasks whose work is nothing, from making to the end.
//!
//! `cargo run --release --example store_bench --features test-support -- [JOBS] [FOLDER]`

#![expect(clippy::print_stdout, reason = "it is a program that prints a table")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use consign::clock::Clock;
use consign::id::SessionId;
use consign::store::contract::{Scene, file};
use consign::store::{ClaimRequest, SqliteStore, Store, Transitions as _};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let jobs: u32 = arguments.next().map_or(Ok(2_000), |jobs| jobs.parse())?;
    let folder = arguments.next().map_or_else(std::env::temp_dir, PathBuf::from);
    println!("{:>8} {:>6} {:>10} {:>12}", "at once", "jobs", "tasks/s", "us CPU/task");
    for at_once in [1, 8, 64, 256] {
        let jobs = if at_once == 1 { jobs.div_ceil(10) } else { jobs };
        measure(&folder, jobs, at_once).await?;
    }
    Ok(())
}

/// Each of `at_once` clients makes a job, and claims and finishes as many tasks, until all jobs are made.
async fn measure(folder: &std::path::Path, jobs: u32, at_once: u32) -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in(folder)?;
    let store = Arc::new(SqliteStore::open(&folder.path().join("consign.db")).await?);
    let clock = Clock::system();
    let scene = Scene::new(Arc::clone(&store) as Arc<dyn Store>).await;
    let session = SessionId::new(clock.now());
    store.open_session(session, "bench", false, clock.now()).await?;
    let (left, scene) = (Arc::new(AtomicU32::new(jobs)), Arc::new(scene));
    let (start, cpu) = (Instant::now(), cpu_micros());
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..at_once {
        let (store, scene, left) = (Arc::clone(&store), Arc::clone(&scene), Arc::clone(&left));
        clients.spawn(async move {
            let now = scene.now();
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                scene.job("fetch; turn: fetch; save: turn").await;
                let mut ended = 0;
                while ended < 3 {
                    let request = ClaimRequest { session, tasks_max: 1, per_user_max: u32::MAX, now };
                    let claims = store.claim(&request).await?;
                    if claims.is_empty() {
                        break;
                    }
                    for claim in claims {
                        let files = [file(claim.task.id, claim.token)];
                        let _ = store.finish(claim.task.id, claim.token, &files, now).await?;
                        ended += 1;
                    }
                }
            }
            anyhow::Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    scene.run_all(&[]).await;
    let (took, tasks) = (start.elapsed().as_secs_f64(), f64::from(jobs * 3));
    let cpu = f64::from(u32::try_from(cpu_micros() - cpu)?);
    println!("{at_once:>8} {jobs:>6} {:>10.0} {:>12.0}", tasks / took, cpu / tasks);
    store.close().await;
    Ok(())
}

/// Time that this process has spent computing, from `/proc`.
fn cpu_micros() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    // A tick is a hundredth of a second on every Linux that Rust runs on.
    ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() * 10_000
}
