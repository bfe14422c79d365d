//! Users, keys and signed URLs.

use std::time::Duration;

use async_trait::async_trait;

use super::MemoryStore;
use crate::clock::Timestamp;
use crate::id::{JobId, SignedUrlId, UserId};
use crate::model::{ApiKey, SignedUrl, User, WireStatus};
use crate::store::{Accounts, Creation, NewJob, NewKey, Result, SignedUrls};

/// How long a result is kept for its cache key.
pub(super) const RESULTS_KEPT: Duration = Duration::from_hours(24);

impl super::Rows {
    fn signed_result(&self, id: SignedUrlId, cache_key: &str, now: Timestamp) -> Option<JobId> {
        let (job, created_at) = self.signed_results.get(&(id, cache_key.to_owned()))?;
        let has_failed = self.jobs.get(job)?.job.status == WireStatus::Error;
        (*created_at > now.minus(RESULTS_KEPT) && !has_failed).then_some(*job)
    }
}

#[async_trait]
impl Accounts for MemoryStore {
    async fn ensure_user(&self, name: &str, now: Timestamp) -> Result<User> {
        Ok(self.change(|rows| {
            if let Some(user) = rows.users.values().find(|user| user.name == name) {
                return user.clone();
            }
            let id = UserId(rows.users.keys().next_back().map_or(1, |last| last.0 + 1));
            let user = User { id, name: name.to_owned(), created_at: now };
            rows.users.insert(id, user.clone());
            user
        }))
    }

    async fn user(&self, id: UserId) -> Result<Option<User>> {
        Ok(self.read().users.get(&id).cloned())
    }

    async fn create_key(&self, key: NewKey, now: Timestamp) -> Result<Option<ApiKey>> {
        Ok(self.change(|rows| {
            let is_same = |(hash, other): &&([u8; 32], ApiKey)| *hash == key.hash && other.id == key.id;
            if let Some((_, stored)) = rows.keys.iter().find(is_same) {
                return Some(stored.clone());
            }
            let clashes = |(hash, other): &([u8; 32], ApiKey)| {
                *hash == key.hash || other.id == key.id || (other.name == key.name && other.revoked_at.is_none())
            };
            if rows.keys.iter().any(clashes) {
                return None;
            }
            let NewKey { id, user_id, name, hash, scopes, expires_at } = key;
            let key = ApiKey { id, user_id, name, scopes, created_at: now, expires_at, revoked_at: None };
            rows.keys.push((hash, key.clone()));
            Some(key)
        }))
    }

    async fn key_by_hash(&self, hash: &[u8; 32]) -> Result<Option<(ApiKey, User)>> {
        let rows = self.read();
        let found = rows.keys.iter().find(|(known, _)| known == hash).map(|(_, key)| key.clone());
        Ok(found.map(|key| (key.clone(), rows.users[&key.user_id].clone())))
    }

    async fn list_keys(&self) -> Result<Vec<(ApiKey, User)>> {
        let rows = self.read();
        let mut keys: Vec<ApiKey> = rows.keys.iter().map(|(_, key)| key.clone()).collect();
        keys.sort_by_key(|key| (key.created_at, key.id));
        Ok(keys.into_iter().map(|key| (key.clone(), rows.users[&key.user_id].clone())).collect())
    }

    async fn revoke_key(&self, name: &str, now: Timestamp) -> Result<bool> {
        Ok(self.change(|rows| {
            let key = rows.keys.iter_mut().map(|(_, key)| key);
            let key = key.into_iter().find(|key| key.name == name && key.revoked_at.is_none());
            key.map(|key| key.revoked_at = Some(now)).is_some()
        }))
    }
}

#[async_trait]
impl SignedUrls for MemoryStore {
    async fn create_signed_url(&self, new: SignedUrl) -> Result<bool> {
        Ok(self.change(|rows| {
            let clashes =
                |other: &SignedUrl| other.id == new.id || (other.name == new.name && other.revoked_at.is_none());
            if let Some(other) = rows.signed_urls.iter().find(|other| clashes(other)) {
                return other.id == new.id;
            }
            rows.signed_urls.push(SignedUrl { revoked_at: None, ..new });
            true
        }))
    }

    async fn signed_url(&self, id: SignedUrlId) -> Result<Option<SignedUrl>> {
        Ok(self.read().signed_urls.iter().find(|url| url.id == id).cloned())
    }

    async fn list_signed_urls(&self) -> Result<Vec<(SignedUrl, User)>> {
        let rows = self.read();
        let mut found = rows.signed_urls.clone();
        found.sort_by_key(|url| (url.created_at, url.id));
        Ok(found.into_iter().map(|url| (url.clone(), rows.users[&url.user_id].clone())).collect())
    }

    async fn revoke_signed_url(&self, name: &str, now: Timestamp) -> Result<bool> {
        Ok(self.change(|rows| {
            let url = rows.signed_urls.iter_mut().find(|url| url.name == name && url.revoked_at.is_none());
            url.map(|url| url.revoked_at = Some(now)).is_some()
        }))
    }

    async fn signed_result(&self, id: SignedUrlId, cache_key: &str, now: Timestamp) -> Result<Option<JobId>> {
        Ok(self.read().signed_result(id, cache_key, now))
    }

    async fn create_signed_job(&self, new: NewJob, id: SignedUrlId, cache_key: &str) -> Result<Option<JobId>> {
        Ok(self.change(|rows| {
            let (job, now) = (new.job.id, new.job.created_at);
            if let Some(earlier) = rows.signed_result(id, cache_key, now) {
                return Some(earlier);
            }
            if rows.create_job(new) != Creation::Created {
                return None;
            }
            rows.signed_results.insert((id, cache_key.to_owned()), (job, now));
            Some(job)
        }))
    }
}
