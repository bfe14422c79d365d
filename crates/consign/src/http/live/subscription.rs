//! One channel that is told to one client, as fast as the client takes it.

use std::sync::Arc;
use std::time::Duration;

use engineioxide::{DisconnectReason, Socket};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::sockets::{Channels, Inbox, locked};
use super::{Follower, packet};
use crate::error::ApiError;
use crate::http::extract::admit;
use crate::http::state::AppState;
use crate::model::Scope;

/// Places that events leave free, for a ping must always find one.
const PACKETS_SPARE: usize = 4;
/// A client that takes no event for so long is shown out; it can come again.
const STALL_MAX: Duration = Duration::from_secs(30);
/// Pause between two tries to find a place.
const STALL_PAUSE: Duration = Duration::from_millis(20);
/// How long the end of a job waits for those of its tasks, and how often it looks.
const ORDER_PATIENCE: Duration = Duration::from_secs(2);
const ORDER_PAUSE: Duration = Duration::from_millis(5);

/// A channel that a client hears.
pub(super) struct Subscription {
    /// The server.
    pub(super) state: AppState,
    /// Whom to tell.
    pub(super) socket: Arc<Socket<Inbox>>,
    /// The channel as the client calls it.
    pub(super) channel: String,
    /// All channels of this connection.
    pub(super) channels: Channels,
    /// The hash of the key that allowed it.
    pub(super) key_hash: [u8; 32],
    /// Knows what happens.
    pub(super) follower: Follower,
}

impl Subscription {
    /// Tells what happens until nothing follows, and returns the channel's name.
    pub(super) async fn run(mut self) -> String {
        let view = self.state.view();
        let key_check = self.state.live.periods.key_check;
        let mut check_at = Instant::now() + key_check;
        loop {
            let Ok(news) = timeout_at(check_at, self.follower.next()).await else {
                if let Err(refused) = admit(&self.state, &self.key_hash, Scope::TaskRead).await {
                    send(&self.socket, refusal(&self.channel, &refused)).await;
                    break;
                }
                check_at = Instant::now() + key_check;
                continue;
            };
            match news {
                Ok(events) if events.is_empty() => break,
                Ok(events) => {
                    for event in events {
                        if event.is_end_of_job() {
                            self.let_tasks_go_first().await;
                        }
                        if !send(&self.socket, packet::event(event.name, &self.channel, &event.data(&view))).await {
                            self.socket.close(DisconnectReason::TransportError);
                            return self.channel;
                        }
                    }
                }
                Err(error) => {
                    send(&self.socket, refusal(&self.channel, &error)).await;
                    break;
                }
            }
        }
        self.channel
    }

    /// Whoever hears a job and its tasks on one connection mostly leaves at the job's end: the tasks' ends come first.
    async fn let_tasks_go_first(&self) {
        let tasks = format!("{}.tasks", self.channel);
        let give_up = Instant::now() + ORDER_PATIENCE;
        let are_told = || locked(&self.channels).get(&tasks).is_none_or(AbortHandle::is_finished);
        while !are_told() && Instant::now() < give_up {
            sleep(ORDER_PAUSE).await;
        }
    }
}

/// Says why there is nothing to hear on a channel.
pub(super) fn refusal(channel: &str, why: &ApiError) -> String {
    packet::event("subscription_error", channel, &why.code.status().to_string())
}

/// Sends a packet as soon as there is a place for it; `false` when the client is gone, or took nothing for too long.
pub(super) async fn send(socket: &Socket<Inbox>, text: String) -> bool {
    let give_up = Instant::now() + STALL_MAX;
    while !socket.is_closed() {
        if try_send(socket, &text) {
            return true;
        }
        if Instant::now() >= give_up {
            return false;
        }
        sleep(STALL_PAUSE).await;
    }
    false
}

fn try_send(socket: &Socket<Inbox>, text: &str) -> bool {
    let Ok(place) = socket.reserve() else { return false };
    let spare: Vec<_> = (0..PACKETS_SPARE).map_while(|_| socket.reserve().ok()).collect();
    if spare.len() < PACKETS_SPARE {
        return false;
    }
    place.emit(text.to_owned().into());
    true
}
