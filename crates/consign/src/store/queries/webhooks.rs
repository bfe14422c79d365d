//! Statements about webhooks, their secrets and the outbox.

use sqlx::Row as _;

use super::dialect::{among, for_key_share, for_update};
use super::rows::{moment, nonsense, number, user_id};
use super::{Conn, Row, Tx};
use crate::clock::Timestamp;
use crate::id::{EventId, JobId, UserId, WebhookId};
use crate::model::{EventKind, Webhook};
use crate::store::{NewDelivery, NewWebhook, OutboxLine, Recipient};

macro_rules! webhook_columns {
    () => {
        "id, user_id, url, events, secret, disabled, failing, created_at, updated_at"
    };
}

macro_rules! line_columns {
    () => {
        "id, user_id, job_id, kind"
    };
}

pub(crate) async fn create(
    tx: &mut Tx,
    new: &NewWebhook,
    webhooks_max: u32,
    now: Timestamp,
) -> sqlx::Result<Option<Webhook>> {
    // One after the other, so that the limit is exact.
    sqlx::query(concat!("SELECT 1 FROM users WHERE id = $1", for_update!()))
        .bind(i64::from(new.user_id.0))
        .execute(&mut *tx.conn)
        .await?;
    // It was stored already, and the answer lost: the secret is the caller's own.
    let stored =
        sqlx::query(concat!("SELECT ", webhook_columns!(), " FROM webhooks WHERE user_id = $1 AND secret = $2"))
            .bind(i64::from(new.user_id.0))
            .bind(&new.secret)
            .fetch_optional(&mut *tx.conn)
            .await?;
    if let Some(stored) = stored {
        return webhook(&stored).map(Some);
    }
    let events: Vec<&str> = new.events.iter().map(|event| event.wire()).collect();
    let row = sqlx::query(concat!(
        "INSERT INTO webhooks (user_id, url, events, secret, disabled, failing, created_at, updated_at) \
         SELECT id, $2, $3, $4, FALSE, FALSE, $5, $5 FROM users \
         WHERE id = $1 AND (SELECT COUNT(*) FROM webhooks WHERE user_id = $1) < $6 RETURNING ",
        webhook_columns!()
    ))
    .bind(i64::from(new.user_id.0))
    .bind(&new.url)
    .bind(events.join(" "))
    .bind(&new.secret)
    .bind(now.0)
    .bind(i64::from(webhooks_max))
    .fetch_optional(&mut *tx.conn)
    .await?;
    row.as_ref().map(webhook).transpose()
}

pub(crate) async fn list(conn: &mut Conn, user: UserId) -> sqlx::Result<Vec<Webhook>> {
    let rows =
        sqlx::query(concat!("SELECT ", webhook_columns!(), " FROM webhooks WHERE user_id = $1 ORDER BY id DESC"))
            .bind(i64::from(user.0))
            .fetch_all(conn)
            .await?;
    rows.iter().map(webhook).collect()
}

pub(crate) async fn delete(tx: &mut Tx, user: UserId, id: WebhookId) -> sqlx::Result<bool> {
    let deleted = sqlx::query("DELETE FROM webhooks WHERE id = $1 AND user_id = $2")
        .bind(i64::from(id.0))
        .bind(i64::from(user.0))
        .execute(&mut *tx.conn)
        .await?;
    Ok(deleted.rows_affected() > 0)
}

pub(crate) async fn secret(tx: &mut Tx, user: UserId, sealed: &[u8], now: Timestamp) -> sqlx::Result<Vec<u8>> {
    sqlx::query(
        "INSERT INTO webhook_secrets (user_id, secret, created_at) VALUES ($1, $2, $3) \
         ON CONFLICT (user_id) DO NOTHING",
    )
    .bind(i64::from(user.0))
    .bind(sealed)
    .bind(now.0)
    .execute(&mut *tx.conn)
    .await?;
    sqlx::query("SELECT secret FROM webhook_secrets WHERE user_id = $1")
        .bind(i64::from(user.0))
        .fetch_one(&mut *tx.conn)
        .await?
        .try_get("secret")
}

pub(crate) async fn rotate_secret(tx: &mut Tx, user: UserId, sealed: &[u8], now: Timestamp) -> sqlx::Result<()> {
    sqlx::query(
        "INSERT INTO webhook_secrets (user_id, secret, created_at) VALUES ($1, $2, $3) \
         ON CONFLICT (user_id) DO UPDATE SET secret = excluded.secret, created_at = excluded.created_at",
    )
    .bind(i64::from(user.0))
    .bind(sealed)
    .bind(now.0)
    .execute(&mut *tx.conn)
    .await?;
    Ok(())
}

/// Writes a line of the outbox: a job was made, and somebody is to be told.
pub(super) async fn note_creation(tx: &mut Tx, user: UserId, job: JobId, now: Timestamp) -> sqlx::Result<()> {
    let written = sqlx::query(
        "INSERT INTO outbox (id, user_id, job_id, kind, created_at) SELECT $1, $2, $3, $4, $5 \
         WHERE EXISTS (SELECT 1 FROM webhooks WHERE user_id = $2 AND NOT disabled)",
    )
    .bind(EventId::new(now).0)
    .bind(i64::from(user.0))
    .bind(job.0)
    .bind(EventKind::JobCreated.wire())
    .bind(now.0)
    .execute(&mut *tx.conn)
    .await?;
    tx.changed.outbox |= written.rows_affected() > 0;
    Ok(())
}

/// Writes a line of the outbox.
pub(crate) async fn note(tx: &mut Tx, user: UserId, job: JobId, event: EventKind, now: Timestamp) -> sqlx::Result<()> {
    sqlx::query("INSERT INTO outbox (id, user_id, job_id, kind, created_at) VALUES ($1, $2, $3, $4, $5)")
        .bind(EventId::new(now).0)
        .bind(i64::from(user.0))
        .bind(job.0)
        .bind(event.wire())
        .bind(now.0)
        .execute(&mut *tx.conn)
        .await?;
    tx.changed.outbox = true;
    Ok(())
}

/// Whether the outbox has still to tell of a job.
pub(super) async fn is_untold(tx: &mut Tx, job: JobId) -> sqlx::Result<bool> {
    let row =
        sqlx::query("SELECT 1 FROM outbox WHERE job_id = $1 LIMIT 1").bind(job.0).fetch_optional(&mut *tx.conn).await?;
    Ok(row.is_some())
}

pub(crate) async fn outbox(conn: &mut Conn, limit: u32) -> sqlx::Result<Vec<OutboxLine>> {
    let rows = sqlx::query(concat!("SELECT ", line_columns!(), " FROM outbox ORDER BY created_at, id LIMIT $1"))
        .bind(i64::from(limit))
        .fetch_all(conn)
        .await?;
    rows.iter().map(line).collect()
}

/// Takes lines of the outbox. In the order of one index, so that a server reads no more of them than it must.
pub(crate) const TAKE_OUTBOX_SQL: &str = concat!(
    "UPDATE outbox SET taken_until = $3 WHERE id ",
    among!("SELECT id FROM outbox WHERE taken_until IS NULL OR taken_until <= $2 ORDER BY created_at LIMIT $1"),
    " RETURNING ",
    line_columns!()
);

pub(crate) async fn take_outbox(
    tx: &mut Tx,
    limit: u32,
    now: Timestamp,
    until: Timestamp,
) -> sqlx::Result<Vec<OutboxLine>> {
    let rows =
        sqlx::query(TAKE_OUTBOX_SQL).bind(i64::from(limit)).bind(now.0).bind(until.0).fetch_all(&mut *tx.conn).await?;
    let mut lines = rows.iter().map(line).collect::<sqlx::Result<Vec<_>>>()?;
    // What was changed comes back in no order; ids begin with their time.
    lines.sort_by_key(|line| line.id);
    Ok(lines)
}

pub(crate) async fn outbox_of(conn: &mut Conn, job: JobId) -> sqlx::Result<Vec<OutboxLine>> {
    let rows =
        sqlx::query(concat!("SELECT ", line_columns!(), " FROM outbox WHERE job_id = $1 ORDER BY created_at, id"))
            .bind(job.0)
            .fetch_all(conn)
            .await?;
    rows.iter().map(line).collect()
}

pub(crate) async fn tell(tx: &mut Tx, line: OutboxLine, new: &[NewDelivery], now: Timestamp) -> sqlx::Result<bool> {
    let taken = sqlx::query("DELETE FROM outbox WHERE id = $1").bind(line.id.0).execute(&mut *tx.conn).await?;
    if taken.rows_affected() == 0 {
        return Ok(false);
    }
    for delivery in new {
        match &delivery.to {
            Recipient::Webhook(webhook) => {
                sqlx::query(concat!(
                    "INSERT INTO deliveries (id, user_id, webhook_id, job_id, kind, receiver, body, state, sending, \
                                             attempts, tries, due_at, created_at) \
                     SELECT $1, $2, id, $3, $4, id, $5, 'pending', FALSE, 0, 0, $6, $6 FROM webhooks \
                     WHERE id = $7 AND user_id = $2 AND NOT disabled",
                    for_key_share!("webhooks")
                ))
                .bind(delivery.id.0)
                .bind(i64::from(line.user_id.0))
                .bind(line.job_id.0)
                .bind(line.event.wire())
                .bind(&delivery.body)
                .bind(now.0)
                .bind(i64::from(webhook.0))
                .execute(&mut *tx.conn)
                .await?;
            }
            Recipient::Job { url, host } => {
                sqlx::query(
                    "INSERT INTO deliveries (id, user_id, job_id, kind, url, receiver, body, state, sending, attempts, \
                                             tries, due_at, created_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7, 'pending', FALSE, 0, 0, $8, $8)",
                )
                .bind(delivery.id.0)
                .bind(i64::from(line.user_id.0))
                .bind(line.job_id.0)
                .bind(line.event.wire())
                .bind(url)
                .bind(host)
                .bind(&delivery.body)
                .bind(now.0)
                .execute(&mut *tx.conn)
                .await?;
            }
        }
        tx.changed.deliveries = true;
    }
    Ok(true)
}

pub(super) fn event(row: &Row) -> sqlx::Result<EventKind> {
    EventKind::from_wire(row.try_get("kind")?).ok_or_else(|| nonsense("kind"))
}

fn line(row: &Row) -> sqlx::Result<OutboxLine> {
    Ok(OutboxLine {
        id: EventId(row.try_get("id")?),
        user_id: user_id(row)?,
        job_id: JobId(row.try_get("job_id")?),
        event: event(row)?,
    })
}

fn webhook(row: &Row) -> sqlx::Result<Webhook> {
    let events: Option<Vec<EventKind>> =
        row.try_get::<&str, _>("events")?.split_whitespace().map(EventKind::from_wire).collect();
    Ok(Webhook {
        id: WebhookId(number(row, "id")?),
        user_id: user_id(row)?,
        url: row.try_get("url")?,
        events: events.ok_or_else(|| nonsense("events"))?,
        secret: row.try_get("secret")?,
        disabled: row.try_get("disabled")?,
        failing: row.try_get("failing")?,
        created_at: moment(row, "created_at")?,
        updated_at: moment(row, "updated_at")?,
    })
}

/// Notes how a webhook does.
pub(super) async fn note_health(tx: &mut Tx, id: i64, is_failing: bool, now: Timestamp) -> sqlx::Result<()> {
    sqlx::query("UPDATE webhooks SET failing = $2, updated_at = $3 WHERE id = $1 AND failing <> $2")
        .bind(id)
        .bind(is_failing)
        .bind(now.0)
        .execute(&mut *tx.conn)
        .await?;
    Ok(())
}

/// Tells a webhook nothing more.
pub(super) async fn disable(tx: &mut Tx, id: i64, now: Timestamp) -> sqlx::Result<()> {
    sqlx::query("UPDATE webhooks SET disabled = TRUE, failing = TRUE, updated_at = $2 WHERE id = $1")
        .bind(id)
        .bind(now.0)
        .execute(&mut *tx.conn)
        .await?;
    sqlx::query(
        "UPDATE deliveries SET state = 'failed', sending = FALSE, ended_at = $2 \
         WHERE webhook_id = $1 AND state = 'pending'",
    )
    .bind(id)
    .bind(now.0)
    .execute(&mut *tx.conn)
    .await?;
    Ok(())
}

/// How many seconds ago the oldest event was that nobody was told of.
pub(super) async fn lag(conn: &mut Conn, now: Timestamp) -> sqlx::Result<u64> {
    let row = sqlx::query("SELECT MIN(created_at) AS oldest FROM outbox").fetch_one(conn).await?;
    let oldest = super::rows::moment_if_any(&row, "oldest")?;
    Ok(oldest.map_or(0, |oldest| now.since(oldest).as_secs()))
}
