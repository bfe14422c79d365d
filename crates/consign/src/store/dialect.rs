//! What the databases say differently, side by side.
//!
//! SQLite has one writer at a time, so no transaction ever meets another. PostgreSQL runs them side by side, each statement on
//! what was committed when it began: what a transaction has read and relies on it must lock. The order is the same everywhere,
//! so that two rarely wait for each other: the claim (a row of `meta`), then sessions, then jobs, then tasks. Where they do,
//! PostgreSQL ends one of them and it is run again.

/// The turn of a user's next task, for user `$1`: where claims are now, or behind this user's last one, whether that was claimed or
/// is still queued. The tasks after it get the turns after it. So a backlog spreads out behind its owner, and another user's
/// first task comes next. Locks nothing: two transactions of a user may give the same turn, and the older task then goes
/// first.
macro_rules! first_turn {
    () => {
        "(SELECT MAX(turn) FROM (SELECT value AS turn FROM meta WHERE name = 'virtual_time' \
          UNION ALL SELECT vt + 1 FROM users WHERE id = $1 \
          UNION ALL SELECT vt + 1 FROM (SELECT vt FROM tasks WHERE state = 'queued' AND priority = 0 AND user_id = $1 \
                                        ORDER BY vt DESC LIMIT 1) AS queued) AS turns)"
    };
}

pub(super) mod sqlite {
    //! SQLite: its one writer is the lock.

    use sqlx::SqliteConnection as Conn;
    use uuid::Uuid;

    use crate::clock::Timestamp;

    macro_rules! for_update {
        () => {
            ""
        };
    }
    macro_rules! for_share {
        () => {
            ""
        };
    }
    macro_rules! for_key_share {
        ($table:literal) => {
            ""
        };
    }
    macro_rules! skip_locked {
        () => {
            ""
        };
    }
    macro_rules! among {
        ($select:expr) => {
            concat!("IN (", $select, ")")
        };
    }
    macro_rules! of {
        ($select:expr) => {
            concat!("IN (", $select, ")")
        };
    }
    macro_rules! claimer {
        () => {
            "SELECT host_name FROM sessions WHERE id = $1"
        };
    }
    macro_rules! in_state {
        ($state:literal) => {
            concat!("state = '", $state, "'")
        };
    }
    macro_rules! listed {
        ($list:literal) => {
            concat!("IN (SELECT unhex(value) FROM json_each(", $list, "))")
        };
    }
    macro_rules! due_of_receiver {
        () => {
            "user_id = $1 AND receiver = $2 AND due_at <= $3 ORDER BY due_at"
        };
    }
    pub(crate) use {
        among, claimer, due_of_receiver, first_turn, for_key_share, for_share, for_update, in_state, listed, of,
        skip_locked,
    };

    /// A parameter for `listed!`: a JSON list of hexadecimal ids.
    pub(crate) fn list(ids: &[Uuid]) -> String {
        let ids: Vec<String> = ids.iter().map(|id| format!("\"{}\"", id.simple())).collect();
        format!("[{}]", ids.join(","))
    }

    #[expect(clippy::unused_async, reason = "the other database waits here")]
    pub(crate) async fn lock_free(_: &mut Conn, tasks: &[Uuid]) -> sqlx::Result<Vec<Uuid>> {
        Ok(tasks.to_vec())
    }

    #[expect(clippy::unused_async, reason = "the other database waits here")]
    pub(crate) async fn lock_jobs_of(_: &mut Conn, _: &[Uuid]) -> sqlx::Result<()> {
        Ok(())
    }

    /// One process has one clock.
    #[expect(clippy::unused_async, reason = "the other database is asked here")]
    pub(crate) async fn time(_: &mut Conn, own: Timestamp) -> sqlx::Result<Timestamp> {
        Ok(own)
    }

    /// Ids go on behind the highest one by themselves.
    #[expect(clippy::unused_async, reason = "the other database waits here")]
    pub(crate) async fn number_on(_: &mut Conn) -> sqlx::Result<()> {
        Ok(())
    }

    /// A server locks the file.
    #[expect(clippy::unused_async, reason = "the other database waits here")]
    pub(crate) async fn others(_: &mut Conn) -> sqlx::Result<u64> {
        Ok(0)
    }

    /// Nobody keeps rows alive that are gone.
    #[expect(clippy::unused_async, reason = "the other database is asked here")]
    pub(crate) async fn oldest_snapshot_secs(_: &mut Conn) -> sqlx::Result<u64> {
        Ok(0)
    }

    /// Writes. One process has one clock.
    pub(crate) async fn ping(conn: &mut Conn) -> sqlx::Result<Option<Timestamp>> {
        sqlx::query("UPDATE meta SET value = value WHERE name = 'virtual_time'").execute(conn).await?;
        Ok(None)
    }
}

pub(super) mod postgres {
    //! PostgreSQL: rows are locked.

    use sqlx::{PgConnection as Conn, Row as _};
    use uuid::Uuid;

    use crate::clock::Timestamp;

    /// Behind a `SELECT` of rows that this transaction is about to change, or that stand for something to be locked.
    macro_rules! for_update {
        () => {
            " FOR NO KEY UPDATE"
        };
    }
    /// Behind a `SELECT` of rows that must stay as they are until this transaction ends.
    macro_rules! for_share {
        () => {
            " FOR SHARE"
        };
    }
    /// Behind a `SELECT` that says what to insert: the rows of this table, which the new ones name, must stay until this transaction
    /// ends. The foreign key sees to that as well, but too late: it fails where the row has gone since the `SELECT` saw it.
    macro_rules! for_key_share {
        ($table:literal) => {
            concat!(" FOR KEY SHARE OF ", $table)
        };
    }
    /// Behind a `SELECT` that picks rows to change, and leaves those alone that another transaction is changing.
    macro_rules! skip_locked {
        () => {
            " FOR UPDATE SKIP LOCKED"
        };
    }
    /// Behind a column: it is one of those that a `SELECT` picks, as above. An array is made once; a `SELECT` in an `IN` may be
    /// run again for each row, and with `SKIP LOCKED` picks others each time.
    macro_rules! among {
        ($select:expr) => {
            concat!("= ANY(ARRAY(", $select, " FOR UPDATE SKIP LOCKED))")
        };
    }
    /// Behind a column: it is one of those that a `SELECT` gives. As an array they are looked up first, and then one by one in the
    /// index; given a join, a server that knows nothing yet of new tables goes through all rows, and keeps to that plan.
    macro_rules! of {
        ($select:expr) => {
            concat!("= ANY(ARRAY(", $select, "))")
        };
    }
    /// The session `$1` that claims, which lives until this transaction has ended. One claim at a time: so limits are exact, and
    /// turns are given away in their order.
    macro_rules! claimer {
        () => {
            "SELECT s.host_name FROM meta m, sessions s WHERE m.name = 'virtual_time' AND s.id = $1 \
             FOR NO KEY UPDATE OF m FOR SHARE OF s"
        };
    }
    /// The state that a row must have which is named by its id: said so that the server does not see an index of just that state in
    /// it. It would rather go through all of such an index, while that is short or was when the statement was planned.
    macro_rules! in_state {
        ($state:literal) => {
            concat!("state || '' = '", $state, "'")
        };
    }
    /// Behind a column: it is one of the ids in this parameter, a [`list`]. One text however many they are, so that a connection
    /// prepares and plans it once.
    macro_rules! listed {
        ($list:literal) => {
            concat!("= ANY(", $list, ")")
        };
    }
    /// What is due of user `$1` and receiver `$2` at `$3`, in this order. As a range of the one index that has just that; given
    /// the columns one by one, the server would rather go through all that is due of anybody.
    macro_rules! due_of_receiver {
        () => {
            "(user_id, receiver, due_at) >= ($1, $2, 0) AND (user_id, receiver, due_at) <= ($1, $2, $3) \
             ORDER BY user_id, receiver, due_at"
        };
    }
    pub(crate) use {
        among, claimer, due_of_receiver, first_turn, for_key_share, for_share, for_update, in_state, listed, of,
        skip_locked,
    };

    /// A parameter for `listed!`.
    pub(crate) fn list(ids: &[Uuid]) -> Vec<Uuid> {
        ids.to_vec()
    }

    /// Those of these tasks that no other transaction is changing, nor their jobs. Waits for none: who is stopped in the middle of a
    /// transaction must not hold up claims, which wait for each other.
    pub(crate) async fn lock_free(conn: &mut Conn, tasks: &[Uuid]) -> sqlx::Result<Vec<Uuid>> {
        let rows = sqlx::query(
            "WITH free AS (SELECT id FROM jobs WHERE id = ANY(ARRAY(SELECT job_id FROM tasks WHERE id = ANY($1))) \
                           ORDER BY id FOR NO KEY UPDATE SKIP LOCKED) \
             SELECT id FROM tasks WHERE id = ANY($1) AND (job_id IS NULL OR job_id IN (SELECT id FROM free)) \
             FOR NO KEY UPDATE SKIP LOCKED",
        )
        .bind(tasks)
        .fetch_all(conn)
        .await?;
        rows.iter().map(|row| row.try_get("id")).collect()
    }

    /// One transition at a time of the jobs that these tasks belong to.
    pub(crate) async fn lock_jobs_of(conn: &mut Conn, tasks: &[Uuid]) -> sqlx::Result<()> {
        sqlx::query(
            "SELECT 1 FROM jobs WHERE id = ANY(ARRAY(SELECT job_id FROM tasks WHERE id = ANY($1))) \
             ORDER BY id FOR NO KEY UPDATE",
        )
        .bind(tasks)
        .execute(conn)
        .await
        .map(drop)
    }

    /// The time of the database: that of none of the processes that share it.
    pub(crate) async fn time(conn: &mut Conn, _own: Timestamp) -> sqlx::Result<Timestamp> {
        let sql = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT) AS now";
        sqlx::query(sql).fetch_one(conn).await?.try_get("now").map(Timestamp)
    }

    /// Lets ids go on behind the highest one, after rows were stored with ids of their own.
    pub(crate) async fn number_on(conn: &mut Conn) -> sqlx::Result<()> {
        sqlx::query(
            "SELECT setval(pg_get_serial_sequence('users', 'id'), (SELECT COALESCE(MAX(id), 0) + 1 FROM users), FALSE), \
                    setval(pg_get_serial_sequence('webhooks', 'id'), (SELECT COALESCE(MAX(id), 0) + 1 FROM webhooks), FALSE)",
        )
        .execute(conn)
        .await
        .map(drop)
    }

    /// Connections that other processes have to this database, by the name that they give.
    pub(crate) async fn others(conn: &mut Conn) -> sqlx::Result<u64> {
        let row = sqlx::query(
            "SELECT COUNT(*) AS others FROM pg_stat_activity WHERE datname = current_database() \
             AND application_name = current_setting('application_name') AND pid <> pg_backend_pid()",
        )
        .fetch_one(conn)
        .await?;
        Ok(row.try_get::<i64, _>("others")?.unsigned_abs())
    }

    /// The age of the oldest transaction for which the server keeps rows that are gone, as far as it tells us. Its own cleaning is
    /// not one, and those of replicas have no age here.
    pub(crate) async fn oldest_snapshot_secs(conn: &mut Conn) -> sqlx::Result<u64> {
        let row = sqlx::query(
            "SELECT CAST(FLOOR(EXTRACT(EPOCH FROM clock_timestamp() - MIN(began))) AS BIGINT) AS secs FROM ( \
                 SELECT xact_start AS began FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend' \
                     AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) \
                 UNION ALL SELECT prepared FROM pg_prepared_xacts WHERE database = current_database()) AS transactions",
        )
        .fetch_one(conn)
        .await?;
        Ok(u64::try_from(row.try_get::<Option<i64>, _>("secs")?.unwrap_or_default()).unwrap_or_default())
    }

    /// Writes a row, and tells the time of the database. A transaction number alone would say little: who may not write gets one
    /// too. Of the rows of `meta` it is the one that no other command waits for, and processes that ask at the same moment do not
    /// wait for each other: whoever finds it taken knows that somebody has just written it.
    pub(crate) async fn ping(conn: &mut Conn) -> sqlx::Result<Option<Timestamp>> {
        sqlx::query(concat!(
            "UPDATE meta SET value = value WHERE name ",
            among!("SELECT name FROM meta WHERE name = 'schema_floor'")
        ))
        .execute(&mut *conn)
        .await?;
        time(conn, Timestamp(0)).await.map(Some)
    }
}
