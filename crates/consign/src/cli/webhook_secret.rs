//! `consign webhook-secret`: the secret that signs what a job's own `webhook_url` is told.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use super::key::parse_name;
use super::{Failure, Settings, print};
use crate::auth;
use crate::server::Base;

/// Print the secret that signs what the `webhook_url` of jobs is told, alone, on standard output. It is made when it is
/// first needed. Works while the server runs.
///
/// Webhooks that were created over the API have a secret each: the `signing_secret` of the answer.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  consign webhook-secret --user build --rotate")]
pub(super) struct WebhookSecret {
    #[command(flatten)]
    settings: Settings,
    /// Whose jobs; the user is made if new
    #[arg(long, default_value = "admin", value_parser = parse_name)]
    user: String,
    /// Make a new secret. What is sent from then on is signed with it, also what was tried before
    #[arg(long)]
    rotate: bool,
}

impl WebhookSecret {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let base = Base::open(self.settings.load()?, false).await?;
        let now = base.clock.now();
        let user = base.store.ensure_user(&self.user, now).await?;
        let fresh = base.vault.seal(auth::new_signing_secret().as_bytes());
        if self.rotate {
            base.store.rotate_webhook_secret(user.id, &fresh, now).await?;
        }
        let sealed = base.store.webhook_secret(user.id, &fresh, now).await?;
        base.store.close().await;
        let secret = base.vault.open(&sealed)?;
        print::line(String::from_utf8(secret).context("the secret is not text; make a new one with --rotate")?);
        Ok(ExitCode::SUCCESS)
    }
}
