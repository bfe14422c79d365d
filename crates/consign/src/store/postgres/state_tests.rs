//! The whole state goes through one transaction however long somebody takes to write it down, or to bring it.

use futures_util::future::join_all;
use tokio::time::sleep;

use super::*;

/// The limits of a session that end a transaction or a statement.
const LIMITS: [&str; 3] = ["statement_timeout", "idle_in_transaction_session_timeout", "transaction_timeout"];
/// What one of them is here.
const SHORT: &str = "300ms";
/// How long whoever reads or writes is busy with something else.
const PAUSE: Duration = Duration::from_secs(1);
/// Rows of a megabyte each: more than the sockets between server and reader hold.
const ROWS: usize = 24;

/// An empty store whose sessions have one short limit, if its server knows that limit.
async fn hurried(server: &testkit::Postgres, limit: &'static str) -> PostgresStore {
    let url = Secret::new(server.database().await.unwrap());
    let store = PostgresStore::open(&url, Options { connections_max: 1, listen: false }).await.unwrap();
    store.close().await;
    let connect = PgConnectOptions::from_str(url.expose()).unwrap();
    let shorten = format!(
        "SELECT set_config(name, '{SHORT}', FALSE) FROM pg_settings WHERE name = '{limit}'; \
         SET client_min_messages = warning"
    );
    let pool = PgPoolOptions::new()
        .max_connections(2)
        .after_connect(move |conn, _| {
            let shorten = sqlx::AssertSqlSafe(shorten.clone());
            Box::pin(async move { conn.execute(shorten).await.map(drop) })
        })
        .connect_with(connect.clone())
        .await
        .unwrap();
    let hints = Arc::new(Hints::default());
    let news = News::start(&connect, Arc::clone(&hints), false);
    PostgresStore::over(place(&connect), pool.clone(), pool, news, hints)
}

/// Writes the state down, and stops for a while at a few rows, so that the server has nothing to do, and at many, so that it cannot
/// go on.
async fn export(store: &PostgresStore) -> Vec<Line> {
    let (sender, mut lines) = mpsc::channel::<Line>(1);
    let reading = async {
        let mut all: Vec<Line> = Vec::new();
        while let Some(line) = lines.recv().await {
            let is_first = all.last().is_none_or(|last| last.table != line.table);
            if is_first && ["meta", "idempotency"].contains(&line.table.as_str()) {
                sleep(PAUSE).await;
            }
            all.push(line);
        }
        all
    };
    let (exported, all) = tokio::join!(store.export_state(sender), reading);
    exported.unwrap();
    all
}

/// Reads a state in that comes in two halves.
async fn import(store: &PostgresStore, all: Vec<Line>) -> Imported {
    let (sender, lines) = mpsc::channel(1);
    let half = all.len() / 2;
    let writing = async move {
        for (n, line) in all.into_iter().map(Some).chain([None]).enumerate() {
            if n == half {
                sleep(PAUSE).await;
            }
            if sender.send(line).await.is_err() {
                return;
            }
        }
    };
    let (imported, ()) = tokio::join!(store.import_state(lines), writing);
    imported.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_state_takes_its_time() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let moving = LIMITS.map(async |limit| {
        let (from, to) = (hurried(&server, limit).await, hurried(&server, limit).await);
        let fill = "INSERT INTO users (name, vt, created_at) VALUES ('ada', 0, 0); \
                    INSERT INTO idempotency (user_id, key, request_hash, answer, created_at) \
                    SELECT 1, n, '', decode(repeat('ab', 1 << 20), 'hex'), 0 FROM generate_series(1, 24) n";
        // By a session that is not in a hurry, and that is not used again.
        let mut conn = from.writer.pool.acquire().await.unwrap().detach();
        let unhurried = format!("SELECT set_config(name, '0', FALSE) FROM pg_settings WHERE name = '{limit}'");
        conn.execute(sqlx::AssertSqlSafe(unhurried)).await.unwrap();
        conn.execute(fill).await.unwrap();
        conn.close().await.unwrap();
        let all = export(&from).await;
        assert_eq!(all.iter().filter(|line| line.table == "idempotency").count(), ROWS, "{limit}");
        assert_eq!(import(&to, all.clone()).await, Imported::Rows(all.len() as u64), "{limit}");
        from.close().await;
        to.close().await;
    });
    join_all(moving).await;
}
