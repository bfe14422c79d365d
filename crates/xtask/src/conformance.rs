//! Writes the conformance matrix from what the tests recorded: which system was shown what, by which server.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use connectors::contract::CASES;
use testkit::conformance::{Cell, Form, Line, Row, Server, Standing};

use crate::record::{self, Notes, shown};

const DOCUMENT: &str = "docs/generated/conformance.md";

const OPENING: &str = "\
# Conformance

Printed from what a whole run of the tests recorded (`scripts/test`, then `cargo xtask conformance`); a cell that no test
showed cannot stand here.

A ✓ counts when a server that is not ours held the object and a client by another hand read it back whole. Where a column
is marked *stand-in*, an emulator or a part of ours takes the place of something that cannot be had here; where it is marked
*practice*, it is the server of `consign practice`, which is ours and proves nothing to others. A — cannot be asked: the note
says whether the protocol or the server stands in the way. A ○ was shown in another way, which its note names.
";

/// The recorded cells, each server's by row. Only the test of the contract names the witness: the servers here have none.
#[derive(Default, Debug)]
struct Matrix {
    cells: BTreeMap<Server, BTreeMap<Row, Cell>>,
    witnesses: BTreeMap<Server, String>,
}

/// Writes the matrix, or only tells whether it is stale.
pub(crate) fn run(root: &Path, file: &Path, check: bool) -> anyhow::Result<ExitCode> {
    record::keep(root, DOCUMENT, &document(&read(&record::file(file)?)?)?, check)
}

fn read(text: &str) -> anyhow::Result<Matrix> {
    let mut matrix = Matrix::default();
    for line in record::lines(text) {
        let Line { mut server, row, cell } = line?;
        let witness = std::mem::take(&mut server.witness);
        if !witness.is_empty() {
            matrix.witnesses.insert(server.clone(), witness);
        }
        let before = matrix.cells.entry(server.clone()).or_default().insert(row.clone(), cell.clone());
        ensure!(
            before.is_none_or(|before| before == cell),
            "two tests say different things of {row:?} with {server:?}"
        );
    }
    for (server, rows) in &matrix.cells {
        let missing: Vec<&str> = CASES
            .iter()
            .map(|case| case.name)
            .filter(|name| !rows.contains_key(&Row::Case((*name).to_owned())))
            .collect();
        if !missing.is_empty() && rows.keys().any(|row| matches!(row, Row::Case(_))) {
            bail!("the record is of a part of the tests: {} ({}) lacks {missing:?}", server.name, server.system);
        }
    }
    Ok(matrix)
}

fn document(matrix: &Matrix) -> anyhow::Result<String> {
    let mut text = OPENING.to_owned();
    let mut notes = Notes::default();
    servers(&mut text, matrix)?;
    contract(&mut text, matrix, &mut notes)?;
    arguments(&mut text, matrix, &mut notes)?;
    notes.write(&mut text)?;
    Ok(text)
}

fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Real => "real",
        Standing::StandIn => "stand-in",
        Standing::Practice => "practice",
    }
}

/// Server and system, with its standing where that is less than real.
fn title(server: &Server) -> String {
    match server.standing {
        Standing::Real => format!("{}: {}", server.system, server.name),
        Standing::StandIn | Standing::Practice => {
            format!("{}: {} *({})*", server.system, server.name, standing(server.standing))
        }
    }
}

fn servers(text: &mut String, matrix: &Matrix) -> anyhow::Result<()> {
    text.push_str("\n## Servers\n\n| system | server | version | standing | read back by |\n|---|---|---|---|---|\n");
    for server in matrix.cells.keys() {
        let witness = matrix.witnesses.get(server).map_or(String::new(), |witness| versions_apart(witness));
        let Server { system, name, version, .. } = server;
        writeln!(text, "| {system} | {name} | `{version}` | {} | {witness} |", standing(server.standing))?;
    }
    Ok(())
}

/// `boto3 1.44` as it is shown: what begins with a digit stands between backticks.
fn versions_apart(witness: &str) -> String {
    let is_version = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
    let words = witness.split(' ').map(|word| if is_version(word) { format!("`{word}`") } else { word.to_owned() });
    words.collect::<Vec<_>>().join(" ")
}

fn contract(text: &mut String, matrix: &Matrix, notes: &mut Notes) -> anyhow::Result<()> {
    let asked = |rows: &BTreeMap<Row, Cell>| rows.keys().any(|row| matches!(row, Row::Case(_)));
    let columns: Vec<_> = matrix.cells.iter().filter(|(_, rows)| asked(rows)).collect();
    text.push_str("\n## The contract of connectors\n\n| case |");
    for (server, _) in &columns {
        write!(text, " {} |", title(server))?;
    }
    writeln!(text, "\n|---|{}", ":-:|".repeat(columns.len()))?;
    for case in CASES {
        write!(text, "| {} |", case.about)?;
        for (_, rows) in &columns {
            let cell = rows.get(&Row::Case(case.name.to_owned())).context("checked when it was read")?;
            write!(text, " {} |", shown(cell, notes))?;
        }
        text.push('\n');
    }
    Ok(())
}

fn arguments(text: &mut String, matrix: &Matrix, notes: &mut Notes) -> anyhow::Result<()> {
    let systems: BTreeSet<&str> = matrix.cells.keys().map(|server| server.system.as_str()).collect();
    for system in systems {
        let of_system = || matrix.cells.iter().filter(|(server, _)| server.system == system);
        let names: BTreeSet<&str> = of_system()
            .flat_map(|(_, rows)| rows.keys())
            .filter_map(|row| match row {
                Row::Argument { name, .. } => Some(name.as_str()),
                Row::Case(_) => None,
            })
            .collect();
        if names.is_empty() {
            continue;
        }
        write!(
            text,
            "\n## Arguments of {system}\n\nIts effect was read from the server, for objects in one write and in "
        )?;
        text.push_str("parts.\n\n| argument | single write | in parts |\n|---|:-:|:-:|\n");
        for name in names {
            let mut cell = |form| best(of_system(), name, form, notes);
            let (single, parts) = (cell(Form::Single), cell(Form::Parts));
            writeln!(text, "| `{name}` | {single} | {parts} |")?;
        }
    }
    Ok(())
}

/// The strongest that was shown of an argument: by a real server, then by a lesser one, then in another way.
fn best<'a>(
    servers: impl Iterator<Item = (&'a Server, &'a BTreeMap<Row, Cell>)>,
    name: &str,
    form: Form,
    notes: &mut Notes,
) -> String {
    let row = Row::Argument { name: name.to_owned(), form };
    let cells = servers.filter_map(|(server, rows)| rows.get(&row).map(|cell| (cell, server)));
    let Some((cell, server)) = cells.min_by_key(|(cell, server)| (server.standing, (*cell).clone())) else {
        return String::new();
    };
    match (cell, server.standing) {
        (Cell::Shown, Standing::StandIn | Standing::Practice) => {
            format!("○{}", notes.mark(&format!("by {} ({}) only", server.name, standing(server.standing))))
        }
        (Cell::Shown | Cell::Otherwise(_) | Cell::Excluded(_), _) => shown(cell, notes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::without_versions;

    fn line(standing: Standing, row: Row, cell: Cell) -> Line {
        let server = Server {
            system: "s3".to_owned(),
            name: format!("{standing:?}"),
            version: "1.2".to_owned(),
            standing,
            witness: "boto3 1.44".to_owned(),
        };
        Line { server, row, cell }
    }

    fn record(lines: &[Line]) -> String {
        lines.iter().map(|line| serde_json::to_string(line).unwrap() + "\n").collect()
    }

    fn whole() -> Vec<Line> {
        CASES.iter().map(|case| line(Standing::Real, Row::Case(case.name.to_owned()), Cell::Shown)).collect()
    }

    #[test]
    fn a_part_of_the_tests_makes_no_matrix() {
        assert!(read(&record(&whole())).is_ok());
        let error = read(&record(&whole()[1..])).unwrap_err().to_string();
        assert!(error.contains(CASES[0].name), "{error}");
        let mut lines = whole();
        lines.push(Line { cell: Cell::Excluded("no".to_owned()), ..lines[0].clone() });
        assert!(read(&record(&lines)).is_err(), "two tests disagree");
    }

    #[test]
    fn versions_do_not_make_it_stale_and_cells_do() {
        let text = document(&read(&record(&whole())).unwrap()).unwrap();
        let newer = text.replace("`1.2`", "`1.3`").replace("`1.44`", "`2.0`");
        assert_ne!(newer, text);
        assert_eq!(without_versions(&newer), without_versions(&text));
        let mut lines = whole();
        lines[3].cell = Cell::Excluded("protocol: because".to_owned());
        let other = document(&read(&record(&lines)).unwrap()).unwrap();
        assert_ne!(without_versions(&other), without_versions(&text));
        assert!(other.contains("| —<sup>1</sup> |") && other.contains("1. protocol: because"), "{other}");
    }

    #[test]
    fn a_real_server_counts_most() {
        let acl = Row::Argument { name: "acl".to_owned(), form: Form::Single };
        let practice = line(Standing::Practice, acl.clone(), Cell::Shown);
        let text = document(&read(&record(std::slice::from_ref(&practice))).unwrap()).unwrap();
        assert!(text.contains("| `acl` | ○<sup>1</sup> |  |"), "{text}");
        let real = line(Standing::Real, acl, Cell::Shown);
        let text = document(&read(&record(&[practice, real])).unwrap()).unwrap();
        assert!(text.contains("| `acl` | ✓ |  |"), "{text}");
    }
}
