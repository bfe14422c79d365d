//! The hot statements stay on their indexes, however the server plans them, and each session has its limits.

use sqlx::{Executor as _, PgConnection, Row as _};

use super::queries::{claim, deliveries, sessions, settle, sweep, transitions, webhooks};
use super::*;

/// A statement, the types of its parameters, values for them, and the index that it must use.
type Case = (&'static str, &'static str, &'static str, &'static str);

const ID: &str = "'00000000-0000-0000-0000-000000000001'";

/// What ends a task, and what follows.
const ENDS: [Case; 7] = [
    (transitions::HOLDS_SQL, "uuid, bigint", "$ID, 1", "tasks_pkey"),
    (ends::FINISH_SQL, "uuid[], bigint[], bigint", "ARRAY[$ID]::uuid[], '{1}', 1", "tasks_pkey"),
    (settle::END_SQL, "uuid[], text, text, bigint", "ARRAY[$ID]::uuid[], '', '', 1", "tasks_pkey"),
    (settle::COUNT_DOWN_SQL, "uuid[], bigint", "ARRAY[$ID]::uuid[], 1", "tasks_pkey"),
    (settle::ORPHAN_SQL, "uuid[], bigint", "ARRAY[$ID]::uuid[], 1", "ledger_pkey"),
    (sets::ENQUEUE_SQL, "uuid[], bigint[], bigint", "ARRAY[$ID]::uuid[], '{0}', 1", "tasks_pkey"),
    (sets::COUNT_SQL, "uuid[], bigint[], bigint[], bigint", "ARRAY[$ID]::uuid[], '{1}', '{0}', 1", "jobs_pkey"),
];

/// What a claim does, and how long the longest has waited for one.
const CLAIMS: [Case; 10] = [
    (run::ANY_SQL, "", "", "tasks_"),
    (sessions::CLAIMER_SQL, "uuid", "$ID", "sessions_pkey"),
    (claim::WINDOW_SQL, "bigint, uuid[]", "64, '{}'", "tasks_open"),
    (sets::HEADS_SQL, "bigint, uuid[], bigint[]", "16, '{}', '{}'", "tasks_queued"),
    (claim::LEASE_SQL, "uuid[], bigint, uuid, text, bigint", "ARRAY[$ID]::uuid[], 1, $ID, '', 1", "tasks_pkey"),
    (sets::TURNS_SQL, "bigint[], bigint[]", "'{1}', '{1}'", "users_pkey"),
    (settle::START_SQL, "uuid[], bigint", "ARRAY[$ID]::uuid[], 1", "jobs_pkey"),
    (claim::INPUTS_SQL, "uuid[]", "ARRAY[$ID]::uuid[]", "dependencies_pkey"),
    (claim::FILES_SQL, "uuid[]", "ARRAY[$ID]::uuid[]", "files_pkey"),
    (sweep::OLDEST_SQL, "", "", "tasks_ready"),
];

/// What the dispatcher and the sweep do.
const DELIVERIES: [Case; 5] = [
    (webhooks::TAKE_OUTBOX_SQL, "bigint, bigint, bigint", "100, 1, 2", "outbox_created"),
    (sweep::TAKE_TRASH_SQL, "bigint, bigint, bigint", "100, 1, 2", "trash_created"),
    (deliveries::NEXT_SQL, "", "", "deliveries_due"),
    (deliveries::RECEIVERS_SQL, "bigint", "100", "deliveries_receiver"),
    (deliveries::CLAIM_SQL, "bigint, bigint, bigint, bigint, bigint", "1, 1, 100, 4, 200", "deliveries_receiver"),
];

/// A new database, and a session of it as the store has it; nothing when the machine has no server.
async fn empty() -> Option<PgConnection> {
    let server = testkit::or_skip(testkit::postgres().await)?;
    let url = Secret::new(server.database().await.unwrap());
    let store = PostgresStore::open(&url, Options { connections_max: 1, listen: false }).await.unwrap();
    store.close().await;
    let mut conn = PgConnectOptions::from_str(url.expose()).unwrap().connect().await.unwrap();
    conn.execute(SESSION_SQL).await.unwrap();
    Some(conn)
}

/// One with jobs, ended and queued tasks of two users, and deliveries.
async fn filled() -> Option<PgConnection> {
    let mut conn = empty().await?;
    conn.execute(
        "INSERT INTO users (id, name, vt, created_at) SELECT n, 'user ' || n, 0, 0 FROM generate_series(1, 2) n; \
         INSERT INTO jobs (id, user_id, status, open_tasks, failed_tasks, created_at, ended_at) \
         SELECT gen_random_uuid(), 1 + n % 2, 'finished', 0, 0, 0, 1 FROM generate_series(1, 20000) n; \
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
         INSERT INTO dependencies (task_id, position, depends_on) SELECT id, 0, gen_random_uuid() FROM tasks; \
         INSERT INTO files (task_id, position, name, size, md5, sha256, crc32c, content_type) \
         SELECT id, 0, '', 0, '', '', 0, '' FROM tasks; \
         ANALYZE users, jobs, tasks, dependencies, files, deliveries",
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
async fn every_hot_statement_keeps_to_its_index() {
    // A plan that was made on new tables is kept when they are full, and the other way round.
    for (state, conn) in [("empty", empty().await), ("filled", filled().await)] {
        let Some(mut conn) = conn else { return };
        for (sql, types, values, index) in ENDS.iter().chain(&CLAIMS).chain(&DELIVERIES) {
            let plan = plan(&mut conn, sql, types, &values.replace("$ID", ID)).await;
            assert!(plan.contains(index), "{state}: {sql}\n{plan}");
            let reads_all = ["Seq Scan", "Hash Right Join", "Hash Join", "Hash Left Join", "Merge"];
            assert!(!reads_all.iter().any(|way| plan.contains(way)), "{state}: reads all: {sql}\n{plan}");
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
