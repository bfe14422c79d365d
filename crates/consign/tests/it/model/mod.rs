//! Random commands, given to a database and to the store in memory in step: every answer and everything that can be read
//! must be the same. And many hands at once on the same few rows, after which all must add up.
//!
//! `CONSIGN_TEST_SEED` repeats a run that failed; a failing sequence is shrunk to the shortest that still fails.

use std::sync::Arc;

use consign::store::Store;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

mod command;
mod follow;
mod hands;
mod snapshot;
mod world;

pub(crate) use hands::many_hands;

/// Sequences that are tried.
const CASES: u32 = 48;
/// Commands of the longest sequence.
const COMMANDS_MAX: usize = 70;
/// Tries to shorten a sequence that failed.
const SHRINKS_MAX: u32 = 300;

/// The seed of a run: the one that was asked for, or a new one.
pub(crate) fn seed() -> u64 {
    let asked = std::env::var_os("CONSIGN_TEST_SEED").and_then(|seed| seed.into_string().ok());
    asked.map_or_else(rand::random, |seed| seed.parse().expect("CONSIGN_TEST_SEED is a number"))
}

/// A folder in memory, where there is such a thing: these tests are about what is written, not about the disk.
pub(crate) fn quick_folder() -> tempfile::TempDir {
    let memory = std::path::Path::new("/dev/shm");
    if memory.is_dir() { tempfile::TempDir::new_in(memory) } else { tempfile::TempDir::new() }.unwrap()
}

fn bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes
}

/// Compares a database with the store in memory. `make` opens an empty one.
pub(crate) fn agrees_with_memory(make: impl AsyncFn() -> Arc<dyn Store>) {
    let seed = seed();
    println!("CONSIGN_TEST_SEED={seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let cases = std::env::var_os("CONSIGN_TEST_CASES").and_then(|cases| cases.into_string().ok()?.parse().ok());
    let config = Config {
        cases: cases.unwrap_or(CASES),
        max_shrink_iters: SHRINKS_MAX,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes(seed)));
    let commands = proptest::collection::vec(command::command(), 10..COMMANDS_MAX);
    let outcome = runner.run(&commands, |commands| {
        runtime.block_on(async {
            let store = make().await;
            let mut world = world::World::new(Arc::clone(&store)).await;
            for command in commands {
                world.step(command).await;
            }
            world.finish().await;
            store.close().await;
        });
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, commands)) => {
            panic!("CONSIGN_TEST_SEED={seed}\n{reason}\nafter {commands:#?}")
        }
        Err(TestError::Abort(reason)) => panic!("CONSIGN_TEST_SEED={seed}: {reason}"),
    }
}
