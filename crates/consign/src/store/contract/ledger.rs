//! Uploads that are open at destinations.

use std::collections::BTreeMap;
use std::time::Duration;

use connectors::{OpenUpload, Part};

use super::{Scene, cases};
use crate::id::{SessionId, TaskId, Token};
use crate::store::Deletion;

cases!(
    an_open_upload_is_handed_to_the_next_attempt,
    an_upload_of_an_ended_task_is_an_orphan,
    an_upload_of_a_task_that_was_given_back_is_an_orphan_too,
    lines_outlive_their_task,
    a_lost_lease_opens_nothing,
    a_lost_lease_strikes_nothing_out,
    only_what_nobody_goes_on_with_is_struck_out_as_aborted,
    a_seal_changes_the_digest_and_nothing_else,
    a_failed_abort_is_tried_again_later,
    of_two_who_abort_one_tries,
    what_was_taken_by_somebody_who_died_is_due_again,
    an_upload_begins_for_the_one_task_that_waits,
    what_began_for_a_task_that_waits_is_an_orphan_when_that_ends,
);

fn open(target: &str) -> OpenUpload {
    OpenUpload {
        target: target.to_owned(),
        handle: format!("upload id of {target}"),
        sha256: "ab".repeat(32),
        part_bytes: 8 << 20,
        parts: BTreeMap::new(),
    }
}

fn part(etag: &str) -> Part {
    Part { size: 5, etag: etag.to_owned(), checksum: Some("AAAAAA==".to_owned()) }
}

async fn an_open_upload_is_handed_to_the_next_attempt(scene: Scene) {
    scene.job("a").await;
    let claim = scene.claim_one().await;
    assert!(claim.open.is_empty());
    let (id, token) = (claim.task.id, claim.token);
    for target in ["x", "y", "gone"] {
        assert!(scene.store.ledger_open(id, token, &open(target), scene.now()).await.unwrap());
    }
    assert!(scene.store.ledger_part(id, token, "x", 1, &part("one")).await.unwrap());
    assert!(scene.store.ledger_part(id, token, "x", 3, &part("three")).await.unwrap());
    assert!(scene.store.ledger_part(id, token, "x", 1, &part("one again")).await.unwrap());
    assert!(scene.store.ledger_part(id, token, "y", 1, &part("forgotten")).await.unwrap());
    let again = OpenUpload { handle: "another".to_owned(), parts: BTreeMap::from([(2, part("two"))]), ..open("y") };
    assert!(scene.store.ledger_open(id, token, &again, scene.now()).await.unwrap());
    for _ in 0..2 {
        assert!(scene.store.ledger_close(id, token, "gone").await.unwrap(), "it is gone, and may be said to be again");
    }
    assert_eq!(scene.store.counts(scene.now()).await.unwrap().open_uploads, 2);
    let _ = scene.store.delay(id, token, scene.now(), scene.now()).await.unwrap();
    scene.store.release_due(scene.now()).await.unwrap();
    let x = OpenUpload { parts: BTreeMap::from([(1, part("one again")), (3, part("three"))]), ..open("x") };
    assert_eq!(scene.claim_one().await.open, [x, again]);
    let far = scene.now().plus(Duration::from_hours(1));
    assert!(scene.store.ledger_orphans(far, 10).await.unwrap().is_empty(), "the task goes on with them");
}

async fn an_upload_of_an_ended_task_is_an_orphan(mut scene: Scene) {
    let made = scene.job("cancelled; failed; deleted; lost; finished; delayed").await;
    for claim in scene.claim(10).await {
        let opened = scene.store.ledger_open(claim.task.id, claim.token, &open("t"), scene.now()).await.unwrap();
        assert!(opened);
        let _ = if claim.task.id == made.task("failed") {
            scene.try_fail(&claim).await
        } else if claim.task.id == made.task("finished") {
            scene.try_finish(&claim).await
        } else if claim.task.id == made.task("delayed") {
            scene.store.delay(claim.task.id, claim.token, scene.now(), scene.now()).await.unwrap()
        } else {
            crate::store::Applied::Done
        };
    }
    scene.store.hints().sweep().await;
    assert_eq!(scene.store.ledger_orphans(scene.now(), 10).await.unwrap().len(), 2);
    scene.store.cancel(scene.user, made.task("cancelled"), scene.now()).await.unwrap();
    scene.store.cancel(scene.user, made.task("delayed"), scene.now()).await.unwrap();
    scene.store.delete_task(scene.user, made.task("deleted"), scene.now()).await.unwrap();
    assert_eq!(scene.store.ledger_orphans(scene.now(), 10).await.unwrap().len(), 5);
    scene.wait(60);
    scene.store.expire_sessions(scene.now(), 1, scene.now()).await.unwrap();
    let orphans = scene.store.ledger_orphans(scene.now(), 10).await.unwrap();
    let mut ids: Vec<_> = orphans.iter().map(|entry| entry.task_id).collect();
    ids.sort_unstable();
    let mut all: Vec<_> = made.tasks.values().copied().collect();
    all.sort_unstable();
    assert_eq!(ids, all);
    assert_eq!(scene.store.ledger_orphans(scene.now(), 4).await.unwrap().len(), 4);
    scene.session = SessionId::new(scene.now());
}

async fn an_upload_of_a_task_that_was_given_back_is_an_orphan_too(scene: Scene) {
    let made = scene.job("a").await;
    let claim = scene.claim_one().await;
    assert!(scene.store.ledger_open(claim.task.id, claim.token, &open("t"), scene.now()).await.unwrap());
    let _ = scene.store.give_back(claim.task.id, claim.token, scene.now()).await.unwrap();
    assert_eq!(scene.task(made.task("a")).await.attempt, 0, "as if it had never been claimed");
    scene.store.cancel(scene.user, made.task("a"), scene.now()).await.unwrap();
    assert_eq!(scene.store.ledger_orphans(scene.now(), 10).await.unwrap().len(), 1);
}

async fn lines_outlive_their_task(scene: Scene) {
    let made = scene.job("a").await;
    let claim = scene.claim_one().await;
    let (id, token) = (claim.task.id, claim.token);
    assert!(scene.store.ledger_open(id, token, &open("t"), scene.now()).await.unwrap());
    assert!(scene.store.ledger_part(id, token, "t", 1, &part("one")).await.unwrap());
    assert_eq!(scene.store.delete_job(scene.user, made.id, scene.now()).await.unwrap(), Deletion::Done);
    let orphans = scene.store.ledger_orphans(scene.now(), 10).await.unwrap();
    assert_eq!(orphans.len(), 1);
    let entry = &orphans[0];
    assert_eq!((entry.task_id, entry.operation.as_str(), entry.abort_tries), (id, "import/url", 0));
    assert_eq!(entry.payload, claim.payload);
    assert_eq!(entry.open, OpenUpload { parts: BTreeMap::from([(1, part("one"))]), ..open("t") });
    assert!(!scene.store.ledger_close(id, token, "t").await.unwrap(), "nobody holds it any more");
    assert_eq!(scene.store.counts(scene.now()).await.unwrap().open_uploads, 1);
    scene.store.ledger_aborted(id, "t").await.unwrap();
    assert!(scene.store.ledger_orphans(scene.now(), 10).await.unwrap().is_empty());
    assert_eq!(scene.store.counts(scene.now()).await.unwrap().open_uploads, 0);
}

async fn a_lost_lease_opens_nothing(scene: Scene) {
    scene.job("a").await;
    let claim = scene.claim_one().await;
    let (id, token) = (claim.task.id, claim.token);
    let other = Token(token.0 ^ 1);
    assert!(!scene.store.ledger_open(id, other, &open("t"), scene.now()).await.unwrap());
    assert!(scene.store.ledger_open(id, token, &open("t"), scene.now()).await.unwrap());
    let replaced = OpenUpload { handle: "another".to_owned(), ..open("t") };
    assert!(!scene.store.ledger_open(id, other, &replaced, scene.now()).await.unwrap());
    assert!(!scene.store.ledger_part(id, other, "t", 1, &part("one")).await.unwrap());
    scene.store.cancel(scene.user, id, scene.now()).await.unwrap();
    assert!(!scene.store.ledger_open(id, token, &open("u"), scene.now()).await.unwrap());
    assert!(!scene.store.ledger_part(id, token, "t", 1, &part("one")).await.unwrap());
    let orphans = scene.store.ledger_orphans(scene.now(), 10).await.unwrap();
    assert_eq!(orphans.iter().map(|entry| entry.open.clone()).collect::<Vec<_>>(), [open("t")]);
}

/// An attempt that was frozen, and whose task has been taken up by another, must not make the ledger forget what that opened.
async fn a_lost_lease_strikes_nothing_out(scene: Scene) {
    scene.job("a").await;
    let first = scene.claim_one().await;
    let id = first.task.id;
    assert!(scene.store.ledger_open(id, first.token, &open("t"), scene.now()).await.unwrap());
    assert!(!scene.store.ledger_close(id, Token(first.token.0 ^ 1), "t").await.unwrap());
    let _ = scene.store.delay(id, first.token, scene.now(), scene.now()).await.unwrap();
    assert!(!scene.store.ledger_close(id, first.token, "t").await.unwrap(), "nobody holds the lease");
    scene.store.release_due(scene.now()).await.unwrap();
    let second = scene.claim_one().await;
    assert_eq!(second.open, [open("t")]);
    let anew = OpenUpload { handle: "another".to_owned(), ..open("t") };
    assert!(scene.store.ledger_open(id, second.token, &anew, scene.now()).await.unwrap());
    assert!(!scene.store.ledger_close(id, first.token, "t").await.unwrap());
    scene.fail(&second).await;
    assert!(!scene.store.ledger_close(id, second.token, "t").await.unwrap());
    let orphans = scene.store.ledger_orphans(scene.now(), 10).await.unwrap();
    assert_eq!(orphans.iter().map(|entry| entry.open.clone()).collect::<Vec<_>>(), [anew]);
}

async fn only_what_nobody_goes_on_with_is_struck_out_as_aborted(scene: Scene) {
    let made = scene.job("in; out: in").await;
    let claim = scene.claim_one().await;
    let (id, out) = (claim.task.id, made.task("out"));
    for task in [id, out] {
        assert!(scene.store.ledger_open(task, claim.token, &open("t"), scene.now()).await.unwrap());
        scene.store.ledger_aborted(task, "t").await.unwrap();
    }
    assert_eq!(scene.store.counts(scene.now()).await.unwrap().open_uploads, 2);
    scene.fail(&claim).await;
    for task in [id, out] {
        scene.store.ledger_aborted(task, "t").await.unwrap();
    }
    assert_eq!(scene.store.counts(scene.now()).await.unwrap().open_uploads, 0);
}

async fn a_seal_changes_the_digest_and_nothing_else(scene: Scene) {
    let made = scene.job("in; out: in").await;
    let (claim, out) = (scene.claim_one().await, made.task("out"));
    let (id, token, now) = (claim.task.id, claim.token, scene.now());
    let sealed = |target: &str| OpenUpload { sha256: "cd".repeat(32), ..open(target) };
    assert!(!scene.store.ledger_seal(out, token, &sealed("t")).await.unwrap(), "nothing is open");
    for target in ["t", "u"] {
        assert!(scene.store.ledger_open(out, token, &open(target), now).await.unwrap());
        assert!(scene.store.ledger_part(out, token, target, 1, &part("one")).await.unwrap());
    }
    let other = Token(token.0 ^ 1);
    assert!(!scene.store.ledger_seal(out, other, &sealed("t")).await.unwrap());
    let earlier = OpenUpload { handle: "another".to_owned(), ..sealed("t") };
    assert!(!scene.store.ledger_seal(out, token, &earlier).await.unwrap(), "that one is not open any more");
    assert!(!scene.store.ledger_seal(id, token, &sealed("t")).await.unwrap(), "it is not this task's");
    let stale = OpenUpload { part_bytes: 7, parts: BTreeMap::from([(2, part("unheard of"))]), ..sealed("t") };
    assert!(scene.store.ledger_seal(out, token, &stale).await.unwrap());
    assert!(scene.store.ledger_part(out, token, "t", 3, &part("three")).await.unwrap(), "it goes on");
    scene.finish(&claim).await;
    assert!(!scene.store.ledger_seal(out, token, &sealed("u")).await.unwrap(), "it is another's to claim");
    let t = OpenUpload { parts: BTreeMap::from([(1, part("one")), (3, part("three"))]), ..sealed("t") };
    let u = OpenUpload { parts: BTreeMap::from([(1, part("one"))]), ..open("u") };
    let claim = scene.claim_one().await;
    assert_eq!(claim.open, [t, u]);
    assert!(
        scene.store.ledger_seal(out, claim.token, &sealed("u")).await.unwrap(),
        "who holds the task writes its lines"
    );
    scene.store.cancel(scene.user, out, now).await.unwrap();
    assert!(!scene.store.ledger_seal(out, claim.token, &sealed("u")).await.unwrap());
    let orphans = scene.store.ledger_orphans(now, 10).await.unwrap();
    assert!(orphans.iter().all(|entry| entry.open.sha256 == sealed("t").sha256) && orphans.len() == 2, "{orphans:?}");
}

async fn a_failed_abort_is_tried_again_later(scene: Scene) {
    scene.job("a").await;
    let claim = scene.claim_one().await;
    let (id, token) = (claim.task.id, claim.token);
    assert!(scene.store.ledger_open(id, token, &open("t"), scene.now()).await.unwrap());
    let again_at = scene.now().plus(Duration::from_secs(30));
    scene.store.ledger_abort_failed(id, "t", 0, scene.now()).await.unwrap();
    assert!(!scene.store.ledger_claim_abort(id, "t", 0, scene.now(), again_at).await.unwrap());
    assert!(scene.store.ledger_orphans(scene.now(), 10).await.unwrap().is_empty(), "its task is running");
    scene.fail(&claim).await;
    scene.store.ledger_abort_failed(id, "t", 0, again_at).await.unwrap();
    assert!(scene.store.ledger_orphans(scene.now(), 10).await.unwrap().is_empty(), "not due");
    assert!(!scene.store.ledger_claim_abort(id, "t", 1, scene.now(), again_at).await.unwrap(), "not due");
    let orphans = scene.store.ledger_orphans(again_at, 10).await.unwrap();
    assert_eq!((orphans.len(), orphans[0].abort_tries), (1, 1));
}

/// A task that ended with an upload open.
async fn orphan(scene: &Scene) -> TaskId {
    scene.job("a").await;
    let claim = scene.claim_one().await;
    assert!(scene.store.ledger_open(claim.task.id, claim.token, &open("t"), scene.now()).await.unwrap());
    scene.fail(&claim).await;
    claim.task.id
}

/// Two runners read the same line; however many there are, its tries last as long as those of one.
async fn of_two_who_abort_one_tries(scene: Scene) {
    let (id, now) = (orphan(&scene).await, scene.now());
    let until = now.plus(Duration::from_secs(30));
    for read_by in ["one", "other"] {
        assert_eq!(scene.store.ledger_orphans(now, 10).await.unwrap().len(), 1, "{read_by}");
    }
    assert!(scene.store.ledger_claim_abort(id, "t", 0, now, until).await.unwrap());
    assert!(!scene.store.ledger_claim_abort(id, "t", 0, now, until).await.unwrap(), "it has been taken");
    assert!(scene.store.ledger_orphans(now, 10).await.unwrap().is_empty(), "it has been taken");
    for _ in ["one", "other"] {
        scene.store.ledger_abort_failed(id, "t", 0, now).await.unwrap();
    }
    let orphans = scene.store.ledger_orphans(now, 10).await.unwrap();
    assert_eq!(orphans[0].abort_tries, 1, "both failed to do the same");
    assert!(!scene.store.ledger_claim_abort(id, "t", 0, now, until).await.unwrap(), "that was tried");
    assert!(scene.store.ledger_claim_abort(id, "t", 1, now, until).await.unwrap());
}

async fn what_was_taken_by_somebody_who_died_is_due_again(scene: Scene) {
    let (id, now) = (orphan(&scene).await, scene.now());
    let until = now.plus(Duration::from_secs(30));
    assert!(scene.store.ledger_claim_abort(id, "t", 0, now, until).await.unwrap());
    let early = until.minus(Duration::from_micros(1));
    assert!(scene.store.ledger_orphans(early, 10).await.unwrap().is_empty());
    assert!(!scene.store.ledger_claim_abort(id, "t", 0, early, early).await.unwrap());
    let orphans = scene.store.ledger_orphans(until, 10).await.unwrap();
    assert_eq!((orphans.len(), orphans[0].abort_tries), (1, 0), "nothing was counted");
    let later = until.plus(Duration::from_secs(30));
    assert!(scene.store.ledger_claim_abort(id, "t", 0, until, later).await.unwrap());
    scene.store.ledger_aborted(id, "t").await.unwrap();
    assert!(!scene.store.ledger_claim_abort(id, "t", 0, later, later).await.unwrap(), "it is gone");
}

async fn an_upload_begins_for_the_one_task_that_waits(scene: Scene) {
    let made = scene.job("in; out: in").await;
    let (id, out) = (made.task("in"), made.task("out"));
    let claim = scene.claim_one().await;
    let (token, now) = (claim.token, scene.now());
    let follower = scene.store.follower(id, token).await.unwrap().unwrap();
    assert_eq!((follower.id, follower.operation.as_str(), follower.open.len()), (out, "import/url", 0));
    assert_eq!(follower.payload, format!("sealed {out}").into_bytes());
    assert!(scene.store.ledger_open(out, token, &open("t"), now).await.unwrap());
    assert!(scene.store.ledger_part(out, token, "t", 1, &part("one")).await.unwrap());
    let begun = OpenUpload { parts: BTreeMap::from([(1, part("one"))]), ..open("t") };
    assert_eq!(scene.store.follower(id, token).await.unwrap().unwrap().open, std::slice::from_ref(&begun));
    let other = Token(token.0 ^ 1);
    assert!(scene.store.follower(id, other).await.unwrap().is_none());
    assert!(!scene.store.ledger_open(out, other, &open("u"), now).await.unwrap());
    assert!(!scene.store.ledger_part(out, other, "t", 2, &part("two")).await.unwrap());
    assert!(!scene.store.ledger_close(out, other, "t").await.unwrap());
    assert!(scene.store.ledger_open(out, token, &open("begun in vain"), now).await.unwrap());
    assert!(scene.store.ledger_close(out, token, "begun in vain").await.unwrap());
    scene.finish(&claim).await;
    assert!(!scene.store.ledger_open(out, token, &open("u"), now).await.unwrap(), "it is another's to claim");
    assert!(!scene.store.ledger_part(out, token, "t", 2, &part("two")).await.unwrap());
    assert!(!scene.store.ledger_close(out, token, "t").await.unwrap());
    assert!(scene.store.follower(id, token).await.unwrap().is_none());
    assert!(scene.store.ledger_orphans(now, 10).await.unwrap().is_empty());
    assert_eq!(scene.claim_one().await.open, [begun]);
    for graph in ["in; a: in; b: in", "in; other; a: in other", "in"] {
        let made = scene.job(graph).await;
        let claims = scene.claim(10).await;
        let claim = claims.iter().find(|claim| claim.task.id == made.task("in")).unwrap();
        assert!(scene.store.follower(claim.task.id, claim.token).await.unwrap().is_none(), "{graph}");
        for claim in &claims {
            scene.finish(claim).await;
        }
        scene.run_all(&[]).await;
    }
}

async fn what_began_for_a_task_that_waits_is_an_orphan_when_that_ends(scene: Scene) {
    for (how, orphans) in [("failed", 1), ("cancelled", 1), ("export cancelled", 1), ("deleted", 1), ("delayed", 0)] {
        let made = scene.job("in; out: in").await;
        let (claim, out) = (scene.claim_one().await, made.task("out"));
        assert!(scene.store.ledger_open(out, claim.token, &open("t"), scene.now()).await.unwrap());
        match how {
            "failed" => scene.fail(&claim).await,
            "cancelled" => drop(scene.store.cancel(scene.user, claim.task.id, scene.now()).await.unwrap()),
            "export cancelled" => drop(scene.store.cancel(scene.user, out, scene.now()).await.unwrap()),
            "deleted" => drop(scene.store.delete_job(scene.user, made.id, scene.now()).await.unwrap()),
            _ => drop(scene.store.delay(claim.task.id, claim.token, scene.now(), scene.now()).await.unwrap()),
        }
        let due = scene.store.ledger_orphans(scene.now(), 10).await.unwrap();
        assert_eq!(due.iter().filter(|entry| entry.task_id == out).count(), orphans, "{how}");
        if how != "delayed" {
            assert!(!scene.store.ledger_open(out, claim.token, &open("t"), scene.now()).await.unwrap(), "{how}");
        }
        let is_held = scene.store.ledger_close(out, claim.token, "t").await.unwrap();
        assert!(!is_held, "{how}: it is nobody's, or another attempt's");
        scene.store.ledger_aborted(out, "t").await.unwrap();
        scene.store.release_due(scene.now()).await.unwrap();
        scene.run_all(&[]).await;
    }
}
