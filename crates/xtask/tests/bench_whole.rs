//! `cargo xtask bench jobs --small`, and `growth`, `memory` and `overlap` so: every section runs, what comes is checked, and it
//! stands on its page. Nothing is timed.

#![expect(clippy::unwrap_used, reason = "a test ends with the first surprise")]

use std::path::Path;
use std::process::{Command, Output};

const JOBS: [&str; 6] = [
    "A whole job: import/url → export/s3",
    "From created to started",
    "Jobs per second",
    "Downloads of export/url",
    "A ZIP archive of many files",
    "A thousand who wait",
];
const MEMORY: [&str; 2] = ["One transfer, whatever its size", "A hundred transfers at once"];
const GROWTH: [&str; 3] = ["Files in a task", "Tasks in a job", "Rows in the database"];

#[expect(clippy::disallowed_methods, reason = "the test starts the chore as a program")]
fn bench(arguments: &[&str], out: &Path) -> Output {
    let chore = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let program = chore.with_file_name("consign");
    assert!(program.is_file(), "build it first: cargo build -p consign (a run of the whole workspace does)");
    let mut command = Command::new(chore);
    command.arg("bench").args(arguments).arg("--small");
    command.arg("--program").arg(program).arg("--out").arg(out).arg("--folder").arg(std::env::temp_dir());
    command.output().unwrap()
}

/// The page of a run, with all these sections in their order.
fn page(arguments: &[&str], out: &Path, name: &str, sections: &[&str]) -> String {
    let output = bench(arguments, out);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = std::fs::read_to_string(out.join(name)).unwrap();
    let found: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(found, sections, "{page}");
    has_its_plots(&page, out);
    page
}

/// Every figure is a number, and every plot that the page shows is beside it.
fn has_its_plots(page: &str, out: &Path) {
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    let shown = page.lines().filter_map(|line| line.strip_prefix("![")?.split_once("](")?.1.strip_suffix(')'));
    for plot in shown {
        let text = std::fs::read_to_string(out.join(plot)).unwrap();
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"), "{plot}: {text}");
        assert!(text.contains("<polyline") || text.matches("<rect").count() > 2, "{plot}: {text}");
    }
}

#[test]
fn whole_jobs_are_measured() {
    let out = tempfile::tempdir().unwrap();
    let page = page(&["jobs"], out.path(), "jobs.md", &JOBS);
    for row in [
        "| Consign, files on disk |",
        "| Consign, files in memory, overlap |",
        "| behind a backlog that is worked on |",
        "| TLS, 4 at once |",
        "| slow downloads |",
    ] {
        assert!(page.contains(row), "{row} is missing: {page}");
    }
    assert_eq!(
        (page.matches("\n![").count(), page.matches("\nconsign 0.").count()),
        (JOBS.len(), JOBS.len()),
        "{page}"
    );
}

#[test]
fn overlap_is_measured() {
    let out = tempfile::tempdir().unwrap();
    let output = bench(&["overlap"], out.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = std::fs::read_to_string(out.path().join("overlap.md")).unwrap();
    has_its_plots(&page, out.path());
    for part in ["| `false` |", "| `true` |", "](overlap.svg)", "Without / with"] {
        assert!(page.contains(part), "{part} is missing: {page}");
    }
}

#[test]
fn growth_is_measured() {
    let out = tempfile::tempdir().unwrap();
    let page = page(&["growth"], out.path(), "growth.md", &GROWTH);
    // So little is measured here that no CPU time says anything.
    assert!(page.contains("| – |") && page.matches("\n![").count() == 6, "{page}");
}

#[test]
fn memory_is_measured() {
    let out = tempfile::tempdir().unwrap();
    let page = page(&["memory"], out.path(), "memory.md", &MEMORY);
    assert!(page.contains("| 3 × `import/s3` |") && out.path().join("memory-one.svg").is_file(), "{page}");
}

#[test]
fn one_section_is_measured_again_and_the_others_stay() {
    let out = tempfile::tempdir().unwrap();
    let tasks = "## Tasks in a job\n\nas it was\n";
    std::fs::write(out.path().join("growth.md"), format!("# old\n\n{tasks}")).unwrap();
    let page = page(&["growth", "--only", "Rows"], out.path(), "growth.md", &GROWTH[1..]);
    assert!(page.contains(tasks) && page.contains("| create a job |"), "{page}");
}
