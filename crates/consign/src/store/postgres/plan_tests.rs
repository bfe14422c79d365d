//! The hot statements stay on their indexes, however the server plans them, and each session has its limits.

use sqlx::{Executor as _, PgConnection, Row as _};

use super::queries::{claim, deliveries};
use super::*;

/// A database with ended and queued tasks of two users, and deliveries; nothing when the machine has no server.
async fn filled() -> Option<PgConnection> {
    let server = testkit::or_skip(testkit::postgres().await)?;
    let url = Secret::new(server.database().await.unwrap());
    let store = PostgresStore::open(&url, Options { connections_max: 1, listen: false }).await.unwrap();
    store.close().await;
    let mut conn = PgConnectOptions::from_str(url.expose()).unwrap().connect().await.unwrap();
    conn.execute(
        "INSERT INTO users (id, name, vt, created_at) SELECT n, 'user ' || n, 0, 0 FROM generate_series(1, 2) n; \
         INSERT INTO tasks (id, user_id, position, operation, state, ignore_error, forgiven, priority, vt, open_inputs, \
                            usable_inputs, attempt, percent, created_at, ended_at) \
         SELECT gen_random_uuid(), 1 + n % 2, 0, 'x', CASE WHEN n % 10 = 0 THEN 'queued' ELSE 'finished' END, FALSE, FALSE, \
                0, n, 0, 0, 0, 0, 0, CASE WHEN n % 10 = 0 THEN NULL ELSE 1 END \
         FROM generate_series(1, 50000) n; \
         INSERT INTO deliveries (id, user_id, job_id, kind, url, receiver, body, state, sending, attempts, tries, due_at, \
                                 created_at, ended_at) \
         SELECT gen_random_uuid(), 1, gen_random_uuid(), 'job.finished', '', n % 3, '', \
                CASE WHEN n % 10 = 0 THEN 'pending' ELSE 'delivered' END, FALSE, 0, 0, n, 0, \
                CASE WHEN n % 10 = 0 THEN NULL ELSE 1 END \
         FROM generate_series(1, 20000) n; \
         ANALYZE",
    )
    .await
    .unwrap();
    Some(conn)
}

/// How the server would run a statement.
async fn plan(conn: &mut PgConnection, sql: &str, types: &str, values: &str) -> String {
    let prepare = format!("PREPARE statement ({types}) AS {sql}");
    let prepare = if types.is_empty() { prepare.replace(" ()", "") } else { prepare };
    let values = if values.is_empty() { String::new() } else { format!("({values})") };
    conn.execute(sqlx::AssertSqlSafe(prepare)).await.unwrap();
    let explain = sqlx::AssertSqlSafe(format!("EXPLAIN EXECUTE statement{values}"));
    let rows = sqlx::raw_sql(explain).fetch_all(&mut *conn).await.unwrap();
    conn.execute("DEALLOCATE statement").await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn the_claims_use_their_indexes() {
    let Some(mut conn) = filled().await else { return };
    for mode in ["force_generic_plan", "force_custom_plan"] {
        conn.execute(sqlx::AssertSqlSafe(format!("SET plan_cache_mode = {mode}"))).await.unwrap();
        for (sql, types, values, index) in [
            (claim::WINDOW_SQL, "bigint", "64", "tasks_open"),
            (claim::USER_SQL, "bigint, bigint", "1, 16", "tasks_queued"),
            (claim::OWNERS_SQL, "", "", "tasks_queued"),
            (deliveries::NEXT_SQL, "", "", "deliveries_due"),
            (deliveries::RECEIVERS_SQL, "bigint", "100", "deliveries_receiver"),
            (
                deliveries::CLAIM_SQL,
                "bigint, bigint, bigint, bigint, bigint",
                "1, 1, 100, 4, 200",
                "deliveries_receiver",
            ),
        ] {
            let plan = plan(&mut conn, sql, types, values).await;
            assert!(plan.contains(index), "{mode}: {sql}\n{plan}");
            assert!(!plan.contains("Seq Scan"), "{mode}: reads all: {sql}\n{plan}");
        }
    }
}

#[tokio::test]
async fn a_session_that_hangs_starves_nobody() {
    let Some(server) = testkit::or_skip(testkit::postgres().await) else { return };
    let url = server.database().await.unwrap();
    let connect = PgConnectOptions::from_str(&url).unwrap().options([("synchronous_commit", "off")]);
    let pool = pool(1).connect_with(connect).await.unwrap();
    let mut conn = pool.acquire().await.unwrap();
    for (setting, value) in [
        ("statement_timeout", "15s"),
        ("lock_timeout", "8s"),
        ("idle_in_transaction_session_timeout", "15s"),
        ("synchronous_commit", "on"),
    ] {
        let shown = sqlx::AssertSqlSafe(format!("SHOW {setting}"));
        let row = sqlx::query(shown).fetch_one(&mut *conn).await.unwrap();
        assert_eq!(row.get::<String, _>(0), value, "{setting}");
    }
}
