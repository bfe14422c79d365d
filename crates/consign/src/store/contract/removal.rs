//! Deleting and retention.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Scene, cases};
use crate::clock::Timestamp;
use crate::id::TaskId;
use crate::model::{State, WireStatus};
use crate::store::{Applied, Creation, Deletion};

cases!(
    deleting_a_task_revokes_its_lease,
    deleting_a_job_takes_everything_with_it,
    a_deleted_input_is_gone_but_named,
    only_what_ended_long_ago_expires,
    only_so_many_expire_at_once,
    jobs_of_many_tasks_expire_few_at_once,
    trash_is_taken_for_a_while,
    a_turn_is_one_s_own_until_it_ends,
);

async fn trash(scene: &Scene) -> Vec<TaskId> {
    let mut trash = scene.store.trash(100).await.unwrap();
    trash.sort_unstable();
    trash
}

async fn expire(scene: &Scene, ended_before: Timestamp, limit: u32, tasks_max: u32) -> u64 {
    scene.store.expire(ended_before, limit, tasks_max, scene.now()).await.unwrap()
}

async fn deleting_a_task_revokes_its_lease(scene: Scene) {
    let made = scene.job("a; b: a; c").await;
    let other = scene.store.ensure_user("eve", scene.now()).await.unwrap().id;
    let claims = scene.claim(10).await;
    let a = claims.iter().find(|claim| claim.task.id == made.task("a")).expect("claimed");
    assert!(!scene.store.delete_task(other, made.task("a"), scene.now()).await.unwrap());
    assert!(scene.store.delete_task(scene.user, made.task("a"), scene.now()).await.unwrap());
    assert!(!scene.store.delete_task(scene.user, made.task("a"), scene.now()).await.unwrap());
    assert!(!scene.store.holds(a.task.id, a.token).await.unwrap());
    assert_eq!(scene.try_finish(a).await, Applied::Stale);
    assert_eq!(scene.store.task(scene.user, a.task.id).await.unwrap(), None);
    assert_eq!(scene.store.payload(a.task.id).await.unwrap(), None);
    assert_eq!(scene.states(&made).await, "processing: b error INPUT_TASK_FAILED, c running");
    assert_eq!(trash(&scene).await, [a.task.id]);
    scene.store.trash_emptied(&[a.task.id]).await.unwrap();
    assert!(trash(&scene).await.is_empty());
    let c = claims.iter().find(|claim| claim.task.id == made.task("c")).expect("claimed");
    scene.finish(c).await;
    assert_eq!(scene.read(&made).await.status, WireStatus::Error, "a cancelled task was part of it");
}

async fn deleting_a_job_takes_everything_with_it(scene: Scene) {
    let made = scene.job("a; b: a; up^; c!").await;
    let single = scene.single(&[made.task("b")]);
    let dependent = single.task.id;
    assert_eq!(scene.store.create_task(single).await.unwrap(), Creation::Created);
    let claims = scene.claim(1).await;
    let other = scene.store.ensure_user("eve", scene.now()).await.unwrap().id;
    assert_eq!(scene.store.delete_job(other, made.id, scene.now()).await.unwrap(), Deletion::NotFound);
    assert_eq!(scene.store.delete_job(scene.user, made.id, scene.now()).await.unwrap(), Deletion::Done);
    assert_eq!(scene.store.delete_job(scene.user, made.id, scene.now()).await.unwrap(), Deletion::NotFound);
    assert_eq!(scene.store.job(scene.user, made.id).await.unwrap(), None);
    for id in made.tasks.values() {
        assert_eq!(scene.store.task(scene.user, *id).await.unwrap(), None);
    }
    assert_eq!(scene.try_finish(&claims[0]).await, Applied::Stale);
    let mut all: Vec<_> = made.tasks.values().copied().collect();
    all.sort_unstable();
    assert_eq!(trash(&scene).await, all);
    assert_eq!(scene.task(dependent).await.state, State::Error, "its input will never come");
    assert!(scene.claim(10).await.is_empty());
    let counts = scene.store.counts(scene.now()).await.unwrap();
    assert_eq!((counts.waiting, counts.queued, counts.running), (0, 0, 0));
}

async fn a_deleted_input_is_gone_but_named(scene: Scene) {
    let made = scene.job("a; b; c: a b").await;
    scene.finish(&scene.claim_one_of_many().await).await;
    assert!(scene.store.delete_task(scene.user, made.task("a"), scene.now()).await.unwrap());
    scene.finish(&scene.claim_one().await).await;
    let claim = scene.claim_one().await;
    assert_eq!(claim.task.depends_on, [made.task("a"), made.task("b")]);
    assert_eq!((&claim.inputs[0].name, claim.inputs[0].files.len()), (&None, 0));
    assert_eq!(claim.inputs[1].files.len(), 1);
}

async fn only_what_ended_long_ago_expires(scene: Scene) {
    let old = scene.job("a; b").await;
    let single = scene.single(&[]);
    let old_task = single.task.id;
    assert_eq!(scene.store.create_task(single).await.unwrap(), Creation::Created);
    let half = scene.job("a; up^").await;
    scene.run_all(&[]).await;
    scene.wait(100);
    let recent = scene.job("a").await;
    scene.run_all(&[]).await;
    let blobs = scene.store.blobs(&[old.task("a")]).await.unwrap();
    assert_eq!(blobs[0].2.len(), 1);
    assert_eq!(expire(&scene, scene.now().minus(Duration::from_secs(100)), 10, 100).await, 0);
    assert_eq!(expire(&scene, scene.now(), 10, 100).await, 2, "a job and a task of its own");
    assert_eq!(scene.store.job(scene.user, old.id).await.unwrap(), None);
    assert_eq!(scene.store.task(scene.user, old_task).await.unwrap(), None);
    assert_eq!(scene.states(&half).await, "processing: a finished, up uploading");
    assert_eq!(scene.states(&recent).await, "finished: a finished");
    let mut gone = vec![old.task("a"), old.task("b"), old_task];
    gone.sort_unstable();
    assert_eq!(trash(&scene).await, gone);
    assert!(scene.store.blobs(&gone).await.unwrap().is_empty());
    assert_eq!(expire(&scene, Timestamp(i64::MAX), 10, 100).await, 1);
}

async fn only_so_many_expire_at_once(scene: Scene) {
    for _ in 0..3 {
        scene.job("a").await;
        assert_eq!(scene.store.create_task(scene.single(&[])).await.unwrap(), Creation::Created);
    }
    scene.run_all(&[]).await;
    scene.wait(1);
    for expected in [4, 2, 0] {
        assert_eq!(expire(&scene, scene.now(), 4, 100).await, expected);
    }
    assert_eq!(trash(&scene).await.len(), 6);
    assert_eq!(scene.store.trash(5).await.unwrap().len(), 5);
}

async fn jobs_of_many_tasks_expire_few_at_once(scene: Scene) {
    let graph = (0..20).map(|n| format!("t{n}")).collect::<Vec<_>>().join("; ");
    let mut made = Vec::new();
    for _ in 0..4 {
        made.push(scene.job(&graph).await);
        scene.run_all(&[]).await;
        scene.wait(1);
    }
    let single = scene.single(&[]);
    assert_eq!(scene.store.create_task(single).await.unwrap(), Creation::Created);
    scene.run_all(&[]).await;
    scene.wait(1);
    let left = async || {
        let ids: Vec<_> = made.iter().map(|made| made.id).collect();
        scene.store.jobs(scene.user, &ids).await.unwrap().len()
    };
    assert_eq!(expire(&scene, scene.now(), 10, 1).await, 1, "one is begun with, however many tasks it has");
    assert_eq!((left().await, trash(&scene).await.len()), (3, 20));
    assert_eq!(expire(&scene, scene.now(), 10, 21).await, 2, "the second one begins below the bound");
    assert_eq!((left().await, trash(&scene).await.len()), (1, 60));
    assert_eq!(expire(&scene, scene.now(), 10, 20).await, 1, "there is no room for the task of its own");
    assert_eq!((left().await, trash(&scene).await.len()), (0, 80));
    assert_eq!(expire(&scene, scene.now(), 10, 20).await, 1);
    assert_eq!(expire(&scene, scene.now(), 10, 20).await, 0);
    assert_eq!(trash(&scene).await.len(), 81);
}

async fn trash_is_taken_for_a_while(scene: Scene) {
    let made = [scene.job("a").await, scene.job("a").await, scene.job("a").await];
    for made in &made {
        scene.wait(1);
        assert_eq!(scene.store.delete_job(scene.user, made.id, scene.now()).await.unwrap(), Deletion::Done);
    }
    let [first, second, third] = made.map(|made| made.task("a"));
    let take = async |limit: u32, now: Timestamp| {
        let taken = scene.store.take_trash(limit, now, now.plus(Duration::from_secs(30))).await.unwrap();
        taken.into_iter().collect::<BTreeSet<_>>()
    };
    let now = scene.now();
    assert_eq!(take(2, now).await, BTreeSet::from([first, second]), "the longest gone");
    assert_eq!(take(2, now).await, BTreeSet::from([third]), "the others have been taken");
    assert_eq!(take(2, now).await, BTreeSet::new());
    assert_eq!(trash(&scene).await.len(), 3, "they are still to be removed");
    scene.store.trash_emptied(&[first]).await.unwrap();
    assert_eq!(take(9, now.plus(Duration::from_secs(29))).await, BTreeSet::new());
    let again = take(9, now.plus(Duration::from_secs(30))).await;
    assert_eq!(again, BTreeSet::from([second, third]), "whoever had them has died");
    scene.store.trash_emptied(&[second, third]).await.unwrap();
    assert_eq!(take(9, now.plus(Duration::from_mins(9))).await, BTreeSet::new());
}

async fn a_turn_is_one_s_own_until_it_ends(scene: Scene) {
    const HOUR: Duration = Duration::from_hours(1);

    let take = async |now: Timestamp| scene.store.take_turn("search", now, now.plus(HOUR)).await.unwrap();
    let began = scene.now();
    assert!(take(began).await);
    assert!(!take(began).await);
    assert!(!take(began.plus(HOUR).minus(Duration::from_micros(1))).await);
    assert!(scene.store.take_turn("something else", began, began.plus(HOUR)).await.unwrap());
    assert!(take(began.plus(HOUR)).await, "it is over");
    assert!(!take(began.plus(HOUR)).await);
    assert!(take(began.minus(HOUR)).await, "nobody can have taken it for so long by now");
    assert!(!take(began.minus(HOUR)).await);
}
