//! Writes the documents that are printed from the code, so that they cannot say something else.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use consign::config::reference;
use consign::error::Code;
use consign::operations::manual;
use consign::telemetry::metrics::table;

/// Writes all documents, or only tells which are stale.
pub(crate) fn run(root: &Path, check: bool) -> anyhow::Result<ExitCode> {
    let documents = [
        ("config.default.toml", reference::default_file()),
        ("docs/generated/config.md", reference::markdown()),
        ("docs/generated/cli.md", consign::cli::reference()),
        ("docs/drop-in.md", consign::cli::hosts::guide("/etc/consign/hosts", "127.0.0.1")),
        ("docs/generated/errors.md", errors()),
        ("docs/generated/operations.md", manual::markdown()),
        ("docs/generated/metrics.md", table::markdown()),
        ("docs/generated/openapi.json", format!("{:#}\n", consign::http::openapi::document("http://127.0.0.1:8080"))),
    ];
    let mut stale = 0;
    for (name, text) in documents {
        let path = root.join(name);
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        stale += 1;
        if check {
            writeln!(io::stderr(), "{name} is stale; run `cargo xtask generate`")?;
        } else {
            fs::create_dir_all(path.parent().unwrap_or(root))?;
            fs::write(&path, text).with_context(|| format!("{name} cannot be written"))?;
            writeln!(io::stdout(), "wrote {name}")?;
        }
    }
    Ok(if check && stale > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn errors() -> String {
    let mut text = String::from(
        "# Error codes\n\nA request that fails is answered with one of these codes and status; a task that fails carries one in \
         `code`, with a sentence in `message` that says what to do. \"Tried again\" means that the server repeats the \
         task by itself, a bounded number of times, before it fails.\n\n| code | status | tried again | meaning |\n|---|---|---|---|\n",
    );
    for code in Code::ALL {
        let again = if code.is_retried() { "yes" } else { "no" };
        let _ = writeln!(text, "| `{}` | {} | {again} | {} |", code.wire(), code.status(), code.doc().trim());
    }
    text
}
