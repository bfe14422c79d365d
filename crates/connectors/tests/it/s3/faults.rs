//! What is particular to S3 over connections that break: lost answers, and parts side by side.

use std::sync::atomic::{AtomicUsize, Ordering};

use connectors::Limits;
use connectors::s3::S3;
use testkit::http_faults::{Action, HttpFaults};
use testkit::proxy::Proxy;

use super::{ceph_with, of_ceph, s3, with_limits};
use crate::LIMITS;
use crate::attempt::Attempt;

const MIB: usize = 1024 * 1024;

/// Checks that the object is whole, and that no upload is left.
async fn is_whole(attempt: &Attempt, connector: &S3) {
    attempt.is_whole(connector, "x").await;
    assert_eq!(connector.open_uploads("").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_go_out_side_by_side() {
    let bucket = "s3-parallel";
    let Some(ceph) = ceph_with(bucket).await else { return };
    let proxy = Proxy::start(ceph.addr()).await.unwrap();
    let config = of_ceph(&ceph.account, &format!("http://{}", proxy.addr()), bucket);
    let (in_flight, held) = (LIMITS.parts_in_flight, LIMITS.part_bytes * LIMITS.parts_in_flight as u64);
    let (attempt, _) = Attempt::of(60 * MIB, 11).goes_out_side_by_side(s3(&config), &proxy, in_flight, held).await;
    is_whole(&attempt, &s3(&config)).await;
}

fn is_completion(request: &testkit::http_faults::Request) -> bool {
    request.method == "POST" && request.path.contains("uploadId=")
}

/// The upload is complete, but nobody was told: the object is recognised instead of sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_completion_is_made_up_for() {
    let bucket = "s3-lost-answer";
    let Some(ceph) = ceph_with(bucket).await else { return };
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let connector = s3(&of_ceph(&ceph.account, &faults.endpoint(), bucket));
    let lost = AtomicUsize::new(0);
    faults.rule(move |request| {
        let is_first = is_completion(request) && lost.fetch_add(1, Ordering::Relaxed) == 0;
        if is_first { Action::DropAnswer } else { Action::Pass }
    });
    let attempt = Attempt::of(12 * MIB, 6);
    attempt.put(&connector, "x").await.unwrap();
    let parts = faults.requests().iter().filter(|request| request.path.contains("partNumber=")).count();
    assert_eq!(parts, 3, "parts were sent again");
    is_whole(&attempt, &connector).await;
}

/// The same where the credentials may not look: then it is sent again, and is right as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_made_up_for_without_the_right_to_look() {
    let bucket = "s3-lost-answer-blind";
    let Some(ceph) = ceph_with(bucket).await else { return };
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let connector = s3(&of_ceph(&ceph.account, &faults.endpoint(), bucket));
    let lost = AtomicUsize::new(0);
    faults.rule(move |request| {
        if request.method == "HEAD" {
            return Action::Answer { status: 403, retry_after_secs: None };
        }
        let is_first = is_completion(request) && lost.fetch_add(1, Ordering::Relaxed) == 0;
        if is_first { Action::DropAnswer } else { Action::Pass }
    });
    let attempt = Attempt::of(12 * MIB, 7);
    attempt.put(&connector, "x").await.unwrap();
    faults.heal();
    is_whole(&attempt, &connector).await;
}

/// The answer with the id of an upload is lost: the upload that nobody knows of does not stay open.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_without_a_known_id_does_not_stay() {
    let bucket = "s3-lost-id";
    let Some(ceph) = ceph_with(bucket).await else { return };
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let connector = s3(&of_ceph(&ceph.account, &faults.endpoint(), bucket));
    let lost = AtomicUsize::new(0);
    faults.rule(move |request| {
        let is_first = request.path.ends_with("?uploads=") && lost.fetch_add(1, Ordering::Relaxed) == 0;
        if is_first { Action::DropAnswer } else { Action::Pass }
    });
    let attempt = Attempt::of(12 * MIB, 10);
    attempt.put(&connector, "x").await.unwrap();
    is_whole(&attempt, &connector).await;
}

/// A crash between completion and the journal: the next attempt finds the object in place.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_after_completion_leaves_one_object() {
    let bucket = "s3-crash";
    let Some(ceph) = ceph_with(bucket).await else { return };
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let config = of_ceph(&ceph.account, &faults.endpoint(), bucket);
    let connector = with_limits(&config, Limits { tries: 1, ..LIMITS });
    faults.rule(|request| if is_completion(request) { Action::DropAnswer } else { Action::Pass });
    let attempt = Attempt::of(12 * MIB, 8);
    attempt.put(&connector, "x").await.unwrap_err();
    assert!(attempt.journal.open("x").is_some());
    faults.heal();
    let before = faults.requests().len();
    attempt.put(&connector, "x").await.unwrap();
    let after = &faults.requests()[before..];
    assert!(after.iter().all(|request| !request.path.contains("partNumber=")), "parts were sent again");
    is_whole(&attempt, &connector).await;
}

/// A gateway that refuses the checksum headers gets none, and MD5 proves the rest.
#[tokio::test(flavor = "multi_thread")]
async fn refused_checksum_headers_are_left_out() {
    let bucket = "s3-no-checksums";
    let Some(ceph) = ceph_with(bucket).await else { return };
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let connector = s3(&of_ceph(&ceph.account, &faults.endpoint(), bucket));
    faults.rule(|request| {
        let has_checksum =
            ["x-amz-checksum-crc32c", "x-amz-checksum-algorithm"].iter().any(|name| request.header(name).is_some());
        if has_checksum { Action::Answer { status: 501, retry_after_secs: None } } else { Action::Pass }
    });
    for size in [1000, 12 * MIB] {
        let attempt = Attempt::of(size, 9);
        let receipt = attempt.put(&connector, "x").await.unwrap();
        assert_eq!(receipt.verified, "md5");
        is_whole(&attempt, &connector).await;
    }
    let refused = faults.requests().iter().filter(|request| request.status == Some(501)).count();
    assert_eq!(refused, 1, "it is learned once");
    let mut parts = faults.requests().into_iter().filter(|request| request.path.contains("partNumber="));
    assert!(parts.all(|part| part.header("content-md5").is_some()));
}
