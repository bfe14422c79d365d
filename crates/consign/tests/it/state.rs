//! `consign export-state` and `import-state`: the whole state goes from one database to another and back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use connectors::{OpenUpload, Part, Receipt, Secret};
use consign::id::{DeliveryId, KeyId, SignedUrlId};
use consign::model::{DeliveryAttempt, Download, EventKind, File, Origin, Scope, SignedUrl};
use consign::store::contract::{Scene, file};
use consign::store::postgres::Options;
use consign::store::state::{Imported, Line};
use consign::store::{
    Applied, AttemptEnd, Cancellation, Creation, DeliveryClaim, Error, Idempotency, NewDelivery, NewKey, NewWebhook,
    PostgresStore, Recipient, SqliteStore, Store,
};
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
    accounts_and_links(&scene).await;
    told(&scene).await;
    ended(&scene).await;
    scene
}

/// A key and signed URLs, with a result that is kept.
async fn accounts_and_links(scene: &Scene) {
    let (store, user_id, now) = (&scene.store, scene.user, scene.now());
    let (name, scopes) = ("k".to_owned(), Scope::ALL.to_vec());
    let expires_at = Some(now.plus(Duration::from_hours(1)));
    let key = NewKey { id: KeyId::new(now), user_id, name, hash: [7; 32], scopes, expires_at };
    store.create_key(key, now).await.unwrap().unwrap();
    assert!(store.revoke_key("k", now).await.unwrap());
    for is_revoked in [true, false] {
        let (id, name, secret) = (SignedUrlId::new(now), "site".to_owned(), b"sealed".to_vec());
        let url = SignedUrl { id, user_id, name, secret, created_at: now, revoked_at: None };
        assert!(store.create_signed_url(url).await.unwrap());
        if is_revoked {
            assert!(store.revoke_signed_url("site", now).await.unwrap());
        } else {
            store.create_signed_job(scene.new_job(user_id, "in"), id, "cached").await.unwrap().unwrap();
        }
    }
}

/// Webhooks: one event to be told, others that were sent, ended and are to be sent again; and all that a job can bring with it.
async fn told(scene: &Scene) {
    let (store, user_id, now) = (&scene.store, scene.user, scene.now());
    let (url, events, secret) = (b"sealed".to_vec(), EventKind::ALL.to_vec(), b"sealed".to_vec());
    let hook = store.create_webhook(NewWebhook { user_id, url, events, secret }, 10, now).await.unwrap().unwrap();
    let mut new = scene.new_job(user_id, "a");
    new.job.tag = Some("a tag".to_owned());
    new.job.webhook_url = Some("c2VhbGVk".to_owned());
    new.job.origin = Origin::Key(store.list_keys().await.unwrap()[0].0.id);
    new.job.tasks[0].warnings = vec!["`colour` is not known.".to_owned()];
    let (key, answer) = ("once".to_owned(), b"sealed".to_vec());
    new.idempotency = Some(Idempotency { key, request_hash: [9; 32], answer });
    assert_eq!(store.create_job(new).await.unwrap(), Creation::Created);
    let line = store.outbox(1).await.unwrap()[0];
    let receivers = [Recipient::Webhook(hook.id), Recipient::Job { url: b"sealed".to_vec(), host: -5 }];
    let deliveries = receivers.map(|to| NewDelivery { id: DeliveryId::new(now), to, body: b"sealed".to_vec() });
    assert!(store.tell(line, deliveries.to_vec(), now).await.unwrap());
    let (lease_until, sending) = (now.plus(Duration::from_mins(1)), Vec::new());
    let claim = DeliveryClaim { max: 9, per_receiver_max: 9, per_user_max: 9, sending, lease_until, now };
    let parcels = store.claim_deliveries(claim).await.unwrap();
    for (parcel, end) in parcels.iter().zip([AttemptEnd::Failed, AttemptEnd::Again(lease_until)]) {
        let (number, error) = (parcel.number, Some("It did not work.".to_owned()));
        let attempt = DeliveryAttempt { number, at: now, status: Some(500), error, duration_ms: 12 };
        assert!(store.end_attempt(parcel.id, attempt, end, now).await.unwrap());
    }
    scene.job("a").await;
}

/// Tasks that ended in ways of their own, and one whose files are still to be removed.
async fn ended(scene: &Scene) {
    let (store, user, now) = (&scene.store, scene.user, scene.now());
    let claim = scene.claim_one_of_many().await;
    let (id, token) = (claim.task.id, claim.token);
    let receipt = Receipt { location: "s3://b/k".to_owned(), verified: "crc32c".to_owned(), ..Receipt::default() };
    let download = Some(Download { inline: true, expires_at: now.plus(Duration::from_hours(1)) });
    let file = File { download, receipt: Some(receipt), ..file(id, token) };
    assert_eq!(store.finish(id, token, &[file], now).await.unwrap(), Applied::Done);

    let claim = scene.claim_one_of_many().await;
    let (id, token) = (claim.task.id, claim.token);
    let (target, handle, sha256) = ("bucket/other".to_owned(), "u".to_owned(), "11".repeat(32));
    let open = OpenUpload { target, handle, sha256, part_bytes: 5 << 20, parts: BTreeMap::new() };
    assert!(store.ledger_open(id, token, &open, now).await.unwrap());
    let part = Part { size: 5 << 20, etag: "e".to_owned(), checksum: Some("c".to_owned()) };
    assert!(store.ledger_part(id, token, &open.target, 1, &part).await.unwrap());
    assert_eq!(store.cancel(user, id, now).await.unwrap(), Cancellation::Done);

    let mut again = scene.single(&[]);
    again.task.retry_of = Some(id);
    assert_eq!(store.create_task(again).await.unwrap(), Creation::Created);
    let gone = scene.single(&[]);
    let id = gone.task.id;
    assert_eq!(store.create_task(gone).await.unwrap(), Creation::Created);
    assert!(store.delete_task(user, id, now).await.unwrap());
    let until = now.plus(Duration::from_secs(10));
    assert_eq!(store.take_trash(9, now, until).await.unwrap(), [id]);
    assert_eq!(store.take_outbox(1, now, until).await.unwrap().len(), 1);

    let whole = scene.job("alone").await;
    assert_eq!(store.cancel(user, whole.task("alone"), now).await.unwrap(), Cancellation::Done);
}

/// What is written without a value in any row: a table that the tests do not fill, or a column.
fn unfilled(lines: &[Line]) -> Vec<String> {
    let mut names: Vec<String> = consign::store::state::columns();
    let mut filled = BTreeSet::new();
    let mut at = BTreeMap::new();
    for (n, name) in names.iter().enumerate() {
        at.entry(name.split('.').next().unwrap()).or_insert(n);
    }
    for line in lines {
        let values = line.values.iter().enumerate().filter(|(_, value)| !value.is_null());
        filled.extend(values.map(|(n, _)| names[at[line.table.as_str()] + n].clone()));
    }
    names.retain(|name| !filled.contains(name));
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_survives_the_way_there_and_back() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let folder = TempDir::new().unwrap();
    let first = sqlite(&folder, "first").await;
    let mut scene = busy(Arc::clone(&first)).await;
    let before = export(&first).await;
    assert!(before.len() > 2000, "{} rows", before.len());
    // The names are those of the schemas, see below: whoever adds a table or a column fills it here.
    assert_eq!(unfilled(&before), Vec::<String>::new(), "nothing is written there, so that nothing is shown of it");

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

/// A file of an earlier version has not all the columns of this one: the database puts its own default there.
#[tokio::test(flavor = "multi_thread")]
async fn columns_that_came_later_are_left_to_the_database() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let folder = TempDir::new().unwrap();
    let first = sqlite(&folder, "first").await;
    busy(Arc::clone(&first)).await;
    let whole = export(&first).await;
    let names = consign::store::state::layout();
    let (mut early, mut wanted) = (whole.clone(), whole);
    for (table, column) in [("tasks", "warnings"), ("jobs", "tag"), ("files", "receipt")] {
        let at = names[table].iter().position(|name| name == column).unwrap();
        let mut columns = names[table].clone();
        columns.remove(at);
        let columns: Arc<[String]> = columns.into();
        for (line, wanted) in early.iter_mut().zip(&mut wanted).filter(|(line, _)| line.table == table) {
            line.values.remove(at);
            line.columns = Some(Arc::clone(&columns));
            wanted.values[at] = serde_json::Value::Null;
        }
    }
    for target in [sqlite(&folder, "other").await, postgres(&server.database().await.unwrap()).await] {
        import(&target, early.clone(), true).await.unwrap();
        let mut there = export(&target).await;
        // Databases sort ids as text or as bytes.
        there.sort_by_key(|line| format!("{line:?}"));
        wanted.sort_by_key(|line| format!("{line:?}"));
        assert!(there == wanted, "{}", target.describe());
    }
    let other = sqlite(&folder, "strange").await;
    let line = Line { table: "jobs".to_owned(), values: vec![1.into()], columns: Some(["no_such".to_owned()].into()) };
    import(&other, vec![line], true).await.expect_err("there is no such column");
}

/// An older program may use a database while a fleet is upgraded, but what it would write down might not be all.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_ahead_is_not_written_down() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let folder = TempDir::new().unwrap();
    let url = server.database().await.unwrap();
    let name = url.rsplit('/').next().unwrap();
    let (first, second) = (sqlite(&folder, "first").await, postgres(&url).await);
    let path = folder.path().join("first/consign.db");
    let mut lite =
        <sqlx::SqliteConnection as sqlx::Connection>::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let (later, gone) = (
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'later', TRUE, '', 0)",
        "DELETE FROM _sqlx_migrations WHERE version = 9999",
    );
    for is_ahead in [true, false] {
        let sql = if is_ahead { later } else { gone };
        sqlx::raw_sql(sql).execute(&mut lite).await.unwrap();
        server.psql(name, sql).await.unwrap();
        for store in [&first, &second] {
            let (sender, mut lines) = mpsc::channel(1000);
            let exported = store.export_state(sender).await;
            let is_refused = matches!(&exported, Err(Error::NewerSchema { found: 9999, known }) if *known < 9999);
            assert_eq!(is_refused, is_ahead, "{}: {exported:?}", store.describe());
            assert_eq!(lines.recv().await.is_some(), exported.is_ok(), "nothing is half of it");
        }
    }
    let told = Error::NewerSchema { found: 9999, known: 1 }.to_string();
    assert!(told.contains("use the later version"), "{told}");
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
