//! How clients reach the server: the API of `/v2`, the upload form, download links, and what operators look at.
//!
//! Start with [`router()`], which shows every route on one page. A handler authenticates, validates, makes one store
//! call and shapes the answer ([`body`]); it never runs an operation. What goes wrong is an
//! [`ApiError`](crate::error::ApiError), and [`error`] turns it into the one shape of error that clients know.

pub mod access;
pub mod body;
pub mod conditional;
pub mod disposition;
pub mod docs;
pub mod download;
pub mod error;
pub mod event;
pub mod extract;
pub mod form;
pub mod health;
pub mod include;
pub mod limits;
pub mod link;
pub mod live;
mod members;
pub mod multipart;
pub mod once;
pub mod openapi;
mod pace;
pub mod page;
pub mod plan;
pub mod rewrite;
pub mod router;
mod signed;
pub mod state;
pub mod status;
pub mod upload;
pub mod v2;
pub mod wait;

pub use router::router;
pub use state::AppState;
