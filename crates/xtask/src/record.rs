//! What the documents share that are printed from what tests recorded: reading, notes, and writing or only comparing.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use serde::de::DeserializeOwned;
use testkit::conformance::Cell;

/// Reads a record, a line of JSON for each cell.
pub(crate) fn lines<T: DeserializeOwned>(record: &str) -> impl Iterator<Item = anyhow::Result<T>> {
    record.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned()))
}

/// Reads the file of a record.
pub(crate) fn file(record: &Path) -> anyhow::Result<String> {
    fs::read_to_string(record).with_context(|| format!("{} cannot be read", record.display()))
}

/// Writes a document, or only tells whether it is stale.
pub(crate) fn keep(root: &Path, document: &str, text: &str, check: bool) -> anyhow::Result<ExitCode> {
    let path = root.join(document);
    let old = fs::read_to_string(&path).unwrap_or_default();
    // A patch level that changed is no reason to fail, nor to write.
    if without_versions(&old) == without_versions(text) {
        return Ok(ExitCode::SUCCESS);
    }
    if check {
        writeln!(io::stderr(), "{document} is stale; run scripts/test where CI is not set, and commit what it wrote")?;
        return Ok(ExitCode::FAILURE);
    }
    fs::write(&path, text).with_context(|| format!("{document} cannot be written"))?;
    writeln!(io::stdout(), "wrote {document}")?;
    Ok(ExitCode::SUCCESS)
}

/// Numbered notes, in the order in which they are first asked for.
#[derive(Default)]
pub(crate) struct Notes(Vec<String>);

impl Notes {
    pub(crate) fn mark(&mut self, note: &str) -> String {
        let at = self.0.iter().position(|known| known == note).unwrap_or_else(|| {
            self.0.push(note.to_owned());
            self.0.len() - 1
        });
        format!("<sup>{}</sup>", at + 1)
    }

    pub(crate) fn write(&self, text: &mut String) -> anyhow::Result<()> {
        text.push_str("\n## Notes\n\n");
        for (at, note) in self.0.iter().enumerate() {
            writeln!(text, "{}. {note}", at + 1)?;
        }
        Ok(())
    }
}

/// A cell as it stands in a table.
pub(crate) fn shown(cell: &Cell, notes: &mut Notes) -> String {
    match cell {
        Cell::Shown => "✓".to_owned(),
        Cell::Otherwise(note) => format!("○{}", notes.mark(note)),
        Cell::Excluded(reason) => format!("—{}", notes.mark(reason)),
    }
}

/// The text without versions, which stand alone between backticks and begin with a digit.
pub(crate) fn without_versions(text: &str) -> String {
    let is_version = |(at, piece): &(usize, &str)| at % 2 == 1 && piece.starts_with(|c: char| c.is_ascii_digit());
    text.split('`').enumerate().filter(|piece| !is_version(piece)).map(|(_, piece)| piece).collect()
}
