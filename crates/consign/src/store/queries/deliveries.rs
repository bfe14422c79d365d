//! Statements about deliveries: the claim, how attempts went, the log.
//!
//! A claim is a lease in `due_at`: the process that sends a delivery puts it off, and should it never tell how that went,
//! the delivery is simply due again. The number of the attempt proves who may tell.

use std::collections::BTreeMap;

use sqlx::{QueryBuilder, Row as _};
use uuid::Uuid;

use super::dialect::{among, due_of_receiver, listed};
use super::rows::{bigint, chosen, moment, moment_if_any, nonsense, number, user_id};
use super::webhooks::{disable, event, note_health};
use super::{Conn, Db, Row, Tx};
use crate::clock::Timestamp;
use crate::id::{DeliveryId, JobId, UserId, WebhookId};
use crate::model::{Delivery, DeliveryAttempt, DeliveryState, Page};
use crate::store::{AttemptEnd, DeliveryClaim, DeliveryFilter, Parcel, Receiver, Redelivery};

/// Attempts that are kept of one delivery; older ones are forgotten.
const ATTEMPTS_KEPT: u32 = 50;

macro_rules! delivery_columns {
    () => {
        "id, user_id, webhook_id, job_id, kind, state, due_at, created_at, ended_at"
    };
}

/// When the next delivery is due.
pub(crate) const NEXT_SQL: &str = "SELECT MIN(due_at) AS due_at FROM deliveries WHERE state = 'pending'";

/// Receivers that have something due, longest first: hops from one receiver to the next in the index, however much each has. (A
/// comparison of pairs would be shorter, but SQLite uses only its first half.)
pub(crate) const RECEIVERS_SQL: &str = "WITH RECURSIVE heads (user_id, receiver, due_at) AS ( \
         SELECT d.user_id, d.receiver, d.due_at FROM deliveries d WHERE d.id = \
             (SELECT f.id FROM deliveries f WHERE f.state = 'pending' ORDER BY f.user_id, f.receiver, f.due_at LIMIT 1) \
         UNION ALL \
         SELECT d.user_id, d.receiver, d.due_at FROM heads h JOIN deliveries d ON d.id = \
             COALESCE( \
                 (SELECT n.id FROM deliveries n \
                  WHERE n.state = 'pending' AND n.user_id = h.user_id AND n.receiver > h.receiver \
                  ORDER BY n.receiver, n.due_at LIMIT 1), \
                 (SELECT n.id FROM deliveries n WHERE n.state = 'pending' AND n.user_id > h.user_id \
                  ORDER BY n.user_id, n.receiver, n.due_at LIMIT 1))) \
     SELECT user_id, receiver FROM heads WHERE due_at <= $1 ORDER BY due_at";

/// Takes what is due of one receiver.
pub(crate) const CLAIM_SQL: &str = concat!(
    "UPDATE deliveries SET sending = TRUE, attempts = attempts + 1, tries = tries + 1, due_at = $5 WHERE id ",
    among!(concat!("SELECT id FROM deliveries WHERE state = 'pending' AND ", due_of_receiver!(), " LIMIT $4")),
    " RETURNING id, webhook_id, url, body, attempts, tries"
);

pub(crate) async fn next(conn: &mut Conn) -> sqlx::Result<Option<Timestamp>> {
    moment_if_any(&sqlx::query(NEXT_SQL).fetch_one(conn).await?, "due_at")
}

pub(crate) async fn claim(tx: &mut Tx, claim: &DeliveryClaim) -> sqlx::Result<Vec<Parcel>> {
    let mut busy = Busy::of(claim);
    let mut parcels = Vec::new();
    let rows = sqlx::query(RECEIVERS_SQL).bind(claim.now.0).fetch_all(&mut *tx.conn).await?;
    for row in &rows {
        let left = bigint(claim.max) - bigint(parcels.len());
        let receiver = Receiver { user_id: user_id(row)?, number: row.try_get("receiver")? };
        let room = busy.room(claim, receiver).min(left);
        if room <= 0 {
            continue;
        }
        let claimed = sqlx::query(CLAIM_SQL)
            .bind(i64::from(receiver.user_id.0))
            .bind(receiver.number)
            .bind(claim.now.0)
            .bind(room)
            .bind(claim.lease_until.0)
            .fetch_all(&mut *tx.conn)
            .await?;
        for row in &claimed {
            busy.count(receiver);
            parcels.push(parcel(tx, receiver, row).await?);
        }
    }
    Ok(parcels)
}

/// What is being sent.
#[derive(Default)]
struct Busy {
    receivers: BTreeMap<Receiver, i64>,
    users: BTreeMap<UserId, i64>,
}

impl Busy {
    fn of(claim: &DeliveryClaim) -> Self {
        let mut busy = Self::default();
        claim.sending.iter().for_each(|receiver| busy.count(*receiver));
        busy
    }

    fn count(&mut self, receiver: Receiver) {
        *self.receivers.entry(receiver).or_default() += 1;
        *self.users.entry(receiver.user_id).or_default() += 1;
    }

    /// How many more a receiver may be sent.
    fn room(&self, claim: &DeliveryClaim, receiver: Receiver) -> i64 {
        let receiver_has = self.receivers.get(&receiver).copied().unwrap_or(0);
        let user_has = self.users.get(&receiver.user_id).copied().unwrap_or(0);
        (i64::from(claim.per_receiver_max) - receiver_has).min(i64::from(claim.per_user_max) - user_has)
    }
}

async fn parcel(tx: &mut Tx, receiver: Receiver, row: &Row) -> sqlx::Result<Parcel> {
    let (url, secret) = if let Some(webhook) = row.try_get::<Option<i64>, _>("webhook_id")? {
        let row = sqlx::query("SELECT url, secret FROM webhooks WHERE id = $1")
            .bind(webhook)
            .fetch_one(&mut *tx.conn)
            .await?;
        (row.try_get("url")?, Some(row.try_get("secret")?))
    } else {
        (row.try_get("url")?, None)
    };
    Ok(Parcel {
        id: DeliveryId(row.try_get("id")?),
        receiver,
        number: number(row, "attempts")?,
        tries: number(row, "tries")?,
        url,
        secret,
        body: row.try_get("body")?,
    })
}

pub(crate) async fn release(tx: &mut Tx, now: Timestamp) -> sqlx::Result<()> {
    sqlx::query("UPDATE deliveries SET sending = FALSE, due_at = $1 WHERE state = 'pending' AND sending")
        .bind(now.0)
        .execute(&mut *tx.conn)
        .await?;
    tx.changed.deliveries = true;
    Ok(())
}

pub(crate) async fn end_attempt(
    tx: &mut Tx,
    id: DeliveryId,
    attempt: &DeliveryAttempt,
    end: AttemptEnd,
    now: Timestamp,
) -> sqlx::Result<bool> {
    let (state, due_at) = match end {
        AttemptEnd::Delivered => (DeliveryState::Delivered, now),
        AttemptEnd::Again(due_at) => (DeliveryState::Pending, due_at),
        AttemptEnd::Failed | AttemptEnd::Gone => (DeliveryState::Failed, now),
    };
    let row = sqlx::query(
        "UPDATE deliveries SET sending = FALSE, state = $3, due_at = $4, ended_at = $5 \
         WHERE id = $1 AND sending AND attempts = $2 RETURNING webhook_id",
    )
    .bind(id.0)
    .bind(i64::from(attempt.number))
    .bind(state.wire())
    .bind(due_at.0)
    .bind((state != DeliveryState::Pending).then_some(now.0))
    .fetch_optional(&mut *tx.conn)
    .await?;
    let Some(row) = row else { return Ok(false) };
    insert_attempt(&mut tx.conn, id, attempt).await?;
    if let Some(webhook) = row.try_get::<Option<i64>, _>("webhook_id")? {
        if end == AttemptEnd::Gone {
            disable(tx, webhook, now).await?;
        } else {
            note_health(tx, webhook, end != AttemptEnd::Delivered, now).await?;
        }
    }
    Ok(true)
}

async fn insert_attempt(conn: &mut Conn, id: DeliveryId, attempt: &DeliveryAttempt) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO delivery_attempts (delivery_id, number, at, status, error, duration_ms) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(id.0)
    .bind(i64::from(attempt.number))
    .bind(attempt.at.0)
    .bind(attempt.status.map(i64::from))
    .bind(attempt.error.as_deref())
    .bind(bigint(attempt.duration_ms))
    .execute(&mut *conn)
    .await?;
    sqlx::query("DELETE FROM delivery_attempts WHERE delivery_id = $1 AND number <= $2")
        .bind(id.0)
        .bind(i64::from(attempt.number) - i64::from(ATTEMPTS_KEPT))
        .execute(conn)
        .await?;
    Ok(())
}

pub(crate) async fn list(
    conn: &mut Conn,
    user: UserId,
    filter: DeliveryFilter,
    page: Page,
) -> sqlx::Result<Option<(Vec<Delivery>, bool)>> {
    let mut query = QueryBuilder::<Db>::new(concat!("SELECT ", delivery_columns!(), " FROM deliveries WHERE "));
    match filter {
        DeliveryFilter::Webhook(id) => query.push("webhook_id = ").push_bind(i64::from(id.0)),
        DeliveryFilter::Job(id) => query.push("job_id = ").push_bind(id.0),
    };
    query.push(" AND user_id = ").push_bind(i64::from(user.0));
    super::lists::page_of(&mut query, page);
    let rows = query.build().fetch_all(&mut *conn).await?;
    let mut found = rows.iter().map(delivery).collect::<sqlx::Result<Vec<_>>>()?;
    if found.is_empty() && !is_known(conn, user, filter).await? {
        return Ok(None);
    }
    let more = super::lists::cut(&mut found, page);
    add_attempts(conn, &mut found).await?;
    Ok(Some((found, more)))
}

/// Whether there is such a webhook, or job, or a delivery of such a job.
async fn is_known(conn: &mut Conn, user: UserId, filter: DeliveryFilter) -> sqlx::Result<bool> {
    let query = match filter {
        DeliveryFilter::Webhook(id) => {
            sqlx::query("SELECT 1 FROM webhooks WHERE id = $1 AND user_id = $2").bind(i64::from(id.0))
        }
        DeliveryFilter::Job(id) => sqlx::query(
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM jobs WHERE id = $1 AND user_id = $2) \
                OR EXISTS (SELECT 1 FROM deliveries WHERE job_id = $1 AND user_id = $2)",
        )
        .bind(id.0),
    };
    Ok(query.bind(i64::from(user.0)).fetch_optional(conn).await?.is_some())
}

async fn add_attempts(conn: &mut Conn, deliveries: &mut [Delivery]) -> sqlx::Result<()> {
    const SQL: &str = concat!(
        "SELECT delivery_id, number, at, status, error, duration_ms FROM delivery_attempts WHERE delivery_id ",
        listed!("$1"),
        " ORDER BY delivery_id, number"
    );
    let places: BTreeMap<Uuid, usize> = deliveries.iter().enumerate().map(|(n, delivery)| (delivery.id.0, n)).collect();
    let ids: Vec<Uuid> = places.keys().copied().collect();
    for row in chosen(conn, SQL, &ids).await? {
        if let Some(&place) = places.get(&row.try_get("delivery_id")?) {
            deliveries[place].attempts.push(attempt(&row)?);
        }
    }
    Ok(())
}

pub(crate) async fn redeliver(tx: &mut Tx, user: UserId, id: DeliveryId, now: Timestamp) -> sqlx::Result<Redelivery> {
    let row = sqlx::query(
        "SELECT w.disabled FROM deliveries d LEFT JOIN webhooks w ON w.id = d.webhook_id \
         WHERE d.id = $1 AND d.user_id = $2",
    )
    .bind(id.0)
    .bind(i64::from(user.0))
    .fetch_optional(&mut *tx.conn)
    .await?;
    let Some(row) = row else { return Ok(Redelivery::NotFound) };
    if row.try_get::<Option<bool>, _>("disabled")? == Some(true) {
        return Ok(Redelivery::Disabled);
    }
    sqlx::query(
        "UPDATE deliveries SET state = 'pending', due_at = $2, tries = 0, ended_at = NULL \
         WHERE id = $1 AND NOT sending",
    )
    .bind(id.0)
    .bind(now.0)
    .execute(&mut *tx.conn)
    .await?;
    tx.changed.deliveries = true;
    let row = sqlx::query(concat!("SELECT ", delivery_columns!(), " FROM deliveries WHERE id = $1"))
        .bind(id.0)
        .fetch_optional(&mut *tx.conn)
        .await?;
    let Some(row) = row else { return Ok(Redelivery::NotFound) };
    let mut found = delivery(&row)?;
    add_attempts(&mut tx.conn, std::slice::from_mut(&mut found)).await?;
    Ok(Redelivery::Due(found))
}

pub(crate) async fn expire(tx: &mut Tx, ended_before: Timestamp, limit: u32) -> sqlx::Result<u64> {
    let deleted = sqlx::query(
        "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries \
         WHERE ended_at IS NOT NULL AND ended_at < $1 ORDER BY ended_at LIMIT $2)",
    )
    .bind(ended_before.0)
    .bind(i64::from(limit))
    .execute(&mut *tx.conn)
    .await?;
    Ok(deleted.rows_affected())
}

/// Deliveries that are not at their end, and for how many seconds the first of them has been due.
pub(super) async fn backlog(conn: &mut Conn, now: Timestamp) -> sqlx::Result<(u64, u64)> {
    let row =
        sqlx::query("SELECT COUNT(*) AS pending FROM deliveries WHERE state = 'pending'").fetch_one(&mut *conn).await?;
    let oldest = next(conn).await?;
    Ok((number(&row, "pending")?, oldest.map_or(0, |due_at| now.since(due_at).as_secs())))
}

fn delivery(row: &Row) -> sqlx::Result<Delivery> {
    let webhook: Option<i64> = row.try_get("webhook_id")?;
    let webhook = webhook.map(i32::try_from).transpose().map_err(|_| nonsense("webhook_id"))?;
    Ok(Delivery {
        id: DeliveryId(row.try_get("id")?),
        user_id: user_id(row)?,
        webhook_id: webhook.map(WebhookId),
        job_id: JobId(row.try_get("job_id")?),
        event: event(row)?,
        state: DeliveryState::from_wire(row.try_get("state")?).ok_or_else(|| nonsense("state"))?,
        due_at: moment(row, "due_at")?,
        created_at: moment(row, "created_at")?,
        ended_at: moment_if_any(row, "ended_at")?,
        attempts: Vec::new(),
    })
}

fn attempt(row: &Row) -> sqlx::Result<DeliveryAttempt> {
    let status: Option<i64> = row.try_get("status")?;
    Ok(DeliveryAttempt {
        number: number(row, "number")?,
        at: moment(row, "at")?,
        status: status.map(u16::try_from).transpose().map_err(|_| nonsense("status"))?,
        error: row.try_get("error")?,
        duration_ms: number(row, "duration_ms")?,
    })
}
