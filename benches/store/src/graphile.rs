//! The peer `graphile_worker`: each job adds the next one of its chain from inside its handler.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, TaskHandler, WorkerContext, WorkerContextExt as _, WorkerOptions,
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::{AT_ONCE, CONNECTIONS, CREATORS, GIVE_UP, TASKS_PER_JOB};

/// The version that is built.
pub(crate) const VERSION: &str = "0.14.1";
/// What its manual advises for throughput.
const COMPLETE_EVERY: Duration = Duration::from_millis(5);

static ENDED: AtomicU32 = AtomicU32::new(0);

/// One link of a chain.
#[derive(Debug, Deserialize, Serialize)]
struct Link {
    place: u32,
    /// As large as the arguments of one of Consign's tasks in this benchmark.
    payload: String,
}

impl Link {
    fn at(place: u32) -> Self {
        Self { place, payload: "sealed 01234567-0123-0123-0123-0123456789ab".to_owned() }
    }
}

impl TaskHandler for Link {
    const IDENTIFIER: &'static str = "link";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        if self.place + 1 < TASKS_PER_JOB {
            context.add_job(Self::at(self.place + 1), JobSpec::default()).await.map_err(|error| error.to_string())?;
        }
        ENDED.fetch_add(1, Ordering::Relaxed);
        Ok::<(), String>(())
    }
}

/// Makes `jobs` chains and waits until all have ended; with `tuned`, jobs are fetched and completed in batches. Returns how many
/// seconds that took, without the set-up.
pub(crate) async fn run(url: &str, jobs: u32, tuned: bool) -> Result<f64> {
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(url).await?;
    let mut options = WorkerOptions::default().pg_pool(pool.clone()).concurrency(AT_ONCE).define_job::<Link>();
    if tuned {
        options = options.local_queue(LocalQueueConfig::default()).complete_job_batch_delay(COMPLETE_EVERY);
    }
    let worker = Arc::new(options.init().await.map_err(|error| anyhow!("{error}"))?);
    ENDED.store(0, Ordering::Relaxed);
    let running = tokio::spawn({
        let worker = Arc::clone(&worker);
        async move { worker.run().await.map_err(|error| anyhow!("{error}")) }
    });
    let began = Instant::now();
    let left = Arc::new(AtomicU32::new(jobs));
    let mut creators = JoinSet::new();
    for _ in 0..CREATORS {
        let (utils, left) = (worker.create_utils(), Arc::clone(&left));
        creators.spawn(async move {
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                utils.add_job(Link::at(0), JobSpec::default()).await.map_err(|error| anyhow!("{error}"))?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = creators.join_next().await {
        ended??;
    }
    ended(&pool, jobs * TASKS_PER_JOB).await?;
    let took = began.elapsed().as_secs_f64();
    worker.request_shutdown();
    running.await??;
    pool.close().await;
    Ok(took)
}

/// Waits until all handlers ran, and then until the database says so too: what is done is deleted.
async fn ended(pool: &PgPool, tasks: u32) -> Result<()> {
    let began = Instant::now();
    loop {
        sleep(Duration::from_millis(5)).await;
        if ENDED.load(Ordering::Relaxed) >= tasks {
            let left: i64 =
                sqlx::query_scalar("SELECT COUNT(*) FROM graphile_worker._private_jobs").fetch_one(pool).await?;
            if left == 0 {
                return Ok(());
            }
        }
        ensure!(began.elapsed() < GIVE_UP, "only {} of {tasks} ended in time", ENDED.load(Ordering::Relaxed));
    }
}
