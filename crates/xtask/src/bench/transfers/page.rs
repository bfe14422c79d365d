//! What was measured, and the page and the plots of it.
//!
//! The runs themselves are kept beside the page, so that a lane can be measured again alone: `--only` replaces its runs
//! and leaves those of the others.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::lanes::{self, Lane, Side};
use super::row::{MIB, Row, wall};
use super::{goals, place};
use crate::bench::figures::{machine, median, range, thousands};
use crate::bench::{Bed, plot};

/// The runs behind the page.
const RUNS: &str = "transfers.json";

/// Everything that the page says.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Record {
    machine: String,
    rows: Vec<Row>,
}

impl Record {
    /// What an earlier run on the same machine left, without what is to be measured now.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn begin(bed: &Bed) -> Result<Self> {
        let file = bed.out().map(|out| out.join(RUNS)).filter(|file| file.exists());
        let kept: Option<Self> = match &file {
            Some(file) => Some(serde_json::from_slice(&std::fs::read(file)?).with_context(|| RUNS.to_owned())?),
            None => None,
        };
        let machine = machine();
        let mut rows = kept.filter(|kept| kept.machine == machine).map(|kept| kept.rows).unwrap_or_default();
        rows.retain(|row| !bed.wants(&row.lane) && lanes::ALL.iter().any(|lane| lane.name == row.lane));
        Ok(Self { machine, rows })
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
             All sides take turns on the same server and the same random bytes; a first round is not counted, and the order changes from round to round. \
             What an upload sends was imported from an address before, so that Consign knows its SHA-256 and CRC-32C, and not its MD5. \
             Where the files of the clients and those of the server lie is said below, lane by lane. \
             Ratios are made inside a round, and their median is shown with the range. CPU time is that of the client alone, user and system. \
             After every run, of each side, the SHA-256 of what arrived was compared (it was read where the client or the server keeps it, or fetched by rclone from a server that does not \
             keep it in plain files); then it was deleted.\n\n",
        );
        let _ = writeln!(text, "- machine: {}; clients and servers share it", self.machine);
        let _ = writeln!(
            text,
            "- settings: Consign's parts are 8 MiB, 4 at once, 4 files at once; `sftp` uses `{}`, as Consign does; rclone is tuned as shown below; everything else is as shipped",
            place::CIPHER
        );
        goals::write(&self.rows, &mut text);
        self.speed(&mut text);
        self.effort(&mut text);
        self.checks(&mut text);
        self.runs(&mut text);
        text
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
            "\n## Who checks what\n\n`aws s3 cp` has a CRC of every part checked, and `sftp` nothing but what SSH does on the way. OpenSSH's `put -f` has the server flush the file, \
             rclone renames it, Consign has it flushed and renames it.\n\n\
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
    }

    fn runs(&self, text: &mut String) {
        text.push_str(
            "\n## Runs\n\n| lane | command | Consign | peers | files of the clients | files of the server | load of the machine at its end |\n\
             |---|---|---|---|---|---|---|\n",
        );
        for row in &self.rows {
            let peers = Side::PEERS.iter().filter(|side| **side != Side::Tuned);
            let peers =
                peers.filter_map(|side| row.peers.get(side.tag())).map(String::as_str).collect::<Vec<_>>().join("; ");
            let told = |text: &str| if text.is_empty() { "not told".to_owned() } else { text.to_owned() };
            let _ = writeln!(
                text,
                "| {} | `{}` | {} | {} | {} | {} | {:.1} |",
                row.lane,
                row.command,
                told(&row.build),
                told(&peers),
                told(&row.files_on),
                told(&row.server_files_on),
                row.load
            );
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
        files => format!("{mebibytes} in {} files", thousands(f64::from(u32::try_from(files).unwrap_or(0)))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::samples::row;
    use super::*;

    #[test]
    fn ratios_are_made_inside_a_round_and_goals_judged_by_their_median() {
        let name = "s3 upload, null sink, TLS";
        let ours = (Side::Ours, [1.0, 10.0, 2.0]);
        let row = row(name, &[ours, (Side::Shipped, [2.0, 5.0, 6.0]), (Side::Tuned, [1.0, 10.0, 2.0])]);
        let record = Record { machine: "m".to_owned(), rows: vec![row] };
        let page = record.page();
        let speed = format!("| {name} | 1024 | 3 | 512 | **2.00** (0.50–3.00) | **1.00** (1.00–1.00) | – | – |");
        assert!(page.contains(&speed), "{page}");
        assert!(page.contains(&format!("| {name} | ≥ 2.0× rclone as shipped | 2.00 | met |")), "{page}");
        assert!(page.contains(&format!("| {name} | ≥ 1.3× rclone tuned | 1.00 | **missed** |")), "{page}");
        assert!(page.contains(&format!("| {name} | CPU ≤ 0.4× rclone as shipped | 0.50 | **missed** |")), "{page}");
        assert!(page.contains(&format!("| {name} | 1.00 / 1 | 2.50 / 1 | 1.00 / 1 | – | – |")), "{page}");
        let ground = format!("| {name} | `c` | consign 1.2.3, abc | rclone v1 | /m (tmpfs) | /d (ext4) | 0.0 |");
        assert!(page.contains(&ground), "{page}");
    }
}
