//! The first API key, made when a server starts on an empty database of its own.

use super::{Base, Error, secret};
use crate::auth;
use crate::id::KeyId;
use crate::model::Scope;
use crate::store::NewKey;
use connectors::Secret;

/// Name of the first user and of the first key.
const NAME: &str = "admin";

/// A key that was just made; it is shown once.
#[derive(Clone, Debug)]
pub struct FirstKey {
    /// Its name.
    pub name: &'static str,
    /// The key.
    pub key: Secret,
}

/// What a server finds when it looks for API keys.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// There is one.
    Some,
    /// There is none, and none is made: processes share the database, and whichever made it would write it into its log,
    /// where nobody expects it.
    None,
    /// There was none: this one was made.
    Made(FirstKey),
}

/// Makes a key with all scopes, unless there is one already or it is not this server's business.
pub(super) async fn make_if_none(base: &Base) -> Result<Found, Error> {
    let now = base.clock.now();
    if !base.store.list_keys().await?.is_empty() {
        return Ok(Found::Some);
    }
    if base.is_shared {
        return Ok(Found::None);
    }
    let user = base.store.ensure_user(NAME, now).await?;
    let key = auth::new_key();
    let new = NewKey {
        id: KeyId::new(now),
        user_id: user.id,
        name: NAME.to_owned(),
        hash: auth::hash(&key),
        scopes: Scope::ALL.to_vec(),
        expires_at: None,
    };
    let made = base.store.create_key(new, now).await?;
    Ok(made.map_or(Found::Some, |_| Found::Made(FirstKey { name: NAME, key: secret(key) })))
}
