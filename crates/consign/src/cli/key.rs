//! `consign key`: makes, lists and revokes API keys, also while the server runs.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{EXIT_FAILED, Failure, Settings, print};
use crate::auth;
use crate::clock::Timestamp;
use crate::config::Period;
use crate::id::KeyId;
use crate::model::Scope;
use crate::server::Base;
use crate::store::NewKey;

/// Longest name of a key or a user.
const NAME_BYTES_MAX: usize = 255;

/// Make, list and revoke API keys. Works while the server runs.
#[derive(Debug, Subcommand)]
pub(super) enum Key {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Make an API key and print it, alone, on standard output. It is not stored and cannot be shown again.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  KEY=$(consign key create ci --user build --scope task.read --scope task.write --expires 90d)"
)]
pub(super) struct Create {
    #[command(flatten)]
    settings: Settings,
    /// Name of the key, to list and revoke it by
    #[arg(value_parser = parse_name)]
    name: String,
    /// Whose key it is; the user is made if new. Users do not see each other's jobs
    #[arg(long, default_value = "admin", value_parser = parse_name)]
    user: String,
    /// What the key may do; several scopes may be given. Default: everything
    #[arg(long = "scope", value_name = "SCOPE", value_parser = parse_scope, num_args = 1.., value_delimiter = ',')]
    scopes: Vec<Scope>,
    /// When the key stops working, such as 90d or 12h. Default: never
    #[arg(long, value_name = "TIME", value_parser = parse_expiry)]
    expires: Option<Period>,
}

/// List all keys: name, user, scopes, when they were made and when they expire.
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    settings: Settings,
}

/// Revoke a key: requests with it are refused from then on.
#[derive(Debug, Args)]
pub(super) struct Revoke {
    #[command(flatten)]
    settings: Settings,
    /// Name of the key
    name: String,
}

fn parse_scope(text: &str) -> Result<Scope, String> {
    let known = || Scope::ALL.map(Scope::wire).join(", ");
    Scope::from_wire(text).ok_or_else(|| format!("there is no scope `{text}`; scopes are {}", known()))
}

pub(super) fn parse_name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!("a name has 1 to {NAME_BYTES_MAX} bytes and no control characters"));
    }
    Ok(text.to_owned())
}

fn parse_expiry(text: &str) -> Result<Period, String> {
    let period: Period = text.parse()?;
    if period.0.is_zero() { Err("it would have expired already".to_owned()) } else { Ok(period) }
}

impl Key {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Create(command) => command.run().await,
            Self::List(command) => command.run().await,
            Self::Revoke(command) => command.run().await,
        }
    }
}

impl Create {
    async fn run(self) -> Result<ExitCode, Failure> {
        let base = Base::open(self.settings.load()?, false).await?;
        let now = base.clock.now();
        let user = base.store.ensure_user(&self.user, now).await?;
        let key = auth::new_key();
        let new = NewKey {
            id: KeyId::new(now),
            user_id: user.id,
            name: self.name.clone(),
            hash: auth::hash(&key),
            scopes: if self.scopes.is_empty() { Scope::ALL.to_vec() } else { self.scopes },
            expires_at: self.expires.map(|period| now.plus(period.0)),
        };
        let made = base.store.create_key(new, now).await?;
        base.store.close().await;
        if made.is_none() {
            let name = self.name;
            return Err(anyhow::anyhow!(
                "there is a key named `{name}` already; revoke it first (consign key revoke {name}) or choose another name"
            )
            .into());
        }
        print::line(key);
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    async fn run(self) -> Result<ExitCode, Failure> {
        let base = Base::open(self.settings.load()?, false).await?;
        let keys = base.store.list_keys().await?;
        base.store.close().await;
        let now = base.clock.now();
        let mut rows = vec![["NAME", "USER", "STATE", "MADE", "EXPIRES", "SCOPES"].map(str::to_owned)];
        for (key, user) in keys {
            let state = match key.revoked_at {
                Some(_) => "revoked",
                None if key.is_valid(now) => "valid",
                None => "expired",
            };
            let scopes = if key.scopes.len() == Scope::ALL.len() {
                "all".to_owned()
            } else {
                key.scopes.iter().map(|scope| scope.wire()).collect::<Vec<_>>().join(" ")
            };
            let expires = key.expires_at.map_or_else(|| "never".to_owned(), Timestamp::wire);
            rows.push([key.name, user.name, state.to_owned(), key.created_at.wire(), expires, scopes]);
        }
        print::table(&rows);
        Ok(ExitCode::SUCCESS)
    }
}

impl Revoke {
    async fn run(self) -> Result<ExitCode, Failure> {
        let base = Base::open(self.settings.load()?, false).await?;
        let revoked = base.store.revoke_key(&self.name, base.clock.now()).await?;
        base.store.close().await;
        if revoked {
            print::note(format!("revoked `{}`", self.name));
            return Ok(ExitCode::SUCCESS);
        }
        print::note(format!("there is no valid key named `{}`; see consign key list", self.name));
        Ok(ExitCode::from(EXIT_FAILED))
    }
}
