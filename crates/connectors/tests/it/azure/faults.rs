//! What an upload in blocks leaves behind, and what of it counts. The contract has the faults of the connection itself.

use std::sync::atomic::{AtomicUsize, Ordering};

use connectors::{Connector as _, Kind, Limits};
use serde_json::json;
use testkit::Azurite;
use testkit::http_faults::{Action, HttpFaults, Request};
use testkit::proxy::Proxy;

use super::{LIMITS, MIB, azure, azurite_with, view, with_key, with_limits, with_sas};
use crate::attempt::Attempt;

const ONE_TRY: Limits = Limits { tries: 1, ..LIMITS };

/// Checks that the blob is whole, the journal empty, the count right, and no block left over.
async fn is_whole(attempt: &Attempt, azurite: &Azurite, container: &str) {
    assert_eq!(view(azurite, container, "x").await["bytes"], hex::encode(attempt.source.bytes()));
    attempt.is_settled("x");
    assert_eq!(uncommitted(azurite, container).await, json!({}));
}

async fn uncommitted(azurite: &Azurite, container: &str) -> serde_json::Value {
    azurite.sdk(&format!("result = uncommitted({container:?})")).await.unwrap()
}

/// Commits some of the uncommitted blocks of the blob `x`, by their places.
async fn commit(azurite: &Azurite, container: &str, places: &str) {
    let script = format!(
        "
from azure.storage.blob import BlobBlock
client = service.get_blob_client({container:?}, 'x')
ids = sorted(block.id for block in client.get_block_list('uncommitted')[1])
client.commit_block_list([BlobBlock(id) for id in ids[{places}]])"
    );
    azurite.sdk(&script).await.unwrap();
}

fn is_block(request: &Request) -> bool {
    request.path.contains("comp=block&")
}

fn is_commit(request: &Request) -> bool {
    request.method == "PUT" && request.path.contains("comp=blocklist")
}

fn blocks(requests: &[Request]) -> usize {
    requests.iter().filter(|request| is_block(request)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_go_out_side_by_side() {
    let container = "parallel";
    let Some(azurite) = azurite_with(container).await else { return };
    let proxy = Proxy::start(azurite.addr()).await.unwrap();
    let limits = Limits { part_bytes: 4 * MIB as u64, ..LIMITS };
    let connector = with_limits(&with_key(&azurite, &azurite.endpoint_at(proxy.addr()), container), limits);
    let (in_flight, held) = (limits.parts_in_flight, limits.part_bytes * limits.parts_in_flight as u64);
    let (attempt, _) = Attempt::of(32 * MIB, 11).goes_out_side_by_side(connector, &proxy, in_flight, held).await;
    is_whole(&attempt, &azurite, container).await;
}

/// The list is committed, but nobody was told: asking again finds the blocks in the blob, and sends none.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_the_commit_is_made_up_for() {
    let container = "lost-answer";
    let Some(azurite) = azurite_with(container).await else { return };
    let faults = HttpFaults::start(azurite.addr()).await.unwrap();
    let endpoint = azurite.endpoint_at(faults.addr());
    for config in [with_key(&azurite, &endpoint, container), with_sas(&azurite, &endpoint, container, "cw").await] {
        let before = faults.requests().len();
        let lost = AtomicUsize::new(0);
        faults.rule(move |request| {
            let is_first = is_commit(request) && lost.fetch_add(1, Ordering::Relaxed) == 0;
            if is_first { Action::DropAnswer } else { Action::Pass }
        });
        let attempt = Attempt::of(3 * MIB, 6);
        attempt.put(&azure(&config), "x").await.unwrap();
        assert_eq!(blocks(&faults.requests()[before..]), 3, "blocks were sent again");
        is_whole(&attempt, &azurite, container).await;
    }
}

/// A crash between commit and journal: the next attempt finds the blob in place, also where it may not look.
#[tokio::test(flavor = "multi_thread")]
async fn a_crash_after_the_commit_leaves_one_blob() {
    let container = "crash";
    let Some(azurite) = azurite_with(container).await else { return };
    let faults = HttpFaults::start(azurite.addr()).await.unwrap();
    let endpoint = azurite.endpoint_at(faults.addr());
    for config in [with_key(&azurite, &endpoint, container), with_sas(&azurite, &endpoint, container, "cw").await] {
        faults.rule(|request| if is_commit(request) { Action::DropAnswer } else { Action::Pass });
        let attempt = Attempt::of(3 * MIB, 8);
        attempt.put(&with_limits(&config, ONE_TRY), "x").await.unwrap_err();
        assert!(attempt.journal.open("x").is_some());
        faults.heal();
        let before = faults.requests().len();
        attempt.put(&azure(&config), "x").await.unwrap();
        assert_eq!(blocks(&faults.requests()[before..]), 0, "blocks were sent again");
        is_whole(&attempt, &azurite, container).await;
    }
}

/// A block arrived, but its answer was lost and the process died: the block counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_nobody_heard_of_is_not_sent_again() {
    let container = "unheard";
    let Some(azurite) = azurite_with(container).await else { return };
    let faults = HttpFaults::start(azurite.addr()).await.unwrap();
    let config = with_key(&azurite, &azurite.endpoint_at(faults.addr()), container);
    let limits = Limits { parts_in_flight: 1, ..ONE_TRY };
    let (attempt, seen) = (Attempt::of(4 * MIB, 9), AtomicUsize::new(0));
    faults.rule(move |request| {
        let is_third = is_block(request) && seen.fetch_add(1, Ordering::Relaxed) == 2;
        if is_third { Action::DropAnswer } else { Action::Pass }
    });
    attempt.put(&with_limits(&config, limits), "x").await.unwrap_err();
    assert_eq!(attempt.journal.open("x").unwrap().parts.len(), 2);
    assert_eq!(uncommitted(&azurite, container).await, json!({"x": 3}));
    let before = faults.requests().len();
    attempt.put(&azure(&config), "x").await.unwrap();
    assert_eq!(blocks(&faults.requests()[before..]), 1);
    is_whole(&attempt, &azurite, container).await;
}

/// A token that may only write goes on as well: the journal is believed.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_may_not_look_goes_on() {
    let container = "blind";
    let Some(azurite) = azurite_with(container).await else { return };
    let faults = HttpFaults::start(azurite.addr()).await.unwrap();
    let config = with_sas(&azurite, &azurite.endpoint_at(faults.addr()), container, "cw").await;
    for is_gone in [false, true] {
        let attempt = Attempt::of(4 * MIB, 10);
        faults.rule(|request| if is_commit(request) { Action::Drop } else { Action::Pass });
        attempt.put(&with_limits(&config, ONE_TRY), "x").await.unwrap_err();
        faults.heal();
        if is_gone {
            // Somebody commits the first block alone, which drops the others.
            commit(&azurite, container, "0:1").await;
        }
        let before = faults.requests().len();
        attempt.put(&azure(&config), "x").await.unwrap();
        assert_eq!(blocks(&faults.requests()[before..]), if is_gone { 4 } else { 0 });
        is_whole(&attempt, &azurite, container).await;
    }
}

/// Blocks that the service lost are sent again, and those alone.
#[tokio::test(flavor = "multi_thread")]
async fn only_lost_blocks_are_sent_again() {
    let container = "lost-blocks";
    let Some(azurite) = azurite_with(container).await else { return };
    let faults = HttpFaults::start(azurite.addr()).await.unwrap();
    let config = with_key(&azurite, &azurite.endpoint_at(faults.addr()), container);
    let attempt = Attempt::of(4 * MIB, 12);
    faults.rule(|request| if is_commit(request) { Action::Drop } else { Action::Pass });
    attempt.put(&with_limits(&config, ONE_TRY), "x").await.unwrap_err();
    faults.heal();
    // Somebody commits the second and the third block alone, which drops the others.
    commit(&azurite, container, "1:3").await;
    let before = faults.requests().len();
    attempt.put(&azure(&config), "x").await.unwrap();
    assert_eq!(blocks(&faults.requests()[before..]), 2);
    is_whole(&attempt, &azurite, container).await;
}

/// Cancelling leaves the old blob, and never an empty one: blocks without a commit expire at the service.
#[tokio::test(flavor = "multi_thread")]
async fn giving_up_publishes_nothing() {
    let container = "given-up";
    let Some(azurite) = azurite_with(container).await else { return };
    let faults = HttpFaults::start(azurite.addr()).await.unwrap();
    let connector = with_limits(&with_key(&azurite, &azurite.endpoint_at(faults.addr()), container), ONE_TRY);
    azurite.sdk(&format!("service.get_blob_client({container:?}, 'old').upload_blob(b'old')")).await.unwrap();
    faults.rule(|request| if is_commit(request) { Action::Drop } else { Action::Pass });
    for name in ["old", "new"] {
        let attempt = Attempt::of(2 * MIB, 13);
        attempt.put(&connector, name).await.unwrap_err();
        connector.abort(&attempt.journal.open(name).unwrap()).await.unwrap();
    }
    assert_eq!(view(&azurite, container, "old").await["bytes"], hex::encode("old"));
    assert_eq!(connector.stat("new").await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(connector.list("", 10).await.unwrap().len(), 1, "uncommitted blobs are not listed");
    assert_eq!(uncommitted(&azurite, container).await, json!({"new": 2, "old": 2}));
}
