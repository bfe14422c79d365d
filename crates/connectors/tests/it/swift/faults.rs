//! Swift over connections that break, dawdle and lie, and with tokens that end.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use connectors::contract;
use connectors::swift::{Config, Swift};
use connectors::{Connector as _, Kind, Limits};
use testkit::http_faults::{Action, HttpFaults, Request};
use testkit::proxy::Proxy;
use testkit::{OpenStack, User};

use super::{MIB, SMALL, of, segments_of, swift, with_container, with_limits};
use crate::attempt::Attempt;

/// Arguments that reach the container at another address, through the catalogue.
async fn at(openstack: &OpenStack, addr: SocketAddr, container: &str) -> Config {
    Config { region: openstack.region_at(addr).await.unwrap(), ..of(openstack, User::Demo, container) }
}

/// Checks that the object is whole, and that no other segment is left.
async fn is_whole(attempt: &Attempt, connector: &Swift, openstack: &OpenStack, container: &str) {
    attempt.is_whole(connector, "x").await;
    let size = attempt.source.bytes().len();
    let segments = if size > MIB { size.div_ceil(MIB) } else { 0 };
    assert_eq!(segments_of(openstack, container).await.len(), segments);
}

/// A bit flips on the way, in one piece, in a segment, and in the last one.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_sent_again() {
    let container = "faults-flip";
    let Some(openstack) = with_container(container).await else { return };
    let proxy = Proxy::start(openstack.swift_addr()).await.unwrap();
    let config = at(&openstack, proxy.addr(), container).await;
    for (size, at) in [(MIB, MIB / 2), (4 * MIB + MIB / 2, MIB), (4 * MIB + MIB / 2, 4 * MIB)] {
        let connector = swift(&config);
        let attempt = Attempt::of(size, 3);
        proxy.flip_bit_at(at as u64);
        let before = proxy.sent_bytes();
        let receipt = attempt.put(&connector, "x").await.unwrap();
        assert_eq!(receipt.verified, "md5");
        assert!(proxy.sent_bytes() - before > (size + MIB / 3) as u64, "nothing was sent again");
        is_whole(&attempt, &connector, &openstack, container).await;
    }
}

/// A flipped bit that nothing is sent again for leaves the old object.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_never_visible() {
    let container = "faults-flip-once";
    let Some(openstack) = with_container(container).await else { return };
    let proxy = Proxy::start(openstack.swift_addr()).await.unwrap();
    let config = at(&openstack, proxy.addr(), container).await;
    let connector = with_limits(&config, Limits { tries: 1, ..SMALL });
    Attempt::of(10, 1).put(&connector, "x").await.unwrap();
    for size in [MIB, 2 * MIB] {
        let attempt = Attempt::of(size, 3);
        proxy.flip_bit_at(MIB as u64 / 2);
        let error = attempt.put(&connector, "x").await.unwrap_err();
        assert_eq!(error.kind, Kind::IntegrityMismatch, "{error:?}");
        assert_eq!(connector.stat("x").await.unwrap().size, 10);
    }
}

/// Swift's own status for too many requests.
#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limit_is_waited_out() {
    let container = "faults-throttled";
    let Some(openstack) = with_container(container).await else { return };
    let faults = HttpFaults::start(openstack.swift_addr()).await.unwrap();
    let connector = swift(&at(&openstack, faults.addr(), container).await);
    faults.answer_every(5, 498, Some(1));
    let attempt = Attempt::of(6 * MIB, 4);
    let began = Instant::now();
    attempt.put(&connector, "x").await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "Retry-After was not kept");
    assert!(faults.requests().iter().any(|request| request.status == Some(498)));
    faults.heal();
    is_whole(&attempt, &connector, &openstack, container).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_go_out_side_by_side() {
    let container = "faults-parallel";
    let Some(openstack) = with_container(container).await else { return };
    let proxy = Proxy::start(openstack.swift_addr()).await.unwrap();
    let config = at(&openstack, proxy.addr(), container).await;
    let limits = Limits { segment_bytes: 8 * MIB as u64, ..SMALL };
    // Some pieces of each, and what the system's sockets took; not four segments.
    let (attempt, in_flight, read_max) = (Attempt::of(64 * MIB, 11), limits.parts_in_flight, 24 * MIB as u64 - 1);
    let sent = attempt.goes_out_side_by_side(with_limits(&config, limits), &proxy, in_flight, read_max);
    let (attempt, connector) = sent.await;
    attempt.is_whole(connector.as_ref(), "x").await;
}

fn is_manifest(request: &Request) -> bool {
    request.method == "PUT" && request.path.contains("multipart-manifest=put")
}

fn is_segment(request: &Request) -> bool {
    request.method == "PUT" && request.path.contains("_segments/")
}

/// The object is made, but nobody was told: the manifest is sent again, the segments are not.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_the_manifest_is_made_up_for() {
    let container = "faults-lost-answer";
    let Some(openstack) = with_container(container).await else { return };
    let faults = HttpFaults::start(openstack.swift_addr()).await.unwrap();
    let connector = swift(&at(&openstack, faults.addr(), container).await);
    Attempt::of(2 * MIB, 1).put(&connector, "x").await.unwrap();
    let before = faults.requests().len();
    let lost = AtomicUsize::new(0);
    faults.rule(move |request| {
        let is_first = is_manifest(request) && lost.fetch_add(1, Ordering::Relaxed) == 0;
        if is_first { Action::DropAnswer } else { Action::Pass }
    });
    let attempt = Attempt::of(3 * MIB, 6);
    attempt.put(&connector, "x").await.unwrap();
    let sent = faults.requests().split_off(before).iter().filter(|request| is_segment(request)).count();
    assert_eq!(sent, 3, "segments were sent again");
    is_whole(&attempt, &connector, &openstack, container).await;
}

/// A crash after the manifest, before the segments of the replaced object are gone: the next attempt removes them, and so
/// does an abort, which leaves the new object alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_after_the_manifest_leaves_nothing_behind() {
    let container = "faults-crash";
    let Some(openstack) = with_container(container).await else { return };
    let faults = HttpFaults::start(openstack.swift_addr()).await.unwrap();
    let config = at(&openstack, faults.addr(), container).await;
    let connector = with_limits(&config, Limits { tries: 1, ..SMALL });
    for (round, (size, is_aborted)) in
        [(3 * MIB, false), (3 * MIB, true), (10, false), (10, true)].into_iter().enumerate()
    {
        Attempt::of(2 * MIB, 1).put(&connector, "x").await.unwrap();
        faults.rule(move |request| {
            let is_last = is_manifest(request) || (request.method == "PUT" && size == 10);
            if is_last { Action::DropAnswer } else { Action::Pass }
        });
        let attempt = Attempt::of(size, 20 + round as u64);
        attempt.put(&connector, "x").await.unwrap_err();
        faults.heal();
        let open = attempt.journal.open("x").unwrap();
        let segments = if size > MIB { 3 } else { 0 };
        assert_eq!(segments_of(&openstack, container).await.len(), 2 + segments);
        if is_aborted {
            connector.abort(&open).await.unwrap();
            assert_eq!(segments_of(&openstack, container).await.len(), segments);
            assert!(contract::get(&connector, "x").await.unwrap() == *attempt.source.bytes());
        } else {
            let before = faults.requests().len();
            attempt.put(&connector, "x").await.unwrap();
            assert!(!faults.requests().split_off(before).iter().any(is_segment), "segments were sent again");
            is_whole(&attempt, &connector, &openstack, container).await;
        }
    }
}

/// Somebody removed segments meanwhile: those are sent again.
#[tokio::test(flavor = "multi_thread")]
async fn segments_that_are_gone_are_sent_again() {
    let container = "faults-gone";
    let Some(openstack) = with_container(container).await else { return };
    let faults = HttpFaults::start(openstack.swift_addr()).await.unwrap();
    let config = at(&openstack, faults.addr(), container).await;
    let connector = with_limits(&config, Limits { tries: 1, ..SMALL });
    faults.rule(|request| if is_manifest(request) { Action::Drop } else { Action::Pass });
    let attempt = Attempt::of(5 * MIB, 8);
    attempt.put(&connector, "x").await.unwrap_err();
    faults.heal();
    let segments = segments_of(&openstack, container).await;
    let (gone, other) = (&segments[1], &segments[3]);
    let script = format!(
        "
swift.delete_object({container:?} + '_segments', {gone:?})
swift.put_object({container:?} + '_segments', {other:?}, b'other bytes')"
    );
    openstack.swift(&script).await.unwrap();
    let before = faults.requests().len();
    attempt.put(&connector, "x").await.unwrap();
    assert_eq!(faults.requests().split_off(before).iter().filter(|request| is_segment(request)).count(), 2);
    is_whole(&attempt, &connector, &openstack, container).await;
}

/// Keystone ends the token between segments, and before a body in one piece: it is renewed once and the body sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_is_renewed() {
    let container = "faults-token";
    let Some(openstack) = with_container(container).await else { return };
    let faults = HttpFaults::start(openstack.swift_addr()).await.unwrap();
    let keystone = HttpFaults::start(openstack.keystone_addr()).await.unwrap();
    let config = at(&openstack, faults.addr(), container).await;
    // A log-in must not be hidden by a retry: there is none.
    let limits = Limits { tries: 1, segment_bytes: 16 * MIB as u64, ..SMALL };
    for size in [16 * MIB, 40 * MIB] {
        let connector = with_limits(&Config { auth_url: keystone.endpoint(), ..config.clone() }, limits);
        connector.list("", 10).await.unwrap();
        let token = faults.requests().last().unwrap().header("x-auth-token").unwrap().to_owned();
        openstack.revoke(&token).await.unwrap();
        // Swift remembers a token for a second.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let (before, log_ins) = (faults.requests().len(), keystone.requests().len());
        let attempt = Attempt::of(size, 9);
        attempt.put(&connector, "x").await.unwrap();
        assert!(contract::get(&connector, "x").await.unwrap() == *attempt.source.bytes());
        assert_eq!(attempt.progress.bytes(), size as u64);
        assert!(faults.requests().split_off(before).iter().any(|request| request.status == Some(401)));
        assert_eq!(keystone.requests().len() - log_ins, 1, "one log-in for all that were refused");
    }
}

/// The token ends while a body is on its way, and the store breaks the connection instead of answering.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_in_a_body_is_renewed() {
    let container = "faults-token-body";
    let Some(openstack) = with_container(container).await else { return };
    let faults = HttpFaults::start(openstack.swift_addr()).await.unwrap();
    let config = at(&openstack, faults.addr(), container).await;
    let connector = with_limits(&config, Limits { tries: 1, ..SMALL });
    connector.list("", 10).await.unwrap();
    let token = faults.requests().last().unwrap().header("x-auth-token").unwrap().to_owned();
    faults.rule(move |request| {
        let is_old = request.header("x-auth-token") == Some(&token);
        match request.method.as_str() {
            "PUT" if is_old => Action::Drop,
            // The container, asked for no other reason than the token.
            "HEAD" if is_old && request.path.ends_with("faults-token-body") => {
                Action::Answer { status: 401, retry_after_secs: None }
            }
            _ => Action::Pass,
        }
    });
    let attempt = Attempt::of(MIB, 9);
    attempt.put(&connector, "x").await.unwrap();
    is_whole(&attempt, &connector, &openstack, container).await;
}
