//! From a TCP connection to an SFTP session: key exchange, host key, log-in, subsystem.

use std::borrow::Cow;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use russh::client::{self, AuthResult, DisconnectReason, GexParams, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{AlgorithmKind, ChannelMsg, ChannelStream, MethodKind, MethodSet, Preferred, cipher};
use tokio::io::BufReader;
use tokio::time::timeout;

use super::errors;
use super::keys::Pin;
use super::session::Session;
use super::{Account, Config};
use crate::egress::Guard;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;

const CONNECTING: &str = "connecting";
const LOGGING_IN: &str = "logging in";

/// Ciphers, the quickest first: AES-GCM costs half of what `ChaCha20` does where the processor knows AES.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_256_GCM,
    cipher::AES_128_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_192_CTR,
    cipher::AES_128_CTR,
];
/// Bits of a Diffie-Hellman group: the least that is taken, the size that is asked for, the most.
const GROUP_BITS: [usize; 3] = [2048, 3072, 8192];
/// Bytes that are read from the socket at once: the library asks for the length of a packet, then for the rest of it.
const READ_BYTES: usize = 64 * 1024;
/// Unanswered signs of life after which the connection counts as dead.
const KEEPALIVES_MAX: usize = 3;
/// Rounds of questions that a server may ask in one keyboard-interactive log-in.
const QUESTION_ROUNDS_MAX: usize = 8;

/// What the connection's own task learns, for those who use the connection.
#[derive(Debug, Default)]
pub(super) struct Seen {
    secrets: Vec<Secret>,
    fingerprint: OnceLock<String>,
    ended: Mutex<Option<Ended>>,
}

#[derive(Clone, Debug)]
struct Ended {
    kind: Kind,
    detail: String,
}

impl Seen {
    fn new(account: &Account) -> Self {
        Self { secrets: account.config.password.iter().cloned().collect(), ..Self::default() }
    }

    /// What the server was told, and may repeat in its words.
    pub(super) fn secrets(&self) -> &[Secret] {
        &self.secrets
    }

    /// The error of a failed connection.
    fn ssh(&self, error: &russh::Error, action: &'static str, peer: &str) -> Error {
        errors::ssh(error, action, peer, &self.secrets)
    }

    /// Fingerprint of the host key, `SHA256:…`.
    pub(super) fn fingerprint(&self) -> Option<String> {
        self.fingerprint.get().cloned()
    }

    /// Why the connection ended.
    pub(super) fn lost(&self, action: &'static str, peer: &str) -> Error {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match ended {
            Some(Ended { kind, detail }) => Error::new(kind, action, detail),
            None => Error::new(Kind::Unreachable, action, format!("{peer} ended the SFTP session")),
        }
    }

    /// Whether the whole connection has ended, and not only what goes over it.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// Answers the questions of the connection's own task.
#[derive(Debug)]
pub(super) struct Watcher {
    pin: Option<Pin>,
    peer: String,
    seen: Arc<Seen>,
}

impl client::Handler for Watcher {
    type Error = russh::Error;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> std::result::Result<bool, russh::Error> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else { return Ok(false) };
        // A new key exchange shows the key again; it has to be the same, which the library checks.
        self.seen.fingerprint.get_or_init(|| key.fingerprint(HashAlg::Sha256).to_string());
        Ok(self.pin.as_ref().is_none_or(|pin| pin.accepts(key)))
    }

    async fn disconnected(&mut self, reason: DisconnectReason<russh::Error>) -> std::result::Result<(), russh::Error> {
        let (ended, result) = match reason {
            DisconnectReason::ReceivedDisconnect(said) => {
                let detail = format!(
                    "{} closed the connection: {}",
                    self.peer,
                    errors::words(&said.message, &self.seen.secrets)
                );
                (Ended { kind: Kind::Unreachable, detail }, Ok(()))
            }
            DisconnectReason::Error(error) => {
                let Error { kind, detail, .. } = self.seen.ssh(&error, CONNECTING, &self.peer);
                (Ended { kind, detail }, Err(error))
            }
        };
        *self.seen.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
        result
    }
}

/// Connects and logs in.
///
/// # Errors
/// The guard's; [`Kind::HostKeyMismatch`], [`Kind::InvalidCredentials`], [`Kind::Unsupported`], [`Kind::Timeout`],
/// [`Kind::Unreachable`], [`Kind::Protocol`].
pub(super) async fn open(account: &Account, guard: &Guard) -> Result<Session> {
    let config = &account.config;
    let peer = account.peer();
    let (mut ssh, seen) = handshake(account, guard, &peer).await?;
    let log_in = async {
        authenticate(&mut ssh, account, &seen, &peer).await?;
        subsystem(&ssh, &seen, &peer).await
    };
    let stream = within(config.limits.idle_timeout, LOGGING_IN, &peer, log_in).await?;
    within(config.limits.idle_timeout, LOGGING_IN, &peer, Session::start(ssh, stream, account, seen)).await
}

async fn within<T>(
    time: Duration,
    action: &'static str,
    peer: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let late = || Error::new(Kind::Timeout, action, format!("{peer} did not answer within {} s", time.as_secs()));
    timeout(time, work).await.unwrap_or_else(|_| Err(late()))
}

/// Connects, exchanges keys and checks the host key; with a pinned fingerprint once for each kind of key.
async fn handshake(account: &Account, guard: &Guard, peer: &str) -> Result<(Handle<Watcher>, Arc<Seen>)> {
    let kinds = account.pin.as_ref().map_or_else(|| vec![Preferred::DEFAULT.key.into_owned()], Pin::algorithms);
    let mut shown: Vec<String> = Vec::new();
    for algorithms in kinds {
        let seen = Arc::new(Seen::new(account));
        match exchange(account, guard, peer, algorithms, &seen).await? {
            Ok(ssh) => return Ok((ssh, seen)),
            Err(russh::Error::UnknownKey) => shown.extend(seen.fingerprint()),
            Err(russh::Error::NoCommonAlgo { kind: AlgorithmKind::Key, .. }) if account.pin.is_some() => {}
            Err(error) => return Err(seen.ssh(&error, CONNECTING, peer)),
        }
    }
    let shown = if shown.is_empty() { "a key of another kind".to_owned() } else { shown.join(", ") };
    let detail = format!(
        "the host key of {peer} is {shown}, not the one that host_key asks for; make sure that it is the right server"
    );
    Err(Error::new(Kind::HostKeyMismatch, "checking the host key", detail))
}

async fn exchange(
    account: &Account,
    guard: &Guard,
    peer: &str,
    algorithms: Vec<Algorithm>,
    seen: &Arc<Seen>,
) -> Result<std::result::Result<Handle<Watcher>, russh::Error>> {
    let Config { host, port, limits, .. } = &account.config;
    let stream = guard.connect(host, *port, limits.connect_timeout).await?;
    let stream = BufReader::with_capacity(READ_BYTES, stream);
    let watcher = Watcher { pin: account.pin.clone(), peer: peer.to_owned(), seen: Arc::clone(seen) };
    let connecting = client::connect_stream(Arc::new(settings(limits.idle_timeout, algorithms)), stream, watcher);
    // Boxed: the library's future is large, and short-lived.
    within(limits.connect_timeout, CONNECTING, peer, async { Ok(Box::pin(connecting).await) }).await
}

fn settings(idle_timeout: Duration, algorithms: Vec<Algorithm>) -> client::Config {
    let [least, asked, most] = GROUP_BITS;
    client::Config {
        preferred: Preferred {
            key: Cow::Owned(algorithms),
            cipher: Cow::Borrowed(CIPHERS),
            // Bytes that are worth compressing are compressed already.
            compression: Cow::Borrowed(&[russh::compression::NONE]),
            ..Preferred::DEFAULT
        },
        gex: GexParams::new(least, asked, most).unwrap_or_default(),
        keepalive_interval: Some(idle_timeout / 2),
        keepalive_max: KEEPALIVES_MAX,
        // Ends the connection's task when the other side takes nothing any more; our own watch speaks up before.
        inactivity_timeout: Some(idle_timeout * 3),
        nodelay: true,
        ..client::Config::default()
    }
}

/// Tries what the task gave and the server accepts: the key, the password, the password as an answer.
async fn authenticate(ssh: &mut Handle<Watcher>, account: &Account, seen: &Seen, peer: &str) -> Result<()> {
    let lost = |error: &russh::Error| {
        if seen.has_ended() { seen.lost(LOGGING_IN, peer) } else { seen.ssh(error, LOGGING_IN, peer) }
    };
    let user = &account.config.username;
    let mut login = Login { offered: MethodSet::empty(), tried: Vec::new(), is_in: false };
    // Tells what the server accepts, so that nothing is tried in vain and counted as a failure.
    login.take(ssh.authenticate_none(user).await.map_err(|error| lost(&error))?, None);
    if let Some(key) = &account.key {
        for hash in hashes(ssh, key.algorithm().is_rsa()).await.map_err(|error| lost(&error))? {
            if login.wants(MethodKind::PublicKey) {
                let key = PrivateKeyWithHashAlg::new(Arc::clone(key), hash);
                let result = ssh.authenticate_publickey(user, key).await.map_err(|error| lost(&error))?;
                login.take(result, Some("private key"));
            }
        }
    }
    if let Some(password) = &account.config.password {
        if login.wants(MethodKind::Password) {
            let result = ssh.authenticate_password(user, password.expose()).await.map_err(|error| lost(&error))?;
            login.take(result, Some("password"));
        }
        if login.wants(MethodKind::KeyboardInteractive) {
            let result = answer_questions(ssh, user, password.expose()).await.map_err(|error| lost(&error))?;
            login.take(result, Some("password"));
        }
    }
    if login.is_in {
        Ok(())
    } else if ssh.is_closed() && !seen.has_said_too_many() {
        Err(seen.lost(LOGGING_IN, peer))
    } else {
        Err(login.refused(user, peer))
    }
}

impl Seen {
    /// Whether the server hung up because of the log-ins that failed.
    fn has_said_too_many(&self) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.as_ref().is_some_and(|ended| ended.detail.to_ascii_lowercase().contains("authentication"))
    }
}

/// How far a log-in has come.
struct Login {
    offered: MethodSet,
    tried: Vec<&'static str>,
    is_in: bool,
}

impl Login {
    fn wants(&self, method: MethodKind) -> bool {
        !self.is_in && self.offered.contains(&method)
    }

    fn take(&mut self, result: AuthResult, tried: Option<&'static str>) {
        match result {
            AuthResult::Success => self.is_in = true,
            AuthResult::Failure { remaining_methods, partial_success } => {
                self.offered = remaining_methods;
                self.tried.extend(tried.filter(|what| !partial_success && !self.tried.contains(what)));
            }
        }
    }

    fn refused(&self, user: &str, peer: &str) -> Error {
        let offered: Vec<&str> = self.offered.iter().map(<&str>::from).collect();
        let offered = if offered.is_empty() { "nothing else".to_owned() } else { offered.join(", ") };
        let detail = if self.tried.is_empty() {
            format!("{peer} asks the user {user} for what the task does not give: {offered}")
        } else {
            format!(
                "{peer} did not accept the {} of the user {user}; it accepts {offered}",
                self.tried.join(" or the ")
            )
        };
        Error::new(Kind::InvalidCredentials, LOGGING_IN, detail)
    }
}

/// The signatures to try with a key, by hash: RSA has several, and old servers do not say which they know.
async fn hashes(ssh: &Handle<Watcher>, is_rsa: bool) -> std::result::Result<Vec<Option<HashAlg>>, russh::Error> {
    if !is_rsa {
        return Ok(vec![None]);
    }
    let known = ssh.best_supported_rsa_hash().await?;
    Ok(known.map_or_else(|| vec![Some(HashAlg::Sha512), Some(HashAlg::Sha256), None], |hash| vec![hash]))
}

/// Gives the password as the answer to every question.
async fn answer_questions(
    ssh: &mut Handle<Watcher>,
    user: &str,
    password: &str,
) -> std::result::Result<AuthResult, russh::Error> {
    let mut response = ssh.authenticate_keyboard_interactive_start(user, None::<String>).await?;
    for _ in 0..QUESTION_ROUNDS_MAX {
        match response {
            KeyboardInteractiveAuthResponse::Success => return Ok(AuthResult::Success),
            KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success } => {
                return Ok(AuthResult::Failure { remaining_methods, partial_success });
            }
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => {
                let answers = vec![password.to_owned(); prompts.len()];
                response = ssh.authenticate_keyboard_interactive_respond(answers).await?;
            }
        }
    }
    Ok(AuthResult::Failure { remaining_methods: MethodSet::empty(), partial_success: false })
}

async fn subsystem(ssh: &Handle<Watcher>, seen: &Seen, peer: &str) -> Result<ChannelStream<client::Msg>> {
    let failed = |error: &russh::Error| {
        if seen.has_ended() { seen.lost(LOGGING_IN, peer) } else { seen.ssh(error, LOGGING_IN, peer) }
    };
    let mut channel = ssh.channel_open_session().await.map_err(|error| failed(&error))?;
    channel.request_subsystem(true, "sftp").await.map_err(|error| failed(&error))?;
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Success) => return Ok(channel.into_stream()),
            None if seen.has_ended() => return Err(seen.lost(LOGGING_IN, peer)),
            Some(ChannelMsg::Failure | ChannelMsg::Close | ChannelMsg::Eof) | None => {
                let detail = format!("{peer} let the user in but offers no SFTP to it");
                return Err(Error::new(Kind::Unsupported, LOGGING_IN, detail));
            }
            Some(_) => {}
        }
    }
}
