//! A line plot as SVG.

use std::fmt::Write as _;

/// A line.
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) color: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
const LINES: u32 = 5;

/// Draws lines over axes that begin at zero.
pub(crate) fn svg(title: &str, x_label: &str, y_label: &str, series: &[Series]) -> String {
    let points = || series.iter().flat_map(|series| &series.points);
    let x_max = points().map(|point| point.0).fold(1.0, f64::max);
    let y_max = round_up(points().map(|point| point.1).fold(0.0, f64::max));
    let x = |value: f64| LEFT + value / x_max * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / y_max * (HEIGHT - TOP - BOTTOM);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\" fill=\"#222222\">{title}</text>\n"
    );
    for line in 0..=LINES {
        let part = f64::from(line) / f64::from(LINES);
        let (across, up) = (x(x_max * part), y(y_max * part));
        let _ = writeln!(
            text,
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{up:.1}\" y2=\"{up:.1}\" stroke=\"#dddddd\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555555\">{}</text>\n\
             <text x=\"{across:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"#555555\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            up + 4.0,
            thousands(y_max * part),
            HEIGHT - BOTTOM + 18.0,
            thousands(x_max * part),
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#222222\">{x_label}</text>\n\
         <text transform=\"translate(14 {:.1}) rotate(-90)\" text-anchor=\"end\" fill=\"#222222\">{y_label}</text>",
        WIDTH - RIGHT,
        HEIGHT - 10.0,
        TOP,
    );
    for (number, Series { name, color, points }) in (0_u32..).zip(series) {
        let path: String = points.iter().fold(String::new(), |mut path, point| {
            let _ = write!(path, "{:.1},{:.1} ", x(point.0), y(point.1));
            path
        });
        let right = WIDTH - RIGHT - 220.0 * f64::from(number);
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\"/>\n\
             <text x=\"{right:.1}\" y=\"22\" text-anchor=\"end\" fill=\"{color}\">{name}</text>",
            path.trim_end(),
        );
    }
    text.push_str("</svg>\n");
    text
}

/// The next round number above.
fn round_up(value: f64) -> f64 {
    let unit = 10_f64.powf(value.max(1.0).log10().floor());
    [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5]
        .map(|step| step * unit)
        .into_iter()
        .find(|step| *step >= value)
        .unwrap_or(10.0 * unit)
}

/// A number with a comma every three digits.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
