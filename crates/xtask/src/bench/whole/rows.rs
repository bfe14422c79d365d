//! How the store's answers slow down, or do not, with the number of rows in the database.
//!
//! The rows are made in bulk: five hundred jobs of two tasks are made, claimed and finished by the store's own commands, and
//! then copied inside the database under ids of their own, which sort before (the first 32 bits of an id are its time). What
//! is measured at each size is new work among those rows, by the store's own commands again.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use connectors::Digests;
use consign::clock::{Clock, Timestamp};
use consign::id::{JobId, SessionId, TaskId, UserId};
use consign::model::{BlobKey, File, Job, Origin, Page, State, Task, WireStatus};
use consign::store::{
    Applied, ClaimRequest, Creation, Deletion, JobFilter, Jobs as _, NewJob, SqliteStore, Store as _, TaskFilter,
    Transitions as _,
};
use sqlx::sqlite::{SqliteConnectOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Row as _, SqliteConnection};

use super::Place;
use super::report::{Growing, Section, median, quantile};
use crate::bench::cost::cpu_secs;

pub(super) const TITLE: &str = "Rows in the database";
/// Jobs that are made by the store's own commands, then copied.
const ORIGINALS: u32 = 500;
const TASKS_PER_JOB: u32 = 2;
/// Tasks that are claimed at once.
const BATCH: u32 = 16;
/// Ids of the originals are after this one, ids of copies before it.
const FIRST_ORIGINAL: &str = "x'01000000'";
/// Tables that are copied, those first that others refer to.
const TABLES: [&str; 5] = ["jobs", "tasks", "task_docs", "dependencies", "files"];
/// Columns that hold the id of a job or a task.
const IDS: [&str; 4] = ["id", "job_id", "task_id", "depends_on"];
/// Entries of a page of a list, as the API has by default.
const PAGE: u32 = 100;
/// A page that is far down a list.
const FAR_PAGE: u32 = 100;
/// Sizes of arguments, sealed, and of how many each figure is the median.
const PAYLOAD_BYTES: usize = 300;

/// What was measured at one size, in milliseconds.
struct Sample {
    tasks: u32,
    mebibytes: f64,
    figures: Vec<(&'static str, Figure)>,
    /// CPU of creating, claiming and finishing, a task.
    cpu_micros: f64,
}

#[derive(Clone, Copy)]
struct Figure {
    median: f64,
    p99: f64,
}

/// A store with its user and session.
struct Scene {
    store: SqliteStore,
    clock: Clock,
    user: UserId,
    session: SessionId,
}

/// Grows the database and measures at each size.
///
/// # Errors
/// When the store refuses something.
pub(super) async fn measure(place: &Place<'_>) -> Result<Section> {
    let (steps, jobs): (&[u32], u32) =
        if place.small { (&[1_000, 3_000], 5) } else { (&[1_000, 10_000, 100_000, 300_000, 1_000_000], 200) };
    let path = place.folder.join("rows.db");
    let scene = Scene::open(&path).await?;
    scene.work(ORIGINALS, &mut Vec::new()).await?;
    let until = scene.clock.now();
    scene.store.close().await;
    let (mut all, mut copies) = (Vec::new(), 0);
    for &tasks in steps {
        let wanted = tasks / (ORIGINALS * TASKS_PER_JOB) - 1;
        let began = Instant::now();
        grow(&path, until, copies + 1..wanted + 1).await?;
        copies = copies.max(wanted);
        place.say(&format!("{TITLE}: {tasks} tasks after {:.1} s", began.elapsed().as_secs_f64()));
        let sample = sample(&path, tasks, jobs).await?;
        place.say(&format!("{TITLE}: {tasks} tasks: {}", line(&sample)));
        all.push(sample);
    }
    Ok(Section { title: TITLE, text: told(jobs, &all), plots: plots(&all) })
}

impl Scene {
    async fn open(path: &Path) -> Result<Self> {
        let store = SqliteStore::open(path).await?;
        let clock = Clock::system();
        let user = consign::store::Accounts::ensure_user(&store, "ada", clock.now()).await?.id;
        let session = SessionId::new(clock.now());
        store.open_session(session, "bench", true, clock.now()).await?;
        Ok(Self { store, clock, user, session })
    }

    fn job(&self) -> NewJob {
        let now = self.clock.now();
        let id = JobId::new(now);
        let first = self.task(id, "in", "import/url", Vec::new());
        let second = self.task(id, "out", "export/s3", vec![first.id]);
        let job = Job {
            id,
            user_id: self.user,
            tag: None,
            webhook_url: None,
            status: WireStatus::Waiting,
            created_at: now,
            started_at: None,
            ended_at: None,
            origin: Origin::NoKey,
            tasks: vec![first, second],
        };
        NewJob { job, payloads: vec![vec![7; PAYLOAD_BYTES]; 2], idempotency: None }
    }

    fn task(&self, job: JobId, name: &str, operation: &str, depends_on: Vec<TaskId>) -> Task {
        let now = self.clock.now();
        Task {
            id: TaskId::new(now),
            user_id: self.user,
            job_id: Some(job),
            name: Some(name.to_owned()),
            operation: operation.to_owned(),
            state: State::Queued,
            ignore_error: false,
            percent: 0,
            code: None,
            message: None,
            warnings: Vec::new(),
            files: Vec::new(),
            attempt: 0,
            created_at: now,
            started_at: None,
            ended_at: None,
            upload_expires_at: None,
            retry_of: None,
            depends_on,
            host_name: None,
        }
    }

    /// Makes jobs one by one, then claims and finishes all their tasks; what each command took goes into `taken`.
    async fn work(&self, jobs: u32, taken: &mut Vec<(&'static str, f64)>) -> Result<Vec<JobId>> {
        let mut ids = Vec::new();
        for _ in 0..jobs {
            let new = self.job();
            ids.push(new.job.id);
            let began = Instant::now();
            ensure!(self.store.create_job(new).await? == Creation::Created, "a job was not made");
            taken.push(("create a job", millis(began)));
        }
        let mut left = jobs * TASKS_PER_JOB;
        while left > 0 {
            let request =
                ClaimRequest { session: self.session, tasks_max: BATCH, per_user_max: u32::MAX, now: self.clock.now() };
            let began = Instant::now();
            let claims = self.store.claim(&request).await?;
            taken.push(("claim 16 tasks", millis(began)));
            ensure!(!claims.is_empty(), "tasks are left that cannot be claimed");
            for claim in &claims {
                let file = file(claim.task.id, claim.token);
                let began = Instant::now();
                let applied = self.store.finish(claim.task.id, claim.token, &[file], self.clock.now()).await?;
                taken.push(("finish a task", millis(began)));
                ensure!(applied == Applied::Done, "a lease was lost");
            }
            left -= u32::try_from(claims.len())?;
        }
        Ok(ids)
    }

    /// Reads and lists, the ways the API does.
    async fn read(&self, jobs: &[JobId], taken: &mut Vec<(&'static str, f64)>) -> Result<()> {
        let filter = |status| JobFilter { user_id: self.user, status, tag: None, key_id: None, with_tasks: false };
        let all = TaskFilter { user_id: self.user, job_id: None, status: None, operation: None };
        for id in jobs {
            let began = Instant::now();
            ensure!(self.store.job(self.user, *id).await?.is_some(), "a job is gone");
            taken.push(("read a job", millis(began)));
        }
        for _ in 0..jobs.len().min(10) {
            for (name, status, number) in [
                ("list jobs", None, 1),
                ("list jobs, page 100", None, FAR_PAGE),
                ("list finished jobs", Some(WireStatus::Finished), 1),
                ("list running jobs (none)", Some(WireStatus::Processing), 1),
                ("list failed jobs (none)", Some(WireStatus::Error), 1),
            ] {
                let began = Instant::now();
                self.store.list_jobs(&filter(status), Page { number, size: PAGE }).await?;
                taken.push((name, millis(began)));
            }
            for (name, status, operation) in [
                ("list tasks", None, None),
                ("list running tasks (none)", Some(WireStatus::Processing), None),
                ("list failed tasks (none)", Some(WireStatus::Error), None),
                ("list tasks of an operation (none)", None, Some("export/sftp".to_owned())),
            ] {
                let began = Instant::now();
                let filter = TaskFilter { status, operation, ..all.clone() };
                self.store.list_tasks(&filter, Page { number: 1, size: PAGE }).await?;
                taken.push((name, millis(began)));
            }
            let began = Instant::now();
            self.store.counts(self.clock.now()).await?;
            taken.push(("count for metrics", millis(began)));
        }
        Ok(())
    }
}

fn file(task: TaskId, token: consign::id::Token) -> File {
    File {
        name: "a file.txt".to_owned(),
        size: 12,
        digests: Digests { md5: [1; 16], sha256: [2; 32], crc32c: 3 },
        content_type: "text/plain".to_owned(),
        blob: Some(BlobKey::new(task, token, 1)),
        download: None,
        receipt: None,
    }
}

fn millis(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

async fn sample(path: &Path, tasks: u32, jobs: u32) -> Result<Sample> {
    let scene = Scene::open(path).await?;
    // Fills caches.
    scene.work(jobs.min(20), &mut Vec::new()).await?;
    let mut taken = Vec::new();
    let own = std::process::id();
    let cpu = cpu_secs(own)?;
    let made = scene.work(jobs, &mut taken).await?;
    let cpu_micros = (cpu_secs(own)? - cpu) * 1e6 / f64::from(jobs * TASKS_PER_JOB);
    scene.read(&made, &mut taken).await?;
    tell_nobody(path).await?;
    for id in &made {
        let began = Instant::now();
        let deleted = scene.store.delete_job(scene.user, *id, scene.clock.now()).await?;
        ensure!(deleted == Deletion::Done, "a job was not deleted");
        taken.push(("delete a job", millis(began)));
    }
    scene.store.close().await;
    #[expect(clippy::cast_precision_loss, reason = "a size far below 2^52")]
    let mebibytes = std::fs::metadata(path)?.len() as f64 / f64::from(1 << 20);
    let mut names: Vec<&'static str> = Vec::new();
    for (name, _) in &taken {
        if !names.contains(name) {
            names.push(name);
        }
    }
    let figures = names.into_iter().map(|name| {
        let all: Vec<f64> = taken.iter().filter(|(of, _)| *of == name).map(|(_, millis)| *millis).collect();
        (name, Figure { median: median(&all), p99: quantile(&all, 0.99) })
    });
    Ok(Sample { tasks, mebibytes, figures: figures.collect(), cpu_micros })
}

/// Empties the outbox, which has no reader here: what it has not told of is not deleted.
async fn tell_nobody(path: &Path) -> Result<()> {
    let mut conn = SqliteConnectOptions::new().filename(path).connect().await?;
    sqlx::query("DELETE FROM outbox").execute(&mut conn).await?;
    sqlx::Connection::close(conn).await?;
    Ok(())
}

/// Copies the originals as often as there are numbers in `copies`.
async fn grow(path: &Path, until: Timestamp, copies: std::ops::Range<u32>) -> Result<()> {
    // Nobody minds if these are lost: the run would be repeated.
    let options = SqliteConnectOptions::new().filename(path).synchronous(SqliteSynchronous::Off).foreign_keys(false);
    let mut conn = options.connect().await?;
    for table in TABLES {
        if copies.is_empty() {
            break;
        }
        let sql = copy_sql(&mut conn, table).await?;
        let mut query = sqlx::query(AssertSqlSafe(sql)).bind(copies.start).bind(copies.end - 1);
        query = query.bind(until.0);
        query.execute(&mut conn).await.with_context(|| table.to_owned())?;
    }
    sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut conn).await?;
    sqlx::Connection::close(conn).await?;
    // What was written in bulk must not be on its way to the disk while commits are waited for.
    rustix::fs::sync();
    Ok(())
}

async fn copy_sql(conn: &mut SqliteConnection, table: &str) -> Result<String> {
    let told = sqlx::query("SELECT name FROM pragma_table_info($1)").bind(table.to_owned()).fetch_all(conn).await?;
    let columns: Vec<String> = told.iter().map(|row| row.try_get("name")).collect::<sqlx::Result<_>>()?;
    ensure!(!columns.is_empty(), "there is no table {table}");
    let values: Vec<String> = columns
        .iter()
        .map(|column| {
            if IDS.contains(&column.as_str()) {
                format!("unhex(printf('%08x', copies.n) || substr(hex(o.{column}), 9))")
            } else {
                format!("o.{column}")
            }
        })
        .collect();
    let originals = match table {
        "jobs" | "tasks" => format!("o.id > {FIRST_ORIGINAL} AND o.created_at <= $3"),
        _ => format!("o.task_id IN (SELECT id FROM tasks WHERE id > {FIRST_ORIGINAL} AND created_at <= $3)"),
    };
    Ok(format!(
        "WITH RECURSIVE copies (n) AS (SELECT $1 UNION ALL SELECT n + 1 FROM copies WHERE n < $2) \
         INSERT INTO {table} ({}) SELECT {} FROM copies CROSS JOIN {table} o WHERE {originals}",
        columns.join(", "),
        values.join(", ")
    ))
}

fn line(sample: &Sample) -> String {
    let told = sample.figures.iter().map(|(name, figure)| format!("{name} {:.2}", figure.median));
    told.collect::<Vec<_>>().join(", ")
}

fn told(jobs: u32, all: &[Sample]) -> String {
    let mut text = format!(
        "Milliseconds a command of the store (SQLite as shipped, on disk, in a process of its own without a server), one after \
         the other, each a commit that waits for the disk: {jobs} jobs of {TASKS_PER_JOB} tasks are made, claimed, finished, \
         read and deleted among so many finished tasks (and half as many jobs, and five rows in other tables for two tasks), \
         all of one user. Lists have {PAGE} entries. The rows are made in bulk: {ORIGINALS} jobs by the store's own commands, \
         then copied inside the database under other ids. Median, and p99 behind the slash.\n\n| |"
    );
    for sample in all {
        let _ = write!(text, " {} tasks |", crate::bench::figures::thousands(sample.tasks.into()));
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(all.len()));
    text.push('\n');
    for (at, (name, _)) in all.first().map(|sample| sample.figures.clone()).unwrap_or_default().iter().enumerate() {
        let _ = write!(text, "| {name} |");
        for sample in all {
            let figure = sample.figures[at].1;
            let _ = write!(text, " {:.2} / {:.2} |", figure.median, figure.p99);
        }
        text.push('\n');
    }
    text.push_str("| CPU µs a task (made, claimed, finished) |");
    for sample in all {
        let _ = write!(text, " {:.0} |", sample.cpu_micros);
    }
    text.push_str("\n| database, MiB |");
    for sample in all {
        let _ = write!(text, " {:.0} |", sample.mebibytes);
    }
    text.push_str(
        "\n\n![milliseconds a change](growth-rows.svg)\n\n![milliseconds a reading](growth-rows-lists.svg)\n",
    );
    text
}

fn plots(all: &[Sample]) -> Vec<(String, String)> {
    let lines = |names: &[&'static str]| -> Vec<(&str, Vec<(f64, f64)>)> {
        let figure = |sample: &Sample, name| {
            let found = sample.figures.iter().find(|(of, _)| *of == name);
            found.map_or(0.0, |(_, figure)| figure.median)
        };
        let line = |name| all.iter().map(|sample| (sample.tasks.into(), figure(sample, name))).collect();
        names.iter().map(|name| (*name, line(*name))).collect()
    };
    let changes = Growing { title: "Milliseconds a change", across: "tasks in the database", up: "ms" };
    let lists = Growing { title: "Milliseconds a reading", across: "tasks in the database", up: "ms" };
    vec![
        (
            "growth-rows.svg".to_owned(),
            changes.plot(lines(&["create a job", "claim 16 tasks", "finish a task", "delete a job"])),
        ),
        (
            "growth-rows-lists.svg".to_owned(),
            lists.plot(lines(&[
                "read a job",
                "list jobs",
                "list jobs, page 100",
                "list failed jobs (none)",
                "list failed tasks (none)",
            ])),
        ),
    ]
}
