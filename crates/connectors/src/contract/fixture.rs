//! What a system's test brings along: ways to the server, a path that can be broken, a witness.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;

use super::Excluded;
use crate::Connector;
use crate::transfer::{Limits, OpenUpload};

/// What may go wrong outside the connector: in the witness, or in the path.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A storage to check, and what is particular about it.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// What all names of the suite begin with: ends with `/`, and nothing is there yet.
    fn prefix(&self) -> &str;

    /// Limits that suit the storage: parts as small as it takes them, several in flight. Cases change tries and
    /// timeouts.
    fn limits(&self) -> Limits;

    /// Makes a connector; `via` is the address to connect to instead of the server's own ([`Wire::addr`]).
    ///
    /// # Errors
    /// When the server at hand cannot play that part.
    fn connect(&self, who: Who, limits: Limits, via: Option<SocketAddr>) -> Result<Box<dyn Connector>, Excluded>;

    /// Lays a new path to the server, without faults at first.
    async fn wire(&self) -> Box<dyn Wire>;

    /// The client by another hand.
    fn witness(&self) -> &dyn Witness;
}

/// With which credentials, and for which container, a connector is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// May do everything in the container.
    Owner,
    /// A key id or user that the server does not know, with a secret of the right form.
    UnknownKey,
    /// The owner, with a secret (password, key) of the right form that is not the owner's.
    WrongSecret,
    /// The owner, with a container that does not exist and that `put` does not make.
    MissingContainer,
    /// May read in the owner's container, and not write.
    Reader,
}

/// A path to the server that can be broken. Positions count the bytes that all connections together sent towards the
/// server since the fault was set. A cut and a flip happen once.
pub trait Wire: Send + Sync {
    /// Where to connect to.
    fn addr(&self) -> SocketAddr;

    /// Bytes sent to the server so far.
    fn sent_bytes(&self) -> u64;

    /// Bytes received from the server so far.
    fn received_bytes(&self) -> u64;

    /// Cuts all connections when `bytes` more have been sent.
    fn cut_after(&self, bytes: u64);

    /// Flips a bit of the byte that comes `bytes` after those sent so far.
    fn flip_bit_at(&self, bytes: u64);

    /// Bits flipped so far.
    fn flips(&self) -> u64;

    /// Passes nothing any more, in either direction, when `bytes` more have been sent.
    fn stall_after(&self, bytes: u64);

    /// Passes nothing any more, in either direction, when `bytes` more have been received.
    fn stall_after_receiving(&self, bytes: u64);

    /// Answers every `nth` request itself, with this status and `Retry-After`. Only asked of HTTP storages.
    fn answer_every(&self, nth: u64, status: u16, retry_after: Duration);

    /// How many requests it answered itself.
    fn answered(&self) -> u64;

    /// Removes all faults, and lets go what was stalled.
    fn heal(&self);
}

/// A client by another hand, which tells what the server really holds.
#[async_trait]
pub trait Witness: Send + Sync {
    /// Reads one object whole; nothing when it is not there.
    ///
    /// # Errors
    /// The client's.
    async fn read(&self, name: &str) -> Result<Option<Seen>, BoxError>;

    /// Reads all objects whose name begins with `prefix`, which ends with `/`, by name.
    ///
    /// # Errors
    /// The client's.
    async fn read_all(&self, prefix: &str) -> Result<BTreeMap<String, Seen>, BoxError>;

    /// Names whatever is at the server for the sake of an object below `prefix` that is not there: open uploads,
    /// uncommitted blocks, segments of no object, temporary names. Where a server lists no sessions it is asked for
    /// those in `opened`, which are all that the journal ever held.
    ///
    /// # Errors
    /// The client's.
    async fn left_over(&self, prefix: &str, opened: &[OpenUpload]) -> Result<Vec<String>, BoxError>;
}

/// An object as a [`Witness`] read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of what was read, in lower-case hex.
    pub sha256: String,
    /// Media type, where the storage keeps one.
    pub content_type: Option<String>,
}
