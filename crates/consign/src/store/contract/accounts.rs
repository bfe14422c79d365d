//! Users, their secrets and keys.

use std::time::Duration;

use super::{Scene, cases};
use crate::id::{KeyId, UserId};
use crate::model::Scope;
use crate::store::NewKey;

cases!(
    users_are_made_once,
    secrets_of_jobs_are_made_once_and_rotated,
    keys_are_found_by_hash,
    names_of_keys_are_unique_until_revoked,
);

fn key(scene: &Scene, name: &str, hash: u8) -> NewKey {
    NewKey {
        id: KeyId::new(scene.now()),
        user_id: scene.user,
        name: name.to_owned(),
        hash: [hash; 32],
        scopes: vec![Scope::TaskRead, Scope::TaskWrite],
        expires_at: Some(scene.now().plus(Duration::from_secs(9))),
    }
}

async fn users_are_made_once(scene: Scene) {
    let ada = scene.store.ensure_user("ada", scene.now().plus(Duration::from_secs(5))).await.unwrap();
    assert_eq!((ada.id, ada.name.as_str(), ada.created_at), (scene.user, "ada", scene.now()));
    let eve = scene.store.ensure_user("eve", scene.now()).await.unwrap();
    assert_ne!(eve.id, ada.id);
    assert_eq!(scene.store.user(eve.id).await.unwrap(), Some(eve));
    assert_eq!(scene.store.user(UserId(99)).await.unwrap(), None);
    assert_eq!(scene.store.counts(scene.now()).await.unwrap().users, 2);
    scene.store.ping().await.unwrap();
}

async fn secrets_of_jobs_are_made_once_and_rotated(scene: Scene) {
    for _ in 0..2 {
        assert_eq!(scene.store.webhook_secret(scene.user, b"one", scene.now()).await.unwrap(), b"one");
    }
    assert_eq!(scene.store.webhook_secret(scene.user, b"two", scene.now()).await.unwrap(), b"one");
    scene.store.rotate_webhook_secret(scene.user, b"three", scene.now()).await.unwrap();
    assert_eq!(scene.store.webhook_secret(scene.user, b"two", scene.now()).await.unwrap(), b"three");
    let eve = scene.store.ensure_user("eve", scene.now()).await.unwrap().id;
    assert_eq!(scene.store.webhook_secret(eve, b"hers", scene.now()).await.unwrap(), b"hers");
}

async fn keys_are_found_by_hash(scene: Scene) {
    let made = scene.store.create_key(key(&scene, "ci", 1), scene.now()).await.unwrap().expect("it is new");
    let (found, user) = scene.store.key_by_hash(&[1; 32]).await.unwrap().expect("it was made");
    assert_eq!((&found, user.name.as_str()), (&made, "ada"));
    assert_eq!(found.scopes, [Scope::TaskRead, Scope::TaskWrite]);
    assert!(found.is_valid(scene.now()));
    assert!(!found.is_valid(scene.now().plus(Duration::from_secs(9))));
    assert_eq!(scene.store.key_by_hash(&[2; 32]).await.unwrap(), None);
}

async fn names_of_keys_are_unique_until_revoked(scene: Scene) {
    let new = key(&scene, "ci", 1);
    let made = scene.store.create_key(new.clone(), scene.now()).await.unwrap();
    assert!(made.is_some());
    let again = scene.store.create_key(new.clone(), scene.now().plus(Duration::from_secs(1))).await.unwrap();
    assert_eq!(again, made, "the answer was lost after the commit, and it is run again");
    let other = NewKey { id: KeyId::new(scene.now()), ..new };
    assert_eq!(scene.store.create_key(other, scene.now()).await.unwrap(), None, "the same key with another id");
    assert!(scene.store.create_key(key(&scene, "ci", 2), scene.now()).await.unwrap().is_none());
    assert!(!scene.store.revoke_key("other", scene.now()).await.unwrap());
    scene.wait(1);
    assert!(scene.store.revoke_key("ci", scene.now()).await.unwrap());
    assert!(!scene.store.revoke_key("ci", scene.now()).await.unwrap(), "only once");
    let (revoked, _) = scene.store.key_by_hash(&[1; 32]).await.unwrap().expect("revoked keys stay");
    assert_eq!(revoked.revoked_at, Some(scene.now()));
    scene.wait(1);
    assert!(scene.store.create_key(key(&scene, "ci", 2), scene.now()).await.unwrap().is_some());
    let all = scene.store.list_keys().await.unwrap();
    let hashes: Vec<bool> = all.iter().map(|(key, _)| key.revoked_at.is_some()).collect();
    assert_eq!(hashes, [true, false], "by time of making");
    assert_eq!(scene.store.counts(scene.now()).await.unwrap().keys, 1);
}
