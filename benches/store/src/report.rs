//! The page that is written: tables and two plots.

use std::fmt::Write as _;

use crate::figures::{median, range, thousands};
use crate::growth::{Growth, Sample};
use crate::lanes::{Cost, Lane};
use crate::plot::{self, Axis, Series};
use crate::{AT_ONCE, CONNECTIONS, CREATORS, Setting, TASKS_PER_JOB};

/// Jobs in the database at which the table of growth has a line.
const STAGES: [u32; 5] = [1_000, 3_000, 10_000, 30_000, 100_000];

/// All rounds of a lane.
pub(crate) struct Row {
    pub(crate) lane: Lane,
    pub(crate) rounds: Vec<Cost>,
    /// Why it did not end.
    pub(crate) failure: Option<String>,
}

impl Row {
    fn median(&self, figure: impl Fn(&Cost) -> f64) -> f64 {
        median(self.rounds.iter().map(figure).collect())
    }

    fn per_task(&self, figure: impl Fn(&Cost) -> f64) -> f64 {
        self.median(|cost| figure(cost) / f64::from(cost.tasks))
    }
}

pub(crate) fn markdown(setting: &Setting, rows: &[Row], growth: &Growth) -> String {
    let mut text = format!(
        "# The store, measured\n\n\
         <!-- Written by `{}`. -->\n\n\
         A job is a chain of {TASKS_PER_JOB} tasks that do nothing. {CREATORS} clients make jobs, each in a transaction of its own, while one worker process claims and \
         ends tasks; the clock runs from the first job that is made to the last task that has ended. With Consign a job is stored whole, the end of a task stores one file, \
         readies the next task and, at last, closes the job, in one transaction; the worker claims up to *batch* tasks, ends all of them at once, and claims again. \
         The peers have no such jobs: their handler adds the next task of the chain, as their users do, in a transaction apart from the one that ends the task before, so \
         that a crash between the two runs a task twice. They run {AT_ONCE} handlers at once. `graphile_worker` deletes what has ended, `apalis` and Consign keep it. \
         Every lane keeps what it has acknowledged through a crash.\n\n\
         - machine: {}\n\
         - disk: {}; {:.0} writes of 8 KiB a second, each waited for\n\
         - {}; {CONNECTIONS} connections for each lane\n\
         - SQLite {}, WAL, `synchronous=FULL`\n\
         - load before the run: {:.1}\n\n",
        setting.command,
        setting.machine,
        setting.disk,
        setting.syncs_per_sec,
        setting.postgres,
        setting.sqlite,
        setting.load,
    );
    throughput(&mut text, rows);
    text.push_str(
        "\n## Growth\n\n\
         The same work again and again on one database, 1,000 jobs each time (batch 16), the two databases in turns. Nothing is removed, \
         so all jobs before it are still there when the last thousand runs.\n\n",
    );
    growth_table(&mut text, growth);
    text.push_str("\n![time per task](store-time.svg)\n\n![size of the database](store-size.svg)\n");
    text
}

fn throughput(text: &mut String, rows: &[Row]) {
    let jobs = rows.iter().find_map(|row| row.rounds.first()).map_or(0, |cost| cost.tasks / TASKS_PER_JOB);
    let rounds = rows.iter().map(|row| row.rounds.len()).max().unwrap_or(0);
    let _ = writeln!(
        text,
        "## Tasks per second\n\n\
         {} jobs a round; medians of {rounds} rounds, with their range. All lanes ran in turns, so that a ratio is made of two lanes of one round. CPU in µs a task: of the process that \
         makes, claims and ends (with SQLite the database is in it), and of the server. A ratio above 1 means that Consign (batch 16, same database) is faster.\n\n\
         | lane | tasks/s | CPU µs | server's CPU µs | commits a task | waits for the disk a task | log KiB a task | Consign / lane |\n\
         |---|---|---|---|---|---|---|---|",
        thousands(f64::from(jobs)),
    );
    for row in rows {
        if let Some(failure) = &row.failure {
            let _ = writeln!(text, "| {} | did not end: {failure} | | | | | | |", row.lane.name());
            continue;
        }
        let speeds: Vec<f64> = row.rounds.iter().map(Cost::tasks_per_sec).collect();
        let (low, high) = range(&speeds);
        let server = |value: String| if row.lane.is_on_sqlite() { "–".to_owned() } else { value };
        let _ = writeln!(
            text,
            "| {} | **{}** ({}–{}) | {:.0} | {} | {} | {} | {} | {} |",
            row.lane.name(),
            thousands(median(speeds)),
            thousands(low),
            thousands(high),
            row.per_task(|cost| cost.own_cpu_micros),
            server(format!("{:.0}", row.per_task(|cost| cost.server_cpu_micros))),
            server(format!("{:.2}", row.per_task(|cost| cost.commits))),
            server(format!("{:.2}", row.per_task(|cost| cost.syncs))),
            server(format!("{:.1}", row.per_task(|cost| cost.log_bytes / 1024.0))),
            ratio(row, rows),
        );
    }
}

fn ratio(row: &Row, rows: &[Row]) -> String {
    let rival = row.lane.rival().and_then(|rival| rows.iter().find(|other| other.lane == rival));
    let Some(rival) = rival else { return "–".to_owned() };
    let ratios: Vec<f64> = rival
        .rounds
        .iter()
        .zip(&row.rounds)
        .map(|(ours, theirs)| ours.tasks_per_sec() / theirs.tasks_per_sec())
        .collect();
    let (low, high) = range(&ratios);
    format!("**{:.2}** ({low:.2}–{high:.2})", median(ratios))
}

fn growth_table(text: &mut String, growth: &Growth) {
    text.push_str(
        "| jobs in the database | SQLite µs/task | SQLite CPU µs/task | SQLite MiB | PostgreSQL µs/task | PostgreSQL CPU µs/task (both sides) | PostgreSQL MiB |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for stage in STAGES {
        let of = |samples: &[Sample]| -> String {
            // The last fifth before the stage, ten samples at the most: one alone varies too much.
            let until: Vec<&Sample> = samples.iter().filter(|sample| sample.jobs <= stage).collect();
            let Some(last) = until.last().filter(|last| last.jobs == stage) else {
                return "not reached | | ".to_owned();
            };
            let near = &until[until.len() - (until.len() / 5).clamp(1, 10)..];
            format!(
                "{:.0} | {:.0} | {:.0}",
                median(near.iter().map(|sample| sample.wall_micros).collect()),
                median(near.iter().map(|sample| sample.cpu_micros).collect()),
                last.mebibytes
            )
        };
        let (sqlite, postgres) = (of(&growth.sqlite), of(&growth.postgres));
        if !sqlite.starts_with('n') || !postgres.starts_with('n') {
            let _ = writeln!(text, "| {} | {sqlite} | {postgres} |", thousands(f64::from(stage)));
        }
    }
    if let Some(note) = &growth.note {
        let _ = writeln!(text, "\n{note}");
    }
}

/// The plots: time per task, size.
pub(crate) fn plots(growth: &Growth) -> [(&'static str, String); 2] {
    let lines = |figure: fn(&Sample) -> f64| {
        let of = |samples: &[Sample]| samples.iter().map(|sample| (f64::from(sample.jobs), figure(sample))).collect();
        [
            Series { name: "SQLite".to_owned(), points: of(&growth.sqlite) },
            Series { name: "PostgreSQL".to_owned(), points: of(&growth.postgres) },
        ]
    };
    let across = Axis::linear("jobs in the database");
    let plot = |title: &str, up: &str, figure: fn(&Sample) -> f64| {
        plot::lines(title, &across, &Axis::linear(up), &lines(figure))
    };
    [
        ("store-time.svg", plot("Time per task", "µs per task", |sample| sample.wall_micros)),
        ("store-size.svg", plot("Size of the database", "MiB", |sample| sample.mebibytes)),
    ]
}
