//! The connectors against real servers. One binary; one file for each storage.

#![expect(clippy::unwrap_used, reason = "a test ends with the first surprise")]

mod s3;
mod scripted;
mod sftp;

use connectors::egress::Guard;
use connectors::http::{Client, tls_config};
use connectors::{Limits, Result};

/// Small parts, so that a test with many of them moves few bytes.
const LIMITS: Limits = Limits {
    part_bytes: 5 * 1024 * 1024,
    parts_in_flight: 4,
    tries: 5,
    connect_timeout: std::time::Duration::from_secs(5),
    idle_timeout: std::time::Duration::from_secs(30),
};

/// A client that may reach this machine.
fn client(limits: &Limits) -> Result<Client> {
    let guard = Guard::new(["127.0.0.0/8".parse().unwrap()]);
    Ok(Client::new(guard, tls_config(&[])?, limits))
}
