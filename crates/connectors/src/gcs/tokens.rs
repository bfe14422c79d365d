//! Access tokens: a service account signs that it is who it is, and gets one for an hour.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::endpoint;
use super::keys::SigningKey;
use super::{Config, TOKEN, errors};
use crate::address;
use crate::clock;
use crate::error::{ARGUMENTS, Error, Kind, Result};
use crate::http::{Body, Client, Reply};
use crate::retry;
use crate::secret::Secret;

const GOOGLE: &str = "https://oauth2.googleapis.com/token";
/// What a token is asked for: objects of any bucket, as far as the account may.
const SCOPE: &str = "https://www.googleapis.com/auth/devstorage.read_write";
/// What an assertion holds for; Google takes no more.
const ASSERTION_SECS: u64 = 3600;
/// How long before its end a token is no longer used.
const RENEWED_BEFORE: Duration = Duration::from_mins(5);
/// What a token is taken to hold for that does not say, and the most that is believed.
const LIFE_DEFAULT: Duration = Duration::from_hours(1);
const LIFE_MAX: Duration = Duration::from_hours(24);
/// Accounts whose tokens are kept.
const ACCOUNTS_MAX: usize = 1000;
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The access tokens of a process, so that all transfers of a service account share one. Cheap to clone.
#[derive(Clone, Default)]
pub struct Tokens(Arc<StdMutex<HashMap<Id, Kept>>>);

/// A hash of e-mail address, key and token URL: who does not know the key does not find the token.
type Id = [u8; 32];
/// Locked while a token is fetched, so that only one is.
type Slot = Arc<Mutex<Option<Token>>>;

struct Kept {
    slot: Slot,
    used: Instant,
}

struct Token {
    text: Secret,
    usable_until: Instant,
}

impl Tokens {
    fn slot(&self, id: Id) -> Slot {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(&id)
            && all.len() >= ACCOUNTS_MAX
            && let Some(oldest) = all.iter().min_by_key(|(_, kept)| kept.used).map(|(id, _)| *id)
        {
            all.remove(&oldest);
        }
        let used = Instant::now();
        let kept = all.entry(id).or_insert_with(|| Kept { slot: Slot::default(), used });
        kept.used = used;
        Arc::clone(&kept.slot)
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(***)")
    }
}

/// A service account.
pub(super) struct Account {
    pub(super) client_email: String,
    key: SigningKey,
    token_uri: String,
    /// Host and port of the token URL, for people.
    host: String,
    slot: Slot,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").field("client_email", &self.client_email).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Issued {
    access_token: Secret,
    expires_in: Option<u64>,
}

impl Account {
    pub(super) fn new(config: &Config, tokens: &Tokens) -> Result<Self> {
        let client_email = config.client_email.trim().to_owned();
        let key_text = config.private_key.expose();
        if client_email.is_empty() || key_text.trim().is_empty() {
            let detail = "`client_email` and `private_key` are both needed";
            return Err(Error::new(Kind::InvalidCredentials, ARGUMENTS, detail));
        }
        let key = SigningKey::read(key_text)?;
        let url = endpoint::read(config.token_uri.as_deref(), GOOGLE, "token_uri")?;
        let host = address::host_of(&url);
        let mut hash = digest::Context::new(&digest::SHA256);
        for part in [client_email.as_str(), "\0", key_text, "\0", url.as_str()] {
            hash.update(part.as_bytes());
        }
        let mut id = Id::default();
        id.copy_from_slice(hash.finish().as_ref());
        Ok(Self { client_email, key, token_uri: url.into(), host, slot: tokens.slot(id) })
    }

    /// A token that is good for a while yet, and is not `refused`. Where one must be fetched, the others wait for it.
    ///
    /// # Cancel safety
    /// When dropped while it fetches a token, whoever waits fetches one.
    pub(super) async fn token(&self, client: &Client, tries: u32, refused: Option<&Secret>) -> Result<Secret> {
        let mut slot = self.slot.lock().await;
        let is_good = |token: &&Token| Instant::now() < token.usable_until && Some(&token.text) != refused;
        if let Some(token) = slot.as_ref().filter(is_good) {
            return Ok(token.text.clone());
        }
        *slot = None;
        let token = retry::request(tries, |_| self.issue(client)).await?;
        Ok(slot.insert(token).text.clone())
    }

    /// # Source
    /// RFC 7523; Google Identity, "Using OAuth 2.0 for Server to Server Applications", "HTTP/REST".
    async fn issue(&self, client: &Client) -> Result<Token> {
        let assertion = self.assertion()?;
        let body = format!("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion={assertion}");
        let request = http::Request::post(&self.token_uri)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
            .body(Body::from(body))
            .map_err(|error| Error::new(Kind::InvalidRequest, TOKEN, "`token_uri` is not a URL").because(error))?;
        let asked = Instant::now();
        let response = client.send(request, TOKEN).await?;
        if !response.status().is_success() {
            let reply = Reply::refused(response).await;
            return Err(errors::token_refusal(&self.host, &reply, &assertion.into()));
        }
        let body = Reply::read(response, ANSWER_BYTES_MAX).await?.body;
        // The cause is left out: it may quote the token.
        let issued: Issued = serde_json::from_slice(&body).map_err(|_| unclear(&self.host))?;
        if issued.access_token.expose().is_empty() || HeaderValue::try_from(issued.access_token.expose()).is_err() {
            return Err(unclear(&self.host));
        }
        let life = issued.expires_in.map_or(LIFE_DEFAULT, Duration::from_secs).min(LIFE_MAX);
        // A token that is short-lived by design is used for nine tenths of its life.
        let usable = life.saturating_sub(RENEWED_BEFORE.min(life / 10));
        Ok(Token { text: issued.access_token, usable_until: asked + usable })
    }

    /// The signed word of the account that it wants a token.
    fn assertion(&self) -> Result<String> {
        let now = clock::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = json!({
            "iss": self.client_email,
            "scope": SCOPE,
            "aud": self.token_uri,
            "iat": now,
            "exp": now + ASSERTION_SECS,
        });
        let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
        let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.key.sign(signed.as_bytes())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

fn unclear(host: &str) -> Error {
    let detail = format!("the answer of {host} holds no access token; check `token_uri`");
    Error::new(Kind::Protocol, TOKEN, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_account_is_forgotten() {
        let tokens = Tokens::default();
        let id = |number: usize| {
            let mut id = Id::default();
            id[..8].copy_from_slice(&number.to_le_bytes());
            id
        };
        let slots: Vec<Slot> = (0..ACCOUNTS_MAX).map(|number| tokens.slot(id(number))).collect();
        assert!(Arc::ptr_eq(&slots[0], &tokens.slot(id(0))));
        tokens.slot(id(ACCOUNTS_MAX));
        assert_eq!(tokens.0.lock().unwrap().len(), ACCOUNTS_MAX);
        assert!(Arc::ptr_eq(&slots[0], &tokens.slot(id(0))), "it was just used");
        assert!(!Arc::ptr_eq(&slots[1], &tokens.slot(id(1))));
    }
}
