//! `consign signed-url`: makes, lists and revokes the bases of addresses that run a job when they are fetched.

use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::key::parse_name;
use super::{EXIT_FAILED, Failure, Settings, print};
use crate::auth;
use crate::clock::Timestamp;
use crate::id::SignedUrlId;
use crate::model::SignedUrl;
use crate::server::Base;

/// Make, list and revoke signed URLs: addresses that run a job when they are fetched. Works while the server runs.
///
/// A program that knows the secret can put a job into a link, such as the source of a picture on a web page. Whoever
/// opens the link has the job run and gets its file, and can change nothing in it.
#[derive(Debug, Subcommand)]
pub(super) enum SignedUrlCommand {
    Create(Create),
    List(List),
    Revoke(Revoke),
}

/// Make a signed URL. Prints its base, then its secret, each alone on a line of standard output.
///
/// The official clients sign with both: cloudConvert.signedUrls.sign(base, secret, job, cacheKey) in Node. The secret
/// is not shown again.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  consign signed-url create website --user web")]
pub(super) struct Create {
    #[command(flatten)]
    settings: Settings,
    /// Name, to list and revoke it by
    #[arg(value_parser = parse_name)]
    name: String,
    /// Whose jobs are made; the user is made if new
    #[arg(long, default_value = "admin", value_parser = parse_name)]
    user: String,
}

/// List all signed URLs: name, user, base, when they were made, whether they are revoked.
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    settings: Settings,
}

/// Revoke a signed URL: all its links are dead from then on.
#[derive(Debug, Args)]
pub(super) struct Revoke {
    #[command(flatten)]
    settings: Settings,
    /// Name of the signed URL
    name: String,
}

impl SignedUrlCommand {
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
        let secret = auth::new_signing_secret();
        let new = SignedUrl {
            id: SignedUrlId::new(now),
            user_id: user.id,
            name: self.name.clone(),
            secret: base.vault.seal(secret.as_bytes()),
            created_at: now,
            revoked_at: None,
        };
        let address = address(&base, &new);
        let made = base.store.create_signed_url(new).await?;
        base.store.close().await;
        if !made {
            let name = self.name;
            return Err(anyhow::anyhow!(
                "there is a signed URL named `{name}` already; revoke it first (consign signed-url revoke {name}) or choose another name"
            )
            .into());
        }
        print::line(address);
        print::line(secret);
        Ok(ExitCode::SUCCESS)
    }
}

impl List {
    async fn run(self) -> Result<ExitCode, Failure> {
        let base = Base::open(self.settings.load()?, false).await?;
        let all = base.store.list_signed_urls().await?;
        base.store.close().await;
        let mut rows = vec![["NAME", "USER", "STATE", "MADE", "BASE"].map(str::to_owned)];
        for (url, user) in all {
            let state = if url.revoked_at.is_some() { "revoked" } else { "valid" };
            let (made, address) = (Timestamp::wire(url.created_at), address(&base, &url));
            rows.push([url.name, user.name, state.to_owned(), made, address]);
        }
        print::table(&rows);
        Ok(ExitCode::SUCCESS)
    }
}

impl Revoke {
    async fn run(self) -> Result<ExitCode, Failure> {
        let base = Base::open(self.settings.load()?, false).await?;
        let revoked = base.store.revoke_signed_url(&self.name, base.clock.now()).await?;
        base.store.close().await;
        if revoked {
            print::note(format!("revoked `{}`", self.name));
            return Ok(ExitCode::SUCCESS);
        }
        print::note(format!("there is no valid signed URL named `{}`; see consign signed-url list", self.name));
        Ok(ExitCode::from(EXIT_FAILED))
    }
}

/// What its links begin with.
fn address(base: &Base, url: &SignedUrl) -> String {
    format!("{}/s/{}", base.public_url(), url.id)
}
