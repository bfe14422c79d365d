//! Signed URLs, and what is kept for their cache keys.

use std::time::Duration;

use super::{Scene, cases};
use crate::id::SignedUrlId;
use crate::model::SignedUrl;

cases!(
    names_are_unique_until_revoked,
    a_cache_key_finds_its_job_for_a_day,
    a_failed_or_removed_job_is_not_kept,
    two_at_once_make_one_job,
);

fn signed_url(scene: &Scene, name: &str) -> SignedUrl {
    SignedUrl {
        id: SignedUrlId::new(scene.now()),
        user_id: scene.user,
        name: name.to_owned(),
        secret: vec![1, 2, 3],
        created_at: scene.now(),
        revoked_at: None,
    }
}

async fn made(scene: &Scene, name: &str) -> SignedUrl {
    let new = signed_url(scene, name);
    assert!(scene.store.create_signed_url(new.clone()).await.unwrap());
    new
}

async fn names_are_unique_until_revoked(scene: Scene) {
    let first = made(&scene, "site").await;
    assert!(scene.store.create_signed_url(first.clone()).await.unwrap(), "the answer was lost, and it is run again");
    assert_eq!(scene.store.signed_url(first.id).await.unwrap(), Some(first.clone()));
    assert_eq!(scene.store.signed_url(SignedUrlId::new(scene.now())).await.unwrap(), None);
    assert!(!scene.store.create_signed_url(signed_url(&scene, "site")).await.unwrap());
    scene.wait(1);
    assert!(scene.store.revoke_signed_url("site", scene.now()).await.unwrap());
    assert!(!scene.store.revoke_signed_url("site", scene.now()).await.unwrap(), "only once");
    let revoked = scene.store.signed_url(first.id).await.unwrap().expect("revoked ones stay");
    assert_eq!(revoked.revoked_at, Some(scene.now()));
    let second = made(&scene, "site").await;
    let all = scene.store.list_signed_urls().await.unwrap();
    assert_eq!(all.iter().map(|(url, _)| url.id).collect::<Vec<_>>(), [first.id, second.id], "by time of making");
    assert_eq!(all[0].1.name, "ada");
}

async fn a_cache_key_finds_its_job_for_a_day(scene: Scene) {
    let (url, other) = (made(&scene, "a").await, made(&scene, "b").await);
    let new = scene.new_job(scene.user, "in; out: in");
    let job = scene.store.create_signed_job(new.clone(), url.id, "k").await.unwrap().expect("no input is gone");
    assert_eq!(job, new.job.id);
    assert_eq!(scene.store.signed_result(url.id, "k", scene.now()).await.unwrap(), Some(job));
    assert_eq!(scene.store.signed_result(url.id, "l", scene.now()).await.unwrap(), None);
    assert_eq!(scene.store.signed_result(other.id, "k", scene.now()).await.unwrap(), None);
    let almost = scene.now().plus(Duration::from_hours(24) - Duration::from_secs(1));
    assert_eq!(scene.store.signed_result(url.id, "k", almost).await.unwrap(), Some(job));
    let day = scene.now().plus(Duration::from_hours(24));
    assert_eq!(scene.store.signed_result(url.id, "k", day).await.unwrap(), None);
    scene.clock.advance(Duration::from_hours(24));
    let later = scene.new_job(scene.user, "in");
    assert_eq!(scene.store.create_signed_job(later.clone(), url.id, "k").await.unwrap(), Some(later.job.id));
    assert_eq!(scene.store.signed_result(url.id, "k", scene.now()).await.unwrap(), Some(later.job.id));
}

async fn a_failed_or_removed_job_is_not_kept(scene: Scene) {
    let url = made(&scene, "a").await;
    let first = scene.new_job(scene.user, "in");
    scene.store.create_signed_job(first.clone(), url.id, "k").await.unwrap();
    scene.store.cancel(scene.user, first.job.tasks[0].id, scene.now()).await.unwrap();
    assert_eq!(scene.store.signed_result(url.id, "k", scene.now()).await.unwrap(), None, "it failed");
    let second = scene.new_job(scene.user, "in");
    assert_eq!(scene.store.create_signed_job(second.clone(), url.id, "k").await.unwrap(), Some(second.job.id));
    assert_eq!(
        scene.store.delete_job(scene.user, second.job.id, scene.now()).await.unwrap(),
        crate::store::Deletion::Done
    );
    assert_eq!(scene.store.signed_result(url.id, "k", scene.now()).await.unwrap(), None, "it is gone");
}

async fn two_at_once_make_one_job(scene: Scene) {
    let url = made(&scene, "a").await;
    let (one, two) = (scene.new_job(scene.user, "in"), scene.new_job(scene.user, "in"));
    let (first, second) = tokio::join!(
        scene.store.create_signed_job(one, url.id, "k"),
        scene.store.create_signed_job(two.clone(), url.id, "k"),
    );
    let (first, second) = (first.unwrap().expect("made"), second.unwrap().expect("made"));
    assert_eq!(first, second);
    let lost = if first == two.job.id { None } else { scene.store.job(scene.user, two.job.id).await.unwrap() };
    assert_eq!(lost, None, "the other one was not stored");
}
