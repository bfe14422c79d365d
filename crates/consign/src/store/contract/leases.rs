//! Leases, tokens and sessions: whoever lost the lease changes nothing.

use std::time::Duration;

use super::{Scene, cases};
use crate::id::{SessionId, TaskId, Token};
use crate::model::State;
use crate::store::{Applied, Cancellation, Claim, ClaimRequest, Expired, Heartbeat, TaskProgress};

cases!(
    a_claim_says_what_is_needed,
    a_task_ends_once,
    a_token_that_was_never_given_changes_nothing,
    a_token_of_an_earlier_attempt_changes_nothing,
    a_delayed_task_comes_back_when_it_is_due,
    a_lease_given_back_does_not_count,
    progress_is_recorded_by_the_holder_only,
    an_expired_session_loses_its_tasks,
    a_task_that_was_lost_too_often_ends,
    a_closed_session_loses_its_tasks,
    an_exclusive_session_ends_all_others,
    a_session_knows_what_it_holds,
    a_dead_session_claims_nothing,
    waiters_are_told,
);

async fn claim_as(scene: &Scene, session: SessionId) -> Vec<Claim> {
    let request = ClaimRequest { session, tasks_max: 100, per_user_max: u32::MAX, now: scene.now() };
    scene.store.claim(&request).await.unwrap()
}

async fn a_claim_says_what_is_needed(scene: Scene) {
    let made = scene.job("a; b").await;
    scene.wait(1);
    let claims = scene.claim(10).await;
    assert_eq!(claims[0].token, claims[1].token, "one token a call");
    for claim in &claims {
        assert_eq!((claim.task.state, claim.task.attempt), (State::Running, 1));
        assert_eq!(claim.task.started_at, Some(scene.now()));
        assert_eq!(claim.task, scene.task(claim.task.id).await);
        assert_eq!(claim.payload, format!("sealed {}", claim.task.id).into_bytes());
        assert!(scene.store.holds(claim.task.id, claim.token).await.unwrap());
    }
    scene.job("c").await;
    assert_ne!(scene.claim_one().await.token, claims[0].token);
    assert_eq!(made.tasks.len(), 2);
}

async fn a_task_ends_once(scene: Scene) {
    let made = scene.job("a; b").await;
    let claims = scene.claim(10).await;
    scene.finish(&claims[0]).await;
    let after = scene.task(claims[0].task.id).await;
    scene.wait(1);
    assert_eq!(scene.try_finish(&claims[0]).await, Applied::Stale);
    assert_eq!(scene.try_fail(&claims[0]).await, Applied::Stale);
    assert_eq!(after, scene.task(claims[0].task.id).await);
    scene.fail(&claims[1]).await;
    let after = scene.read(&made).await;
    scene.wait(1);
    assert_eq!(scene.try_finish(&claims[1]).await, Applied::Stale);
    let cancelled = scene.store.cancel(scene.user, claims[1].task.id, scene.now()).await.unwrap();
    assert_eq!(cancelled, Cancellation::AlreadyEnded);
    assert_eq!(after, scene.read(&made).await);
}

/// Tries everything that needs the lease, with a token that does not hold it.
async fn everything_is_stale(scene: &Scene, id: TaskId, token: Token) {
    let before = scene.task(id).await;
    let now = scene.now();
    assert!(!scene.store.holds(id, token).await.unwrap());
    assert_eq!(scene.store.finish(id, token, &[super::file(id, token)], now).await.unwrap(), Applied::Stale);
    assert_eq!(scene.store.fail(id, token, "X", "x", now).await.unwrap(), Applied::Stale);
    assert_eq!(scene.store.delay(id, token, now, now).await.unwrap(), Applied::Stale);
    assert_eq!(scene.store.give_back(id, token, now).await.unwrap(), Applied::Stale);
    let progress = [TaskProgress { id, token, percent: 77 }];
    scene.store.heartbeat(scene.session, &progress, now).await.unwrap();
    assert_eq!(scene.task(id).await, before);
}

async fn a_token_that_was_never_given_changes_nothing(scene: Scene) {
    let made = scene.job("a; b: a; up^").await;
    for name in ["a", "b", "up"] {
        everything_is_stale(&scene, made.task(name), Token(1)).await;
    }
    let claim = scene.claim_one().await;
    everything_is_stale(&scene, claim.task.id, Token(claim.token.0 ^ 1)).await;
    // The token of one task is no token for another.
    scene.job("other").await;
    let other = scene.claim_one().await;
    everything_is_stale(&scene, other.task.id, claim.token).await;
    everything_is_stale(&scene, claim.task.id, other.token).await;
    scene.finish(&claim).await;
    everything_is_stale(&scene, claim.task.id, claim.token).await;
}

async fn a_token_of_an_earlier_attempt_changes_nothing(scene: Scene) {
    scene.job("a").await;
    let first = scene.claim_one().await;
    scene.wait(60);
    assert_eq!(scene.store.expire_sessions(scene.now(), 9, scene.now()).await.unwrap().tasks, 1);
    everything_is_stale(&scene, first.task.id, first.token).await;
    let session = SessionId::new(scene.now());
    scene.store.open_session(session, "host-b", false, scene.now()).await.unwrap();
    let second = claim_as(&scene, session).await.remove(0);
    assert_eq!((second.task.id, second.task.attempt), (first.task.id, 2));
    assert_eq!(second.task.host_name.as_deref(), Some("host-b"));
    assert_eq!(second.task.started_at, first.task.started_at);
    everything_is_stale(&scene, first.task.id, first.token).await;
    scene.finish(&second).await;
    everything_is_stale(&scene, first.task.id, first.token).await;
    assert_eq!(scene.task(first.task.id).await.files, [super::file(second.task.id, second.token)]);
}

async fn a_delayed_task_comes_back_when_it_is_due(scene: Scene) {
    let made = scene.job("a; b").await;
    let claims = scene.claim(10).await;
    let until = |seconds| scene.now().plus(Duration::from_secs(seconds));
    for (claim, seconds) in claims.iter().zip([5, 9]) {
        let applied = scene.store.delay(claim.task.id, claim.token, until(seconds), scene.now()).await.unwrap();
        assert_eq!(applied, Applied::Done);
        everything_is_stale(&scene, claim.task.id, claim.token).await;
    }
    assert_eq!(scene.states(&made).await, "processing: a delayed, b delayed");
    assert_eq!(scene.store.release_due(until(4)).await.unwrap(), Some(until(5)));
    assert!(scene.claim(10).await.is_empty());
    assert_eq!(scene.store.release_due(until(5)).await.unwrap(), Some(until(9)));
    let again = scene.claim_one().await;
    assert_eq!((again.task.id, again.task.attempt), (claims[0].task.id, 2));
    assert_eq!(scene.store.release_due(until(9)).await.unwrap(), None);
    scene.claim_one().await;
}

async fn a_lease_given_back_does_not_count(scene: Scene) {
    let made = scene.job("a").await;
    let first = scene.claim_one().await;
    let applied = scene.store.give_back(first.task.id, first.token, scene.now()).await.unwrap();
    assert_eq!(applied, Applied::Done);
    assert_eq!(scene.states(&made).await, "processing: a queued");
    everything_is_stale(&scene, first.task.id, first.token).await;
    assert_eq!(scene.claim_one().await.task.attempt, 1);
}

async fn progress_is_recorded_by_the_holder_only(scene: Scene) {
    scene.job("a").await;
    let claim = scene.claim_one().await;
    let (id, token) = (claim.task.id, claim.token);
    for (percent, stored) in [(40, 40), (100, 99), (200, 99)] {
        let beat = scene.store.heartbeat(scene.session, &[TaskProgress { id, token, percent }], scene.now()).await;
        assert_eq!(beat.unwrap(), Heartbeat::Alive);
        assert_eq!(scene.task(id).await.percent, stored);
    }
    scene.finish(&claim).await;
    assert_eq!(scene.task(id).await.percent, 100);
}

async fn an_expired_session_loses_its_tasks(scene: Scene) {
    let made = scene.job("a; b").await;
    scene.claim(10).await;
    scene.wait(3);
    scene.store.heartbeat(scene.session, &[], scene.now()).await.unwrap();
    let looked = scene.store.expire_sessions(scene.now(), 9, scene.now()).await.unwrap();
    assert_eq!(looked, Expired { tasks: 0, oldest: Some(scene.now()) }, "it was seen");
    assert_eq!(scene.states(&made).await, "processing: a running, b running");
    let later = scene.now().plus(Duration::from_micros(1));
    let looked = scene.store.expire_sessions(later, 9, scene.now()).await.unwrap();
    assert_eq!(looked, Expired { tasks: 2, oldest: None });
    assert_eq!(scene.states(&made).await, "processing: a queued, b queued");
    let beat = scene.store.heartbeat(scene.session, &[], scene.now()).await.unwrap();
    assert_eq!(beat, Heartbeat::Expired);
    assert_eq!(scene.store.expire_sessions(later, 9, scene.now()).await.unwrap().tasks, 0);
}

async fn a_task_that_was_lost_too_often_ends(mut scene: Scene) {
    let made = scene.job("a; b: a").await;
    for attempt in 1..=3 {
        let claim = scene.claim_one().await;
        assert_eq!(claim.task.attempt, attempt);
        scene.wait(60);
        assert_eq!(scene.store.expire_sessions(scene.now(), 3, scene.now()).await.unwrap().tasks, 1);
        scene.session = SessionId::new(scene.now());
        scene.store.open_session(scene.session, "host-a", false, scene.now()).await.unwrap();
    }
    assert_eq!(scene.states(&made).await, "error: a error WORKER_LOST, b error INPUT_TASK_FAILED");
}

async fn a_closed_session_loses_its_tasks(scene: Scene) {
    let made = scene.job("a").await;
    let other = SessionId::new(scene.now());
    scene.store.open_session(other, "host-b", false, scene.now()).await.unwrap();
    let claim = scene.claim_one().await;
    scene.store.close_session(other, scene.now()).await.unwrap();
    assert_eq!(scene.states(&made).await, "processing: a running", "it is another session's");
    scene.store.close_session(scene.session, scene.now()).await.unwrap();
    assert_eq!(scene.states(&made).await, "processing: a queued");
    assert_eq!(scene.try_finish(&claim).await, Applied::Stale);
    assert_eq!(scene.store.heartbeat(scene.session, &[], scene.now()).await.unwrap(), Heartbeat::Expired);
}

async fn an_exclusive_session_ends_all_others(scene: Scene) {
    let made = scene.job("a; b").await;
    scene.claim(10).await;
    let other = SessionId::new(scene.now());
    scene.store.open_session(other, "host-b", false, scene.now()).await.unwrap();
    assert_eq!(scene.states(&made).await, "processing: a running, b running");
    let only = SessionId::new(scene.now());
    scene.store.open_session(only, "host-c", true, scene.now()).await.unwrap();
    assert_eq!(scene.states(&made).await, "processing: a queued, b queued");
    for dead in [scene.session, other] {
        assert_eq!(scene.store.heartbeat(dead, &[], scene.now()).await.unwrap(), Heartbeat::Expired);
    }
    assert_eq!(claim_as(&scene, only).await.len(), 2);
}

async fn a_dead_session_claims_nothing(scene: Scene) {
    scene.job("a").await;
    scene.store.close_session(scene.session, scene.now()).await.unwrap();
    assert!(scene.claim(10).await.is_empty(), "nobody would take the tasks back");
    assert!(claim_as(&scene, SessionId::new(scene.now())).await.is_empty());
    assert_eq!(scene.store.counts(scene.now()).await.unwrap().queued, 1);
}

/// Waits for a hint that must have come by now.
async fn told(what: &str, hint: impl Future<Output = ()>) {
    assert!(tokio::time::timeout(Duration::from_secs(5), hint).await.is_ok(), "no hint: {what}");
}

async fn waiters_are_told(scene: Scene) {
    let hints = scene.store.hints();
    let made = scene.job("a; b: a").await;
    told("ready after a creation", hints.ready()).await;
    let mut job = hints.watch(made.id.0);
    let mut task = hints.watch(made.task("a").0);
    let mut dependent = hints.watch(made.task("b").0);
    let claim = scene.claim_one().await;
    told("the job is processing", job.changed()).await;
    told("the task is running", task.changed()).await;
    let progress = [TaskProgress { id: claim.task.id, token: claim.token, percent: 5 }];
    scene.store.heartbeat(scene.session, &progress, scene.now()).await.unwrap();
    told("progress of the task", task.changed()).await;
    told("progress of the job", job.changed()).await;
    scene.finish(&claim).await;
    told("the task ended", task.changed()).await;
    told("the job's task ended", job.changed()).await;
    told("the dependent is queued", dependent.changed()).await;
    told("ready after an end", hints.ready()).await;
    scene.store.cancel(scene.user, made.task("b"), scene.now()).await.unwrap();
    told("the dependent ended", dependent.changed()).await;
    told("the job ended", job.changed()).await;
    scene.store.delete_job(scene.user, made.id, scene.now()).await.unwrap();
    told("the job is gone", job.changed()).await;
    told("files can go", hints.sweep()).await;
}

async fn a_session_knows_what_it_holds(scene: Scene) {
    scene.job("a; b; c").await;
    let claims = scene.claim(2).await;
    let held: Vec<_> = claims.iter().map(|claim| (claim.task.id, claim.token)).collect();
    let mut leases = scene.store.leases(scene.session).await.unwrap();
    leases.sort_unstable_by_key(|(id, _)| held.iter().position(|(held, _)| held == id));
    assert_eq!(leases, held);
    scene.finish(&claims[0]).await;
    assert_eq!(scene.store.leases(scene.session).await.unwrap(), held[1..]);
    assert_eq!(scene.store.leases(SessionId::new(scene.now())).await.unwrap(), []);
}
