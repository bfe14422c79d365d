//! `consign export-state` and `import-state`: the whole state goes from one database to another and back.

use std::collections::BTreeMap;
use std::sync::Arc;

use connectors::{OpenUpload, Part, Secret};
use consign::store::contract::Scene;
use consign::store::postgres::Options;
use consign::store::state::{Imported, Line};
use consign::store::{Applied, PostgresStore, SqliteStore, Store};
use sqlx::Row as _;
use tempfile::TempDir;
use tokio::sync::mpsc;

async fn sqlite(folder: &TempDir, name: &str) -> Arc<dyn Store> {
    Arc::new(SqliteStore::open(&folder.path().join(name).join("consign.db")).await.unwrap())
}

async fn postgres(url: &str) -> Arc<dyn Store> {
    Arc::new(PostgresStore::open(&Secret::new(url), Options { connections_max: 4, listen: false }).await.unwrap())
}

async fn export(store: &Arc<dyn Store>) -> Vec<Line> {
    let (sender, mut lines) = mpsc::channel(4);
    let from = Arc::clone(store);
    let exporting = tokio::spawn(async move { from.export_state(sender).await });
    let mut all = Vec::new();
    while let Some(line) = lines.recv().await {
        all.push(line);
    }
    exporting.await.unwrap().unwrap();
    all
}

/// Stores lines; `whole` says that these were all.
async fn import(store: &Arc<dyn Store>, all: Vec<Line>, whole: bool) -> consign::store::Result<Imported> {
    let (sender, lines) = mpsc::channel(4);
    let sending = tokio::spawn(async move {
        for line in all.into_iter().map(Some).chain(whole.then_some(None)) {
            if sender.send(line).await.is_err() {
                return;
            }
        }
    });
    let imported = store.import_state(lines).await;
    sending.await.unwrap();
    imported
}

/// Something in every state of its life.
async fn busy(store: Arc<dyn Store>) -> Scene {
    let scene = Scene::new(store).await;
    for n in 0..250 {
        scene.job(&format!("a{n}; b!: a{n}; up^; c: b up")).await;
    }
    let claims = scene.claim(40).await;
    for claim in &claims[..20] {
        scene.finish(claim).await;
    }
    for claim in &claims[20..30] {
        scene.fail(claim).await;
    }
    let open = OpenUpload {
        target: "bucket/key".to_owned(),
        handle: "upload \u{0394} id".to_owned(),
        sha256: "00".repeat(32),
        part_bytes: 5 << 20,
        parts: BTreeMap::from([(1, Part { size: 5 << 20, etag: "e".to_owned(), checksum: None })]),
    };
    let (id, token) = (claims[35].task.id, claims[35].token);
    assert!(scene.store.ledger_open(id, token, &open, scene.now()).await.unwrap());
    let delayed = scene.store.delay(claims[36].task.id, claims[36].token, scene.now(), scene.now()).await.unwrap();
    assert_eq!(delayed, Applied::Done);
    scene.store.webhook_secret(scene.user, b"sealed \x00\xff", scene.now()).await.unwrap();
    scene
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_survives_the_way_there_and_back() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let folder = TempDir::new().unwrap();
    let first = sqlite(&folder, "first").await;
    let mut scene = busy(Arc::clone(&first)).await;
    let before = export(&first).await;
    assert!(before.len() > 2000, "{} rows", before.len());

    let second = postgres(&server.database().await.unwrap()).await;
    assert_eq!(import(&second, before.clone(), true).await.unwrap(), Imported::Rows(before.len() as u64));
    let there = export(&second).await;
    assert_eq!(there.len(), before.len());
    let third = sqlite(&folder, "third").await;
    import(&third, there, true).await.unwrap();
    assert_eq!(export(&third).await, before, "not a bit is different");

    // The new database goes on where the old one stopped.
    scene.store = Arc::clone(&second);
    scene.wait(60);
    assert_eq!(
        second.expire_sessions(scene.now(), 100, scene.now()).await.unwrap().tasks,
        9,
        "those that were running"
    );
    assert_eq!(second.ensure_user("eve", scene.now()).await.unwrap().id.0, scene.user.0 + 1);
    let session = consign::id::SessionId::new(scene.now());
    second.open_session(session, "host-b", false, scene.now()).await.unwrap();
    scene.session = session;
    scene.run_all(&[]).await;
    assert_eq!(second.counts(scene.now()).await.unwrap().running, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_state_and_nonsense_are_not_stored() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let folder = TempDir::new().unwrap();
    let first = sqlite(&folder, "first").await;
    busy(Arc::clone(&first)).await;
    let lines = export(&first).await;
    let mut wrong = lines.clone();
    wrong.last_mut().unwrap().values[0] = serde_json::json!(17.5);
    for target in [sqlite(&folder, "other").await, postgres(&server.database().await.unwrap()).await] {
        import(&target, lines[..lines.len() / 2].to_vec(), false).await.expect_err("it is not whole");
        import(&target, wrong.clone(), true).await.expect_err("it makes no sense");
        assert_eq!(target.counts(consign::clock::Timestamp(0)).await.unwrap().users, 0, "nothing is left");
        import(&target, lines.clone(), true).await.unwrap();
        assert_eq!(import(&target, lines.clone(), true).await.unwrap(), Imported::NotEmpty);
    }
}

#[tokio::test]
async fn no_table_or_column_is_forgotten() {
    let folder = TempDir::new().unwrap();
    let store = sqlite(&folder, "x").await;
    store.close().await;
    let path = folder.path().join("x/consign.db");
    let mut lite =
        <sqlx::SqliteConnection as sqlx::Connection>::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let columns = "SELECT t.name AS t, c.name AS c FROM sqlite_master t JOIN pragma_table_info(t.name) c \
                   WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%' AND t.name NOT LIKE '\\_%' ESCAPE '\\' ORDER BY 1, c.cid";
    let rows = sqlx::query(columns).fetch_all(&mut lite).await.unwrap();
    let lite: Vec<String> =
        rows.iter().map(|row| format!("{}.{}", row.get::<&str, _>(0), row.get::<&str, _>(1))).collect();
    let mut ours: Vec<String> = consign::store::state::columns();
    ours.sort_by_key(|column| column.split('.').next().unwrap().to_owned());
    assert_eq!(lite, ours);

    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    postgres(&url).await.close().await;
    let columns = "SELECT table_name || '.' || column_name FROM information_schema.columns \
                   WHERE table_schema = 'public' AND table_name NOT LIKE '\\_%' ORDER BY table_name COLLATE \"C\", ordinal_position";
    let told = server.psql(url.rsplit('/').next().unwrap(), columns).await.unwrap();
    assert_eq!(told.lines().collect::<Vec<_>>(), ours);
}
