//! The table of a benchmark: medians, and medians of the ratios inside each pair.

use std::fmt::Write as _;

use crate::bench::cost::Cost;
use crate::bench::figures::median;

/// One run of ours and one of each of theirs, right after each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair {
    pub(super) ours: Cost,
    pub(super) shipped: Cost,
    pub(super) tuned: Cost,
}

/// All pairs of a lane.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) lane: &'static str,
    pub(super) pairs: Vec<Pair>,
}

const MIB: f64 = 1024.0 * 1024.0;
const GIB: f64 = 1024.0 * MIB;

/// The table as Markdown, for files of `size_bytes`.
#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
pub(super) fn markdown(size_bytes: u64, rows: &[Row]) -> String {
    let size = size_bytes as f64;
    let mut text = format!(
        "One file of {:.0} MiB; medians of {} pairs. Ratio: rclone's time / ours in the same pair, with its range; \
         above 1 Consign is faster.\n\n\
         | lane | ours MiB/s | CPU-s/GiB | peak MiB | rclone CPU-s/GiB | peak MiB | ratio as shipped | ratio tuned |\n\
         |---|---|---|---|---|---|---|---|\n",
        size / MIB,
        rows.first().map_or(0, |row| row.pairs.len()),
    );
    for Row { lane, pairs } in rows {
        let of = |figure: fn(&Pair) -> f64| median(pairs.iter().map(figure).collect());
        let ratio = |theirs: fn(&Pair) -> Cost| {
            let mut all: Vec<f64> = pairs.iter().map(|pair| theirs(pair).wall_secs / pair.ours.wall_secs).collect();
            all.sort_by(f64::total_cmp);
            let (low, high) = (all.first().copied().unwrap_or_default(), all.last().copied().unwrap_or_default());
            format!("**{:.2}** ({low:.2}–{high:.2})", median(all))
        };
        let _ = writeln!(
            text,
            "| {lane} | {:.0} | {:.2} | {:.0} | {:.2} | {:.0} | {} | {} |",
            size / MIB / of(|pair| pair.ours.wall_secs),
            of(|pair| pair.ours.cpu_secs) / (size / GIB),
            of(|pair| pair.ours.peak_bytes as f64) / MIB,
            of(|pair| pair.shipped.cpu_secs) / (size / GIB),
            of(|pair| pair.shipped.peak_bytes as f64) / MIB,
            ratio(|pair| pair.shipped),
            ratio(|pair| pair.tuned),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_made_inside_a_pair() {
        let cost = |wall_secs| Cost { wall_secs, cpu_secs: 1.0, peak_bytes: 1 << 20 };
        let pair = |ours, theirs| Pair { ours: cost(ours), shipped: cost(theirs), tuned: cost(ours) };
        let row = Row { lane: "x", pairs: vec![pair(1.0, 2.0), pair(10.0, 5.0), pair(2.0, 6.0)] };
        let text = markdown(1 << 30, &[row]);
        assert!(text.contains("**2.00** (0.50–3.00) | **1.00** (1.00–1.00)"), "{text}");
        assert!(text.contains("| x | 512 | 1.00 | 1 |"), "{text}");
    }
}
