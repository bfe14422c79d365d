//! Signed URLs in the store, and the results that are kept for their cache keys.

use async_trait::async_trait;

use super::{NewJob, Result};
use crate::clock::Timestamp;
use crate::id::{JobId, SignedUrlId};
use crate::model::{SignedUrl, User};

/// Signed URLs.
#[async_trait]
pub trait SignedUrls: Send + Sync {
    /// Stores one, once however often it is asked for; `false` when there is another one of that name that is not revoked.
    async fn create_signed_url(&self, new: SignedUrl) -> Result<bool>;

    /// Finds one, revoked or not.
    async fn signed_url(&self, id: SignedUrlId) -> Result<Option<SignedUrl>>;

    /// All of them with their users, revoked ones too, by time of making.
    async fn list_signed_urls(&self) -> Result<Vec<(SignedUrl, User)>>;

    /// Revokes the one of that name; `false` when there is none that is not revoked.
    async fn revoke_signed_url(&self, name: &str, now: Timestamp) -> Result<bool>;

    /// The job whose result is kept for a cache key: one of the last 24 hours that is still there and has not failed.
    async fn signed_result(&self, id: SignedUrlId, cache_key: &str, now: Timestamp) -> Result<Option<JobId>>;

    /// Stores a job unless there is one whose result is kept for the cache key; either way returns the job to wait
    /// for. `None` when a task that is named as input does not exist any more.
    async fn create_signed_job(&self, new: NewJob, id: SignedUrlId, cache_key: &str) -> Result<Option<JobId>>;
}
