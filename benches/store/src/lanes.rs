//! The lanes: what is driven, and what one round of it took.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use testkit::Postgres;

use crate::machine::{self, Postmaster};
use crate::ours::{Load, Ours};
use crate::{TASKS_PER_JOB, apalis, graphile};

/// Who runs, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Sqlite { batch: u32 },
    Postgres { batch: u32 },
    Graphile { tuned: bool },
    ApalisPostgres,
    ApalisSqlite,
}

impl Lane {
    /// All, in the order in which a round runs them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Postgres { batch: 16 },
        Self::Graphile { tuned: false },
        Self::Postgres { batch: 1 },
        Self::Graphile { tuned: true },
        Self::ApalisPostgres,
        Self::Sqlite { batch: 16 },
        Self::ApalisSqlite,
        Self::Sqlite { batch: 1 },
    ];

    pub(crate) fn name(self) -> String {
        match self {
            Self::Sqlite { batch } => format!("Consign, SQLite, batch {batch}"),
            Self::Postgres { batch } => format!("Consign, PostgreSQL, batch {batch}"),
            Self::Graphile { tuned: false } => format!("graphile_worker {}, as shipped", graphile::VERSION),
            Self::Graphile { tuned: true } => {
                format!("graphile_worker {}, local queue and batched ends", graphile::VERSION)
            }
            Self::ApalisPostgres => format!("apalis {}, PostgreSQL", apalis::VERSION),
            Self::ApalisSqlite => format!("apalis {}, SQLite with synchronous=FULL", apalis::VERSION),
        }
    }

    pub(crate) fn is_on_sqlite(self) -> bool {
        matches!(self, Self::Sqlite { .. } | Self::ApalisSqlite)
    }

    /// The lane of ours that a peer is compared with.
    pub(crate) fn rival(self) -> Option<Self> {
        match self {
            Self::Sqlite { .. } | Self::Postgres { .. } => None,
            Self::Graphile { .. } | Self::ApalisPostgres => Some(Self::Postgres { batch: 16 }),
            Self::ApalisSqlite => Some(Self::Sqlite { batch: 16 }),
        }
    }
}

/// What one round took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) tasks: u32,
    pub(crate) wall_secs: f64,
    pub(crate) own_cpu_micros: f64,
    pub(crate) server_cpu_micros: f64,
    pub(crate) commits: f64,
    pub(crate) syncs: f64,
    pub(crate) log_bytes: f64,
}

impl Cost {
    pub(crate) fn tasks_per_sec(&self) -> f64 {
        f64::from(self.tasks) / self.wall_secs
    }
}

/// Counters before and after.
struct Counters<'a> {
    server: &'a Postgres,
    postmaster: Postmaster,
    own: u64,
    theirs: u64,
    wal: (f64, f64),
}

impl<'a> Counters<'a> {
    async fn read(server: &'a Postgres, postmaster: Postmaster) -> Result<Self> {
        let wal = server.psql("postgres", "SELECT wal_sync, wal_bytes FROM pg_stat_wal").await?;
        let (syncs, bytes) = wal.split_once('|').context("two counters")?;
        let wal = (syncs.parse()?, bytes.parse()?);
        Ok(Self { server, postmaster, own: machine::own_cpu_micros(), theirs: postmaster.cpu_micros(), wal })
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    async fn since(&self) -> Result<Cost> {
        let now = Self::read(self.server, self.postmaster).await?;
        Ok(Cost {
            own_cpu_micros: (now.own - self.own) as f64,
            server_cpu_micros: now.theirs.saturating_sub(self.theirs) as f64,
            syncs: now.wal.0 - self.wal.0,
            log_bytes: now.wal.1 - self.wal.1,
            ..Cost::default()
        })
    }
}

/// Runs a lane on a fresh database.
pub(crate) async fn round(
    lane: Lane,
    jobs: u32,
    server: &Postgres,
    postmaster: Postmaster,
    folder: &Path,
) -> Result<Cost> {
    if lane.is_on_sqlite() {
        return on_sqlite(lane, jobs, folder).await;
    }
    let url = server.database().await?;
    let name = url.rsplit('/').next().context("a name")?;
    // Each round begins with nothing left to write from the one before.
    server.psql("postgres", "CHECKPOINT").await?;
    let before = Counters::read(server, postmaster).await?;
    let wall_secs = match lane {
        Lane::Postgres { batch } => {
            let ours = Ours::postgres(&url).await?;
            let began = Instant::now();
            ours.run(Load { jobs, batch }).await?;
            let took = began.elapsed().as_secs_f64();
            ours.close().await;
            took
        }
        Lane::Graphile { tuned } => graphile::run(&url, jobs, tuned).await?,
        Lane::ApalisPostgres => apalis::postgres(&url, jobs).await?,
        Lane::Sqlite { .. } | Lane::ApalisSqlite => unreachable!("they have been run"),
    };
    let cost = before.since().await?;
    let commits = server
        .psql("postgres", &format!("SELECT xact_commit FROM pg_stat_database WHERE datname = '{name}'"))
        .await?
        .parse()?;
    server.psql("postgres", &format!("DROP DATABASE {name} WITH (FORCE)")).await?;
    Ok(Cost { tasks: jobs * TASKS_PER_JOB, wall_secs, commits, ..cost })
}

async fn on_sqlite(lane: Lane, jobs: u32, folder: &Path) -> Result<Cost> {
    let folder = tempfile::tempdir_in(folder)?;
    let cpu = machine::own_cpu_micros();
    let wall_secs = if let Lane::Sqlite { batch } = lane {
        let ours = Ours::sqlite(folder.path()).await?;
        let began = Instant::now();
        ours.run(Load { jobs, batch }).await?;
        let took = began.elapsed().as_secs_f64();
        ours.close().await;
        took
    } else {
        apalis::sqlite(folder.path(), jobs).await?
    };
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let own_cpu_micros = (machine::own_cpu_micros() - cpu) as f64;
    Ok(Cost { tasks: jobs * TASKS_PER_JOB, wall_secs, own_cpu_micros, ..Cost::default() })
}
