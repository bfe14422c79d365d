//! `cargo xtask bench transfers --small`: every lane runs, what arrives is right, and the page has all its columns. Nothing is timed.

#![expect(clippy::unwrap_used, reason = "a test ends with the first surprise")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

const LANES: [&str; 13] = [
    "s3 upload, null sink, TLS",
    "s3 upload, Ceph",
    "s3 download, null sink, TLS",
    "s3 download, Ceph",
    "sftp upload, OpenSSH",
    "sftp download, OpenSSH",
    "azure upload, Azurite",
    "azure download, Azurite",
    "swift upload, OpenStack",
    "swift download, OpenStack",
    "gcs upload, emulator",
    "many files, null sink, TLS",
    "many files, Ceph",
];
const HEADS: [&str; 5] = [
    "| lane | goal | measured | |",
    "| lane | MiB | rounds | Consign MiB/s | rclone as shipped | rclone tuned | OpenSSH sftp | aws s3 cp |",
    "| lane | Consign | rclone as shipped | rclone tuned | OpenSSH sftp | aws s3 cp |",
    "| lane | server | Consign | rclone as shipped | rclone tuned | tuned by |",
    "| lane | command | Consign | peers | files of the clients | files of the server | load of the machine at its end |",
];

#[expect(clippy::disallowed_methods, reason = "the test starts the chore as a program")]
fn bench(arguments: &[&str], program: &Path, out: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["bench", "transfers"]).args(arguments);
    command.arg("--program").arg(program).args(["--commit", "abc123+"]).arg("--out").arg(out);
    command.arg("--folder").arg(std::env::temp_dir());
    command.output().unwrap()
}

/// The program beside the chore.
fn built() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_xtask")).with_file_name("consign");
    assert!(program.is_file(), "build it first: cargo build -p consign (a run of the whole workspace does)");
    program
}

#[test]
fn transfers_are_measured_in_every_lane() {
    let out = tempfile::tempdir().unwrap();
    let output = bench(&["--small"], &built(), out.path());
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    // Where a server cannot be had (never in CI), its lanes are left out, and that is said.
    let expected: Vec<&str> = LANES.into_iter().filter(|lane| !told.contains(&format!("{lane}: skipped"))).collect();

    let read = |name: &str| std::fs::read_to_string(out.path().join(name)).unwrap();
    let runs: Value = serde_json::from_str(&read("transfers.json")).unwrap();
    let rows = runs["rows"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["lane"].as_str().unwrap()).collect::<Vec<_>>(), expected);
    for row in rows {
        for side in ["ours", "shipped"] {
            let run = row["runs"].as_array().unwrap().iter().find(|run| run["side"] == side).unwrap();
            for figure in ["wall_secs", "peak_bytes"] {
                assert!(run[figure].as_f64().unwrap() > 0.0, "{side} {figure}: {row}");
            }
        }
    }

    let page = read("transfers.md");
    assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    for head in HEADS {
        let (_, table) = page.split_once(&format!("\n{head}\n")).unwrap_or_else(|| panic!("no {head}: {page}"));
        let columns = head.matches('|').count();
        for lane in &expected {
            let row = table.lines().take_while(|line| line.starts_with('|')).find(|line| line.contains(lane));
            let row = row.unwrap_or_else(|| panic!("no {lane} below {head}: {page}"));
            assert_eq!(row.matches('|').count(), columns, "{row}");
        }
    }
    // Goals of lanes that were left out are on the page, too.
    let goals = LANES.iter().filter(|lane| page.contains(&format!("\n| {lane} | ≤ 128 MiB resident |"))).count();
    assert_eq!(goals, LANES.iter().filter(|lane| !lane.starts_with("many")).count(), "{page}");
    assert_eq!(page.matches("| consign 0.").count(), expected.len(), "{page}");
    assert!(page.contains(", abc123+ | rclone v") && page.contains(" --folder "), "{page}");
    for plot in ["transfers-ratio.svg", "transfers-cpu.svg", "transfers-memory.svg"] {
        let text = read(plot);
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"), "{text}");
        assert!(expected.iter().all(|lane| text.contains(lane)), "{plot}: {text}");
    }
}

#[test]
fn a_program_that_does_not_run_is_no_measurement() {
    let out = tempfile::tempdir().unwrap();
    let output = bench(&["--small", "--only", "many files, null"], Path::new("/nonexistent/consign"), out.path());
    assert!(!output.status.success());
    assert!(!out.path().join("transfers.md").exists());
}
