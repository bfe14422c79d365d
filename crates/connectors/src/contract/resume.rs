//! Uploads that are interrupted by this side: the file cannot be read, the process ends.

use std::sync::Arc;

use super::handy::{Attempt, Must as _, delete, many_parts, nothing_left, owner, put, source};
use super::{Excluded, Fixture, Outcome};
use crate::Connector;
use crate::error::Kind;
use crate::memory::MemorySource;
use crate::source::Source as _;
use crate::transfer::OpenUpload;

pub(super) const EXPIRES: &str =
    "what is unfinished cannot be cleared away at the service, and expires there by itself";

/// Interrupts an upload in its last byte; the attempt that goes on with it can read everything.
async fn interrupt(connector: &dyn Connector, name: &str, length: usize, seed: u64) -> (Attempt, OpenUpload) {
    let whole = source(length, seed);
    let failing = Arc::new(MemorySource::new(whole.bytes().clone()).failing_from(length as u64 - 1));
    let attempt = Attempt::of(name, failing);
    let error = attempt.put(connector).await.expect_err("the source fails in its last byte");
    assert_eq!(error.kind, Kind::Local, "{error:?}");
    let open = attempt.journal.open(name).expect("the journal knows what is open");
    (Attempt { source: whole, ..attempt }, open)
}

pub(super) async fn interrupted_put(fixture: &dyn Fixture) -> Outcome {
    let connector = owner(fixture)?;
    let connector = connector.as_ref();
    let name = format!("{}interrupted/object", fixture.prefix());
    let old = Attempt::of(&name, source(1000, 17));
    old.put(connector).await.must(&name);
    let (attempt, open) = interrupt(connector, &name, many_parts(fixture), 19).await;
    let seen = fixture.witness().read(&name).await.must(&name);
    assert_eq!(seen, Some(old.expected(connector)), "half an object is visible");
    for _ in 0..2 {
        connector.abort(&open).await.must(&name);
    }
    let seen = fixture.witness().read(&name).await.must(&name);
    assert_eq!(seen, Some(old.expected(connector)), "aborting took the old object along");
    let aborts = connector.capability().aborts;
    if aborts {
        nothing_left(fixture, &name, &attempt.journal).await;
    } else {
        // What cannot be cleared away is used, so that no other case finds it.
        attempt.put(connector).await.must(&name);
    }
    delete(connector, &name).await;
    Excluded::unless(aborts, EXPIRES)
}

pub(super) async fn resumed_put(fixture: &dyn Fixture) -> Outcome {
    let connector = owner(fixture)?;
    let connector = connector.as_ref();
    let capability = connector.capability();
    for is_gone in [false, true] {
        let name = format!("{}resumed/{is_gone}", fixture.prefix());
        let (attempt, open) = interrupt(connector, &name, many_parts(fixture), 23).await;
        if is_gone {
            connector.abort(&open).await.must(&name);
        }
        attempt.put(connector).await.must(&name);
        let is_resumed = attempt.source.read_bytes() < attempt.source.size();
        if !is_gone || capability.aborts {
            let read = attempt.source.read_bytes();
            assert_eq!(is_resumed, capability.resumes && !is_gone, "{read} bytes were read");
        }
        attempt.is_whole(fixture, connector).await;
        delete(connector, &name).await;
    }
    Ok(())
}

pub(super) async fn other_bytes(fixture: &dyn Fixture) -> Outcome {
    let connector = owner(fixture)?;
    let connector = connector.as_ref();
    let name = format!("{}other/object", fixture.prefix());
    let (interrupted, open) = interrupt(connector, &name, many_parts(fixture), 29).await;
    let other = Attempt { source: source(many_parts(fixture), 31), ..interrupted };
    other.put(connector).await.must(&name);
    other.is_whole(fixture, connector).await;
    // What is aborted late takes nothing along.
    connector.abort(&open).await.must(&name);
    other.is_whole(fixture, connector).await;
    put(connector, &name, &source(10, 37)).await.must(&name);
    delete(connector, &name).await;
    Ok(())
}
