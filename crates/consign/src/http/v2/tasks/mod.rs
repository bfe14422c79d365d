//! Tasks.

pub mod cancel;
pub mod create;
pub mod delete;
pub mod list;
pub mod retry;
pub mod show;
pub mod wait;
