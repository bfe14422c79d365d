//! Tells the other processes what changed, and hears it from them.
//!
//! A `NOTIFY` takes a lock of the whole database until its transaction has committed, which would halve what the store can
//! do if every transition had one. So changes are gathered for a moment and told in a transaction of their own, after the commit, on
//! a connection that waits for no disk. They are hints: whatever is lost here is found by looking again.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{Executor as _, PgPool};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::queries::Changed;
use crate::store::Hints;

/// The channel.
const CHANNEL: &str = "consign";
/// For how long changes are gathered: bounds the `NOTIFY`s of a process to 50 a second.
const GATHER: Duration = Duration::from_millis(20);
/// A payload must be shorter than 8,000 bytes.
const PAYLOAD_MAX: usize = 7900;
/// Ids that wait to be told; with more, the others are told to look at everything.
const PENDING_MAX: usize = 5000;
/// A process says something at least this often, so that it hears itself.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// A process that has heard nothing for so long, not even itself, listens anew.
const SILENCE_MAX: Duration = Duration::from_secs(25);
/// How often a process looks that cannot listen.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// How long what is left may take to be told at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Tells and hears. Cheap to clone.
#[derive(Clone)]
pub(super) struct News {
    shared: Arc<Shared>,
}

struct Shared {
    hints: Arc<Hints>,
    pending: Mutex<Pending>,
    wake: Notify,
    origin: String,
    tells: bool,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Default)]
struct Pending {
    changed: Changed,
    everything: bool,
}

impl News {
    /// Starts to tell, and to listen or look.
    pub(super) fn start(connect: &PgConnectOptions, hints: Arc<Hints>, listens: bool) -> Self {
        let shared = Arc::new(Shared {
            hints,
            pending: Mutex::default(),
            wake: Notify::new(),
            origin: format!("{:016x}", rand::random::<u64>()),
            tells: listens,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let news = Self { shared };
        let one = || PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None);
        if listens {
            news.spawn(tell(news.clone(), one().connect_lazy_with(connect.clone())));
            news.spawn(listen(news.clone(), one().connect_lazy_with(connect.clone())));
        } else {
            news.spawn(look(news.clone()));
        }
        news.shared.tasks.close();
        news
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.shared.tasks.spawn(work);
    }

    /// Tells those who wait in this process at once, and the others soon.
    pub(super) fn announce(&self, changed: Changed) {
        if self.shared.tells && !is_empty(&changed) {
            self.pending().add(&changed);
            self.shared.wake.notify_one();
        }
        changed.announce(&self.shared.hints);
    }

    /// Says what is left to be said, and stops.
    pub(super) async fn stop(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.wait().await;
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.shared.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    fn add(&mut self, changed: &Changed) {
        let sum = &mut self.changed;
        sum.ready |= changed.ready;
        sum.sweep |= changed.sweep;
        sum.outbox |= changed.outbox;
        sum.deliveries |= changed.deliveries;
        if sum.ids.len() + changed.ids.len() > PENDING_MAX {
            self.everything = true;
            sum.ids.clear();
        } else {
            sum.ids.extend(&changed.ids);
        }
    }
}

fn is_empty(changed: &Changed) -> bool {
    !(changed.ready || changed.sweep || changed.outbox || changed.deliveries) && changed.ids.is_empty()
}

/// What is said: who says it, what kinds of work there are, what changed.
fn payloads(origin: &str, pending: Pending) -> Vec<String> {
    let Pending { changed, everything } = pending;
    let mut kinds = String::new();
    for (is_set, letter) in [
        (changed.ready, 'r'),
        (changed.sweep, 's'),
        (changed.outbox, 'o'),
        (changed.deliveries, 'd'),
        (everything, '*'),
    ] {
        if is_set {
            kinds.push(letter);
        }
    }
    let head = format!("{origin} {kinds} ");
    let each = (PAYLOAD_MAX - head.len()) / ID_LENGTH;
    let ids: Vec<Uuid> = if everything { Vec::new() } else { changed.ids.into_iter().collect() };
    if ids.is_empty() {
        return vec![head];
    }
    ids.chunks(each)
        .map(|chunk| chunk.iter().fold(head.clone(), |payload, id| payload + &id.simple().to_string()))
        .collect()
}

/// Characters of an id in a payload.
const ID_LENGTH: usize = 32;

/// Reads what another process said; nothing that this one said itself.
fn heard(origin: &str, payload: &str) -> Option<Pending> {
    let mut words = payload.splitn(3, ' ');
    let (from, kinds, ids) = (words.next()?, words.next()?, words.next()?);
    if from == origin {
        return None;
    }
    let ids: BTreeSet<Uuid> = ids
        .as_bytes()
        .chunks(ID_LENGTH)
        .filter_map(|id| std::str::from_utf8(id).ok().and_then(|id| Uuid::try_parse(id).ok()))
        .collect();
    let has = |letter| kinds.contains(letter);
    let (ready, sweep, outbox, deliveries) = (has('r'), has('s'), has('o'), has('d'));
    let changed = Changed { ready, sweep, outbox, deliveries, ids, ..Changed::default() };
    Some(Pending { changed, everything: has('*') })
}

/// Tells what was gathered.
async fn tell(news: News, pool: PgPool) {
    let shared = &news.shared;
    let mut stopping = false;
    while !stopping {
        tokio::select! {
            () = shared.wake.notified() => sleep(GATHER).await,
            () = sleep(SAY_EVERY) => {},
            () = shared.stop.cancelled() => stopping = true,
        }
        let pending = std::mem::take(&mut *news.pending());
        let is_idle = is_empty(&pending.changed) && !pending.everything;
        if stopping && is_idle {
            break;
        }
        let payloads = payloads(&shared.origin, pending);
        match timeout(LAST_WORDS, say(&pool, &payloads)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                // The others look by themselves after a while; once there is a way again, they are told to.
                tracing::debug!(error = &error as &dyn std::error::Error, "changes are not told to other processes");
                news.pending().everything = true;
            }
            Err(_) => news.pending().everything = true,
        }
    }
    pool.close().await;
}

/// Says it in a transaction that waits for no disk. It is set for the transaction alone: on a connection that a pooler shares, it
/// would hold for those after it, who must wait.
async fn say(pool: &PgPool, payloads: &[String]) -> sqlx::Result<()> {
    let mut tx = pool.begin().await?;
    tx.execute("SET LOCAL synchronous_commit = off; SET LOCAL statement_timeout = '5s'").await?;
    for payload in payloads {
        sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(payload).execute(&mut *tx).await?;
    }
    tx.commit().await
}

/// Hears what other processes say.
async fn listen(news: News, pool: PgPool) {
    let shared = &news.shared;
    let listening = async {
        loop {
            if let Err(error) = hear(&news, &pool).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "changes elsewhere are not heard of");
            }
            // What was said meanwhile is lost.
            shared.hints.announce_everything();
            sleep(POLL_EVERY).await;
        }
    };
    shared.stop.run_until_cancelled(listening).await;
    drop(pool.close());
}

/// Listens until the connection is lost.
async fn hear(news: &News, pool: &PgPool) -> sqlx::Result<()> {
    let shared = &news.shared;
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    shared.hints.announce_everything();
    loop {
        let said = match timeout(SILENCE_MAX, listener.try_recv()).await {
            Ok(Ok(Some(said))) => said,
            Ok(Err(error)) => return Err(error),
            Ok(Ok(None)) | Err(_) => return Ok(()),
        };
        if let Some(heard) = heard(&shared.origin, said.payload()) {
            if heard.everything {
                shared.hints.announce_everything();
            }
            heard.changed.announce(&shared.hints);
        }
    }
}

/// Looks at everything again and again, where nothing can be heard.
async fn look(news: News) {
    let shared = &news.shared;
    let looking = async {
        loop {
            sleep(POLL_EVERY).await;
            shared.hints.announce_everything();
        }
    };
    shared.stop.run_until_cancelled(looking).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(count: u128) -> BTreeSet<Uuid> {
        (0..count).map(Uuid::from_u128).collect()
    }

    #[test]
    fn what_one_says_another_hears() {
        let changed = Changed { ready: true, outbox: true, ids: ids(1000), ..Changed::default() };
        let said = payloads("me", Pending { changed, everything: false });
        assert!(said.len() > 1 && said.iter().all(|payload| payload.len() <= PAYLOAD_MAX));
        let mut all = Pending::default();
        for payload in &said {
            assert!(heard("me", payload).is_none(), "nobody hears himself");
            all.add(&heard("you", payload).unwrap().changed);
        }
        assert_eq!(all.changed.ids, ids(1000));
        assert!(all.changed.ready && all.changed.outbox && !all.changed.sweep && !all.changed.deliveries);
    }

    #[test]
    fn too_much_at_once_is_everything() {
        let mut pending = Pending::default();
        pending.add(&Changed { ids: ids(4000), ..Changed::default() });
        pending.add(&Changed { ids: (4000..6000).map(Uuid::from_u128).collect(), ..Changed::default() });
        let said = payloads("me", pending);
        assert_eq!(said.len(), 1);
        assert!(heard("you", &said[0]).unwrap().everything);
    }

    #[tokio::test]
    async fn what_is_said_arrives_and_leaves_the_connection_as_it_was() {
        let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
        let url = server.database().await.unwrap();
        let pool = PgPoolOptions::new().max_connections(1).connect(&url).await.unwrap();
        pool.execute("SET synchronous_commit = remote_apply; SET statement_timeout = '7s'").await.unwrap();
        let mut listener = PgListener::connect(&url).await.unwrap();
        listener.listen(CHANNEL).await.unwrap();
        say(&pool, &["one".to_owned(), "two".to_owned()]).await.unwrap();
        for payload in ["one", "two"] {
            assert_eq!(listener.recv().await.unwrap().payload(), payload);
        }
        let row = sqlx::query("SELECT current_setting('synchronous_commit') || current_setting('statement_timeout')");
        let row = row.fetch_one(&pool).await.unwrap();
        assert_eq!(sqlx::Row::get::<String, _>(&row, 0), "remote_apply7s");
    }

    #[test]
    fn nonsense_is_nothing() {
        for payload in ["", "x", "x r", "you"] {
            assert!(heard("me", payload).is_none());
        }
        assert!(heard("me", "you r zz").unwrap().changed.ids.is_empty());
    }
}
