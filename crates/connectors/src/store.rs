//! What a storage must be able to do beyond [`Connector`] to keep the files of a server: listings in pages and by folder,
//! copies that it makes itself, links that it signs, and an end for uploads that nobody goes on with.

use std::time::Duration;

use async_trait::async_trait;

use crate::Connector;
use crate::error::Result;

/// What a page of a listing is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Names begin with this.
    pub prefix: String,
    /// Names with a slash behind the prefix are told once, as a folder.
    pub folders: bool,
    /// Names up to this one are of no interest. A storage that cannot begin there begins at the start.
    pub after: Option<String>,
    /// Where the page before ended, as it said.
    pub mark: Option<String>,
    /// Entries at the most; a storage may give fewer.
    pub limit: usize,
}

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Full names of objects.
    pub names: Vec<String>,
    /// Folders, with the prefix in front and a slash at the end.
    pub folders: Vec<String>,
    /// How to ask for the next page, where there is one.
    pub next: Option<String>,
}

/// How an object is shown to whoever has a link to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// How long the link holds.
    pub life: Duration,
    /// `Content-Type` of the answer.
    pub content_type: String,
    /// `Content-Disposition` of the answer.
    pub content_disposition: String,
    /// `Cache-Control` of the answer.
    pub cache_control: String,
}

/// A storage that can keep the files of a server.
#[async_trait]
pub trait ObjectStore: Connector {
    /// One page of a listing.
    ///
    /// # Errors
    /// [`Kind::ContainerNotFound`](crate::Kind::ContainerNotFound), [`Kind::AccessDenied`](crate::Kind::AccessDenied) and
    /// the transport's.
    async fn page(&self, ask: &Ask) -> Result<Page>;

    /// Gives an object a second name, without its bytes coming here. When this returns, the copy is complete.
    ///
    /// # Errors
    /// [`Kind::NotFound`](crate::Kind::NotFound) when there is no such object; [`Kind::TooLarge`](crate::Kind::TooLarge)
    /// when it is too large for this, so that it must be read and stored.
    async fn copy(&self, from: &str, to: &str) -> Result<()>;

    /// An address under which anybody may read an object for a while; none where the storage cannot sign one with these
    /// credentials. Nothing is sent.
    ///
    /// # Errors
    /// [`Kind::InvalidRequest`](crate::Kind::InvalidRequest) when a value cannot be part of an address.
    fn signed_link(&self, name: &str, shown: &Shown) -> Result<Option<String>>;

    /// Aborts uploads below `prefix` that were opened longer ago than `age`, and tells how many. Where uploads cannot be
    /// listed, the storage forgets them by itself.
    ///
    /// # Errors
    /// Those of [`Connector::abort`], of the last upload that could not be aborted;
    /// [`Kind::AccessDenied`](crate::Kind::AccessDenied) where the credentials may not list uploads.
    async fn abort_older(&self, prefix: &str, age: Duration) -> Result<usize>;
}
