//! Consign's own loop: jobs of three tasks in a chain, made, claimed and finished on a store.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use connectors::Secret;
use consign::clock::Clock;
use consign::id::SessionId;
use consign::store::contract::{Scene, file};
use consign::store::postgres::Options;
use consign::store::{Applied, Claim, ClaimRequest, Creation, PostgresStore, SqliteStore, Store};
use futures_util::future::try_join_all;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::{CONNECTIONS, CREATORS, TASKS_PER_JOB};

/// A job as text: each task takes its file from the one before.
const GRAPH: &str = "fetch; turn: fetch; save: turn";
/// How long to wait for a hint that there is something to claim.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A store that is driven as a server would.
pub(crate) struct Ours {
    scene: Arc<Scene>,
}

/// How it is driven.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Jobs to make.
    pub(crate) jobs: u32,
    /// Tasks that are claimed, and then finished, at once.
    pub(crate) batch: u32,
}

impl Ours {
    pub(crate) async fn sqlite(folder: &Path) -> Result<Self> {
        Self::new(Arc::new(SqliteStore::open(&folder.join("consign.db")).await?)).await
    }

    pub(crate) async fn postgres(url: &str) -> Result<Self> {
        let options = Options { connections_max: CONNECTIONS, listen: true };
        Self::new(Arc::new(PostgresStore::open(&Secret::new(url), options).await?)).await
    }

    async fn new(store: Arc<dyn Store>) -> Result<Self> {
        let clock = Clock::system();
        let user = store.ensure_user("ada", clock.now()).await?.id;
        let session = SessionId::new(clock.now());
        store.open_session(session, "bench", false, clock.now()).await?;
        Ok(Self { scene: Arc::new(Scene { store, clock, user, session }) })
    }

    /// Makes jobs with [`CREATORS`] at once, while one worker claims and finishes, until all have ended.
    pub(crate) async fn run(&self, load: Load) -> Result<()> {
        let mut all = JoinSet::new();
        let left = Arc::new(AtomicU32::new(load.jobs));
        for _ in 0..CREATORS {
            all.spawn(create(Arc::clone(&self.scene), Arc::clone(&left)));
        }
        all.spawn(work(Arc::clone(&self.scene), load));
        while let Some(ended) = all.join_next().await {
            ended??;
        }
        let counts = self.scene.store.counts(self.scene.now()).await?;
        ensure!(counts.waiting + counts.queued + counts.running == 0, "something is left over: {counts:?}");
        Ok(())
    }

    pub(crate) async fn close(self) {
        self.scene.store.close().await;
    }
}

async fn create(scene: Arc<Scene>, left: Arc<AtomicU32>) -> Result<()> {
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let made = scene.store.create_job(scene.new_job(scene.user, GRAPH)).await?;
        ensure!(made == Creation::Created, "a job was not made");
    }
    Ok(())
}

async fn work(scene: Arc<Scene>, load: Load) -> Result<()> {
    let mut left = load.jobs * TASKS_PER_JOB;
    while left > 0 {
        let request =
            ClaimRequest { session: scene.session, tasks_max: load.batch, per_user_max: u32::MAX, now: scene.now() };
        let claims = scene.store.claim(&request).await?;
        if claims.is_empty() {
            // Nothing there yet; should the hint be lost, it looks again.
            let _ = timeout(LOOK_AGAIN, scene.store.hints().ready()).await;
            continue;
        }
        try_join_all(claims.iter().map(|claim| finish(&scene, claim))).await?;
        left -= u32::try_from(claims.len())?;
    }
    Ok(())
}

async fn finish(scene: &Scene, claim: &Claim) -> Result<()> {
    let files = [file(claim.task.id, claim.token)];
    let applied = scene.store.finish(claim.task.id, claim.token, &files, scene.now()).await?;
    ensure!(applied == Applied::Done, "a lease was lost");
    Ok(())
}
