//! The one writer of a SQLite database, with group commit.
//!
//! SQLite has one writer at a time anyway, and a commit costs one wait for the disk. So one thread owns the only
//! writing connection and takes commands from a bounded queue: it runs what is there, each command inside a savepoint so that
//! one that fails leaves no trace, commits once, and then answers all of them. It never waits for more to come: the
//! next group forms while the disk works.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::queries::{Changed, Tx};
use super::{Failure, store_error};
use crate::store::{Error, Hints, Result};

/// Commands that may wait for the writer; more callers than that wait for a place.
const QUEUE_MAX: usize = 1024;

/// Commands of one commit at the most: bounds how long the first one waits for its answer.
const GROUP_MAX: usize = 256;

type Outcome<T = ()> = std::result::Result<T, Failure>;

/// Runs inside the transaction, or hears why there is none.
type Command = Box<dyn for<'t> FnOnce(Outcome<&'t mut Tx>) -> BoxFuture<'t, Ran> + Send>;

/// Answers whoever sent a command, once it is known whether the commit succeeded.
type Answer = Box<dyn FnOnce(Outcome) + Send>;

/// A command that was run.
struct Ran {
    failure: Option<Failure>,
    answer: Answer,
}

enum Message {
    Run(Command),
    Close(oneshot::Sender<()>),
}

/// Hands commands to the writer.
#[derive(Clone)]
pub(super) struct Writer {
    messages: mpsc::Sender<Message>,
}

impl Writer {
    /// Starts the thread; it ends when the last handle is gone, or on [`Self::close`].
    ///
    /// A thread of its own halves the cost of a command against a task of the shared runtime: each statement wakes the
    /// writer once, and a thread that waits for nothing else is woken directly.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub(super) fn start(conn: SqliteConnection, hints: Arc<Hints>) -> std::io::Result<Self> {
        let (messages, received) = mpsc::channel(QUEUE_MAX);
        let tx = Tx { conn: Box::new(conn), changed: Changed::default() };
        let runtime = tokio::runtime::Handle::current();
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || runtime.block_on(run(tx, received, hints)))?;
        Ok(Self { messages })
    }

    /// Runs a command and returns once it is on stable storage. It happens even if the caller stops waiting.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t mut Tx) -> BoxFuture<'t, sqlx::Result<T>> + Send + 'static,
    {
        let (sender, answered) = oneshot::channel();
        let command: Command = Box::new(move |tx| {
            Box::pin(async move {
                let result = match tx {
                    Ok(tx) => work(tx).await.map_err(Arc::new),
                    Err(failure) => Err(failure),
                };
                let failure = result.as_ref().err().map(Arc::clone);
                let answer: Answer = Box::new(move |committed| {
                    // If nobody waits any more, that is their choice.
                    drop(sender.send(result.and_then(|value| committed.map(|()| value))));
                });
                Ran { failure, answer }
            })
        });
        self.messages.send(Message::Run(command)).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?.map_err(store_error)
    }

    /// Answers what was sent before, then closes the connection.
    pub(super) async fn close(&self) {
        let (sender, closed) = oneshot::channel();
        if self.messages.send(Message::Close(sender)).await.is_ok() {
            // An error means that it is closed.
            drop(closed.await);
        }
    }
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".into())
}

async fn run(mut tx: Tx, mut messages: mpsc::Receiver<Message>, hints: Arc<Hints>) {
    let mut closing = None;
    while closing.is_none() {
        match messages.recv().await {
            Some(Message::Run(first)) => closing = group(&mut tx, first, &mut messages, &hints).await,
            Some(Message::Close(sender)) => closing = Some(sender),
            None => break,
        }
    }
    messages.close();
    if let Err(error) = (*tx.conn).close().await {
        tracing::warn!(error = &error as &dyn std::error::Error, "the database did not close cleanly");
    }
    if let Some(sender) = closing {
        // If nobody waits any more, that is their choice.
        let _ = sender.send(());
    }
}

/// Runs the first command and all that wait behind it, commits, answers. Returns who waits for the end, if somebody
/// asked for it.
async fn group(
    tx: &mut Tx,
    first: Command,
    messages: &mut mpsc::Receiver<Message>,
    hints: &Hints,
) -> Option<oneshot::Sender<()>> {
    let mut closing = None;
    let mut answers = Vec::new();
    let mut next = Some(first);
    let mut outcome = statement(tx, "BEGIN IMMEDIATE").await;
    while let Some(command) = next.take() {
        if outcome.is_ok() {
            outcome = one(tx, command, &mut answers).await;
        } else {
            answers.push(command(outcome.clone().map(|()| &mut *tx)).await.answer);
        }
        if outcome.is_ok() && answers.len() < GROUP_MAX {
            match messages.try_recv() {
                Ok(Message::Run(command)) => next = Some(command),
                Ok(Message::Close(sender)) => closing = Some(sender),
                Err(_) => {}
            }
        }
    }
    if outcome.is_ok() {
        outcome = statement(tx, "COMMIT").await;
    }
    let changed = std::mem::take(&mut tx.changed);
    if outcome.is_ok() {
        changed.announce(hints);
    } else {
        // SQLite may have rolled back by itself; then this says that there is nothing to roll back.
        drop(statement(tx, "ROLLBACK").await);
    }
    for answer in answers {
        answer(outcome.clone());
    }
    closing
}

/// Runs one command so that it leaves no trace when it fails. Fails itself when the whole transaction is lost.
async fn one(tx: &mut Tx, command: Command, answers: &mut Vec<Answer>) -> Outcome {
    if let Err(failure) = statement(tx, "SAVEPOINT command").await {
        answers.push(command(Err(Arc::clone(&failure))).await.answer);
        return Err(failure);
    }
    let ran = command(Ok(&mut *tx)).await;
    answers.push(ran.answer);
    if let Some(failure) = ran.failure {
        // A full disk makes SQLite roll everything back by itself: then there is no savepoint to go back to.
        statement(tx, "ROLLBACK TO command").await.map_err(|_| failure)?;
    }
    statement(tx, "RELEASE command").await
}

async fn statement(tx: &mut Tx, sql: &'static str) -> Outcome {
    sqlx::query(sql).execute(&mut *tx.conn).await.map(drop).map_err(Arc::new)
}
