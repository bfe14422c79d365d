//! A TCP connection that can be broken: cut, stalled, altered, refused, delayed.
//!
//! Faults are given to the [`Proxy`] before or while connections run. Positions count the bytes that all connections
//! together sent towards the target since the fault was set. A cut and a flip happen once; what comes after passes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

/// How much is forwarded in one go.
const CHUNK_BYTES: usize = 16 * 1024;

/// A listener on loopback that forwards every connection to a target. It ends, with all connections, when dropped.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    doors: mpsc::Sender<Door>,
    acceptor: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    plan: Mutex<Plan>,
    /// Raised to end all connections.
    cuts: watch::Sender<u64>,
    stalled: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Plan {
    sent_bytes: u64,
    received_bytes: u64,
    connections: u64,
    cut_at: Option<u64>,
    stall_at: Option<u64>,
    stall_received_at: Option<u64>,
    flip_at: Option<u64>,
    flips: u64,
    delay: Duration,
}

/// Asks the acceptor to open (or close) the listener, and to say when it has.
#[derive(Debug)]
struct Door {
    open: bool,
    done: oneshot::Sender<io::Result<()>>,
}

impl Proxy {
    /// Listens on a free port and forwards to `target`.
    ///
    /// # Errors
    /// When there is no port to listen on.
    pub async fn start(target: SocketAddr) -> io::Result<Self> {
        Self::start_on(Ipv4Addr::LOCALHOST.into(), target).await
    }

    /// The same at an address of this machine, for clients that do not share its loopback.
    ///
    /// # Errors
    /// When there is no such address, or no port to listen on.
    pub async fn start_on(address: IpAddr, target: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((address, 0)).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target,
            plan: Mutex::default(),
            cuts: watch::Sender::new(0),
            stalled: watch::Sender::new(false),
        });
        let (doors, asked) = mpsc::channel(1);
        let acceptor = tokio::spawn(accept(listener, addr, Arc::clone(&shared), asked));
        Ok(Self { addr, shared, doors, acceptor })
    }

    /// Where clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Bytes forwarded from clients to the target.
    pub fn sent_bytes(&self) -> u64 {
        self.shared.plan().sent_bytes
    }

    /// Bytes forwarded from the target to clients.
    pub fn received_bytes(&self) -> u64 {
        self.shared.plan().received_bytes
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.plan().connections
    }

    /// Cuts all connections when `bytes` more have been sent to the target; with 0, at the next byte.
    pub fn cut_after(&self, bytes: u64) {
        let mut plan = self.shared.plan();
        plan.cut_at = Some(plan.sent_bytes + bytes);
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        self.shared.cut();
    }

    /// Forwards nothing any more, in either direction, when `bytes` more have been sent to the target; until
    /// [`Proxy::heal`]. Connections stay open and new ones are accepted.
    pub fn stall_after(&self, bytes: u64) {
        let mut plan = self.shared.plan();
        plan.stall_at = Some(plan.sent_bytes + bytes);
    }

    /// The same, when `bytes` more have been received from the target.
    pub fn stall_after_receiving(&self, bytes: u64) {
        let mut plan = self.shared.plan();
        plan.stall_received_at = Some(plan.received_bytes + bytes);
    }

    /// Flips a bit of the byte that comes `bytes` after those sent so far.
    pub fn flip_bit_at(&self, bytes: u64) {
        let mut plan = self.shared.plan();
        plan.flip_at = Some(plan.sent_bytes + bytes);
    }

    /// Bits flipped so far.
    pub fn flips(&self) -> u64 {
        self.shared.plan().flips
    }

    /// Waits before each piece (at most 16 KiB) that is sent to the target.
    pub fn delay(&self, each: Duration) {
        self.shared.plan().delay = each;
    }

    /// Refuses new connections; those that are open stay.
    ///
    /// # Errors
    /// Never in practice: only when the proxy's task has died.
    pub async fn refuse(&self) -> io::Result<()> {
        self.door(false).await
    }

    /// Takes new connections again, on the same port.
    ///
    /// # Errors
    /// When the port was taken by somebody else meanwhile.
    pub async fn accept(&self) -> io::Result<()> {
        self.door(true).await
    }

    /// Removes all faults but a refusal, and lets go what was stalled.
    pub fn heal(&self) {
        let mut plan = self.shared.plan();
        (plan.cut_at, plan.flip_at, plan.delay) = (None, None, Duration::ZERO);
        (plan.stall_at, plan.stall_received_at) = (None, None);
        self.shared.stalled.send_replace(false);
    }

    async fn door(&self, open: bool) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        self.doors.send(Door { open, done }).await.map_err(io::Error::other)?;
        answer.await.map_err(io::Error::other)?
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

impl Shared {
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().expect("nothing panics while holding it")
    }

    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Waits while everything is stalled.
    async fn passable(&self) {
        // The sender lives in `self`, so this cannot fail.
        self.stalled.subscribe().wait_for(|stalled| !stalled).await.ok();
    }

    /// Counts received bytes, and stalls when their turn has come.
    fn received(&self, bytes: u64) {
        let mut plan = self.plan();
        plan.received_bytes += bytes;
        let received = plan.received_bytes;
        if plan.stall_received_at.take_if(|at| *at <= received).is_some() {
            self.stalled.send_replace(true);
        }
    }

    /// Counts how many bytes of `data` may be sent now, and alters one when its turn has come. True: then cut.
    fn admit(&self, data: &mut [u8]) -> (usize, bool) {
        let mut plan = self.plan();
        let (start, mut cut) = (plan.sent_bytes, false);
        let mut end = start + data.len() as u64;
        if let Some(at) = plan.stall_at.take_if(|at| *at <= end) {
            self.stalled.send_replace(true);
            end = at;
        }
        if let Some(at) = plan.cut_at.take_if(|at| *at <= end) {
            cut = true;
            end = at;
        }
        if let Some(at) = plan.flip_at.take_if(|at| *at < end) {
            data[offset(at - start)] ^= 1;
            plan.flips += 1;
        }
        plan.sent_bytes = end;
        (offset(end - start), cut)
    }
}

fn offset(bytes: u64) -> usize {
    usize::try_from(bytes).expect("less than the length of a chunk")
}

async fn accept(listener: TcpListener, addr: SocketAddr, shared: Arc<Shared>, mut doors: mpsc::Receiver<Door>) {
    let mut listener = Some(listener);
    // Dropped with this task, and with it all connections.
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Ok((client, _)) = next => {
                shared.plan().connections += 1;
                connections.spawn(forward(client, Arc::clone(&shared)));
            }
            Some(Door { open, done }) = doors.recv() => {
                let turned = match (open, &listener) {
                    (false, _) => { listener = None; Ok(()) }
                    (true, Some(_)) => Ok(()),
                    (true, None) => TcpListener::bind(addr).await.map(|new| listener = Some(new)),
                };
                done.send(turned).ok();
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "loopback only, and no part of the program")]
async fn forward(client: TcpStream, shared: Arc<Shared>) -> io::Result<()> {
    let mut cuts = shared.cuts.subscribe();
    let target = TcpStream::connect(shared.target).await?;
    client.set_nodelay(true)?;
    target.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_target, to_target) = target.into_split();
    let both = async {
        tokio::try_join!(send(from_client, to_target, &shared), receive(from_target, to_client, &shared)).map(drop)
    };
    tokio::select! {
        // What is held back when a connection is cut must not be sent, even if it may pass at the same moment.
        biased;
        _ = cuts.changed() => Ok(()),
        ended = both => ended,
    }
}

async fn send(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        let delay = shared.plan().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let mut rest = &mut buffer[..count];
        while !rest.is_empty() {
            shared.passable().await;
            let (admitted, cut) = shared.admit(rest);
            to.write_all(&rest[..admitted]).await?;
            if cut {
                to.shutdown().await?;
                shared.cut();
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            rest = &mut rest[admitted..];
        }
    }
}

async fn receive(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, shared: &Shared) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        shared.passable().await;
        if count == 0 {
            return to.shutdown().await;
        }
        shared.received(count as u64);
        to.write_all(&buffer[..count]).await?;
    }
}

#[cfg(test)]
mod tests;
