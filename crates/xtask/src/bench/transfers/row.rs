//! The runs of a lane, and the figures that are made of them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::FILE_BYTES;
use super::lanes::{Lane, Side, Way};
use super::place::Place;
use crate::bench::Bed;
use crate::bench::cost::Cost;
use crate::bench::figures::{load, median};

pub(super) const MIB: f64 = 1024.0 * 1024.0;
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
    pub(super) lane: String,
    pub(super) server: String,
    pub(super) command: String,
    pub(super) size_bytes: u64,
    pub(super) files: usize,
    /// Our version, and what it was built from.
    #[serde(default)]
    pub(super) build: String,
    /// Versions of those who ran beside it.
    #[serde(default)]
    pub(super) peers: BTreeMap<String, String>,
    /// Folder and file system of the clients' files.
    #[serde(default)]
    pub(super) files_on: String,
    /// Folder and file system of what the server keeps.
    #[serde(default)]
    pub(super) server_files_on: String,
    /// Load of the machine when the lane had ended: how much of it the lane itself was, nobody knows.
    pub(super) load: f64,
    pub(super) runs: Vec<Run>,
}

impl Row {
    pub(super) fn of(
        bed: &Bed,
        lane: &Lane,
        place: &Place,
        size_bytes: u64,
        peers: BTreeMap<String, String>,
        runs: Vec<Run>,
    ) -> Self {
        let files = if lane.way == Way::Many { usize::try_from(size_bytes).unwrap_or(0) / FILE_BYTES } else { 1 };
        Self {
            lane: lane.name.to_owned(),
            server: place.version.clone(),
            command: bed.command("transfers"),
            size_bytes,
            files,
            build: bed.build.clone(),
            peers,
            files_on: bed.files_on(),
            server_files_on: place.files_on.clone(),
            load: load(),
            runs,
        }
    }

    pub(super) fn of_side(&self, side: Side, figure: fn(&Run) -> f64) -> Vec<f64> {
        self.runs.iter().filter(|run| run.side == side).map(figure).collect()
    }

    /// The median over the rounds, if the side ran.
    pub(super) fn median(&self, side: Side, figure: fn(&Run) -> f64) -> Option<f64> {
        let values = self.of_side(side, figure);
        (!values.is_empty()).then(|| median(values))
    }

    /// What a side's figure is, over ours, round by round.
    pub(super) fn ratios(&self, side: Side, figure: fn(&Run) -> f64) -> Vec<f64> {
        let ours = self.of_side(Side::Ours, figure);
        self.of_side(side, figure).iter().zip(ours).map(|(theirs, ours)| theirs / ours).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
    pub(super) fn size(&self) -> f64 {
        self.size_bytes as f64
    }

    pub(super) fn cpu_per_gib(&self, side: Side) -> Option<f64> {
        Some(self.median(side, cpu)? / (self.size() / GIB))
    }

    pub(super) fn peak_mib(&self, side: Side) -> Option<f64> {
        Some(self.median(side, peak)? / MIB)
    }
}

pub(super) fn wall(run: &Run) -> f64 {
    run.wall_secs
}

pub(super) fn cpu(run: &Run) -> f64 {
    run.cpu_secs
}

#[expect(clippy::cast_precision_loss, reason = "memory far below 2^52 bytes")]
pub(super) fn peak(run: &Run) -> f64 {
    run.peak_bytes as f64
}

#[cfg(test)]
pub(super) mod samples {
    use super::*;

    /// A lane of 1 GiB with these times; CPU is half of each.
    pub(in crate::bench::transfers) fn row(lane: &str, walls: &[(Side, [f64; 3])]) -> Row {
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
            build: "consign 1.2.3, abc".to_owned(),
            peers: BTreeMap::from([("shipped".to_owned(), "rclone v1".to_owned())]),
            files_on: "/m (tmpfs)".to_owned(),
            server_files_on: "/d (ext4)".to_owned(),
            load: 0.0,
            runs: walls.iter().flat_map(runs).collect(),
        }
    }
}
