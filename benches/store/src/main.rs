//! Measures the store of Consign beside other job queues, on both databases, in one run; see `--help`.
//!
//! It stands outside of the workspace, so that the peers are compiled only by whoever measures:
//! `cargo run --release --manifest-path benches/store/Cargo.toml -- [--small]`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use testkit::Postgres;

use crate::growth::Growth;
use crate::lanes::Lane;
use crate::machine::Postmaster;
use crate::report::Row;

mod apalis;
#[path = "../../../crates/xtask/src/bench/figures.rs"]
mod figures;
mod graphile;
mod growth;
mod lanes;
mod machine;
mod ours;
#[path = "../../../crates/xtask/src/bench/plot.rs"]
#[expect(dead_code, reason = "the store needs lines only")]
mod plot;
mod report;

/// Tasks of a job, one after the other.
const TASKS_PER_JOB: u32 = 3;
/// Clients that make jobs at the same time.
const CREATORS: usize = 16;
/// Handlers of a peer that run at the same time.
const AT_ONCE: usize = 16;
/// Connections to PostgreSQL, for each lane: Consign's default.
const CONNECTIONS: u32 = 16;
/// A round of a peer that takes longer is given up.
const GIVE_UP: Duration = Duration::from_secs(120);

/// Measures the store beside other job queues.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only as much as shows that it works
    #[arg(long)]
    small: bool,
    /// Jobs of a round
    #[arg(long, default_value_t = 1_000)]
    jobs: u32,
    /// Rounds of each lane
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Jobs to which the databases grow
    #[arg(long, default_value_t = 100_000)]
    growth: u32,
    /// Seconds after which they grow no further
    #[arg(long, default_value_t = 1_800)]
    growth_secs: u64,
    /// Only lanes whose name contains this text
    #[arg(long, default_value = "")]
    only: String,
    /// Folder for SQLite, on a disk; PostgreSQL is in `/tmp`
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Folder for the page and the plots
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/generated/bench"))]
    out: PathBuf,
}

/// What the numbers depend on.
struct Setting {
    command: String,
    machine: String,
    disk: String,
    syncs_per_sec: f64,
    postgres: String,
    sqlite: String,
    load: f64,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.small {
        (arguments.jobs, arguments.rounds, arguments.growth) = (100, 1, 2_000);
    }
    let folder = arguments.folder.clone().unwrap_or_else(std::env::temp_dir);
    let own = testkit::own_postgres().await?;
    let server = own.server();
    let postmaster = Postmaster::of(server).await?;
    let setting = setting(server, &folder, &arguments).await?;
    println!("{}, {}, {:.0} syncs/s", setting.machine, setting.disk, setting.syncs_per_sec);

    let mut rows: Vec<Row> = Lane::ALL
        .into_iter()
        .filter(|lane| lane.name().contains(&arguments.only))
        .map(|lane| Row { lane, rounds: Vec::new(), failure: None })
        .collect();
    // The first round opens files and fills caches; it is not counted.
    for number in 0..=arguments.rounds {
        let jobs = if number == 0 { (arguments.jobs / 10).max(10) } else { arguments.jobs };
        for row in rows.iter_mut().filter(|row| row.failure.is_none()) {
            match Box::pin(lanes::round(row.lane, jobs, server, postmaster, &folder)).await {
                Ok(cost) => {
                    println!("round {number}, {}: {:.0} tasks/s", row.lane.name(), cost.tasks_per_sec());
                    if number > 0 {
                        row.rounds.push(cost);
                    }
                }
                Err(error) => {
                    println!("round {number}, {}: {error:#}", row.lane.name());
                    row.failure = Some(error.to_string());
                }
            }
        }
    }
    let growth = if arguments.growth > 0 {
        let time_max = Duration::from_secs(arguments.growth_secs);
        Box::pin(growth::grow(arguments.growth, time_max, server, postmaster, &folder)).await?
    } else {
        Growth::default()
    };
    rows.sort_by_key(|row| (row.lane.is_on_sqlite(), row.lane.rival().is_some()));
    let page = report::markdown(&setting, &rows, &growth);
    println!("{page}");
    std::fs::create_dir_all(&arguments.out)?;
    std::fs::write(arguments.out.join("store.md"), page)?;
    for (name, plot) in report::plots(&growth) {
        std::fs::write(arguments.out.join(name), plot)?;
    }
    Ok(())
}

async fn setting(server: &Postgres, folder: &std::path::Path, arguments: &Arguments) -> Result<Setting> {
    let mut settings = format!("PostgreSQL {}", server.version);
    for name in ["fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size"] {
        settings.push_str(&format!(", `{name}={}`", server.psql("postgres", &format!("SHOW {name}")).await?));
    }
    let mut sqlite = sqlx::SqlitePool::connect(":memory:").await?.acquire().await?;
    let version: String = sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut *sqlite).await?;
    let Arguments { jobs, rounds, growth, growth_secs, .. } = arguments;
    let command = format!(
        "cargo run --release --manifest-path benches/store/Cargo.toml -- \
         --jobs {jobs} --rounds {rounds} --growth {growth} --growth-secs {growth_secs}"
    );
    Ok(Setting {
        command,
        machine: figures::machine(),
        disk: machine::disk(folder).context("which disk")?,
        syncs_per_sec: machine::syncs_per_sec(folder)?,
        postgres: settings,
        sqlite: version,
        load: figures::load(),
    })
}
