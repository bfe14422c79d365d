//! The connectors against real servers. One binary; one file for each storage.

#![expect(clippy::unwrap_used, reason = "a test ends with the first surprise")]

mod attempt;
mod azure;
mod conformance;
mod gcs;
mod s3;
mod scripted;
mod sftp;
mod swift;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use connectors::egress::{Guard, Resolver};
use connectors::http::{Client, tls_config};
use connectors::{Limits, Result};

/// The smallest part that S3 takes.
const PART_BYTES: usize = 5 * 1024 * 1024;

/// Small parts, so that a test with many of them moves few bytes.
const LIMITS: Limits = Limits {
    part_bytes: PART_BYTES as u64,
    parts_in_flight: 4,
    segment_bytes: PART_BYTES as u64,
    tries: 5,
    connect_timeout: std::time::Duration::from_secs(5),
    idle_timeout: std::time::Duration::from_secs(30),
};

/// A client that may reach this machine.
fn client(limits: &Limits) -> Result<Client> {
    let guard = Guard::new(["127.0.0.0/8".parse().unwrap()]);
    Ok(Client::new(guard, tls_config(&[])?, limits))
}

/// A client for which every name is this machine.
fn client_that_knows_no_names() -> Client {
    let guard = Guard::with_resolver(["127.0.0.0/8".parse().unwrap()], Arc::new(Loopback));
    Client::new(guard, tls_config(&[]).unwrap(), &LIMITS)
}

#[derive(Debug)]
struct Loopback;

#[async_trait]
impl Resolver for Loopback {
    async fn resolve(&self, _: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![(Ipv4Addr::LOCALHOST, port).into()])
    }
}
