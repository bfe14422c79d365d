//! Plots as SVG, readable on light and on dark ground: lines, and groups of bars. Also part of `benches/store`.

use std::fmt::Write as _;

use super::figures::thousands;

/// A line.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// What an axis shows, and whether it counts in powers of ten.
pub(crate) struct Axis<'a> {
    pub(crate) label: &'a str,
    pub(crate) is_logarithmic: bool,
}

impl<'a> Axis<'a> {
    /// An axis that begins at zero.
    pub(crate) fn linear(label: &'a str) -> Self {
        Self { label, is_logarithmic: false }
    }
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 50.0;
const LINES: u32 = 5;
/// One for each series; on dark ground the second row.
const COLORS: [(&str, &str); 6] = [
    ("#c0392b", "#ff7b6b"),
    ("#1f5fa8", "#6cb2ff"),
    ("#2e7d32", "#7bd880"),
    ("#8e44ad", "#d59bf0"),
    ("#b9770e", "#f3bd5a"),
    ("#00838f", "#5fd6e0"),
];

/// The beginning of every plot: size, colours for both grounds, title, and a legend.
fn head(height: f64, title: &str, names: &[&str]) -> String {
    let colors = |pick: fn(&(&'static str, &'static str)) -> &'static str| {
        COLORS.iter().zip(0..).fold(String::new(), |mut text, (color, number)| {
            let _ = write!(text, ".s{number}{{stroke:{0}}}.f{number}{{fill:{0}}}", pick(color));
            text
        })
    };
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <style>.ground{{fill:#ffffff}}.ink{{fill:#222222}}.faint{{fill:#555555}}.grid{{stroke:#dddddd}}.mark{{stroke:#222222}}{}\n\
         @media (prefers-color-scheme: dark){{.ground{{fill:#15181c}}.ink{{fill:#eeeeee}}.faint{{fill:#aaaaaa}}.grid{{stroke:#3a3f45}}.mark{{stroke:#eeeeee}}{}}}</style>\n\
         <rect width=\"100%\" height=\"100%\" class=\"ground\"/>\n\
         <text x=\"20\" y=\"22\" font-size=\"15\" class=\"ink\">{}</text>\n",
        colors(|color| color.0),
        colors(|color| color.1),
        escaped(title),
    );
    let mut x = 20.0;
    for (number, name) in names.iter().enumerate() {
        let color = number % COLORS.len();
        let _ = writeln!(
            text,
            "<rect x=\"{x:.0}\" y=\"34\" width=\"10\" height=\"10\" class=\"f{color}\"/>\
             <text x=\"{:.0}\" y=\"43\" class=\"ink\">{}</text>",
            x + 14.0,
            escaped(name),
        );
        // As wide as the letters of a sans-serif are on average, and a gap.
        x += 14.0 + 20.0 + 6.4 * f64::from(u32::try_from(name.chars().count()).unwrap_or(0));
    }
    text
}

/// Draws lines; linear axes begin at zero, logarithmic ones at the smallest value.
pub(crate) fn lines(title: &str, across: &Axis<'_>, up: &Axis<'_>, series: &[Series]) -> String {
    let names: Vec<&str> = series.iter().map(|series| series.name.as_str()).collect();
    let mut text = head(HEIGHT, title, &names);
    let points = || series.iter().flat_map(|series| &series.points);
    let x = Scale::of(across, points().map(|point| point.0), false);
    let y = Scale::of(up, points().map(|point| point.1), true);
    let at_x = |value: f64| LEFT + x.part(value) * (WIDTH - LEFT - RIGHT);
    let at_y = |value: f64| HEIGHT - BOTTOM - y.part(value) * (HEIGHT - TOP - BOTTOM);
    for value in y.ticks() {
        let _ = writeln!(
            text,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{1:.1}\" y2=\"{1:.1}\" class=\"grid\"/>\
             <text x=\"{2:.1}\" y=\"{3:.1}\" text-anchor=\"end\" class=\"faint\">{4}</text>",
            WIDTH - RIGHT,
            at_y(value),
            LEFT - 6.0,
            at_y(value) + 4.0,
            short(value),
        );
    }
    for value in x.ticks() {
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\" class=\"faint\">{}</text>",
            at_x(value),
            HEIGHT - BOTTOM + 18.0,
            short(value),
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" class=\"ink\">{}</text>\n\
         <text transform=\"translate(14 {TOP:.1}) rotate(-90)\" text-anchor=\"end\" class=\"ink\">{}</text>",
        WIDTH - RIGHT,
        HEIGHT - 10.0,
        escaped(across.label),
        escaped(up.label),
    );
    for (number, Series { points, .. }) in series.iter().enumerate() {
        let color = number % COLORS.len();
        let path: String = points.iter().fold(String::new(), |mut path, point| {
            let _ = write!(path, "{:.1},{:.1} ", at_x(point.0), at_y(point.1));
            path
        });
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" class=\"s{color}\" stroke-width=\"2\"/>",
            path.trim_end()
        );
    }
    text.push_str("</svg>\n");
    text
}

/// A scale from the lowest to the highest value.
struct Scale {
    low: f64,
    high: f64,
    is_logarithmic: bool,
}

impl Scale {
    fn of(axis: &Axis<'_>, values: impl Iterator<Item = f64>, is_rounded: bool) -> Self {
        let (low, high) =
            values.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), value| (low.min(value), high.max(value)));
        if axis.is_logarithmic && low > 0.0 && low.is_finite() {
            let (low, high) = (10_f64.powf(low.log10().floor()), 10_f64.powf(high.log10().ceil()));
            return Self { low, high: high.max(low * 10.0), is_logarithmic: true };
        }
        let high = if is_rounded { round_up(high) } else { high.max(1.0) };
        Self { low: 0.0, high, is_logarithmic: false }
    }

    /// Where a value is, from 0 to 1.
    fn part(&self, value: f64) -> f64 {
        if self.is_logarithmic {
            (value.max(self.low) / self.low).log10() / (self.high / self.low).log10()
        } else {
            value / self.high
        }
    }

    fn ticks(&self) -> Vec<f64> {
        if self.is_logarithmic {
            let mut ticks = vec![self.low];
            while let Some(last) = ticks.last().filter(|last| **last * 1.01 < self.high) {
                ticks.push(last * 10.0);
            }
            return ticks;
        }
        (0..=LINES).map(|line| self.high * f64::from(line) / f64::from(LINES)).collect()
    }
}

/// Draws a group of bars for each name, one bar for each series; a series without a value leaves its place empty.
/// `mark` is a value that a line stands for, such as 1 in ratios.
pub(crate) fn bars(
    title: &str,
    label: &str,
    series: &[&str],
    groups: &[(String, Vec<Option<f64>>)],
    mark: Option<f64>,
) -> String {
    const BAR: f64 = 11.0;
    const GAP: f64 = 12.0;
    const NAMES: f64 = 220.0;
    const VALUES: f64 = 60.0;
    let rows = |group: &(String, Vec<Option<f64>>)| group.1.iter().flatten().count().max(1);
    let count: u32 = groups.iter().map(|group| u32::try_from(rows(group)).unwrap_or(0)).sum();
    let height = TOP + 24.0 + BAR * f64::from(count) + GAP * f64::from(u32::try_from(groups.len()).unwrap_or(0));
    let mut text = head(height, title, series);
    let largest = groups.iter().flat_map(|group| group.1.iter().flatten()).copied().fold(0.0, f64::max);
    let scale = round_up(largest.max(mark.unwrap_or(0.0)));
    let wide = |value: f64| value / scale * (WIDTH - NAMES - VALUES);
    let mut y = TOP;
    for (name, values) in groups {
        let middle =
            y + BAR * f64::from(u32::try_from(rows(&(String::new(), values.clone()))).unwrap_or(1)) / 2.0 + 4.0;
        let _ = writeln!(
            text,
            "<text x=\"{:.1}\" y=\"{middle:.1}\" text-anchor=\"end\" class=\"ink\">{}</text>",
            NAMES - 8.0,
            escaped(name)
        );
        for (number, value) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            let _ = writeln!(
                text,
                "<rect x=\"{NAMES}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" class=\"f{}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"10\" class=\"faint\">{}</text>",
                wide(*value),
                BAR - 1.0,
                number % COLORS.len(),
                NAMES + wide(*value) + 4.0,
                y + BAR - 2.0,
                short(*value),
            );
            y += BAR;
        }
        y += GAP + if values.iter().flatten().count() == 0 { BAR } else { 0.0 };
    }
    if let Some(mark) = mark {
        let _ = writeln!(
            text,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{1:.1}\" y2=\"{y:.1}\" class=\"mark\" stroke-dasharray=\"3 3\"/>",
            NAMES + wide(mark),
            TOP - 4.0,
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" class=\"ink\">{}</text>\n</svg>",
        WIDTH - RIGHT,
        height - 8.0,
        escaped(label)
    );
    text
}

/// The next round number above.
fn round_up(value: f64) -> f64 {
    let unit = 10_f64.powf(value.max(0.01).log10().floor());
    [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5]
        .map(|step| step * unit)
        .into_iter()
        .find(|step| *step >= value)
        .unwrap_or(10.0 * unit)
}

/// A number with as many digits as tell something.
fn short(value: f64) -> String {
    match value {
        value if value >= 20.0 || value.fract() == 0.0 => thousands(value),
        value if value >= 1.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_from_corner_to_corner() {
        let points = vec![(0.0, 0.0), (100.0, 50.0)];
        let text = lines("a < b", &Axis::linear("x"), &Axis::linear("y"), &[Series { name: "s".into(), points }]);
        assert!(text.contains("points=\"70.0,310.0 700.0,56.0\""), "{text}");
        assert!(text.contains("a &lt; b") && text.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn powers_of_ten_are_evenly_apart() {
        let axis = Axis { label: "x", is_logarithmic: true };
        let scale = Scale::of(&axis, [10.0, 100.0, 1000.0].into_iter(), false);
        assert!(
            [10.0, 100.0, 1000.0]
                .map(|value| scale.part(value))
                .iter()
                .zip([0.0, 0.5, 1.0])
                .all(|(at, right)| (at - right).abs() < 1e-9)
        );
        assert_eq!(scale.ticks().len(), 3);
    }

    #[test]
    fn bars_are_as_long_as_their_values() {
        let groups = [("lane".to_owned(), vec![Some(2.0), None, Some(1.0)])];
        let text = bars("ratio", "×", &["a", "b", "c"], &groups, Some(1.0));
        assert!(text.contains("width=\"440.0\" height=\"10.0\" class=\"f0\""), "{text}");
        assert!(
            text.contains("width=\"220.0\" height=\"10.0\" class=\"f2\"")
                && !text.contains("height=\"10.0\" class=\"f1\"")
        );
    }
}
