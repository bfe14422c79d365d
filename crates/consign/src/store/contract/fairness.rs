//! Nobody's backlog delays another's first task, and limits are exact.

use std::collections::BTreeMap;

use super::{Scene, cases};
use crate::id::UserId;
use crate::store::Claim;

cases!(
    a_backlog_does_not_delay_anothers_first_task,
    two_backlogs_take_turns,
    a_steady_stream_does_not_starve_a_backlog,
    the_limit_per_user_is_exact,
    a_user_at_the_limit_hides_nobody,
    retried_and_returned_tasks_keep_their_turn,
);

fn graph(tasks: usize) -> String {
    (0..tasks).map(|n| format!("t{n}")).collect::<Vec<_>>().join("; ")
}

async fn user(scene: &Scene, name: &str) -> UserId {
    scene.store.ensure_user(name, scene.now()).await.unwrap().id
}

fn by_user(claims: &[Claim]) -> BTreeMap<UserId, usize> {
    let mut tasks = BTreeMap::new();
    for claim in claims {
        *tasks.entry(claim.task.user_id).or_default() += 1;
    }
    tasks
}

async fn a_backlog_does_not_delay_anothers_first_task(scene: Scene) {
    scene.job(&graph(10_000)).await;
    for claim in scene.claim(50).await {
        scene.finish(&claim).await;
    }
    let other = user(&scene, "eve").await;
    scene.job_of(other, "first").await;
    assert_eq!(scene.claim_one_of_many().await.task.user_id, other, "the next one");
    // Once more with history on both sides.
    for claim in scene.claim(100).await {
        scene.finish(&claim).await;
    }
    scene.job_of(other, "first").await;
    assert_eq!(scene.claim_one_of_many().await.task.user_id, other, "the next one");
}

async fn two_backlogs_take_turns(scene: Scene) {
    let other = user(&scene, "eve").await;
    scene.job(&graph(300)).await;
    let first = scene.claim(100).await;
    assert_eq!(first.len(), 100);
    scene.job_of(other, &graph(300)).await;
    let both = by_user(&scene.claim(100).await);
    assert!((49..=51).contains(&both[&other]), "{both:?}");
}

async fn a_steady_stream_does_not_starve_a_backlog(scene: Scene) {
    let streamer = user(&scene, "eve").await;
    scene.job(&graph(20)).await;
    let mut served = BTreeMap::<UserId, usize>::new();
    for _ in 0..20 {
        scene.job_of(streamer, "one").await;
        let claim = scene.claim_one_of_many().await;
        *served.entry(claim.task.user_id).or_default() += 1;
        scene.finish(&claim).await;
    }
    assert!(served[&scene.user] >= 9, "{served:?}");
    assert!(served[&streamer] >= 9, "{served:?}");
}

async fn the_limit_per_user_is_exact(scene: Scene) {
    let other = user(&scene, "eve").await;
    scene.job(&graph(20)).await;
    scene.job_of(other, &graph(3)).await;
    let claims = scene.claim_limited(10, 4).await;
    assert_eq!(by_user(&claims), BTreeMap::from([(scene.user, 4), (other, 3)]));
    assert!(scene.claim_limited(10, 4).await.is_empty());
    let mine: Vec<_> = claims.iter().filter(|claim| claim.task.user_id == scene.user).collect();
    scene.finish(mine[0]).await;
    scene.fail(mine[1]).await;
    assert_eq!(scene.claim_limited(1, 4).await.len(), 1, "no more than the slots");
    assert_eq!(scene.claim_limited(10, 4).await.len(), 1);
    assert!(scene.claim_limited(10, 4).await.is_empty());
    assert!(scene.claim_limited(0, 4).await.is_empty());
}

async fn a_user_at_the_limit_hides_nobody(scene: Scene) {
    scene.job(&graph(2_000)).await;
    assert_eq!(scene.claim_limited(100, 2).await.len(), 2);
    let mut others = Vec::new();
    for n in 0..5 {
        let other = user(&scene, &format!("user {n}")).await;
        scene.job_of(other, &graph(700)).await;
        others.push(other);
    }
    // The windows of ready tasks are full of users at their limit, again and again.
    let claims = scene.claim_limited(100, 2).await;
    assert_eq!(by_user(&claims), others.iter().map(|other| (*other, 2)).collect());
    let last = user(&scene, "last").await;
    scene.job_of(last, "only").await;
    let claims = scene.claim_limited(100, 2).await;
    assert_eq!(by_user(&claims), BTreeMap::from([(last, 1)]));
    assert!(scene.claim_limited(100, 2).await.is_empty());
}

async fn retried_and_returned_tasks_keep_their_turn(scene: Scene) {
    let made = scene.job(&graph(100)).await;
    let first = scene.claim_one_of_many().await;
    assert_eq!(first.task.id, made.task("t0"));
    let later = scene.now();
    let _ = scene.store.delay(first.task.id, first.token, later, scene.now()).await.unwrap();
    assert_eq!(scene.claim_one_of_many().await.task.id, made.task("t1"));
    scene.store.release_due(later).await.unwrap();
    let first = scene.claim_one_of_many().await;
    assert_eq!((first.task.id, first.task.attempt), (made.task("t0"), 2));
    let _ = scene.store.give_back(first.task.id, first.token, scene.now()).await.unwrap();
    let first = scene.claim_one_of_many().await;
    assert_eq!((first.task.id, first.task.attempt), (made.task("t0"), 2));
}
