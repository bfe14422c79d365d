//! The SFTP server: `russh` for SSH, `russh-sftp` for the packets; one user, by password or key.
//!
//! `session` answers the requests of one channel, `place` keeps their paths inside the folder, `bridge` keeps requests
//! and replies from blocking each other.

mod bridge;
mod place;
mod session;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Config, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, MethodKind, MethodSet};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Connections at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// Channels of one connection, as OpenSSH's `MaxSessions`.
const CHANNELS_MAX: usize = 10;
/// Largest packet of SFTP, as at OpenSSH's server.
const PACKET_BYTES_MAX: u32 = 256 * 1024;
/// What a client may send before the server has read it, per channel.
const WINDOW_BYTES: u32 = 4 << 20;
/// Messages that wait between SSH and SFTP, per channel, each at most 32 KiB.
const CHANNEL_MESSAGES: usize = 128;
/// How long a rejection takes, whatever was wrong.
const REJECTION_TIME: Duration = Duration::from_millis(300);
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_mins(10);
/// How long to wait after the system refused a connection (mostly: too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The one user.
pub(crate) struct Account {
    pub username: String,
    pub password: String,
    pub public_key: PublicKey,
}

/// Serves until `stop` is cancelled, then closes all connections.
pub(crate) async fn serve(
    listener: TcpListener,
    host_key: PrivateKey,
    account: Arc<Account>,
    root: PathBuf,
    stop: CancellationToken,
) {
    let config = Arc::new(Config {
        methods: MethodSet::from([MethodKind::PublicKey, MethodKind::Password].as_slice()),
        auth_rejection_time: REJECTION_TIME,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
        window_size: WINDOW_BYTES,
        channel_buffer_size: CHANNEL_MESSAGES,
        inactivity_timeout: Some(SILENCE),
        nodelay: true,
        ..Config::default()
    });
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Dropped with this future, and all connections with it.
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((socket, place)) = accepted else { continue };
        let connection = Connection { account: Arc::clone(&account), root: root.clone(), channels: HashMap::new() };
        connections.spawn(run(Arc::clone(&config), socket, connection, stop.clone(), place));
        while connections.try_join_next().is_some() {}
    }
    // Each hears of `stop` itself.
    while connections.join_next().await.is_some() {}
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    match listener.accept().await {
        Ok((socket, _)) => Some((socket, place)),
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn run(
    config: Arc<Config>,
    socket: TcpStream,
    connection: Connection,
    stop: CancellationToken,
    _place: OwnedSemaphorePermit,
) {
    let session = tokio::select! {
        () = stop.cancelled() => return,
        session = russh::server::run_stream(config, socket, connection) => session,
    };
    let mut session = match session {
        Ok(session) => session,
        Err(error) => {
            tracing::debug!(%error, "an SFTP connection did not come about");
            return;
        }
    };
    let handle = session.handle();
    let ended = tokio::select! {
        () = stop.cancelled() => {
            let reason = "the practice server stops".to_owned();
            // An error means that the connection is gone already.
            drop(handle.disconnect(russh::Disconnect::ByApplication, reason, String::new()).await);
            return;
        }
        ended = &mut session => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an SFTP connection broke");
    }
}

/// One SSH connection.
struct Connection {
    account: Arc<Account>,
    root: PathBuf,
    /// Channels that wait for their subsystem.
    channels: HashMap<ChannelId, Channel<Msg>>,
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Self::Error> {
        // Compared plainly: every rejection takes the same time.
        let is_right = user == self.account.username && password == self.account.password;
        Ok(if is_right { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Self::Error> {
        Ok(self.check_key(user, offer.public_key))
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Self::Error> {
        Ok(self.check_key(user, key.public_key))
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.channels.len() < CHANNELS_MAX {
            self.channels.insert(channel.id(), channel);
            reply.accept().await;
        }
        Ok(())
    }

    async fn channel_close(&mut self, channel: ChannelId, _session: &mut Session) -> Result<(), Self::Error> {
        self.channels.remove(&channel);
        Ok(())
    }

    async fn channel_eof(&mut self, channel: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        // Nothing more will be asked, so nothing more will be answered.
        session.close(channel)
    }

    async fn subsystem_request(&mut self, id: ChannelId, name: &str, session: &mut Session) -> Result<(), Self::Error> {
        let channel = if name == "sftp" { self.channels.remove(&id) } else { None };
        let Some(channel) = channel else { return session.channel_failure(id) };
        session.channel_success(id)?;
        let config = russh_sftp::server::Config { max_client_packet_len: PACKET_BYTES_MAX };
        let handler = session::SftpSession::new(self.root.clone());
        let stream = bridge::start(channel.into_stream());
        russh_sftp::server::run_with_config(stream, handler, config).await;
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, _data: &[u8], session: &mut Session) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Self::Error> {
        session.channel_failure(id)
    }
}

impl Connection {
    fn check_key(&self, user: &str, key: &PublicKey) -> Auth {
        let is_right = user == self.account.username && key.key_data() == self.account.public_key.key_data();
        if is_right { Auth::Accept } else { Auth::reject() }
    }
}
