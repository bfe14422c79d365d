//! Writes the table of clients from what the tests recorded: which client was shown to do what.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::ensure;
use testkit::clients::{Cell, Client, FLOWS, Line, Via};

use crate::record::{self, Notes, shown};

const DOCUMENT: &str = "docs/generated/clients.md";

const OPENING: &str = "\
# Clients

Printed from what a whole run of the tests recorded (`scripts/test`, then `cargo xtask clients`); a cell that no test showed
cannot stand here.

A ✓ was shown with the client library as it is published, against the program, and checked to the byte where there are bytes. A ○
was shown with the reservation that its note names. A — cannot be asked of this client: the note says why.
Three ways to run a client: *HTTP*, by its own option or by what the language offers, over plain HTTP; *TLS*, with nothing but
the service's own host names leading to the server, and its certificate authority trusted; *replay*, where the client's language is not
part of the tests: requests are sent as bytes in the way in which the client is known to write them, and the answers are read as strictly as
it is known to read them. A replay proves less than a client, and stands in a table of its own.
";

type Table = BTreeMap<Client, BTreeMap<String, Cell>>;

/// Writes the table, or only tells whether it is stale.
pub(crate) fn run(root: &Path, file: &Path, check: bool) -> anyhow::Result<ExitCode> {
    record::keep(root, DOCUMENT, &document(&read(&record::file(file)?)?)?, check)
}

fn read(text: &str) -> anyhow::Result<Table> {
    let mut table = Table::new();
    for line in record::lines(text) {
        let Line { client, flow, cell } = line?;
        let before = table.entry(client.clone()).or_default().insert(flow.clone(), cell.clone());
        ensure!(before.is_none_or(|before| before == cell), "two tests say different things of {flow} with {client:?}");
    }
    for (client, flows) in &table {
        let missing: Vec<_> = FLOWS.iter().map(|(flow, _)| *flow).filter(|flow| !flows.contains_key(*flow)).collect();
        ensure!(missing.is_empty(), "the record is of a part of the tests: {client:?} lacks {missing:?}");
    }
    Ok(table)
}

fn document(table: &Table) -> anyhow::Result<String> {
    let (mut text, mut notes) = (OPENING.to_owned(), Notes::default());
    text.push_str("\n## What was run\n\n| client | version | how |\n|---|---|---|\n");
    for Client { name, version, via } in table.keys() {
        writeln!(text, "| {name} | `{version}` | {} |", how(*via))?;
    }
    text.push_str("\n## What was shown\n");
    let (replayed, run): (Vec<_>, Vec<_>) = table.iter().partition(|(client, _)| client.via == Via::Replay);
    for columns in [run, replayed] {
        rows(&mut text, &columns, &mut notes)?;
    }
    notes.write(&mut text)?;
    Ok(text)
}

fn rows(text: &mut String, columns: &[(&Client, &BTreeMap<String, Cell>)], notes: &mut Notes) -> anyhow::Result<()> {
    if columns.is_empty() {
        return Ok(());
    }
    text.push_str("\n| flow |");
    for (client, _) in columns {
        write!(text, " {}, {} |", client.name, how(client.via))?;
    }
    writeln!(text, "\n|---|{}", ":-:|".repeat(columns.len()))?;
    for (flow, about) in FLOWS {
        write!(text, "| {about} |")?;
        for (_, flows) in columns {
            write!(text, " {} |", shown(&flows[flow], notes))?;
        }
        text.push('\n');
    }
    Ok(())
}

fn how(via: Via) -> &'static str {
    match via {
        Via::Http => "HTTP",
        Via::Tls => "TLS",
        Via::Replay => "replay",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(flows: &[(&str, &str)], via: Via) -> String {
        let client = Client { name: "Node".to_owned(), version: "3.0.0".to_owned(), via };
        let line = |flow: &str| Line { client: client.clone(), flow: flow.to_owned(), cell: Cell::Shown };
        flows.iter().map(|(flow, _)| serde_json::to_string(&line(flow)).unwrap() + "\n").collect()
    }

    #[test]
    fn every_client_needs_a_word_on_every_flow() {
        assert!(read(&record(&FLOWS, Via::Http)).is_ok());
        let error = read(&record(&FLOWS[1..], Via::Http)).unwrap_err().to_string();
        assert!(error.contains(FLOWS[0].0), "{error}");
    }

    #[test]
    fn replays_stand_apart_and_notes_are_numbered() {
        let text = record(&FLOWS, Via::Http) + &record(&FLOWS, Via::Replay);
        let mut table = read(&text).unwrap();
        for flows in table.values_mut() {
            flows.insert("retry".to_owned(), Cell::Excluded("no method".to_owned()));
        }
        let text = document(&table).unwrap();
        assert!(text.contains("| flow | Node, HTTP |\n") && text.contains("| flow | Node, replay |\n"), "{text}");
        assert_eq!(text.matches("| retry a task | —<sup>1</sup> |").count(), 2, "{text}");
        assert!(text.ends_with("1. no method\n"), "{text}");
    }
}
