//! Commands of one kind that come at the same time share a transaction: its round trips, its statements and its wait for the disk.
//!
//! A group is whatever has come while the groups before it were being written; nobody waits for others to come. What belongs to one
//! command stays with it: a guard that fails is its answer, and when a whole group fails because of one, each is run by itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::{Instrument as _, Span};
use uuid::Uuid;

use super::queries::Tx;
use super::run::{DURABLE, GROUP, Writer, is_of_one, shared_error, store_error};
use crate::store::{Error, Result};

/// Commands that may wait for a group; more callers than that wait for a place.
const QUEUE_MAX: usize = 256;
/// Commands of one group at the most: bounds for how long rows are locked.
const GROUP_MAX: usize = 64;
/// Rows that a group writes, but for one command that has more: bounds the length of its statements.
const ROWS_MAX: usize = 1024;
/// Groups that are written at the same time: while one waits for the disk, the server works on another.
const GROUPS_AT_ONCE: usize = 2;

/// A command that can be run together with others of its kind.
pub(super) trait Grouped: Send + Sync + 'static {
    /// What its caller hears.
    type Answer: Send + 'static;

    /// What it is about; no group has two of the same.
    fn key(&self) -> Uuid;

    /// How many rows it writes, about.
    fn rows(&self) -> usize;

    /// Runs commands, sorted by key, in one transaction; gives their answers in that order.
    fn together(tx: &mut Tx, commands: &[Arc<Self>]) -> impl Future<Output = sqlx::Result<Vec<Self::Answer>>> + Send;

    /// Runs this one.
    fn alone(&self, tx: &mut Tx) -> impl Future<Output = sqlx::Result<Self::Answer>> + Send;
}

/// Takes commands of one kind, and writes them in groups.
pub(super) struct Lane<C: Grouped> {
    queue: mpsc::Sender<Waiting<C>>,
}

struct Waiting<C: Grouped> {
    command: Arc<C>,
    answer: oneshot::Sender<Result<C::Answer>>,
    /// Its caller's.
    span: Span,
}

impl<C: Grouped> Waiting<C> {
    fn answer(self, answer: Result<C::Answer>) {
        // If nobody waits any more, that is their choice.
        drop(self.answer.send(answer));
    }
}

impl<C: Grouped> Lane<C> {
    /// Starts to take commands, until the lane is dropped.
    pub(super) fn start(writer: Writer) -> Self {
        let (queue, commands) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(gather(writer, commands));
        Self { queue }
    }

    /// Runs a command until it is committed, or cannot be. It happens even if the caller stops waiting, once it has a place in
    /// the queue.
    pub(super) async fn run(&self, command: C) -> Result<C::Answer> {
        let stopped = || Error::Unavailable("the store is closed".into());
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { command: Arc::new(command), answer, span: Span::current() };
        self.queue.send(waiting).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

async fn gather<C: Grouped>(writer: Writer, mut commands: mpsc::Receiver<Waiting<C>>) {
    let slots = Arc::new(Semaphore::new(GROUPS_AT_ONCE));
    let mut left = None;
    loop {
        let first = match left.take() {
            Some(first) => Some(first),
            None => commands.recv().await,
        };
        let (Some(first), Ok(slot)) = (first, Arc::clone(&slots).acquire_owned().await) else { return };
        // A group has one span: that of whoever came first.
        let span = first.span.clone();
        let (group, next) = take(first, &mut commands);
        left = next;
        tokio::spawn(write(writer.clone(), group, slot).instrument(span));
    }
}

/// Takes what is there; and one that must wait for the next group.
fn take<C: Grouped>(
    first: Waiting<C>,
    commands: &mut mpsc::Receiver<Waiting<C>>,
) -> (Vec<Waiting<C>>, Option<Waiting<C>>) {
    let mut keys = BTreeSet::from([first.command.key()]);
    let mut rows = first.command.rows();
    let mut group = vec![first];
    while group.len() < GROUP_MAX
        && rows < ROWS_MAX
        && let Ok(next) = commands.try_recv()
    {
        rows += next.command.rows();
        if rows > ROWS_MAX || !keys.insert(next.command.key()) {
            return (group, Some(next));
        }
        group.push(next);
    }
    (group, None)
}

async fn write<C: Grouped>(writer: Writer, mut group: Vec<Waiting<C>>, slot: OwnedSemaphorePermit) {
    // All take their locks in the same order.
    group.sort_unstable_by_key(|waiting| waiting.command.key());
    let commands: Arc<[Arc<C>]> = group.iter().map(|waiting| Arc::clone(&waiting.command)).collect();
    let together = move |mut tx: Tx| -> BoxFuture<'static, (Tx, sqlx::Result<Vec<C::Answer>>)> {
        let commands = Arc::clone(&commands);
        Box::pin(async move {
            let done = C::together(&mut tx, &commands).await;
            (tx, done)
        })
    };
    match writer.write(GROUP, together).await {
        Ok(answers) => {
            for (waiting, answer) in group.into_iter().zip(answers) {
                waiting.answer(Ok(answer));
            }
        }
        Err(failure) if is_of_one(&failure) => {
            tracing::debug!(error = &failure as &dyn std::error::Error, "each command of a group is run by itself");
            // Whoever waits for a row now waits for it alone.
            drop(slot);
            for waiting in group {
                let span = waiting.span.clone();
                tokio::spawn(write_alone(writer.clone(), waiting).instrument(span));
            }
        }
        Err(failure) => {
            let failure = Arc::new(failure);
            for waiting in group {
                waiting.answer(Err(shared_error(&failure)));
            }
        }
    }
}

async fn write_alone<C: Grouped>(writer: Writer, waiting: Waiting<C>) {
    let command = Arc::clone(&waiting.command);
    let alone = move |mut tx: Tx| -> BoxFuture<'static, (Tx, sqlx::Result<C::Answer>)> {
        let command = Arc::clone(&command);
        Box::pin(async move {
            let done = command.alone(&mut tx).await;
            (tx, done)
        })
    };
    waiting.answer(writer.write(DURABLE, alone).await.map_err(store_error));
}
