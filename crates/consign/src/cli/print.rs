//! What people read: lines on standard output, errors on standard error.

use std::fmt::Write as _;
use std::io::{self, Write as _};

/// Prints a line. A reader that went away is no reason to fail.
pub(super) fn line(text: impl AsRef<str>) {
    let _ = writeln!(io::stdout(), "{}", text.as_ref());
}

/// Prints a line for people beside the output proper, on standard error.
pub(super) fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr(), "{}", text.as_ref());
}

/// Prints rows of cells in columns as wide as need be.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) {
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        line(cells.join("  ").trim_end());
    }
}

/// Prints an error with what lies behind it.
pub(super) fn error(error: &anyhow::Error) {
    let mut text = format!("error: {error}");
    let mut shown = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !shown.contains(&cause) {
            let _ = write!(text, "\n  because: {cause}");
        }
        shown = cause;
    }
    note(text);
}
