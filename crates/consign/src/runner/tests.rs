//! A runner whose file store hangs.

use std::future::pending;

use connectors::Limits;
use connectors::egress::Guard;
use connectors::http::tls_config;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::*;
use crate::config::Period;
use crate::files::tests::{Act, Staged, goes, on_stage};
use crate::model::State;
use crate::store::SqliteStore;
use crate::store::contract::Scene;

const PATIENCE: Duration = Duration::from_secs(30);

/// A runner whose file store shows its first page, when it is opened, and hangs when it is asked for another one.
struct Hanging {
    scene: Scene,
    stage: Arc<Staged>,
    runner: Runner,
    _folder: TempDir,
}

impl Hanging {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let stage = Arc::new(Staged::new(|stage, act, _| {
            let hangs = act == Act::Page && stage.count(Act::Page) > 1;
            if hangs { Box::pin(pending()) } else { goes() }
        }));
        let scene = Scene::new(Arc::new(SqliteStore::open(&folder.path().join("consign.db")).await.unwrap())).await;
        let tools = Tools {
            store: Arc::clone(&scene.store),
            files: on_stage(Arc::clone(&stage), folder.path()).await,
            network: Network::new(Guard::new([]), tls_config(&[]).unwrap(), Limits::default(), 4),
            vault: Arc::new(Vault::new(&[7; 32])),
            clock: scene.clock.clone(),
            config: Arc::new(Config { retention: Period::from_secs(1), ..Config::default() }),
            metrics: Arc::new(Metrics::default()),
            host_name: "host-b".to_owned(),
            exclusive: true,
        };
        let runner = Runner::start(tools).await.unwrap();
        let hanging = Self { scene, stage, runner, _folder: folder };
        // The search is the first to ask again.
        hanging.hangs(1).await;
        hanging
    }

    /// Waits until so many wait for the file store.
    async fn hangs(&self, count: usize) {
        let hangs = async {
            while self.stage.count(Act::Page) < 1 + count {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, hangs).await.expect("the file store is asked");
    }

    async fn stop(&self) {
        timeout(PATIENCE, self.runner.stop(Duration::ZERO)).await.expect("the runner stops");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_that_hangs_does_not_keep_jobs_beyond_their_time() {
    let hanging = Hanging::new().await;
    let scene = &hanging.scene;
    let made = scene.job("a").await;
    // Its arguments are not sealed with this key, so that it ends by itself if the runner is faster.
    scene.store.cancel(scene.user, made.task("a"), scene.now()).await.unwrap();
    scene.wait(2);
    let goes = async {
        while scene.store.job(scene.user, made.id).await.unwrap().is_some() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, goes).await.expect("it expires while the search hangs");
    hanging.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_removed_do_not_hold_up_a_stop() {
    let hanging = Hanging::new().await;
    let scene = &hanging.scene;
    // Its arguments cannot be opened, so that the attempt fails and its files are to be removed.
    let made = scene.job("a").await;
    hanging.hangs(2).await;
    assert_eq!(scene.task(made.task("a")).await.state, State::Error, "its end does not wait for its files");
    hanging.stop().await;
}
