//! Lists, pages and filters.

use super::{Scene, cases};
use crate::id::{JobId, KeyId, TaskId, UserId};
use crate::model::{Origin, Page, WireStatus};
use crate::store::{Creation, JobFilter, Load, TaskFilter};

cases!(
    pages_are_newest_first,
    jobs_are_filtered,
    tasks_are_filtered,
    tasks_are_read_in_the_given_order,
    jobs_are_read_by_id,
    counts_count
);

fn jobs_of(user_id: UserId) -> JobFilter {
    JobFilter { user_id, status: None, tag: None, key_id: None, with_tasks: false }
}

fn tasks_of(user_id: UserId) -> TaskFilter {
    TaskFilter { user_id, job_id: None, status: None, operation: None }
}

const ALL: Page = Page { number: 1, size: 100 };

async fn jobs(scene: &Scene, filter: &JobFilter) -> Vec<JobId> {
    scene.store.list_jobs(filter, ALL).await.unwrap().0.iter().map(|job| job.id).collect()
}

async fn tasks(scene: &Scene, filter: &TaskFilter) -> Vec<TaskId> {
    scene.store.list_tasks(filter, ALL).await.unwrap().0.iter().map(|task| task.id).collect()
}

async fn pages_are_newest_first(scene: Scene) {
    let mut made = Vec::new();
    for _ in 0..5 {
        scene.wait(1);
        made.insert(0, scene.job("a").await);
    }
    let filter = jobs_of(scene.user);
    for (number, range, more) in [(1, 0..2, true), (2, 2..4, true), (3, 4..5, false), (4, 5..5, false)] {
        let (page, has_more) = scene.store.list_jobs(&filter, Page { number, size: 2 }).await.unwrap();
        let ids: Vec<_> = page.iter().map(|job| job.id).collect();
        assert_eq!(ids, made[range].iter().map(|job| job.id).collect::<Vec<_>>());
        assert_eq!(has_more, more, "page {number}");
        assert!(page.iter().all(|job| job.tasks.is_empty()));
    }
    let (page, more) = scene.store.list_tasks(&tasks_of(scene.user), Page { number: 1, size: 5 }).await.unwrap();
    assert!(!more, "exactly full");
    let ids: Vec<_> = page.iter().map(|task| task.id).collect();
    assert_eq!(ids, made.iter().map(|job| job.task("a")).collect::<Vec<_>>());
}

async fn jobs_are_read_by_id(scene: Scene) {
    let other = scene.store.ensure_user("eve", scene.now()).await.unwrap().id;
    let theirs = scene.job_of(other, "a").await;
    let mine = scene.job("a; b: a").await;
    let found = scene.store.jobs(scene.user, &[theirs.id, mine.id, JobId::new(scene.now())]).await.unwrap();
    assert_eq!(found.iter().map(|job| (job.id, job.tasks.len())).collect::<Vec<_>>(), [(mine.id, 0)]);
    let many: Vec<_> = (0..500).map(|_| JobId::new(scene.now())).chain([mine.id]).collect();
    assert_eq!(scene.store.jobs(scene.user, &many).await.unwrap().len(), 1);
}

async fn jobs_are_filtered(scene: Scene) {
    let other = scene.store.ensure_user("eve", scene.now()).await.unwrap().id;
    let theirs = scene.job_of(other, "a").await;
    let key = KeyId::new(scene.now());
    let mut new = scene.new_job(scene.user, "a; b: a");
    new.job.tag = Some("t".to_owned());
    new.job.origin = Origin::Key(key);
    let tagged = new.job.id;
    assert_eq!(scene.store.create_job(new).await.unwrap(), Creation::Created);
    scene.wait(1);
    let plain = scene.job("c").await;
    assert_eq!(jobs(&scene, &jobs_of(other)).await, [theirs.id]);
    assert_eq!(jobs(&scene, &jobs_of(scene.user)).await, [plain.id, tagged]);
    let with = JobFilter { tag: Some("t".to_owned()), ..jobs_of(scene.user) };
    assert_eq!(jobs(&scene, &with).await, [tagged]);
    let with = JobFilter { key_id: Some(key), ..jobs_of(scene.user) };
    assert_eq!(jobs(&scene, &with).await, [tagged]);
    let with = JobFilter { with_tasks: true, ..with };
    let full = scene.store.list_jobs(&with, ALL).await.unwrap().0;
    assert_eq!(full, [scene.store.job(scene.user, tagged).await.unwrap().expect("it exists")]);
    scene.run_all(&[plain.task("c")]).await;
    for (status, expected) in [
        (WireStatus::Waiting, &[][..]),
        (WireStatus::Processing, &[]),
        (WireStatus::Finished, &[tagged]),
        (WireStatus::Error, &[plain.id]),
    ] {
        let with = JobFilter { status: Some(status), ..jobs_of(scene.user) };
        assert_eq!(jobs(&scene, &with).await, expected, "{status:?}");
    }
}

async fn tasks_are_filtered(scene: Scene) {
    let made = scene.job("run; late; back; bad; blocked: back; up^; queued").await;
    let claims = scene.claim(4).await;
    let of = |name: &str| claims.iter().find(|claim| claim.task.id == made.task(name)).expect("claimed in order");
    let (late, back) = (of("late"), of("back"));
    let _ = scene.store.delay(late.task.id, late.token, scene.now(), scene.now()).await.unwrap();
    let _ = scene.store.give_back(back.task.id, back.token, scene.now()).await.unwrap();
    scene.fail(of("bad")).await;
    let job = scene.read(&made).await;
    for status in WireStatus::ALL {
        let with = TaskFilter { status: Some(status), ..tasks_of(scene.user) };
        let mut found = tasks(&scene, &with).await;
        found.sort_unstable();
        let mut expected: Vec<_> = job
            .tasks
            .iter()
            .filter(|task| task.state.wire(task.started_at.is_some()) == status)
            .map(|task| task.id)
            .collect();
        expected.sort_unstable();
        assert_eq!(found, expected, "{status:?}");
        assert_eq!(found.is_empty(), status == WireStatus::Finished);
    }
    let other = scene.job("a").await;
    let with = TaskFilter { job_id: Some(other.id), ..tasks_of(scene.user) };
    assert_eq!(tasks(&scene, &with).await, [other.task("a")]);
    let with = TaskFilter { operation: Some("import/upload".to_owned()), ..tasks_of(scene.user) };
    assert_eq!(tasks(&scene, &with).await, [made.task("up")]);
}

async fn tasks_are_read_in_the_given_order(scene: Scene) {
    let other = scene.store.ensure_user("eve", scene.now()).await.unwrap().id;
    let theirs = scene.job_of(other, "a").await.task("a");
    let made = scene.job("a; b; c: a b").await;
    let wanted = [made.task("c"), TaskId::new(scene.now()), made.task("a"), theirs];
    let read = scene.store.tasks(scene.user, &wanted).await.unwrap();
    assert_eq!(read, [scene.task(made.task("c")).await, scene.task(made.task("a")).await]);
    assert!(scene.store.tasks(scene.user, &[]).await.unwrap().is_empty());
}

async fn counts_count(scene: Scene) {
    scene.job("a; b; c: a; up^").await;
    scene.wait(7);
    let claim = scene.claim_one_of_many().await;
    let counts = scene.store.counts(scene.now()).await.unwrap();
    assert_eq!((counts.waiting, counts.queued, counts.delayed, counts.running), (2, 1, 0, 1));
    assert_eq!(counts.oldest_queued_secs, 7);
    assert_eq!(claim.ready_at, Some(scene.now().minus(std::time::Duration::from_secs(7))), "since when it was ready");
    assert_eq!(scene.store.loads(5).await.unwrap(), [Load { user: scene.user, queued: 1, running: 1 }]);
    let _ = scene.store.delay(claim.task.id, claim.token, scene.now(), scene.now()).await.unwrap();
    let counts = scene.store.counts(scene.now()).await.unwrap();
    assert_eq!((counts.waiting, counts.queued, counts.delayed, counts.running), (2, 1, 1, 0));
    let busy = scene.store.ensure_user("busy", scene.now()).await.unwrap().id;
    scene.job_of(busy, "a; b; c: a").await;
    let theirs = Load { user: busy, queued: 2, running: 0 };
    let ours = Load { user: scene.user, queued: 1, running: 0 };
    assert_eq!(scene.store.loads(5).await.unwrap(), [theirs, ours], "who has the most comes first");
    assert_eq!(scene.store.loads(1).await.unwrap(), [theirs]);
}
