//! An HTTP path that throttles, loses answers and remembers what was asked.
//!
//! Requests pass byte for byte, the `Host` header included: a client that signs requests uses the proxy's address as its
//! endpoint, and the server sees what was signed.

mod message;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use self::message::{Body, Head, copy_body, read_head};

/// After an answer that came before the request's end, how long the rest of the request is awaited.
const LATE_BODY_TIMEOUT: Duration = Duration::from_secs(2);
/// Requests that are remembered: the last ones of a run that takes hours.
const REMEMBERED_MAX: usize = 100_000;

/// A request that came by.
#[derive(Clone, Debug)]
pub struct Request {
    /// 1 for the first request, over all connections.
    pub number: u64,
    /// The method.
    pub method: String,
    /// The path with the query, as sent.
    pub path: String,
    /// The status that the client saw; none while it waits, or when the answer was lost.
    pub status: Option<u16>,
    head: String,
}

impl Request {
    /// The value of a header; `name` in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        message::header(&self.head, name)
    }
}

/// What is done with a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Forward it, and its answer.
    Pass,
    /// The same, with a header line more: for what a server wants to be told and a client under test does not say.
    PassWith(&'static str),
    /// Take the request, do not forward it, and answer.
    Answer {
        /// Usually 503 or 429.
        status: u16,
        /// The value of a `Retry-After` header.
        retry_after_secs: Option<u32>,
    },
    /// Forward it, wait until the target answers, and close the connection instead of passing that on.
    DropAnswer,
    /// Close the connection without forwarding anything.
    Drop,
    /// Forward it, pass so many bytes of the answer's body on, and close the connection.
    CutAnswer(u64),
    /// Forward it, pass so many bytes of the answer's body on, and nothing more while the connection stays open.
    StallAnswer(u64),
    /// Forward it, and flip a bit in the byte at that offset of the answer's body.
    FlipAnswer(u64),
    /// Forward it, and put the second text in the place of the first, of the same length, wherever it stands in the answer's body.
    Replace(&'static str, &'static str),
}

type Rule = Arc<dyn Fn(&Request) -> Action + Send + Sync>;

/// A listener on loopback in front of an HTTP/1.1 server. It ends, with all connections, when dropped.
#[derive(Debug)]
pub struct HttpFaults {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: JoinHandle<()>,
}

struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
}

struct State {
    rule: Rule,
    /// Requests so far.
    asked: u64,
    requests: BTreeMap<u64, Request>,
    in_flight: usize,
    peak_in_flight: usize,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("target", &self.target).finish_non_exhaustive()
    }
}

impl HttpFaults {
    /// Listens on a free port and forwards to `target`, at first without faults.
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
        let rule: Rule = Arc::new(|_| Action::Pass);
        let state = State { rule, asked: 0, requests: BTreeMap::new(), in_flight: 0, peak_in_flight: 0 };
        let shared = Arc::new(Shared { target, state: Mutex::new(state) });
        let acceptor = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { addr, shared, acceptor })
    }

    /// Where clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Base URL for clients, without a slash at the end.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Decides about every request from now on; replaces the rule before.
    pub fn rule(&self, rule: impl Fn(&Request) -> Action + Send + Sync + 'static) {
        self.shared.state().rule = Arc::new(rule);
    }

    /// Answers every `k`-th request itself.
    ///
    /// # Panics
    /// When `k` is 0.
    pub fn answer_every(&self, k: u64, status: u16, retry_after_secs: Option<u32>) {
        assert!(k > 0, "every 0th request is none");
        self.rule(move |request| match request.number % k {
            0 => Action::Answer { status, retry_after_secs },
            _ => Action::Pass,
        });
    }

    /// Loses the answer of the request with this number.
    pub fn drop_answer_of(&self, number: u64) {
        self.rule(move |request| if request.number == number { Action::DropAnswer } else { Action::Pass });
    }

    /// Passes everything from now on.
    pub fn heal(&self) {
        self.rule(|_| Action::Pass);
    }

    /// All requests so far, in the order they came; of very many, the last ones.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().requests.values().cloned().collect()
    }

    /// The most requests that were under way at one time.
    pub fn peak_in_flight(&self) -> usize {
        self.shared.state().peak_in_flight
    }
}

impl Drop for HttpFaults {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while holding it")
    }
}

/// A request under way; counts as such until dropped.
struct Underway<'a> {
    shared: &'a Shared,
    number: u64,
}

impl<'a> Underway<'a> {
    /// Notes the request and decides what is done with it.
    fn begin(shared: &'a Shared, head: &Head) -> (Self, Action) {
        let mut state = shared.state();
        state.asked += 1;
        let number = state.asked;
        let (method, path) = head.method_and_path();
        let (method, path) = (method.to_owned(), path.to_owned());
        let request = Request { number, method, path, status: None, head: head.text().into_owned() };
        state.requests.insert(number, request.clone());
        if state.requests.len() > REMEMBERED_MAX {
            state.requests.pop_first();
        }
        state.in_flight += 1;
        state.peak_in_flight = state.peak_in_flight.max(state.in_flight);
        let rule = Arc::clone(&state.rule);
        // The rule is the test's code: it may ask for the requests.
        drop(state);
        (Self { shared, number }, rule(&request))
    }

    fn answered(&self, status: u16) {
        if let Some(request) = self.shared.state().requests.get_mut(&self.number) {
            request.status = Some(status);
        }
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.shared.state().in_flight -= 1;
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, and with it all connections.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                let shared = Arc::clone(&shared);
                connections.spawn(async move { serve(client, &shared).await });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Both directions of a connection.
struct Peer {
    from: BufReader<OwnedReadHalf>,
    to: OwnedWriteHalf,
}

impl Peer {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (from, to) = stream.into_split();
        Ok(Self { from: BufReader::new(from), to })
    }
}

/// Serves the requests of one connection, each over one connection of its own to the target.
#[expect(clippy::disallowed_methods, reason = "loopback only, and no part of the program")]
async fn serve(client: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut client = Peer::new(client)?;
    let mut target = Peer::new(TcpStream::connect(shared.target).await?)?;
    loop {
        let head = tokio::select! {
            head = read_head(&mut client.from) => head?,
            // The target closes an idle connection (it cannot send anything now): so does this.
            _ = target.from.fill_buf() => return Ok(()),
        };
        let Some(head) = head else { return Ok(()) };
        let (underway, action) = Underway::begin(shared, &head);
        let stays_open = match action {
            Action::Pass
            | Action::DropAnswer
            | Action::CutAnswer(_)
            | Action::StallAnswer(_)
            | Action::FlipAnswer(_)
            | Action::Replace(..) => exchange(&mut client, &mut target, &head, &underway, action).await?,
            Action::PassWith(line) => exchange(&mut client, &mut target, &head.with(line), &underway, action).await?,
            Action::Answer { status, retry_after_secs } => {
                underway.answered(status);
                answer(&mut client, &head, status, retry_after_secs).await?
            }
            Action::Drop => false,
        };
        if !stays_open {
            return Ok(());
        }
    }
}

/// Forwards a request and its answer, as `action` says. True: another request may follow.
async fn exchange(
    client: &mut Peer,
    target: &mut Peer,
    head: &Head,
    underway: &Underway<'_>,
    action: Action,
) -> io::Result<bool> {
    target.to.write_all(head.bytes()).await?;
    let send = copy_body(&mut client.from, &mut target.to, head.request_body()?);
    let relay = relay(&mut target.from, &mut client.to, head, underway, action);
    tokio::pin!(send, relay);
    tokio::select! {
        // The target may have stopped reading because it has answered: the answer is passed on even if this failed.
        sent = &mut send => Ok(relay.await? && sent.is_ok()),
        more = &mut relay => Ok(more? && matches!(tokio::time::timeout(LATE_BODY_TIMEOUT, send).await, Ok(Ok(())))),
    }
}

/// Passes the answer on, interim ones (`100 Continue`) included. True: another may follow on this connection.
async fn relay(
    from: &mut BufReader<OwnedReadHalf>,
    to: &mut OwnedWriteHalf,
    request: &Head,
    underway: &Underway<'_>,
    action: Action,
) -> io::Result<bool> {
    loop {
        let head = read_head(from).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = head.status()?;
        if status >= 200 && action == Action::DropAnswer {
            return Ok(false);
        }
        to.write_all(head.bytes()).await?;
        if status >= 200 {
            let body = head.answer_body(status, request.method_and_path().0)?;
            match (action, body) {
                (Action::CutAnswer(bytes), Body::Length(length)) => {
                    copy_body(from, to, Body::Length(bytes.min(length))).await?;
                    return Ok(false);
                }
                (Action::StallAnswer(bytes), Body::Length(length)) => {
                    copy_body(from, to, Body::Length(bytes.min(length))).await?;
                    return std::future::pending().await;
                }
                (Action::FlipAnswer(at), Body::Length(length)) if at < length => {
                    copy_body(from, to, Body::Length(at)).await?;
                    let byte = from.read_u8().await?;
                    to.write_u8(byte ^ 1).await?;
                    copy_body(from, to, Body::Length(length - at - 1)).await?;
                }
                (Action::Replace(found, instead), body) => {
                    let mut whole = Vec::new();
                    copy_body(from, &mut whole, body).await?;
                    replace(&mut whole, found.as_bytes(), instead.as_bytes());
                    to.write_all(&whole).await?;
                }
                _ => copy_body(from, to, body).await?,
            }
            underway.answered(status);
            return Ok(body != Body::UntilClose);
        }
    }
}

/// Replaces a text wherever it stands; nothing when the other one is not as long, because lengths were told already.
fn replace(whole: &mut [u8], found: &[u8], instead: &[u8]) {
    if found.is_empty() || found.len() != instead.len() {
        return;
    }
    let mut at = 0;
    while at + found.len() <= whole.len() {
        if whole[at..].starts_with(found) {
            whole[at..at + found.len()].copy_from_slice(instead);
            at += found.len();
        } else {
            at += 1;
        }
    }
}

/// Answers a request that is not forwarded. True: another may follow.
async fn answer(client: &mut Peer, head: &Head, status: u16, retry_after_secs: Option<u32>) -> io::Result<bool> {
    // A client that asked whether to send its body has not sent it.
    let body_follows = head.header("expect").is_none();
    if body_follows {
        copy_body(&mut client.from, &mut tokio::io::sink(), head.request_body()?).await?;
    }
    let body = match head.method_and_path().0 {
        "HEAD" => "",
        _ => {
            "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
        }
    };
    let retry_after = retry_after_secs.map(|secs| format!("Retry-After: {secs}\r\n")).unwrap_or_default();
    let connection = if body_follows { "" } else { "Connection: close\r\n" };
    let text = format!(
        "HTTP/1.1 {status} Injected\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n{retry_after}{connection}\r\n{body}",
        body.len()
    );
    client.to.write_all(text.as_bytes()).await?;
    Ok(body_follows)
}

#[cfg(test)]
mod tests;
