//! The endpoints of `/v2`, one file each.

pub mod deliveries;
pub mod destinations;
pub mod jobs;
pub mod operations;
pub mod tasks;
pub mod users_me;
pub mod webhooks;
