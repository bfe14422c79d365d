//! The way out: what every connector of a process shares.

use crate::egress::Guard;
use crate::http::Client;
use crate::transfer::Limits;

/// The guarded network of a process, and the bounds of transfers over it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Network {
    /// Opens connections that are not HTTP.
    pub guard: Guard,
    /// Sends HTTP requests.
    pub http: Client,
    /// Bounds of every transfer.
    pub limits: Limits,
}
