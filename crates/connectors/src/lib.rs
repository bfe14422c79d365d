//! Bytes in and out of foreign storage, behind one trait. Knows no task, no database and no setting.
//!
//! Start with [`Connector`], which every storage implements and [`contract`] checks. [`egress::Guard`] stands in
//! front of every connection, [`http::Client`] is the one HTTP client, [`error::Error`] the one error.
//!
//! What a connector is *not*: it does not seek in an open object, shows no half-written one, renames nothing for its
//! caller, retries no whole transfer (only the requests inside one) and takes no credential from its surroundings.

#![forbid(unsafe_code)]

use std::fmt::Debug;
use std::ops::Range;

use async_trait::async_trait;

mod address;
pub mod azure_blob;
pub mod budget;
mod clock;
pub mod contract;
pub mod download;
pub mod egress;
pub mod error;
pub mod fail_point;
pub mod gcs;
pub mod http;
mod listing;
pub mod memory;
pub mod network;
pub mod retry;
pub mod s3;
pub mod secret;
pub mod sftp;
pub mod source;
pub mod store;
pub mod swift;
pub mod transfer;
pub mod web;
mod xml;

pub use budget::{Budget, Held, Share};
pub use download::{Described, WholeDigest};
pub use error::{Error, Kind, ProviderAnswer, Result, Retry};
pub use network::{HostSlot, HostSlots, Network};
pub use secret::Secret;
pub use source::{ByteStream, Digests, Source};
pub use store::ObjectStore;
pub use transfer::{Capability, Journal, Limits, Object, OpenUpload, Part, Progress, Put, Receipt};

/// One foreign storage, reached with one set of credentials.
///
/// Dropping the future of a method stops its work at once and leaves at most what the [`Journal`] was told of;
/// [`Connector::abort`] clears that away.
#[async_trait]
pub trait Connector: Debug + Send + Sync {
    /// What this storage can do; the contract suite and the generated matrix read it.
    fn capability(&self) -> Capability;

    /// Host that it connects to, for the bounds of one host.
    fn host(&self) -> String;

    /// Stores the whole source under `put.name`, or nothing: until this returns, the name holds what it held before.
    ///
    /// An [`OpenUpload`] in `put.resume` is continued where its recorded parts end, if it still exists and belongs to
    /// the same bytes; else the transfer starts anew.
    ///
    /// # Errors
    /// Any [`Kind`]. What was opened at the storage is in the journal and not cleaned up: call again, or `abort`.
    async fn put(&self, put: Put) -> Result<Receipt>;

    /// Whether [`Self::put`] of a file of `size_bytes` may be given a source that is still arriving: it sends each part once
    /// [`Source::arrived`] lets it, uses no digest before [`Source::whole`] has returned, and shows nothing under the name
    /// before that.
    fn begins_early(&self, _size_bytes: u64) -> bool {
        false
    }

    /// Tells size and marks of one object.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such object.
    async fn stat(&self, name: &str) -> Result<Object>;

    /// Reads a range of one object, in order. The range must lie within the object.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such object; the stream yields what happens later.
    async fn read(&self, name: &str, range: Range<u64>) -> Result<ByteStream>;

    /// Tells all that is known of one object before it is read; `listed` is what a listing told of it.
    ///
    /// A connector whose storage tells a digest of the whole object says it here. One that does not need not say
    /// anything: then the object is looked at where the listing told no media type.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such object.
    async fn describe(&self, name: &str, listed: Option<Object>) -> Result<Described> {
        let is_enough = |object: &Object| object.content_type.is_some() || !self.capability().keeps_content_type;
        let object = match listed.filter(is_enough) {
            Some(object) => object,
            None => self.stat(name).await?,
        };
        Ok(Described { object, digest: None })
    }

    /// Reads a range of just this version of an object, where the protocol can insist on one; else as [`Self::read`].
    ///
    /// # Errors
    /// As [`Self::read`]; [`Kind::IntegrityMismatch`] when the name holds another version now.
    async fn read_same(&self, object: &Object, range: Range<u64>) -> Result<ByteStream> {
        self.read(&object.name, range).await
    }

    /// Whether several ranges of one object, read side by side, come faster than one. False for a protocol that keeps
    /// many requests under way within one read.
    fn reads_side_by_side(&self) -> bool {
        true
    }

    /// Lists the objects whose name starts with `prefix` (for SFTP: the files of that directory), by name, at most
    /// `limit` of them.
    ///
    /// # Errors
    /// [`Kind::TooMany`] when there are more than `limit`.
    async fn list(&self, prefix: &str, limit: usize) -> Result<Vec<Object>>;

    /// Removes one object. One that is not there counts as removed.
    ///
    /// # Errors
    /// [`Kind::AccessDenied`] and the transport's.
    async fn delete(&self, name: &str) -> Result<()>;

    /// Clears away what an unfinished `put` left. Repeatable; what is gone already counts as cleared.
    ///
    /// # Errors
    /// The transport's; [`Kind::AccessDenied`] where the credentials may write but not abort.
    async fn abort(&self, open: &OpenUpload) -> Result<()>;
}
