//! How the cost of a task grows with what is in the database.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use testkit::Postgres;

use crate::TASKS_PER_JOB;
use crate::machine::{self, Postmaster};
use crate::ours::{Load, Ours};

/// Jobs of a sample.
const STEP: u32 = 1_000;

/// What a thousand jobs took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Jobs in the database at the end.
    pub(crate) jobs: u32,
    pub(crate) wall_micros: f64,
    pub(crate) cpu_micros: f64,
    pub(crate) mebibytes: f64,
}

#[derive(Default)]
pub(crate) struct Growth {
    pub(crate) sqlite: Vec<Sample>,
    pub(crate) postgres: Vec<Sample>,
    pub(crate) note: Option<String>,
}

/// Grows both databases in turns, until there are so many jobs in each or the time is up.
pub(crate) async fn grow(
    jobs: u32,
    time_max: Duration,
    server: &Postgres,
    postmaster: Postmaster,
    folder: &Path,
) -> Result<Growth> {
    let folder = tempfile::tempdir_in(folder)?;
    let url = server.database().await?;
    let name = url.rsplit('/').next().context("a name")?;
    let (sqlite, postgres) = (Ours::sqlite(folder.path()).await?, Ours::postgres(&url).await?);
    let mut growth = Growth::default();
    let began = Instant::now();
    for step in 1..=jobs / STEP {
        if began.elapsed() > time_max {
            growth.note = Some(format!("The run was cut off after {} s.", time_max.as_secs()));
            break;
        }
        let bytes = || async { Ok(machine::bytes_in(folder.path())) };
        growth.sqlite.push(sample(&sqlite, step * STEP, machine::own_cpu_micros, bytes).await?);
        let bytes = || async {
            let told = server.psql("postgres", &format!("SELECT pg_database_size('{name}')")).await?;
            Ok(told.parse()?)
        };
        let cpu = || machine::own_cpu_micros() + postmaster.cpu_micros();
        growth.postgres.push(sample(&postgres, step * STEP, cpu, bytes).await?);
        if step.is_multiple_of(10) {
            eprintln!("{} jobs in each database after {:.0} s", step * STEP, began.elapsed().as_secs_f64());
        }
    }
    sqlite.close().await;
    postgres.close().await;
    Ok(growth)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
async fn sample<B>(ours: &Ours, jobs: u32, cpu: impl Fn() -> u64, bytes: impl Fn() -> B) -> Result<Sample>
where
    B: Future<Output = Result<u64>>,
{
    let tasks = f64::from(STEP * TASKS_PER_JOB);
    let (began, computed) = (Instant::now(), cpu());
    ours.run(Load { jobs: STEP, batch: 16 }).await?;
    let wall_micros = began.elapsed().as_secs_f64() * 1e6 / tasks;
    let cpu_micros = (cpu() - computed) as f64 / tasks;
    Ok(Sample { jobs, wall_micros, cpu_micros, mebibytes: bytes().await? as f64 / f64::from(1 << 20) })
}
