//! Statements about signed URLs and the results that are kept for their cache keys.

use std::time::Duration;

use sqlx::Row as _;
use uuid::Uuid;

use super::dialect::for_update;
use super::jobs::create_job;
use super::rows::{moment, moment_if_any, user_id};
use super::{Conn, Row, Tx};
use crate::clock::Timestamp;
use crate::id::{JobId, SignedUrlId};
use crate::model::{SignedUrl, User};
use crate::store::{Creation, NewJob};

/// How long a result is kept for its cache key.
pub(super) const RESULTS_KEPT: Duration = Duration::from_hours(24);

pub(crate) async fn create(tx: &mut Tx, new: &SignedUrl) -> sqlx::Result<bool> {
    let inserted = sqlx::query(
        "INSERT INTO signed_urls (id, user_id, name, secret, created_at) VALUES ($1, $2, $3, $4, $5) \
         ON CONFLICT DO NOTHING",
    )
    .bind(new.id.0)
    .bind(i64::from(new.user_id.0))
    .bind(&new.name)
    .bind(&new.secret)
    .bind(new.created_at.0)
    .execute(&mut *tx.conn)
    .await?;
    // Or it was stored already, and the answer lost: the id is the caller's own.
    Ok(inserted.rows_affected() == 1 || find(&mut tx.conn, new.id).await?.is_some())
}

pub(crate) async fn find(conn: &mut Conn, id: SignedUrlId) -> sqlx::Result<Option<SignedUrl>> {
    let row = sqlx::query("SELECT id, user_id, name, secret, created_at, revoked_at FROM signed_urls WHERE id = $1")
        .bind(id.0)
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(signed_url).transpose()
}

pub(crate) async fn list(conn: &mut Conn) -> sqlx::Result<Vec<(SignedUrl, User)>> {
    let rows = sqlx::query(
        "SELECT s.id, s.user_id, s.name, s.secret, s.created_at, s.revoked_at, \
                u.name AS user_name, u.created_at AS user_created_at \
         FROM signed_urls s JOIN users u ON u.id = s.user_id ORDER BY s.created_at, s.id",
    )
    .fetch_all(conn)
    .await?;
    let owner = |row: &Row| -> sqlx::Result<User> {
        Ok(User { id: user_id(row)?, name: row.try_get("user_name")?, created_at: moment(row, "user_created_at")? })
    };
    rows.iter().map(|row| Ok((signed_url(row)?, owner(row)?))).collect()
}

pub(crate) async fn revoke(tx: &mut Tx, name: &str, now: Timestamp) -> sqlx::Result<bool> {
    let revoked = sqlx::query("UPDATE signed_urls SET revoked_at = $2 WHERE name = $1 AND revoked_at IS NULL")
        .bind(name)
        .bind(now.0)
        .execute(&mut *tx.conn)
        .await?;
    Ok(revoked.rows_affected() == 1)
}

pub(crate) async fn result(
    conn: &mut Conn,
    id: SignedUrlId,
    cache_key: &str,
    now: Timestamp,
) -> sqlx::Result<Option<JobId>> {
    let row = sqlx::query(
        "SELECT r.job_id FROM signed_results r JOIN jobs j ON j.id = r.job_id \
         WHERE r.signed_url_id = $1 AND r.cache_key = $2 AND r.created_at > $3 AND j.status <> 'error'",
    )
    .bind(id.0)
    .bind(cache_key)
    .bind(now.minus(RESULTS_KEPT).0)
    .fetch_optional(conn)
    .await?;
    row.map(|row| row.try_get::<Uuid, _>("job_id").map(JobId)).transpose()
}

pub(crate) async fn create_signed_job(
    tx: &mut Tx,
    new: &NewJob,
    id: SignedUrlId,
    cache_key: &str,
) -> sqlx::Result<Option<JobId>> {
    let now = new.job.created_at;
    // One after the other, so that a cache key makes one job.
    sqlx::query(concat!("SELECT 1 FROM signed_urls WHERE id = $1", for_update!()))
        .bind(id.0)
        .execute(&mut *tx.conn)
        .await?;
    if let Some(earlier) = result(&mut tx.conn, id, cache_key, now).await? {
        return Ok(Some(earlier));
    }
    if create_job(tx, new).await? != Creation::Created {
        return Ok(None);
    }
    sqlx::query(
        "INSERT INTO signed_results (signed_url_id, cache_key, job_id, created_at) VALUES ($1, $2, $3, $4) \
         ON CONFLICT (signed_url_id, cache_key) DO UPDATE SET job_id = $3, created_at = $4",
    )
    .bind(id.0)
    .bind(cache_key)
    .bind(new.job.id.0)
    .bind(now.0)
    .execute(&mut *tx.conn)
    .await?;
    Ok(Some(new.job.id))
}

fn signed_url(row: &Row) -> sqlx::Result<SignedUrl> {
    Ok(SignedUrl {
        id: SignedUrlId(row.try_get("id")?),
        user_id: user_id(row)?,
        name: row.try_get("name")?,
        secret: row.try_get("secret")?,
        created_at: moment(row, "created_at")?,
        revoked_at: moment_if_any(row, "revoked_at")?,
    })
}
