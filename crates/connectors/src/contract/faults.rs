//! Uploads over a path that breaks, lies, dawdles and refuses.

use std::time::{Duration, Instant};

use super::handy::{Attempt, Must as _, collect, delete, many_parts, nothing_left, owner, part, source};
use super::resume::EXPIRES;
use super::{Excluded, Fixture, Outcome, Who, Wire};
use crate::Connector;
use crate::error::Kind;
use crate::transfer::Limits;

/// What a protocol may send beside the bytes of the parts: requests, log-in, packet heads.
const OVERHEAD_BYTES: u64 = 256 * 1024;
/// The least size of an object that is cut at half: many times what SFTP has under way at once (4 MiB),
/// so that something must have been acknowledged.
const CUT_BYTES_MIN: usize = 40 * 1024 * 1024;
/// The patience of the cases in which nothing moves.
const PATIENCE: Duration = Duration::from_secs(2);
/// In which they must have ended: log-in and a busy machine included.
const PATIENCE_MAX: Duration = Duration::from_secs(20);
/// What a server asks for that is asked too much.
const RETRY_AFTER: Duration = Duration::from_secs(1);

fn through(fixture: &dyn Fixture, wire: &dyn Wire, limits: Limits) -> Result<Box<dyn Connector>, Excluded> {
    fixture.connect(Who::Owner, limits, Some(wire.addr()))
}

fn once(fixture: &dyn Fixture) -> Limits {
    Limits { tries: 1, ..fixture.limits() }
}

pub(super) async fn cut_at_half(fixture: &dyn Fixture) -> Outcome {
    let wire = fixture.wire().await;
    let connector = through(fixture, wire.as_ref(), once(fixture))?;
    let size = CUT_BYTES_MIN.max(2 * many_parts(fixture));
    let attempt = Attempt::of(format!("{}cut/object", fixture.prefix()), source(size, 41));
    let name = attempt.name.as_str();
    wire.cut_after(size as u64 / 2);
    let error = attempt.put(connector.as_ref()).await.expect_err("the connection is cut");
    assert_eq!(error.kind, Kind::Unreachable, "{error:?}");
    assert!(error.is_transient(), "{error:?}");
    let seen = fixture.witness().read(name).await.must(name);
    assert_eq!(seen, None, "half an object is visible");

    // Another process goes on: all it has is the journal.
    let connector = through(fixture, wire.as_ref(), fixture.limits())?;
    let open = attempt.journal.open(name).expect("the journal knows what is open");
    let acknowledged: u64 = open.parts.values().map(|part| part.size).sum();
    let before = wire.sent_bytes();
    attempt.put(connector.as_ref()).await.must(name);
    let sent = wire.sent_bytes() - before;
    attempt.is_whole(fixture, connector.as_ref()).await;
    delete(connector.as_ref(), name).await;
    if connector.capability().resumes {
        assert!(acknowledged > 0, "nothing was written down of {} bytes", size / 2);
        let missing = size as u64 - acknowledged;
        // What was on its way when the connection broke was not acknowledged, so it is among the missing. A part more:
        // what the broken connections still held is counted late. SSH adds a head and a checksum to each packet.
        let allowed = missing * 102 / 100 + fixture.limits().part_bytes + OVERHEAD_BYTES;
        assert!(sent <= allowed, "{sent} bytes were sent after the cut, {missing} were missing");
        assert!(sent < size as u64, "{sent} bytes were sent after the cut: as many as in all");
    }
    Ok(())
}

pub(super) async fn cut_and_mended(fixture: &dyn Fixture) -> Outcome {
    let wire = fixture.wire().await;
    let connector = through(fixture, wire.as_ref(), fixture.limits())?;
    for size in [part(fixture) - 1, many_parts(fixture)] {
        let attempt = Attempt::of(format!("{}mended/{size}", fixture.prefix()), source(size, 43));
        wire.cut_after(size as u64 / 2);
        attempt.put(connector.as_ref()).await.must(&attempt.name);
        attempt.is_whole(fixture, connector.as_ref()).await;
        delete(connector.as_ref(), &attempt.name).await;
    }
    Ok(())
}

pub(super) async fn flipped_bit_in_a_small_object(fixture: &dyn Fixture) -> Outcome {
    let is_checked = owner(fixture)?.capability().checks_single_put;
    Excluded::unless(is_checked, "the protocol has no checksum for a single write")?;
    let size = part(fixture) - 1;
    flip(fixture, size, size / 2).await
}

pub(super) async fn flipped_bit_in_a_part(fixture: &dyn Fixture) -> Outcome {
    let size = many_parts(fixture);
    // In a first part, when nothing is known of the server yet, and in a late one.
    flip(fixture, size, part(fixture) / 2).await?;
    flip(fixture, size, size - part(fixture) / 2).await
}

async fn flip(fixture: &dyn Fixture, size: usize, at: usize) -> Outcome {
    let wire = fixture.wire().await;
    let connector = through(fixture, wire.as_ref(), fixture.limits())?;
    let attempt = Attempt::of(format!("{}flipped/{size}-{at}", fixture.prefix()), source(size, 47));
    wire.flip_bit_at(at as u64);
    let outcome = attempt.put(connector.as_ref()).await;
    assert_eq!(wire.flips(), 1, "no bit was flipped");
    match outcome {
        // Noticed, and sent again.
        Ok(_) => {
            attempt.is_whole(fixture, connector.as_ref()).await;
        }
        // Noticed too late to send it again.
        Err(error) => {
            assert_eq!(error.kind, Kind::IntegrityMismatch, "{error:?}");
            let seen = fixture.witness().read(&attempt.name).await.must(&attempt.name);
            assert_eq!(seen, None, "an object with a wrong byte is visible");
        }
    }
    delete(connector.as_ref(), &attempt.name).await;
    Ok(())
}

pub(super) async fn unavailable(fixture: &dyn Fixture) -> Outcome {
    refused_now_and_then(fixture, 503).await
}

pub(super) async fn throttled(fixture: &dyn Fixture) -> Outcome {
    refused_now_and_then(fixture, 429).await
}

async fn refused_now_and_then(fixture: &dyn Fixture, status: u16) -> Outcome {
    let can_throttle = owner(fixture)?.capability().can_throttle;
    Excluded::unless(can_throttle, "the protocol has no answer that asks to come back later")?;
    let wire = fixture.wire().await;
    let connector = through(fixture, wire.as_ref(), fixture.limits())?;
    let attempt = Attempt::of(format!("{}refused-{status}", fixture.prefix()), source(2 * many_parts(fixture), 53));
    wire.answer_every(5, status, RETRY_AFTER);
    attempt.put(connector.as_ref()).await.must(&attempt.name);
    assert!(wire.answered() > 0, "nothing was refused");
    wire.heal();
    attempt.is_whole(fixture, connector.as_ref()).await;
    delete(connector.as_ref(), &attempt.name).await;

    // One request is refused; it comes again when it was asked to, and not before.
    let attempt = Attempt::of(format!("{}asked-{status}", fixture.prefix()), source(1000, 54));
    wire.answer_every(1, status, RETRY_AFTER);
    let refused_once = async {
        while wire.answered() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        wire.heal();
        Instant::now()
    };
    let (ended, refused) = futures_util::join!(attempt.put(connector.as_ref()), refused_once);
    ended.must(&attempt.name);
    // The refusal is seen a moment after it was sent.
    assert!(refused.elapsed() + Duration::from_millis(100) >= RETRY_AFTER, "Retry-After was not kept");
    attempt.is_whole(fixture, connector.as_ref()).await;
    delete(connector.as_ref(), &attempt.name).await;
    Ok(())
}

pub(super) async fn silence(fixture: &dyn Fixture) -> Outcome {
    let limits = Limits { idle_timeout: PATIENCE, ..once(fixture) };
    for size in [part(fixture) - 1, many_parts(fixture)] {
        let wire = fixture.wire().await;
        let connector = through(fixture, wire.as_ref(), limits)?;
        let attempt = Attempt::of(format!("{}silent/{size}", fixture.prefix()), source(size, 59));
        wire.stall_after(size as u64 / 2);
        let began = Instant::now();
        let error = attempt.put(connector.as_ref()).await.expect_err("nothing moves");
        assert_eq!(error.kind, Kind::Timeout, "{error:?}");
        assert!(error.is_transient(), "{error:?}");
        assert!((PATIENCE..PATIENCE_MAX).contains(&began.elapsed()), "{:?}", began.elapsed());
        wire.heal();
        let connector = through(fixture, wire.as_ref(), fixture.limits())?;
        attempt.put(connector.as_ref()).await.must(&attempt.name);
        attempt.is_whole(fixture, connector.as_ref()).await;
        delete(connector.as_ref(), &attempt.name).await;
    }
    Ok(())
}

pub(super) async fn silence_while_reading(fixture: &dyn Fixture) -> Outcome {
    let wire = fixture.wire().await;
    let owner = owner(fixture)?;
    let size = many_parts(fixture);
    let attempt = Attempt::of(format!("{}unheard/object", fixture.prefix()), source(size, 61));
    let name = attempt.name.as_str();
    attempt.put(owner.as_ref()).await.must(name);
    let impatient = through(fixture, wire.as_ref(), Limits { idle_timeout: PATIENCE, ..once(fixture) })?;
    wire.stall_after_receiving(size as u64 / 2);
    let began = Instant::now();
    let error = collect(impatient.as_ref(), name, 0..size as u64).await.expect_err("nothing comes");
    assert_eq!(error.kind, Kind::Timeout, "{error:?}");
    assert!((PATIENCE..PATIENCE_MAX).contains(&began.elapsed()), "{:?}", began.elapsed());
    wire.heal();
    attempt.is_whole(fixture, owner.as_ref()).await;
    delete(owner.as_ref(), name).await;
    Ok(())
}

pub(super) async fn cancelled(fixture: &dyn Fixture) -> Outcome {
    let wire = fixture.wire().await;
    let connector = through(fixture, wire.as_ref(), fixture.limits())?;
    let size = many_parts(fixture);
    for is_there_before in [false, true] {
        let attempt = Attempt::of(format!("{}cancelled/object", fixture.prefix()), source(size, 67));
        let name = attempt.name.as_str();
        let old = Attempt::of(name, source(1000, 71));
        if is_there_before {
            old.put(connector.as_ref()).await.must(name);
        }
        let before = wire.sent_bytes();
        wire.stall_after(size as u64 / 2);
        let is_half_way = async {
            while wire.sent_bytes() < before + size as u64 / 2 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            ended = attempt.put(connector.as_ref()) => assert!(ended.is_err(), "it ended before it was cancelled"),
            () = is_half_way => {}
        }
        wire.heal();
        let open = attempt.journal.open(name).expect("the journal knows what is open");
        connector.abort(&open).await.must(name);
        let seen = fixture.witness().read(name).await.must(name);
        if is_there_before {
            assert_eq!(seen, Some(old.expected(connector.as_ref())), "the old object is gone");
        } else {
            assert_eq!(seen, None, "half an object is visible");
        }
        if !connector.capability().aborts {
            // What cannot be cleared away is used, so that no other case finds it.
            attempt.put(connector.as_ref()).await.must(name);
        }
        delete(connector.as_ref(), name).await;
        nothing_left(fixture, name, &attempt.journal).await;
    }
    Excluded::unless(owner(fixture)?.capability().aborts, EXPIRES)
}
