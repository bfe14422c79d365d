//! What is to be reached, and whether it is: every goal of every lane, measured or not.

use std::fmt::Write as _;

use super::lanes::{self, Goal, Lane, Side};
use super::row::{MIB, Row, cpu, peak, wall};
use crate::bench::figures::{median, range};

/// Writes the table.
pub(super) fn write(rows: &[Row], text: &mut String) {
    text.push_str("\n## Goals\n\n| lane | goal | measured | |\n|---|---|---|---|\n");
    for lane in &lanes::ALL {
        let row = rows.iter().find(|row| row.lane == lane.name);
        for goal in lane.goals() {
            let (found, verdict) = judge(lane, row, goal);
            let _ = writeln!(text, "| {} | {} | {found} | {verdict} |", lane.name, wanted(goal));
        }
    }
}

fn wanted(goal: Goal) -> String {
    match goal {
        Goal::Time(side, bar) => format!("≥ {bar:.1}× {side}"),
        Goal::Cpu(side, bar) => format!("CPU ≤ {bar:.1}× {side}"),
        Goal::Memory(bar) => format!("≤ {bar:.0} MiB resident"),
    }
}

/// What was found, and whether that is enough.
fn judge(lane: &Lane, row: Option<&Row>, goal: Goal) -> (String, String) {
    let Some((found, is_met)) = row.and_then(|row| found(row, goal)) else {
        return ("–".to_owned(), "not measured".to_owned());
    };
    let reason = lane.reason(goal).map_or_else(String::new, |reason| format!(": {reason}"));
    (found, if is_met { "met".to_owned() } else { format!("**missed**{reason}") })
}

fn found(row: &Row, goal: Goal) -> Option<(String, bool)> {
    match goal {
        Goal::Time(side, bar) => {
            let ratios = Some(row.ratios(side, wall)).filter(|ratios| !ratios.is_empty())?;
            let ratio = median(ratios);
            Some((format!("{ratio:.2}"), ratio >= bar))
        }
        Goal::Cpu(side, bar) => {
            let ratios = Some(row.ratios(side, cpu)).filter(|ratios| !ratios.is_empty())?;
            let ratio = median(ratios.into_iter().map(f64::recip).collect());
            Some((format!("{ratio:.2}"), ratio <= bar))
        }
        Goal::Memory(bar) => {
            let peaks = Some(row.of_side(Side::Ours, peak)).filter(|peaks| !peaks.is_empty())?;
            let largest = range(&peaks).1 / MIB;
            Some((format!("{largest:.0}"), largest <= bar))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::samples::row;
    use super::*;

    fn lane(name: &str) -> &'static Lane {
        lanes::ALL.iter().find(|lane| lane.name == name).unwrap()
    }

    #[test]
    fn what_did_not_run_is_not_measured() {
        let lane = lane("sftp upload, OpenSSH");
        let row = row(lane.name, &[(Side::Ours, [1.0; 3])]);
        let told = |row, goal| judge(lane, row, goal).1;
        assert_eq!(told(Some(&row), Goal::Time(Side::OpenSsh, 0.9)), "not measured");
        assert_eq!(told(None, Goal::Memory(128.0)), "not measured");
        let mut text = String::new();
        write(&[], &mut text);
        let goals: usize = lanes::ALL.iter().map(|lane| lane.goals().count()).sum();
        assert_eq!(
            (text.matches("| not measured |").count(), text.contains("many files, Ceph")),
            (goals, true),
            "{text}"
        );
    }

    #[test]
    fn memory_is_judged_by_the_worst_run_and_a_known_reason_is_given() {
        let lane = lane("azure download, Azurite");
        let mut row = row(lane.name, &[(Side::Ours, [3.0; 3]), (Side::Shipped, [2.0; 3])]);
        row.runs[1].peak_bytes = 129 << 20;
        assert_eq!(judge(lane, Some(&row), Goal::Memory(128.0)), ("129".to_owned(), "**missed**".to_owned()));
        row.runs[1].peak_bytes = 128 << 20;
        assert_eq!(judge(lane, Some(&row), Goal::Memory(128.0)).1, "met");
        let (found, verdict) = judge(lane, Some(&row), Goal::Cpu(Side::Shipped, 0.6));
        assert!(found == "1.50" && verdict.starts_with("**missed**: MD5, "), "{found} {verdict}");
        assert_eq!(judge(lane, Some(&row), Goal::Time(Side::Shipped, 0.9)).1, "**missed**");
    }
}
