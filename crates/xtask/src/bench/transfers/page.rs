//! What was measured, and the page and the plots of it.
//!
//! The runs themselves are kept beside the page, so that a lane can be measured again alone: `--only` replaces its runs
//! and leaves those of the others.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::lanes::{self, Goal, Lane, Side, Way};
use super::place::{self, Place};
use super::{FILE_BYTES, peers};
use crate::bench::cost::Cost;
use crate::bench::figures::{load, machine, median, range, thousands};
use crate::bench::{Bed, plot};

/// The runs behind the page.
const RUNS: &str = "transfers.json";
const MIB: f64 = 1024.0 * 1024.0;
const GIB: f64 = 1024.0 * MIB;

/// One run that counts.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Run {
    pub(super) side: Side,
    pub(super) round: usize,
    pub(super) wall_secs: f64,
    pub(super) cpu_secs: f64,
    pub(super) peak_bytes: u64,
}

impl Run {
    pub(super) fn of(side: Side, round: usize, cost: &Cost) -> Self {
        let Cost { wall_secs, cpu_secs, peak_bytes } = *cost;
        Self { side, round, wall_secs, cpu_secs, peak_bytes }
    }
}

/// All runs of a lane.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Row {
    lane: String,
    server: String,
    command: String,
    size_bytes: u64,
    files: usize,
    /// Load of the machine when the lane had ended: how much of it the lane itself was, nobody knows.
    load: f64,
    runs: Vec<Run>,
}

impl Row {
    pub(super) fn of(bed: &Bed, lane: &Lane, place: &Place, size_bytes: u64, runs: Vec<Run>) -> Self {
        let files = if lane.way == Way::Many { usize::try_from(size_bytes).unwrap_or(0) / FILE_BYTES } else { 1 };
        Self {
            lane: lane.name.to_owned(),
            server: place.version.clone(),
            command: bed.command("transfers"),
            size_bytes,
            files,
            load: load(),
            runs,
        }
    }

    fn of_side(&self, side: Side, figure: fn(&Run) -> f64) -> Vec<f64> {
        self.runs.iter().filter(|run| run.side == side).map(figure).collect()
    }

    /// The median over the rounds, if the side ran.
    fn median(&self, side: Side, figure: fn(&Run) -> f64) -> Option<f64> {
        let values = self.of_side(side, figure);
        (!values.is_empty()).then(|| median(values))
    }

    /// What a side's figure is, over ours, round by round.
    fn ratios(&self, side: Side, figure: fn(&Run) -> f64) -> Vec<f64> {
        let ours = self.of_side(Side::Ours, figure);
        self.of_side(side, figure).iter().zip(ours).map(|(theirs, ours)| theirs / ours).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
    fn size(&self) -> f64 {
        self.size_bytes as f64
    }

    fn cpu_per_gib(&self, side: Side) -> Option<f64> {
        Some(self.median(side, cpu)? / (self.size() / GIB))
    }

    fn peak_mib(&self, side: Side) -> Option<f64> {
        Some(self.median(side, peak)? / MIB)
    }
}

fn wall(run: &Run) -> f64 {
    run.wall_secs
}

fn cpu(run: &Run) -> f64 {
    run.cpu_secs
}

#[expect(clippy::cast_precision_loss, reason = "memory far below 2^52 bytes")]
fn peak(run: &Run) -> f64 {
    run.peak_bytes as f64
}

/// Everything that the page says.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Record {
    machine: String,
    /// By program.
    versions: BTreeMap<String, String>,
    rows: Vec<Row>,
}

impl Record {
    /// What an earlier run on the same machine left, without what is to be measured now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) async fn begin(bed: &Bed, peers: &BTreeMap<&'static str, String>) -> Result<Self> {
        let file = bed.out().map(|out| out.join(RUNS)).filter(|file| file.exists());
        let kept: Option<Self> = match &file {
            Some(file) => Some(serde_json::from_slice(&std::fs::read(file)?).with_context(|| RUNS.to_owned())?),
            None => None,
        };
        let machine = machine();
        let mut rows = kept.filter(|kept| kept.machine == machine).map(|kept| kept.rows).unwrap_or_default();
        rows.retain(|row| !bed.wants(&row.lane) && lanes::ALL.iter().any(|lane| lane.name == row.lane));
        let mut versions: BTreeMap<String, String> =
            peers.iter().map(|(tag, version)| ((*tag).to_owned(), version.clone())).collect();
        versions.insert("ours".to_owned(), peers::first_line(&bed.program, "--version").await?);
        Ok(Self { machine, versions, rows })
    }

    /// Adds a lane, in the order of the page.
    pub(super) fn add(&mut self, row: Row) {
        self.rows.push(row);
        self.rows.sort_by_key(|row| lanes::ALL.iter().position(|lane| lane.name == row.lane));
    }

    /// What is written beside the page, by file name: the runs, and the plots.
    ///
    /// # Errors
    /// Never: numbers and texts can be written as JSON.
    pub(super) fn files(&self) -> Result<Vec<(String, String)>> {
        let ratios =
            self.bars("Their time / ours", "above 1 Consign is faster", &Side::PEERS, Some(1.0), |row, side| {
                let ratios = row.ratios(side, wall);
                (!ratios.is_empty()).then(|| median(ratios))
            });
        let cpu = self.bars("CPU-seconds of the client per GiB", "less is better", &Side::ALL, None, Row::cpu_per_gib);
        let memory = self.bars("Peak memory of the client", "MiB; less is better", &Side::ALL, None, Row::peak_mib);
        Ok(vec![
            (RUNS.to_owned(), format!("{}\n", serde_json::to_string_pretty(self)?)),
            ("transfers-ratio.svg".to_owned(), ratios),
            ("transfers-cpu.svg".to_owned(), cpu),
            ("transfers-memory.svg".to_owned(), memory),
        ])
    }

    fn bars(
        &self,
        title: &str,
        label: &str,
        sides: &[Side],
        mark: Option<f64>,
        figure: impl Fn(&Row, Side) -> Option<f64>,
    ) -> String {
        let names: Vec<&str> = sides.iter().map(|side| side.name()).collect();
        let groups: Vec<_> = (self.rows.iter())
            .map(|row| (row.lane.clone(), sides.iter().map(|side| figure(row, *side)).collect()))
            .collect();
        plot::bars(title, label, &names, &groups, mark)
    }

    /// The page, as Markdown.
    pub(super) fn page(&self) -> String {
        let mut text = String::from(
            "# Transfers, measured\n\n\
             <!-- Written by `cargo xtask bench transfers`. The runs behind it are in transfers.json. -->\n\n\
             A server of Consign's, fresh for each lane and with its default settings, runs one task on files that it already has (or imports one file); each peer is one process. \
             Ours is measured from the request that makes the task to the answer that it has ended, over HTTP; theirs from the start of the process to its end. \
             All sides take turns on the same server and the same random bytes, which lie in memory; a first round is not counted, and the order changes from round to round. \
             Ratios are made inside a round, and their median is shown with the range. CPU time is that of the client alone, user and system. \
             After every run, of each side, what arrived was fetched by rclone (for downloads: read from the disk) and its SHA-256 compared; then it was deleted.\n\n",
        );
        let _ = writeln!(text, "- machine: {}; clients and servers share it", self.machine);
        for side in Side::ALL.iter().filter(|side| **side != Side::Tuned) {
            let version = self.versions.get(side.tag()).map_or("not installed, not measured", String::as_str);
            let _ = writeln!(text, "- {side}: {version}");
        }
        let _ = writeln!(
            text,
            "- settings: Consign's parts are 8 MiB, 4 at once, 4 files at once; `sftp` uses `{}`, as Consign does; rclone is tuned as shown below; everything else is as shipped",
            place::CIPHER
        );
        self.goals(&mut text);
        self.speed(&mut text);
        self.effort(&mut text);
        self.checks(&mut text);
        text
    }

    fn goals(&self, text: &mut String) {
        text.push_str("\n## Goals\n\n| lane | goal | measured | |\n|---|---|---|---|\n");
        for row in &self.rows {
            for goal in lane(row).map_or(&[][..], |lane| lane.goals) {
                let (wanted, found, is_met) = judge(row, *goal);
                let verdict = if is_met { "met" } else { "**missed**" };
                let _ = writeln!(text, "| {} | {wanted} | {found} | {verdict} |", row.lane);
            }
        }
    }

    fn speed(&self, text: &mut String) {
        text.push_str(
            "\n## Speed\n\nTheir time / ours: above 1 Consign is faster.\n\n| lane | MiB | rounds | Consign MiB/s |",
        );
        for side in Side::PEERS {
            let _ = write!(text, " {side} |");
        }
        text.push_str("\n|---|---|---|---|---|---|---|---|\n");
        for row in &self.rows {
            let _ = write!(
                text,
                "| {} | {} | {} | {} |",
                row.lane,
                size(row),
                row.of_side(Side::Ours, wall).len(),
                row.median(Side::Ours, wall).map_or_else(dash, |secs| thousands(row.size() / MIB / secs)),
            );
            for side in Side::PEERS {
                let ratios = row.ratios(side, wall);
                let (low, high) = range(&ratios);
                let shown = if ratios.is_empty() {
                    dash()
                } else {
                    format!("**{:.2}** ({low:.2}–{high:.2})", median(ratios))
                };
                let _ = write!(text, " {shown} |");
            }
            text.push('\n');
        }
        text.push_str("\n![their time over ours](transfers-ratio.svg)\n");
    }

    fn effort(&self, text: &mut String) {
        text.push_str(
            "\n## CPU and memory of the client\n\nCPU-seconds per GiB / peak of the resident set in MiB. Consign's memory is that of the whole server; \
             of `sftp` and the `ssh` that it starts it is the larger one's.\n\n| lane |",
        );
        for side in Side::ALL {
            let _ = write!(text, " {side} |");
        }
        text.push_str("\n|---|---|---|---|---|---|\n");
        for row in &self.rows {
            let _ = write!(text, "| {} |", row.lane);
            for side in Side::ALL {
                let shown = match (row.cpu_per_gib(side), row.peak_mib(side)) {
                    (Some(cpu), Some(peak)) => format!("{cpu:.2} / {peak:.0}"),
                    (_, _) => dash(),
                };
                let _ = write!(text, " {shown} |");
            }
            text.push('\n');
        }
        text.push_str("\n![CPU-seconds per GiB](transfers-cpu.svg)\n\n![peak memory](transfers-memory.svg)\n");
    }

    fn checks(&self, text: &mut String) {
        text.push_str(
            "\n## Who checks what\n\n`aws s3 cp` has a CRC of every part checked, and `sftp` nothing but what SSH does on the way. It neither flushes the file at the server nor renames it; Consign does both.\n\n\
             | lane | server | Consign | rclone as shipped | rclone tuned | tuned by |\n|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let Some(lane) = lane(row) else { continue };
            let [ours, shipped, tuned] = lane.checks;
            let (tuned, options) = if lane.tuned.is_empty() {
                (dash(), dash())
            } else {
                (tuned.to_owned(), format!("`{}`", lane.tuned.join(" ")))
            };
            let _ = writeln!(text, "| {} | {} | {ours} | {shipped} | {tuned} | {options} |", row.lane, row.server);
        }
        text.push_str("\n## Runs\n\n| lane | command | load of the machine at its end |\n|---|---|---|\n");
        for row in &self.rows {
            let _ = writeln!(text, "| {} | `{}` | {:.1} |", row.lane, row.command, row.load);
        }
    }
}

fn lane(row: &Row) -> Option<&'static Lane> {
    lanes::ALL.iter().find(|lane| lane.name == row.lane)
}

fn dash() -> String {
    "–".to_owned()
}

fn size(row: &Row) -> String {
    let mebibytes = format!("{:.0}", row.size() / MIB);
    match row.files {
        0 | 1 => mebibytes,
        files => format!("{} × {:.3}", thousands(f64::from(u32::try_from(files).unwrap_or(0))), 0.0625),
    }
}

/// What is wanted, what was found, and whether that is enough.
fn judge(row: &Row, goal: Goal) -> (String, String, bool) {
    let (side, wanted) = match goal {
        Goal::Time(side, bar) => (side, format!("≥ {bar:.1}× {side}")),
        Goal::Cpu(side, bar) => (side, format!("CPU ≤ {bar:.1}× {side}")),
    };
    if row.of_side(side, wall).is_empty() {
        return (wanted, "not measured".to_owned(), false);
    }
    let (found, is_met) = match goal {
        Goal::Time(side, bar) => {
            let ratio = median(row.ratios(side, wall));
            (ratio, ratio >= bar)
        }
        Goal::Cpu(side, bar) => {
            let ratio = median(row.ratios(side, cpu).into_iter().map(f64::recip).collect());
            (ratio, ratio <= bar)
        }
    };
    (wanted, format!("{found:.2}"), is_met)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(lane: &str, walls: &[(Side, [f64; 3])]) -> Row {
        let runs = |(side, walls): &(Side, [f64; 3])| {
            let side = *side;
            walls.map(|wall_secs| Run { side, round: 1, wall_secs, cpu_secs: wall_secs / 2.0, peak_bytes: 1 << 20 })
        };
        Row {
            lane: lane.to_owned(),
            server: "s".to_owned(),
            command: "c".to_owned(),
            size_bytes: 1 << 30,
            files: 1,
            load: 0.0,
            runs: walls.iter().flat_map(runs).collect(),
        }
    }

    #[test]
    fn ratios_are_made_inside_a_round_and_goals_judged_by_their_median() {
        let name = "s3 upload, null sink, TLS";
        let ours = (Side::Ours, [1.0, 10.0, 2.0]);
        let row = row(name, &[ours, (Side::Shipped, [2.0, 5.0, 6.0]), (Side::Tuned, [1.0, 10.0, 2.0])]);
        let record = Record { machine: "m".to_owned(), versions: BTreeMap::new(), rows: vec![row] };
        let page = record.page();
        let speed = format!("| {name} | 1024 | 3 | 512 | **2.00** (0.50–3.00) | **1.00** (1.00–1.00) | – | – |");
        assert!(page.contains(&speed), "{page}");
        assert!(page.contains(&format!("| {name} | ≥ 2.0× rclone as shipped | 2.00 | met |")), "{page}");
        assert!(page.contains(&format!("| {name} | ≥ 1.3× rclone tuned | 1.00 | **missed** |")), "{page}");
        assert!(page.contains(&format!("| {name} | CPU ≤ 0.4× rclone as shipped | 0.50 | **missed** |")), "{page}");
        assert!(page.contains(&format!("| {name} | 1.00 / 1 | 2.50 / 1 | 1.00 / 1 | – | – |")), "{page}");
    }

    #[test]
    fn a_goal_against_who_did_not_run_is_missed() {
        let row = row("x", &[(Side::Ours, [1.0; 3])]);
        let (_, found, is_met) = judge(&row, Goal::Time(Side::OpenSsh, 0.9));
        assert_eq!((found.as_str(), is_met), ("not measured", false));
    }
}
