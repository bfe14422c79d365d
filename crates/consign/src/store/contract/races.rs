//! Two at once: whatever the order, one wins, and what follows happens once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use connectors::OpenUpload;

use super::{Made, Scene, cases, file};
use crate::id::SessionId;
use crate::model::{EventKind, State};
use crate::store::{Applied, Cancellation, Claim, ClaimRequest, Creation, NewWebhook};

cases!(
    many_claim_at_once,
    two_finish_at_once,
    finish_against_cancel,
    finish_against_loss_of_the_lease,
    a_claim_against_the_end_of_its_session,
    finish_against_deletion,
    two_inputs_end_at_once,
    a_cascade_against_a_finish,
    the_same_request_twice_at_once,
    many_abort_at_once,
    many_take_a_turn_at_once,
    many_take_the_trash_and_the_outbox_at_once,
);

/// How often a race is run.
const RUNS: usize = 20;

/// Runs two at the same time, each on its own task.
async fn race<A: Send + 'static, B: Send + 'static>(
    one: impl Future<Output = A> + Send + 'static,
    other: impl Future<Output = B> + Send + 'static,
    run: usize,
) -> (A, B) {
    // Both orders must be seen even if tasks start in the order in which they are spawned.
    if run.is_multiple_of(2) {
        let (one, other) = (tokio::spawn(one), tokio::spawn(other));
        (one.await.unwrap(), other.await.unwrap())
    } else {
        let (other, one) = (tokio::spawn(other), tokio::spawn(one));
        (one.await.unwrap(), other.await.unwrap())
    }
}

fn finishing(scene: &Scene, claim: &Claim) -> impl Future<Output = Applied> + Send + 'static {
    let (store, id, token, now) = (Arc::clone(&scene.store), claim.task.id, claim.token, scene.now());
    async move { store.finish(id, token, &[file(id, token)], now).await.unwrap() }
}

async fn many_claim_at_once(scene: Scene) {
    let graph = (0..200).map(|n| format!("t{n}")).collect::<Vec<_>>().join("; ");
    scene.job(&graph).await;
    let mut claimers = Vec::new();
    for _ in 0..32 {
        let (store, session, now) = (Arc::clone(&scene.store), scene.session, scene.now());
        claimers.push(tokio::spawn(async move {
            let request = ClaimRequest { session, tasks_max: 7, per_user_max: 150, now };
            store.claim(&request).await.unwrap()
        }));
    }
    let mut seen = BTreeSet::new();
    for claimer in claimers {
        for claim in claimer.await.unwrap() {
            assert!(seen.insert(claim.task.id), "claimed twice");
            assert_eq!(claim.task.attempt, 1);
        }
    }
    assert_eq!(seen.len(), 150, "the limit is exact");
}

async fn two_finish_at_once(scene: Scene) {
    for run in 0..RUNS {
        let made = scene.job("a; b: a").await;
        let claim = scene.claim_one().await;
        let (one, other) = race(finishing(&scene, &claim), finishing(&scene, &claim), run).await;
        assert_ne!(one, other, "one of them");
        assert_eq!(scene.task(made.task("a")).await.files.len(), 1);
        scene.finish(&scene.claim_one().await).await;
    }
}

async fn finish_against_cancel(scene: Scene) {
    for run in 0..RUNS {
        let made = scene.job("a; b: a").await;
        let claim = scene.claim_one().await;
        let (store, user, id, now) = (Arc::clone(&scene.store), scene.user, made.task("a"), scene.now());
        let cancelling = async move { store.cancel(user, id, now).await.unwrap() };
        match race(finishing(&scene, &claim), cancelling, run).await {
            (Applied::Done, Cancellation::AlreadyEnded) => {
                assert_eq!(scene.states(&made).await, "processing: a finished, b queued");
                scene.finish(&scene.claim_one().await).await;
            }
            (Applied::Stale, Cancellation::Done) => {
                assert_eq!(scene.states(&made).await, "error: a error CANCELLED, b error INPUT_TASK_FAILED");
                assert!(scene.task(id).await.files.is_empty());
            }
            both => panic!("{both:?}"),
        }
    }
}

async fn finish_against_loss_of_the_lease(mut scene: Scene) {
    for run in 0..RUNS {
        let made = scene.job("a").await;
        let claim = scene.claim_one().await;
        scene.wait(60);
        let (store, now) = (Arc::clone(&scene.store), scene.now());
        let expiring = async move { store.expire_sessions(now, 9, now).await.unwrap().tasks };
        let (applied, lost) = race(finishing(&scene, &claim), expiring, run).await;
        assert_eq!((applied == Applied::Done, lost), (lost == 0, lost));
        let state = if lost == 0 { State::Finished } else { State::Queued };
        assert_eq!(scene.task(made.task("a")).await.state, state);
        scene.session = SessionId::new(scene.now());
        scene.store.open_session(scene.session, "host-a", true, scene.now()).await.unwrap();
        scene.run_all(&[]).await;
    }
}

async fn a_claim_against_the_end_of_its_session(mut scene: Scene) {
    for run in 0..RUNS {
        let made = scene.job("a").await;
        let (session, now) = (scene.session, scene.now());
        let store = Arc::clone(&scene.store);
        let request = ClaimRequest { session, tasks_max: 1, per_user_max: 9, now };
        let claiming = async move { store.claim(&request).await.unwrap() };
        let store = Arc::clone(&scene.store);
        let closing = async move { store.close_session(session, now).await.unwrap() };
        let (_, ()) = race(claiming, closing, run).await;
        assert_eq!(scene.task(made.task("a")).await.state, State::Queued, "nobody is left who would take it back");
        scene.session = SessionId::new(scene.now());
        scene.store.open_session(scene.session, "host-a", false, scene.now()).await.unwrap();
        scene.run_all(&[]).await;
    }
}

async fn finish_against_deletion(scene: Scene) {
    for run in 0..RUNS {
        let made = scene.job("a; b: a").await;
        let claim = scene.claim_one().await;
        let (store, user, id, now) = (Arc::clone(&scene.store), scene.user, made.task("a"), scene.now());
        let deleting = async move { store.delete_task(user, id, now).await.unwrap() };
        let (applied, deleted) = race(finishing(&scene, &claim), deleting, run).await;
        assert!(deleted);
        assert_eq!(scene.store.task(scene.user, id).await.unwrap(), None);
        let rest = if applied == Applied::Done { "processing: b queued" } else { "error: b error INPUT_TASK_FAILED" };
        assert_eq!(scene.states(&made).await, rest);
        scene.run_all(&[]).await;
    }
}

async fn two_inputs_end_at_once(scene: Scene) {
    for run in 0..RUNS {
        let made = scene.job("a; b; c: a b").await;
        let claims = scene.claim(2).await;
        let both = race(finishing(&scene, &claims[0]), finishing(&scene, &claims[1]), run).await;
        assert_eq!(both, (Applied::Done, Applied::Done));
        assert_eq!(scene.states(&made).await, "processing: a finished, b finished, c queued");
        scene.finish(&scene.claim_one().await).await;
    }
}

async fn a_cascade_against_a_finish(scene: Scene) {
    for run in 0..RUNS {
        let made: Made = scene.job("a; b; c: a b; d: c").await;
        let claims = scene.claim(2).await;
        let (store, id, token, now) = (Arc::clone(&scene.store), claims[0].task.id, claims[0].token, scene.now());
        let failing = async move { store.fail(id, token, "X", "x", now).await.unwrap() };
        let both = race(failing, finishing(&scene, &claims[1]), run).await;
        assert_eq!(both, (Applied::Done, Applied::Done));
        let states = scene.states(&made).await;
        assert!(states.starts_with("error:"), "{states}");
        assert!(states.ends_with("c error INPUT_TASK_FAILED, d error INPUT_TASK_FAILED"), "{states}");
        assert!(scene.claim(10).await.is_empty());
    }
}

async fn the_same_request_twice_at_once(scene: Scene) {
    for run in 0..RUNS {
        let idempotency =
            crate::store::Idempotency { key: format!("key {run}"), request_hash: [1; 32], answer: b"answer".to_vec() };
        let creating = |mut job: crate::store::NewJob| {
            job.idempotency = Some(idempotency.clone());
            let store = Arc::clone(&scene.store);
            async move { store.create_job(job).await.unwrap() }
        };
        let one = creating(scene.new_job(scene.user, "a"));
        let other = creating(scene.new_job(scene.user, "a"));
        let (one, other) = race(one, other, run).await;
        let replayed = Creation::Replayed(b"answer".to_vec());
        assert!(
            (one == Creation::Created && other == replayed) || (other == Creation::Created && one == replayed),
            "{one:?} {other:?}"
        );
    }
    assert_eq!(scene.store.counts(scene.now()).await.unwrap().queued, RUNS as u64);
}

async fn many_abort_at_once(scene: Scene) {
    for _ in 0..RUNS {
        scene.job("a").await;
        let claim = scene.claim_one().await;
        let (id, now) = (claim.task.id, scene.now());
        let open = OpenUpload {
            target: "t".to_owned(),
            handle: "h".to_owned(),
            sha256: "ab".repeat(32),
            part_bytes: 1,
            parts: BTreeMap::new(),
        };
        assert!(scene.store.ledger_open(id, claim.token, &open, now).await.unwrap());
        scene.fail(&claim).await;
        let mut runners = Vec::new();
        for _ in 0..8 {
            let store = Arc::clone(&scene.store);
            runners.push(tokio::spawn(async move {
                let until = now.plus(Duration::from_secs(30));
                let is_mine = store.ledger_claim_abort(id, "t", 0, now, until).await.unwrap();
                store.ledger_abort_failed(id, "t", 0, now).await.unwrap();
                is_mine
            }));
        }
        let mut taken = 0;
        for runner in runners {
            taken += u32::from(runner.await.unwrap());
        }
        assert_eq!(taken, 1, "whoever comes first takes it, and nobody else does");
        assert_eq!(scene.store.ledger_orphans(now, 10).await.unwrap()[0].abort_tries, 1, "one try for all");
        scene.store.ledger_aborted(id, "t").await.unwrap();
    }
}

async fn many_take_a_turn_at_once(scene: Scene) {
    for run in 0..RUNS {
        let mut runners = Vec::new();
        for _ in 0..8 {
            let (store, now) = (Arc::clone(&scene.store), scene.now());
            runners.push(tokio::spawn(async move {
                store.take_turn(&format!("turn {run}"), now, now.plus(Duration::from_secs(30))).await.unwrap()
            }));
        }
        let mut taken = 0;
        for runner in runners {
            taken += u32::from(runner.await.unwrap());
        }
        assert_eq!(taken, 1, "one has it");
    }
}

async fn many_take_the_trash_and_the_outbox_at_once(scene: Scene) {
    for _ in 0..60 {
        let single = scene.single(&[]);
        let id = single.task.id;
        assert_eq!(scene.store.create_task(single).await.unwrap(), Creation::Created);
        assert!(scene.store.delete_task(scene.user, id, scene.now()).await.unwrap());
    }
    let (url, secret) = (b"sealed url".to_vec(), b"sealed".to_vec());
    let new = NewWebhook { user_id: scene.user, url, events: EventKind::ALL.to_vec(), secret };
    scene.store.create_webhook(new, 10, scene.now()).await.unwrap().expect("there is room");
    for _ in 0..60 {
        scene.job("a").await;
    }
    let mut runners = Vec::new();
    for _ in 0..8 {
        let (store, now) = (Arc::clone(&scene.store), scene.now());
        runners.push(tokio::spawn(async move {
            let until = now.plus(Duration::from_secs(30));
            (store.take_trash(20, now, until).await.unwrap(), store.take_outbox(20, now, until).await.unwrap())
        }));
    }
    let (mut trash, mut lines) = (BTreeSet::new(), BTreeSet::new());
    for runner in runners {
        let (tasks, told) = runner.await.unwrap();
        assert!(tasks.into_iter().all(|id| trash.insert(id)), "removed twice");
        assert!(told.into_iter().all(|line| lines.insert(line.id)), "told twice");
    }
    assert_eq!((trash.len(), lines.len()), (60, 60), "eight times twenty are enough for all");
}
