//! The pages that are written: one section a measurement, so that each can be measured again on its own.

use std::fmt::Write as _;

use crate::bench::figures;
use crate::bench::plot::{self, Axis, Series};

/// What a measurement found.
#[derive(Debug)]
pub(super) struct Section {
    pub(super) title: &'static str,
    pub(super) text: String,
    /// Name and content of plots beside the page.
    pub(super) plots: Vec<(String, String)>,
}

/// A page and the order of its sections.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) file: &'static str,
    pub(super) title: &'static str,
    pub(super) intro: &'static str,
    pub(super) order: &'static [&'static str],
}

impl Page {
    /// The page with a section in its place, instead of an older one of the same title.
    pub(super) fn with(&self, old: &str, section: &Section) -> String {
        let mut text = format!("# {}\n\n{}\n", self.title, self.intro);
        let earlier: Vec<(&str, &str)> =
            old.split("\n## ").skip(1).filter_map(|section| section.split_once('\n')).collect();
        for title in self.order {
            let body = if *title == section.title {
                Some(section.text.as_str())
            } else {
                earlier.iter().find(|(name, _)| name == title).map(|(_, body)| *body)
            };
            if let Some(body) = body {
                let _ = write!(text, "\n## {title}\n\n{}\n", body.trim());
            }
        }
        text
    }
}

/// A plot of what grows, or should not: both axes count in powers of ten.
#[derive(Clone, Copy, Debug)]
pub(super) struct Growing {
    pub(super) title: &'static str,
    pub(super) across: &'static str,
    pub(super) up: &'static str,
}

impl Growing {
    pub(super) fn plot(self, lines: Vec<(&str, Vec<(f64, f64)>)>) -> String {
        let axis = |label| Axis { label, is_logarithmic: true };
        let series: Vec<Series> =
            lines.into_iter().map(|(name, points)| Series { name: name.to_owned(), points }).collect();
        plot::lines(self.title, &axis(self.across), &axis(self.up), &series)
    }
}

/// A plot of bars as it stands beside a page: its file, and the line that shows it.
pub(super) struct Bars<'a> {
    pub(super) file: &'static str,
    pub(super) title: &'a str,
    pub(super) label: &'a str,
    pub(super) series: &'a [&'a str],
}

impl Bars<'_> {
    /// Draws a group for each name; what is not known leaves its place empty.
    pub(super) fn plot(&self, groups: &[(String, Vec<Option<f64>>)]) -> (String, String) {
        (self.file.to_owned(), plot::bars(self.title, self.label, self.series, groups, None))
    }

    /// What the page shows it with.
    pub(super) fn line(&self) -> String {
        format!("\n![{}]({})\n", self.title, self.file)
    }
}

/// Least CPU time that says something: it is counted in hundredths of a second.
const LEAST_CPU_SECS: f64 = 0.1;

/// Whether so much CPU time says something.
pub(super) fn is_enough_cpu(secs: f64) -> bool {
    secs >= LEAST_CPU_SECS
}

/// CPU time as it is told, `–` where the clock is too coarse for it.
pub(super) fn told_cpu(secs: f64, each: impl FnOnce(f64) -> String) -> String {
    if is_enough_cpu(secs) { each(secs) } else { "–".to_owned() }
}

/// The one in the middle.
pub(super) fn median(values: &[f64]) -> f64 {
    figures::median(values.to_vec())
}

/// The value below which this share of all lies, by nearest rank.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a rank")]
pub(super) fn quantile(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied().unwrap_or_default()
}

/// A ratio with its range over the pairs.
pub(super) fn ratio(ratios: &[f64]) -> String {
    let low = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let high = ratios.iter().copied().fold(0.0, f64::max);
    format!("**{:.2}** ({low:.2}–{high:.2})", median(ratios))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Page = Page { file: "x.md", title: "X", intro: "About.", order: &["One", "Two"] };

    fn section(title: &'static str, text: &str) -> Section {
        Section { title, text: text.to_owned(), plots: Vec::new() }
    }

    #[test]
    fn a_section_takes_its_place_and_leaves_the_others() {
        let two = PAGE.with("", &section("Two", "second"));
        assert_eq!(two, "# X\n\nAbout.\n\n## Two\n\nsecond\n");
        let both = PAGE.with(&two, &section("One", "first"));
        assert_eq!(both, "# X\n\nAbout.\n\n## One\n\nfirst\n\n## Two\n\nsecond\n");
        let again = PAGE.with(&both, &section("Two", "new\n\nlines"));
        assert_eq!(again, "# X\n\nAbout.\n\n## One\n\nfirst\n\n## Two\n\nnew\n\nlines\n");
    }

    #[test]
    fn a_clock_that_is_too_coarse_tells_nothing() {
        let each = |secs: f64| format!("{:.1}", secs * 10.0);
        assert_eq!([told_cpu(0.02, each), told_cpu(0.1, each)], ["–", "1.0"].map(str::to_owned));
    }

    #[test]
    fn figures_are_taken_by_rank() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert!((median(&values) - 50.5).abs() < 1e-9);
        assert!((quantile(&values, 0.99) - 99.0).abs() < 1e-9);
        assert!((quantile(&[3.0], 0.99) - 3.0).abs() < 1e-9);
        assert!(quantile(&[], 0.5).abs() < 1e-9);
        assert_eq!(ratio(&[1.0, 3.0, 2.0]), "**2.00** (1.00–3.00)");
    }
}
