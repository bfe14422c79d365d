//! Socket.IO at `/socket.io/`, over WebSocket and polling, in both versions of the protocol that clients speak.
//!
//! A client says `subscribe` with a channel and a key, and is told the channel's events: name, channel, data. What it may
//! not hear is answered with `subscription_error` and a status. The transport is the library's; of Socket.IO's own
//! packets so few are needed that [`packet`] has them, which leaves the closing of connections in our hands: those that
//! do not subscribe, do not read, or send too much are shown out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, body};
use engineioxide::config::EngineIoConfig;
use engineioxide::handler::EngineIoHandler;
use engineioxide::service::EngineIoService;
use engineioxide::{DisconnectReason, ProtocolVersion, Socket, Str};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tower::Service as _;

use super::packet::{self, Packet};
use super::subscription::{Subscription, refusal, send};
use super::{Channel, Follower};
use crate::auth;
use crate::error::{ApiError, ApiResult, Code};
use crate::http::extract::{Query, admit, bearer_of};
use crate::http::state::AppState;
use crate::model::Scope;

/// Channels of one connection at once.
const CHANNELS_MAX: usize = 100;
/// Longest message of a client in bytes: a subscription with a long key.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Messages of a client that wait to be worked on, in number and in bytes together; who sends more at once is shown out.
const MESSAGES_MAX: usize = 256;
const WAITING_BYTES_MAX: usize = 64 * 1024;
/// Packets that wait to be sent to a client. Events wait for a place, and are put together meanwhile.
const PACKETS_MAX: usize = 32;
/// How often the server asks whether a client is there, and how long it waits for the answer.
const PING_INTERVAL: Duration = Duration::from_secs(25);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// The transport with all its connections. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::http) struct Sockets(EngineIoService<Handler>);

impl Sockets {
    /// Makes one without connections.
    pub(in crate::http) fn new(state: AppState) -> Self {
        let config = EngineIoConfig::builder()
            .req_path("/socket.io")
            .ping_interval(PING_INTERVAL)
            .ping_timeout(PING_TIMEOUT)
            .max_buffer_size(PACKETS_MAX)
            .max_payload(MESSAGE_BYTES_MAX as u64)
            .ws_max_message_size(MESSAGE_BYTES_MAX)
            .ws_max_frame_size(MESSAGE_BYTES_MAX)
            .build();
        Self(EngineIoService::with_config(Arc::new(Handler { state }), config))
    }
}

/// `/socket.io/`, with whatever method.
///
/// # Errors
/// `UNAVAILABLE` when there are too many connections, or the server stops.
pub(in crate::http) async fn handler(
    State(state): State<AppState>,
    Extension(Sockets(mut service)): Extension<Sockets>,
    query: Query,
    mut request: Request,
) -> ApiResult<Response> {
    let begins = query.get("sid").is_none();
    if begins && state.stopping.is_cancelled() {
        return Err(ApiError::new(Code::Unavailable, "The server is about to stop; connect again in a moment."));
    }
    if begins {
        // The head of the request lives as long as the connection that it makes, and so does what it carries.
        request.extensions_mut().insert(state.live.socket()?);
    }
    let answer: Result<_, std::convert::Infallible> = service.call(request).await;
    Ok(match answer {
        Ok(answer) => answer.map(Body::new).into_response(),
        Err(never) => match never {},
    })
}

/// Hears of connections and of what clients say.
#[derive(Debug)]
struct Handler {
    state: AppState,
}

/// A message, and the room that it takes while it waits.
type Message = (Str, OwnedSemaphorePermit);

/// Where a connection's messages go.
#[derive(Debug)]
pub(super) struct Inbox {
    sender: Mutex<Option<mpsc::Sender<Message>>>,
    room: Arc<Semaphore>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { sender: Mutex::default(), room: Arc::new(Semaphore::new(WAITING_BYTES_MAX)) }
    }
}

impl Inbox {
    fn set(&self, sender: Option<mpsc::Sender<Message>>) {
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = sender;
    }

    /// Keeps a message; `false` when there is no room for it.
    fn put(&self, message: Str) -> bool {
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(length) else { return false };
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender.as_ref().is_some_and(|sender| sender.try_send((message, room)).is_ok())
    }
}

impl EngineIoHandler for Handler {
    type Data = Inbox;

    fn on_connect(self: Arc<Self>, socket: Arc<Socket<Inbox>>) {
        let (sender, inbox) = mpsc::channel(MESSAGES_MAX);
        socket.data.set(Some(sender));
        tokio::spawn(Session::new(self.state.clone(), socket).run(inbox));
    }

    fn on_disconnect(&self, socket: Arc<Socket<Inbox>>, _reason: DisconnectReason) {
        socket.data.set(None);
    }

    fn on_message(self: &Arc<Self>, message: Str, socket: Arc<Socket<Inbox>>) {
        if !socket.data.put(message) {
            socket.close(DisconnectReason::PacketParsingError);
        }
    }

    fn on_binary(self: &Arc<Self>, _: body::Bytes, socket: Arc<Socket<Inbox>>) {
        socket.close(DisconnectReason::PacketParsingError);
    }
}

/// What a client says to hear a channel, or to hear it no more.
#[derive(Deserialize)]
struct Wish {
    channel: String,
    #[serde(default)]
    auth: Auth,
}

#[derive(Default, Deserialize)]
struct Auth {
    #[serde(default)]
    headers: Map<String, Value>,
}

impl Auth {
    fn key_hash(&self) -> Option<[u8; 32]> {
        let (_, value) = self.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("authorization"))?;
        bearer_of(value.as_str()?).map(auth::hash)
    }
}

/// The channels of a connection, by name.
pub(super) type Channels = Arc<Mutex<HashMap<String, AbortHandle>>>;

/// Looks into them.
pub(super) fn locked(channels: &Channels) -> MutexGuard<'_, HashMap<String, AbortHandle>> {
    channels.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection.
struct Session {
    state: AppState,
    socket: Arc<Socket<Inbox>>,
    is_v4: bool,
    is_welcome: bool,
    has_subscribed: bool,
    channels: Channels,
    // Dropping it ends them all.
    subscriptions: JoinSet<String>,
}

impl Session {
    fn new(state: AppState, socket: Arc<Socket<Inbox>>) -> Self {
        Self {
            state,
            is_v4: socket.protocol == ProtocolVersion::V3,
            socket,
            is_welcome: false,
            has_subscribed: false,
            channels: Channels::default(),
            subscriptions: JoinSet::new(),
        }
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        if self.is_v4 {
            self.is_welcome = self.say(packet::WELCOME_V4.to_owned()).await;
        }
        let silent_until = Instant::now() + self.state.live.periods.silence_max;
        let stopping = self.state.stopping.clone();
        loop {
            tokio::select! {
                message = inbox.recv() => match message {
                    Some((message, room)) => {
                        if !self.hear(&message).await {
                            break;
                        }
                        drop(room);
                    }
                    None => break,
                },
                Some(ended) = self.subscriptions.join_next(), if !self.subscriptions.is_empty() => {
                    if let Ok(channel) = ended {
                        let mut channels = locked(&self.channels);
                        if channels.get(&channel).is_some_and(AbortHandle::is_finished) {
                            channels.remove(&channel);
                        }
                    }
                }
                () = sleep_until(silent_until), if !self.has_subscribed => break,
                () = stopping.cancelled() => break,
            }
        }
        // Does nothing when the client has closed it.
        self.socket.close(DisconnectReason::ClosingServer);
    }

    /// Takes a message in; `false` when the connection must end.
    async fn hear(&mut self, message: &str) -> bool {
        match Packet::parse(message) {
            Some(Packet::Connect(None)) if self.is_v4 => true,
            Some(Packet::Connect(None)) => {
                self.is_welcome = true;
                self.say(packet::welcome(&hex::encode(rand::random::<[u8; 16]>()))).await
            }
            Some(Packet::Connect(Some(name))) => self.say(packet::no_namespace(&name, self.is_v4)).await,
            Some(Packet::Event(name, wish, ack)) if self.is_welcome => {
                let goes_on = match ack {
                    Some(number) => self.say(packet::heard(number)).await,
                    None => true,
                };
                goes_on && self.wish(&name, wish).await
            }
            Some(Packet::Other) => true,
            Some(Packet::Disconnect | Packet::Event(..)) | None => false,
        }
    }

    async fn wish(&mut self, name: &str, wish: Value) -> bool {
        let Ok(wish) = serde_json::from_value::<Wish>(wish) else { return true };
        match name {
            "subscribe" => match self.subscribe(&wish).await {
                Ok(()) => true,
                Err(refused) => self.say(refusal(&wish.channel, &refused)).await,
            },
            "unsubscribe" => {
                if let Some(subscription) = locked(&self.channels).remove(&wish.channel) {
                    subscription.abort();
                }
                true
            }
            // What others may say to each other on other servers is of no use here.
            _ => true,
        }
    }

    async fn subscribe(&mut self, wish: &Wish) -> ApiResult<()> {
        let unauthenticated = || ApiError::new(Code::Unauthenticated, "Unauthenticated.");
        let key_hash = wish.auth.key_hash().ok_or_else(unauthenticated)?;
        let caller = admit(&self.state, &key_hash, Scope::TaskRead).await?;
        let channel: Channel = wish.channel.parse().map_err(|()| ApiError::not_found())?;
        let is_full = {
            let channels = locked(&self.channels);
            channels.len() >= CHANNELS_MAX && !channels.contains_key(&wish.channel)
        };
        if is_full {
            return Err(ApiError::new(Code::TooManyRequests, "A connection has at most 100 channels."));
        }
        let follower = Follower::open(&self.state, caller.id(), channel).await?;
        self.has_subscribed = true;
        let subscription = Subscription {
            state: self.state.clone(),
            socket: Arc::clone(&self.socket),
            channel: wish.channel.clone(),
            channels: Arc::clone(&self.channels),
            key_hash,
            follower,
        };
        let handle = self.subscriptions.spawn(subscription.run());
        if let Some(earlier) = locked(&self.channels).insert(wish.channel.clone(), handle) {
            earlier.abort();
        }
        Ok(())
    }

    async fn say(&self, text: String) -> bool {
        send(&self.socket, text).await
    }
}
