//! What every system's test of the contract shares: a path that can be broken, witnesses, and the record of the ends.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use connectors::OpenUpload;
use connectors::contract::{BoxError, By, Case, Fixture, Outcome, Seen, Wire, Witness};
use testkit::conformance::{self, Cell, Row, Server};
use testkit::http_faults::HttpFaults;
use testkit::openssh;
use testkit::proxy::Proxy;
use testkit::witness;

/// Runs the contract and writes down how each case ended.
pub(crate) async fn check(fixture: &dyn Fixture, server: &Server) {
    let ended = connectors::contract::all(fixture).await;
    for (case, outcome) in ended {
        conformance::record(server, Row::Case(case.name.to_owned()), cell(case, outcome));
    }
}

fn cell(case: &Case, outcome: Outcome) -> Cell {
    match outcome {
        Ok(()) => Cell::Shown,
        Err(excluded) => {
            assert!(!excluded.reason.is_empty(), "{}: excluded without a reason", case.name);
            let by = match excluded.by {
                By::Protocol => "protocol",
                By::Server => "this server",
            };
            Cell::Excluded(format!("{by}: {}", excluded.reason))
        }
    }
}

/// A path that is broken byte by byte and, in front of an HTTP server, request by request.
#[derive(Debug)]
pub(crate) struct Path {
    proxy: Proxy,
    faults: Option<HttpFaults>,
    answered_before: AtomicU64,
}

impl Path {
    /// To a server that speaks no HTTP.
    pub(crate) async fn to(target: SocketAddr) -> Self {
        Self { proxy: Proxy::start(target).await.unwrap(), faults: None, answered_before: AtomicU64::new(0) }
    }

    /// To an HTTP/1.1 server without TLS.
    pub(crate) async fn to_http(target: SocketAddr) -> Self {
        let faults = HttpFaults::start(target).await.unwrap();
        let proxy = Proxy::start(faults.addr()).await.unwrap();
        Self { proxy, faults: Some(faults), answered_before: AtomicU64::new(0) }
    }

    fn refused(&self) -> u64 {
        let is_refused = |request: &&testkit::http_faults::Request| matches!(request.status, Some(429 | 503));
        self.faults.as_ref().map_or(0, |faults| faults.requests().iter().filter(is_refused).count() as u64)
    }
}

impl Wire for Path {
    fn addr(&self) -> SocketAddr {
        self.proxy.addr()
    }

    fn sent_bytes(&self) -> u64 {
        self.proxy.sent_bytes()
    }

    fn received_bytes(&self) -> u64 {
        self.proxy.received_bytes()
    }

    fn cut_after(&self, bytes: u64) {
        self.proxy.cut_after(bytes);
    }

    fn flip_bit_at(&self, bytes: u64) {
        self.proxy.flip_bit_at(bytes);
    }

    fn flips(&self) -> u64 {
        self.proxy.flips()
    }

    fn stall_after(&self, bytes: u64) {
        self.proxy.stall_after(bytes);
    }

    fn stall_after_receiving(&self, bytes: u64) {
        self.proxy.stall_after_receiving(bytes);
    }

    fn answer_every(&self, nth: u64, status: u16, retry_after: Duration) {
        self.answered_before.store(self.refused(), Ordering::Relaxed);
        let secs = u32::try_from(retry_after.as_secs()).unwrap();
        self.faults.as_ref().expect("an HTTP storage").answer_every(nth, status, Some(secs));
    }

    fn answered(&self) -> u64 {
        self.refused() - self.answered_before.load(Ordering::Relaxed)
    }

    fn heal(&self) {
        self.proxy.heal();
        if let Some(faults) = &self.faults {
            faults.heal();
        }
    }
}

/// The vendor's SDK.
#[derive(Debug)]
pub(crate) struct Sdk(pub(crate) witness::Witness);

#[async_trait]
impl Witness for Sdk {
    async fn read(&self, name: &str) -> Result<Option<Seen>, BoxError> {
        Ok(self.0.read(name).await?.map(seen))
    }

    async fn read_all(&self, prefix: &str) -> Result<BTreeMap<String, Seen>, BoxError> {
        Ok(all(self.0.read_all(prefix).await?))
    }

    async fn left_over(&self, prefix: &str, opened: &[OpenUpload]) -> Result<Vec<String>, BoxError> {
        let handles: Vec<String> = opened.iter().map(|open| open.handle.clone()).collect();
        Ok(self.0.left_over(prefix, &handles).await?)
    }
}

/// OpenSSH's own client.
#[derive(Debug)]
pub(crate) struct OpenSsh(pub(crate) openssh::Sftp);

#[async_trait]
impl Witness for OpenSsh {
    async fn read(&self, name: &str) -> Result<Option<Seen>, BoxError> {
        Ok(self.0.read(name).await?.map(seen))
    }

    async fn read_all(&self, prefix: &str) -> Result<BTreeMap<String, Seen>, BoxError> {
        Ok(all(self.0.read_all(prefix).await?))
    }

    async fn left_over(&self, prefix: &str, _: &[OpenUpload]) -> Result<Vec<String>, BoxError> {
        Ok(self.0.left_over(prefix).await?)
    }
}

fn seen(found: witness::Seen) -> Seen {
    Seen { size: found.size, sha256: found.sha256, content_type: found.content_type }
}

fn all(found: BTreeMap<String, witness::Seen>) -> BTreeMap<String, Seen> {
    found.into_iter().map(|(name, found)| (name, seen(found))).collect()
}
