//! Google Cloud Storage over connections that break, dawdle and lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use connectors::contract;
use connectors::memory::{MemoryJournal, MemorySource};
use connectors::{Connector as _, Kind, Limits, Progress};
use testkit::http_faults::{Action, HttpFaults, Request};
use testkit::proxy::Proxy;

use super::{connector, gcs_with, of, with_limits};
use crate::LIMITS;
use crate::attempt::Attempt;

const MIB: usize = 1024 * 1024;

/// The names of the uploads that are open in the bucket.
async fn open(gcs: &testkit::Gcs, bucket: &str) -> Vec<String> {
    gcs.open_sessions(bucket).await.unwrap()
}

fn is_chunk(request: &Request) -> bool {
    request.header("content-range").is_some_and(|range| !range.starts_with("bytes */"))
}

fn is_last_chunk(request: &Request) -> bool {
    let ends = |range: &str| {
        let (end, total) = range.rsplit_once('-')?.1.split_once('/')?;
        Some(end.parse::<u64>().ok()? + 1 == total.parse::<u64>().ok()?)
    };
    request.header("content-range").and_then(ends).unwrap_or(false)
}

/// The connection breaks half way and no try is left; the next attempt sends about the other half.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_upload_goes_on_where_it_stood() {
    let bucket = "gcs-cut";
    let Some(gcs) = gcs_with(bucket).await else { return };
    let proxy = Proxy::start(gcs.addr()).await.unwrap();
    let config = of(&gcs, &format!("http://{}", proxy.addr()), bucket);
    let size = 32 * MIB;
    let attempt = Attempt::of(size, 1);
    proxy.cut_after(size as u64 / 2);
    let error = attempt.put(&with_limits(&config, Limits { tries: 1, ..LIMITS }), "x").await.unwrap_err();
    assert_eq!(error.kind, Kind::Unreachable, "{error:?}");
    assert_eq!(attempt.progress.bytes(), 0, "a failed attempt counts nothing");
    // Its idle connections were cut as well, and it would not try again on another.
    let connector = connector(&config);
    assert_eq!(connector.stat("x").await.unwrap_err().kind, Kind::NotFound, "half an object is visible");
    assert_eq!(open(&gcs, bucket).await, ["x"]);
    let before = proxy.sent_bytes();
    attempt.put(&connector, "x").await.unwrap();
    let sent = proxy.sent_bytes() - before;
    // A chunk more: the service may not yet have kept what it got of the broken one.
    let missing = size as u64 / 2 + LIMITS.part_bytes;
    assert!(sent < missing + MIB as u64 / 8, "{sent} bytes were sent for {missing}");
    attempt.is_whole(&connector, "x").await;
    assert_eq!(attempt.journal.totals(), (1, 1), "the same upload went on");
    assert_eq!(open(&gcs, bucket).await, [""; 0]);
}

/// With tries left, nobody notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_is_mended_within_an_attempt() {
    let bucket = "gcs-cut-mended";
    let Some(gcs) = gcs_with(bucket).await else { return };
    let proxy = Proxy::start(gcs.addr()).await.unwrap();
    let connector = connector(&of(&gcs, &format!("http://{}", proxy.addr()), bucket));
    for size in [4 * MIB, 24 * MIB] {
        let attempt = Attempt::of(size, 2);
        proxy.cut_after(size as u64 / 2);
        let before = proxy.sent_bytes();
        attempt.put(&connector, "x").await.unwrap();
        let most = size as u64 + LIMITS.part_bytes + MIB as u64;
        assert!(proxy.sent_bytes() - before < most, "more than the broken request was sent again");
        attempt.is_whole(&connector, "x").await;
        assert_eq!(open(&gcs, bucket).await, [""; 0]);
    }
}

/// A bit flips on the way: the service refuses the object, and all of it is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_sent_again() {
    let bucket = "gcs-flip";
    let Some(gcs) = gcs_with(bucket).await else { return };
    let proxy = Proxy::start(gcs.addr()).await.unwrap();
    let connector = connector(&of(&gcs, &format!("http://{}", proxy.addr()), bucket));
    for (size, at) in [(3 * MIB, MIB), (16 * MIB, 2 * MIB), (16 * MIB, 15 * MIB)] {
        let attempt = Attempt::of(size, 3);
        proxy.flip_bit_at(at as u64);
        let before = proxy.sent_bytes();
        let receipt = attempt.put(&connector, "x").await.unwrap();
        assert_eq!(receipt.verified, "crc32c");
        assert!(proxy.sent_bytes() - before > (size + MIB) as u64, "nothing was sent again");
        attempt.is_whole(&connector, "x").await;
        assert_eq!(open(&gcs, bucket).await, [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn throttling_is_waited_out_chunk_by_chunk() {
    let bucket = "gcs-throttled";
    let Some(gcs) = gcs_with(bucket).await else { return };
    let faults = HttpFaults::start(gcs.addr()).await.unwrap();
    let connector = connector(&of(&gcs, &faults.endpoint(), bucket));
    faults.answer_every(5, 503, Some(1));
    let attempt = Attempt::of(32 * MIB, 4);
    let began = Instant::now();
    attempt.put(&connector, "x").await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "Retry-After was not kept");
    assert!(faults.requests().iter().any(|request| request.status == Some(503)));
    faults.heal();
    attempt.is_whole(&connector, "x").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_an_attempt() {
    let bucket = "gcs-stalled";
    let Some(gcs) = gcs_with(bucket).await else { return };
    let proxy = Proxy::start(gcs.addr()).await.unwrap();
    let limits = Limits { tries: 1, idle_timeout: Duration::from_secs(2), ..LIMITS };
    let connector = with_limits(&of(&gcs, &format!("http://{}", proxy.addr()), bucket), limits);
    for size in [4 * MIB, 16 * MIB] {
        let attempt = Attempt::of(size, 5);
        proxy.stall_after(size as u64 / 2);
        let began = Instant::now();
        let error = attempt.put(&connector, "x").await.unwrap_err();
        assert_eq!(error.kind, Kind::Timeout, "{error:?}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        // Chunks go out one after the other: no more than what arrived and one of them was read.
        let most = size as u64 / 2 + LIMITS.part_bytes;
        assert!(attempt.source.read_bytes() <= most, "{} bytes were read", attempt.source.read_bytes());
        proxy.heal();
        attempt.put(&connector, "x").await.unwrap();
        attempt.is_whole(&connector, "x").await;
    }
}

/// The object is there, but nobody was told: the session says so, and nothing is sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_the_last_chunk_is_made_up_for() {
    let bucket = "gcs-lost-answer";
    let Some(gcs) = gcs_with(bucket).await else { return };
    let faults = HttpFaults::start(gcs.addr()).await.unwrap();
    let connector = connector(&of(&gcs, &faults.endpoint(), bucket));
    let lost = AtomicUsize::new(0);
    faults.rule(move |request| {
        let is_first = is_last_chunk(request) && lost.fetch_add(1, Ordering::Relaxed) == 0;
        if is_first { Action::DropAnswer } else { Action::Pass }
    });
    let attempt = Attempt::of(12 * MIB, 6);
    let receipt = attempt.put(&connector, "x").await.unwrap();
    assert_eq!(receipt.verified, "crc32c");
    assert_eq!(faults.requests().iter().filter(|request| is_chunk(request)).count(), 3, "chunks were sent again");
    attempt.is_whole(&connector, "x").await;
}

/// A crash between the last chunk and the journal: the next attempt finds the object in place.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_after_the_last_chunk_leaves_one_object() {
    let bucket = "gcs-crash";
    let Some(gcs) = gcs_with(bucket).await else { return };
    let faults = HttpFaults::start(gcs.addr()).await.unwrap();
    let connector = with_limits(&of(&gcs, &faults.endpoint(), bucket), Limits { tries: 1, ..LIMITS });
    faults.rule(|request| if is_last_chunk(request) { Action::DropAnswer } else { Action::Pass });
    let attempt = Attempt::of(12 * MIB, 7);
    attempt.put(&connector, "x").await.unwrap_err();
    assert!(attempt.journal.open("x").is_some());
    faults.heal();
    let before = faults.requests().len();
    attempt.put(&connector, "x").await.unwrap();
    assert!(!faults.requests()[before..].iter().any(is_chunk), "chunks were sent again");
    attempt.is_whole(&connector, "x").await;
}

/// The service forgets sessions after a week: then the upload starts anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_forgotten_session_starts_anew() {
    let bucket = "gcs-forgotten";
    let Some(gcs) = gcs_with(bucket).await else { return };
    let proxy = Proxy::start(gcs.addr()).await.unwrap();
    let config = of(&gcs, &format!("http://{}", proxy.addr()), bucket);
    let attempt = Attempt::of(16 * MIB, 8);
    proxy.cut_after(8 * MIB as u64);
    attempt.put(&with_limits(&config, Limits { tries: 1, ..LIMITS }), "x").await.unwrap_err();
    gcs.lose_sessions(bucket).await.unwrap();
    let connector = connector(&config);
    attempt.put(&connector, "x").await.unwrap();
    attempt.is_whole(&connector, "x").await;
    assert_eq!(attempt.journal.totals(), (2, 2));
    assert_eq!(open(&gcs, bucket).await, [""; 0]);
}

/// What is aborted is cancelled at the service, and cannot be gone on with.
#[tokio::test(flavor = "multi_thread")]
async fn an_abort_leaves_no_session() {
    let bucket = "gcs-abort";
    let Some(gcs) = gcs_with(bucket).await else { return };
    let connector = connector(&of(&gcs, &gcs.endpoint, bucket));
    let journal = Arc::new(MemoryJournal::default());
    let source = Arc::new(MemorySource::new(contract::bytes(12 * MIB, 9)).failing_from(11 * MIB as u64));
    let put = contract::request("x", &source, &journal, &Progress::default(), None);
    connector.put(put).await.unwrap_err();
    assert_eq!(open(&gcs, bucket).await, ["x"]);
    let left = journal.open("x").unwrap();
    assert!(!format!("{connector:?} {left:?} {journal:?}").contains(&left.handle), "it may write the object");
    for _ in 0..2 {
        connector.abort(&left).await.unwrap();
        assert_eq!(open(&gcs, bucket).await, [""; 0]);
    }
    let unheard = connectors::OpenUpload { handle: String::new(), ..left };
    connector.abort(&unheard).await.unwrap();
}

/// The answer with the address of a session is lost. Nobody can use or find that session: it holds nothing, and the
/// service forgets it after a week.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_a_known_address_stays_empty() {
    let bucket = "gcs-lost-session";
    let Some(gcs) = gcs_with(bucket).await else { return };
    let faults = HttpFaults::start(gcs.addr()).await.unwrap();
    let connector = connector(&of(&gcs, &faults.endpoint(), bucket));
    let lost = AtomicUsize::new(0);
    faults.rule(move |request| {
        let is_first = request.method == "POST" && lost.fetch_add(1, Ordering::Relaxed) == 0;
        if is_first { Action::DropAnswer } else { Action::Pass }
    });
    let attempt = Attempt::of(12 * MIB, 10);
    attempt.put(&connector, "x").await.unwrap();
    attempt.is_whole(&connector, "x").await;
    assert_eq!(open(&gcs, bucket).await, ["x"], "there is no way to clear it, and no byte in it");
}
