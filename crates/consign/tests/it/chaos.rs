//! Real processes under load while they are killed, frozen, cut off and restarted: nothing that was acknowledged is lost.
//!
//! Jobs and faults follow from a seed. `CONSIGN_TEST_SEED` gives another one, `cargo xtask chaos --seconds 3600` takes an hour.
//! The fleet lets exports begin early (`transfer.overlap`), the single process does not.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use chaos::{Options, Place};
use consign::operations;
use testkit::or_skip;

/// Another one than the day before finds more; the same one every day tells whose change broke it.
const SEED: u64 = 5;

async fn nothing_is_lost(name: &str, fleet: bool) {
    let given = std::env::var_os("CONSIGN_TEST_SEED").and_then(|seed| seed.to_str()?.parse().ok());
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        program: PathBuf::from(env!("CARGO_BIN_EXE_consign")),
        seed: given.unwrap_or(SEED),
        length: chaos::long_enough(fleet),
        fleet,
        shared_files: true,
        all_destinations: fleet,
        overlap: fleet,
        history: folder.path().join("history.jsonl"),
        job_every: Duration::from_millis(400),
        faults: String::new(),
        command: format!("the test of {name}"),
    };
    let Some(outcome) = or_skip(chaos::run(&options).await) else { return };
    println!("{}", outcome.summary);
    if !outcome.violations.is_empty() {
        println!("{name}: the history is in {}", folder.keep().display());
    }
    assert_eq!(outcome.violations, [].into(), "CONSIGN_TEST_SEED={}", options.seed);
    assert_eq!(outcome.missed, [].into(), "kinds of faults that never struck; CONSIGN_TEST_SEED={}", options.seed);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_loses_nothing() {
    nothing_is_lost("one process", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_loses_nothing() {
    nothing_is_lost("a fleet", true).await;
}

/// Whoever adds an export is told here that nothing breaks it yet.
#[test]
fn files_are_delivered_by_every_export_that_there_is() {
    let exports: BTreeSet<&str> =
        operations::all().map(|entry| entry.name).filter(|name| name.starts_with("export/")).collect();
    assert_eq!(Place::ALL.map(Place::operation).into_iter().collect::<BTreeSet<_>>(), exports);
}
