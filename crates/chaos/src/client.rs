//! A client of all API processes: it takes them in turn, goes to the next when one refuses the connection, and writes
//! down what became of each request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, anyhow};
use bytes::Bytes;
use connectors::Limits;
use connectors::egress::Guard;
use connectors::error::Kind as Failure;
use connectors::http::{Answer, Body, tls_config};
use http::{Method, Request, Response, StatusCode};
use serde_json::Value;

use crate::history::{Event, History};
use crate::network::NETWORK_CIDR;

/// Longest answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest time without a byte: longer than a process stands still.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Between two probes.
const PROBE_EVERY: Duration = Duration::from_millis(100);
/// Between two looks at a process that is to become ready: this is measured.
const READY_LOOK_EVERY: Duration = Duration::from_millis(20);

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: connectors::http::Client,
    processes: Arc<[SocketAddr]>,
    turn: Arc<AtomicUsize>,
    /// Whether each process said at the last probe that it is ready.
    ready: Arc<[AtomicBool]>,
    key: Arc<str>,
    history: Arc<History>,
}

/// A request, to be sent as often as need be.
#[derive(Clone, Debug)]
pub(crate) struct Ask<'a> {
    /// Its name in the history.
    pub(crate) action: &'static str,
    /// The tag of the job that it is about.
    pub(crate) tag: Option<&'a str>,
    pub(crate) method: Method,
    /// The path at every process.
    pub(crate) path: &'a str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Bytes,
}

impl<'a> Ask<'a> {
    pub(crate) fn new(action: &'static str, method: Method, path: &'a str) -> Self {
        Self { action, tag: None, method, path, headers: Vec::new(), body: Bytes::new() }
    }

    pub(crate) fn about(mut self, tag: &'a str) -> Self {
        self.tag = Some(tag);
        self
    }

    pub(crate) fn with(mut self, header: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((header, value.into()));
        self
    }

    pub(crate) fn sends(mut self, kind: &str, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self.with("content-type", kind)
    }
}

impl Client {
    pub(crate) fn new(processes: Vec<SocketAddr>, key: &str, history: Arc<History>) -> Result<Self> {
        let anywhere = ["127.0.0.0/8", NETWORK_CIDR].map(str::parse).into_iter().collect::<Result<Vec<_>, _>>();
        let guard = Guard::new(anywhere.map_err(|error| anyhow!("{error}"))?);
        let limits = Limits { idle_timeout: SILENCE_MAX, ..Limits::default() };
        let http = connectors::http::Client::new(guard, tls_config(&[])?, &limits);
        let ready: Arc<[AtomicBool]> = processes.iter().map(|_| AtomicBool::new(true)).collect();
        let processes = Arc::from(processes);
        Ok(Self { http, processes, turn: Arc::default(), ready, key: key.into(), history })
    }

    /// Sends a request to the process whose turn it is, and to the next ones when nobody listens there.
    ///
    /// # Errors
    /// When all refuse the connection, or one broke it. Both are in the history.
    pub(crate) async fn open(&self, ask: &Ask<'_>) -> Result<Response<Answer>> {
        let began_ms = self.history.now_ms();
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        let mut last = None;
        let turns = (0..self.processes.len()).map(|offset| (first + offset) % self.processes.len());
        let (ready, others): (Vec<usize>, Vec<usize>) = turns.partition(|&at| self.ready[at].load(Ordering::Relaxed));
        for at in ready.into_iter().chain(others) {
            let process = self.processes[at];
            match self.http.send(self.request(ask, process)?, ask.action).await {
                Ok(answer) => {
                    self.called(ask, began_ms, Some(answer.status()), None);
                    return Ok(answer);
                }
                Err(error) if is_refused(&error) => last = Some(error),
                // Whoever waits for a job gives up after a while: nobody failed.
                Err(error) if ask.action == "wait" && error.kind == Failure::Timeout => return Err(error.into()),
                Err(error) => {
                    self.called(ask, began_ms, None, Some(format!("{process}: {error}")));
                    return Err(error.into());
                }
            }
        }
        let error = last.map_or_else(|| anyhow!("there is no process"), anyhow::Error::from);
        self.called(ask, began_ms, None, Some("all processes refused the connection".to_owned()));
        Err(error)
    }

    /// The same with the answer as JSON, null when it is none.
    pub(crate) async fn call(&self, ask: &Ask<'_>) -> Result<(StatusCode, Value)> {
        let answer = self.open(ask).await?;
        let status = answer.status();
        let began_ms = self.history.now_ms();
        match answer.into_body().bytes(ANSWER_BYTES_MAX).await {
            Ok(bytes) => Ok((status, serde_json::from_slice(&bytes).unwrap_or_default())),
            Err(error) => {
                self.called(ask, began_ms, None, Some(format!("the answer broke: {error}")));
                Err(error.into())
            }
        }
    }

    /// Shows something of a job.
    pub(crate) async fn show(&self, tag: &str, path: &str) -> Result<(StatusCode, Value)> {
        self.call(&Ask::new("show", Method::GET, path).about(tag)).await
    }

    /// What a path gives, whole.
    pub(crate) async fn fetch(&self, ask: &Ask<'_>) -> Result<(StatusCode, Bytes)> {
        let answer = self.open(ask).await?;
        Ok((answer.status(), answer.into_body().bytes(ANSWER_BYTES_MAX).await?))
    }

    /// Whether a process says that it is ready; not in the history.
    pub(crate) async fn is_ready(&self, process: SocketAddr) -> bool {
        let Ok(request) = self.request(&Ask::new("readyz", Method::GET, "/readyz"), process) else { return false };
        let answer = tokio::time::timeout(Duration::from_secs(3), self.http.send(request, "readyz")).await;
        answer.is_ok_and(|answer| answer.is_ok_and(|answer| answer.status() == StatusCode::OK))
    }

    /// Waits until a process says that it is ready; not for ever.
    pub(crate) async fn is_ready_within(&self, process: SocketAddr, within: Duration) -> bool {
        let ready = async {
            while !self.is_ready(process).await {
                tokio::time::sleep(READY_LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(within, ready).await.is_ok()
    }

    /// Probes all processes for ever, as a balancer does: those that are not ready get no requests while others are. One that
    /// is silent does not keep it from the others.
    pub(crate) async fn probe(self) {
        futures_util::future::join_all((0..self.processes.len()).map(|at| self.probe_one(at))).await;
    }

    async fn probe_one(&self, at: usize) {
        loop {
            self.ready[at].store(self.is_ready(self.processes[at]).await, Ordering::Relaxed);
            tokio::time::sleep(PROBE_EVERY).await;
        }
    }

    fn request(&self, ask: &Ask<'_>, process: SocketAddr) -> Result<Request<Body>> {
        let mut request = Request::builder().method(&ask.method).uri(format!("http://{process}{}", ask.path));
        request = request.header("authorization", format!("Bearer {}", self.key));
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        Ok(request.body(ask.body.clone().into())?)
    }

    fn called(&self, ask: &Ask<'_>, began_ms: u64, status: Option<StatusCode>, error: Option<String>) {
        let (action, status) = (ask.action.to_owned(), status.map(|status| status.as_u16()));
        self.history.note(Event::Call { action, tag: ask.tag.map(str::to_owned), began_ms, status, error });
    }
}

/// Whether nobody listened: then the request was not sent.
fn is_refused(error: &connectors::Error) -> bool {
    error.kind == Failure::Unreachable && error.to_string().contains("refused the connection")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_waits_for_ever_for_a_process_that_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let history = Arc::new(History::begin(&folder.path().join("history")).unwrap());
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let client = Client::new(vec![gone], "key", history).unwrap();
        let waited = tokio::time::timeout(SILENCE_MAX, client.is_ready_within(gone, READY_LOOK_EVERY * 3)).await;
        assert_eq!(waited, Ok(false));
    }
}
