//! Users and keys in the store.

use async_trait::async_trait;

use super::Result;
use crate::clock::Timestamp;
use crate::id::{KeyId, UserId};
use crate::model::{ApiKey, Scope, User};

/// A key to be stored.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// Its id.
    pub id: KeyId,
    /// Whose it is.
    pub user_id: UserId,
    /// Its name.
    pub name: String,
    /// SHA-256 of the key itself.
    pub hash: [u8; 32],
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it stops working by itself.
    pub expires_at: Option<Timestamp>,
}

/// Users and keys.
#[async_trait]
pub trait Accounts: Send + Sync {
    /// Finds a user by name, or makes it.
    async fn ensure_user(&self, name: &str, now: Timestamp) -> Result<User>;

    /// Finds a user.
    async fn user(&self, id: UserId) -> Result<Option<User>>;

    /// Stores a key, once however often it is asked for; `None` when another key of that name exists that is not revoked.
    async fn create_key(&self, key: NewKey, now: Timestamp) -> Result<Option<ApiKey>>;

    /// Finds a key, valid or not, and its user by the hash of the key.
    async fn key_by_hash(&self, hash: &[u8; 32]) -> Result<Option<(ApiKey, User)>>;

    /// All keys with their users, revoked ones too, by time of making.
    async fn list_keys(&self) -> Result<Vec<(ApiKey, User)>>;

    /// Revokes the key of that name; `false` when there is none that is not revoked.
    async fn revoke_key(&self, name: &str, now: Timestamp) -> Result<bool>;
}
