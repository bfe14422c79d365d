//! Users and their API keys.

use crate::clock::Timestamp;
use crate::id::{KeyId, UserId};

/// Somebody who owns jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its number.
    pub id: UserId,
    /// Its name, unique.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// An API key; the key itself is known to its owner only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id.
    pub id: KeyId,
    /// Whose it is.
    pub user_id: UserId,
    /// Its name, unique among keys that are not revoked.
    pub name: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it stops working by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl ApiKey {
    /// Whether it may be used at that moment.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|expires| now < expires)
    }
}

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Read the user.
    UserRead,
    /// Change the user.
    UserWrite,
    /// Read and await tasks and jobs.
    TaskRead,
    /// Create, cancel, retry and delete tasks and jobs.
    TaskWrite,
    /// List webhooks.
    WebhookRead,
    /// Create and delete webhooks.
    WebhookWrite,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::UserRead, Self::UserWrite, Self::TaskRead, Self::TaskWrite, Self::WebhookRead, Self::WebhookWrite];

    /// As on the wire, on the command line and in rows.
    pub const fn wire(self) -> &'static str {
        match self {
            Self::UserRead => "user.read",
            Self::UserWrite => "user.write",
            Self::TaskRead => "task.read",
            Self::TaskWrite => "task.write",
            Self::WebhookRead => "webhook.read",
            Self::WebhookWrite => "webhook.write",
        }
    }

    /// Reads the wire form.
    pub fn from_wire(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.wire() == text)
    }
}
