//! A signed URL: the base of addresses that run a job when they are fetched.

use crate::clock::Timestamp;
use crate::id::{SignedUrlId, UserId};

/// The base of addresses that carry a job, and the secret that they are signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedUrl {
    /// Its id, the last part of the base.
    pub id: SignedUrlId,
    /// Whose jobs it makes.
    pub user_id: UserId,
    /// Its name, unique among those that are not revoked.
    pub name: String,
    /// The sealed secret.
    pub secret: Vec<u8>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}
