//! The peer `apalis`, on PostgreSQL and on SQLite: each task pushes the next one of its chain from inside its handler.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ::apalis::prelude::*;
use anyhow::{Result, anyhow, bail, ensure};
use apalis_postgres::PostgresStorage;
use apalis_sqlite::SqliteStorage;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::{AT_ONCE, CONNECTIONS, CREATORS, GIVE_UP, TASKS_PER_JOB};

/// The version that is built, of `apalis` and of both storages.
pub(crate) const VERSION: &str = "1.0.0";
const QUEUE: &str = "bench";
/// How often it looks by itself, beside the notifications.
const LOOK_EVERY: Duration = Duration::from_millis(20);

static ENDED: AtomicU32 = AtomicU32::new(0);

/// One link of a chain.
#[derive(Clone, Debug, Deserialize, Serialize)]
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

/// Makes `jobs` chains, runs a worker, waits until all have ended, and says how many seconds that took. A macro, since the
/// two storages share no bound that is short to write.
macro_rules! drive {
    ($storage:ty, $sink:expr, $backend:expr, $jobs:expr, $left_over:expr) => {{
        async fn link(link: Link, sink: Data<$storage>) -> std::result::Result<(), BoxDynError> {
            if link.place + 1 < TASKS_PER_JOB {
                let mut sink: $storage = (*sink).clone();
                sink.push(Link::at(link.place + 1)).await?;
            }
            ENDED.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        ENDED.store(0, Ordering::Relaxed);
        let sink: $storage = $sink;
        let stop = Arc::new(tokio::sync::Notify::new());
        let worker = WorkerBuilder::new("bench")
            .backend($backend)
            .data(sink.clone())
            .concurrency(AT_ONCE)
            .parallelize(tokio::spawn)
            .build(link);
        let mut running = std::pin::pin!(worker.run_until({
            let stop = Arc::clone(&stop);
            async move {
                stop.notified().await;
                Ok::<(), WorkerError>(())
            }
        }));
        let driving = async {
            let began = Instant::now();
            let left = Arc::new(AtomicU32::new($jobs));
            let mut creators = JoinSet::new();
            for _ in 0..CREATORS {
                let (mut sink, left) = (sink.clone(), Arc::clone(&left));
                creators.spawn(async move {
                    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                        sink.push(Link::at(0)).await.map_err(|error| anyhow!("{error}"))?;
                    }
                    anyhow::Ok(())
                });
            }
            while let Some(ended) = creators.join_next().await {
                ended??;
            }
            let (waiting, tasks) = (Instant::now(), $jobs * TASKS_PER_JOB);
            loop {
                sleep(Duration::from_millis(5)).await;
                if ENDED.load(Ordering::Relaxed) >= tasks && $left_over.await? == 0 {
                    break;
                }
                ensure!(waiting.elapsed() < GIVE_UP, "only {} of {tasks} ended in time", ENDED.load(Ordering::Relaxed));
            }
            anyhow::Ok(began.elapsed().as_secs_f64())
        };
        let took = tokio::select! {
            took = driving => took?,
            ended = &mut running => bail!("the worker stopped by itself: {ended:?}"),
        };
        stop.notify_one();
        running.await.map_err(|error| anyhow!("{error}"))?;
        took
    }};
}

/// Runs it on PostgreSQL.
pub(crate) async fn postgres(url: &str, jobs: u32) -> Result<f64> {
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS).connect(url).await?;
    PostgresStorage::setup(&pool).await?;
    let config = apalis_postgres::Config::default().queue(QUEUE).batch_size(AT_ONCE);
    let storage = || PostgresStorage::<Link>::new(&pool).with_config(config.clone());
    let left_over =
        || sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM apalis.jobs WHERE status <> 'Done'").fetch_one(&pool);
    let backend = storage().with_pubsub().poll_with_interval(LOOK_EVERY);
    let took = drive!(PostgresStorage<Link>, storage(), backend, jobs, left_over());
    pool.close().await;
    Ok(took)
}

/// Runs it on SQLite, in a mode in which what was acknowledged survives a crash: its own `setup` turns that off.
pub(crate) async fn sqlite(folder: &Path, jobs: u32) -> Result<f64> {
    let options = SqliteConnectOptions::new()
        .filename(folder.join("apalis.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(30));
    // With more than one, transactions that read first and then write fail as busy, and its worker ends.
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
    SqliteStorage::migrations().run(&pool).await?;
    let config = apalis_sqlite::Config::default().queue(QUEUE).batch_size(AT_ONCE);
    let storage = || SqliteStorage::<Link>::new(&pool).with_config(config.clone());
    let left_over =
        || sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM Jobs WHERE status <> 'Done'").fetch_one(&pool);
    let backend = storage().poll_with_interval(LOOK_EVERY);
    let took = drive!(SqliteStorage<Link>, storage(), backend, jobs, left_over());
    pool.close().await;
    Ok(took)
}
