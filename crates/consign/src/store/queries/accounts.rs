//! Statements about users and keys.

use sqlx::Row as _;

use super::rows::{moment, moment_if_any, nonsense, number, user_id};
use super::{Conn, Row, Tx};
use crate::clock::Timestamp;
use crate::id::{KeyId, UserId};
use crate::model::{ApiKey, Scope, User};
use crate::store::NewKey;

macro_rules! keys_and_users {
    ($rest:literal) => {
        concat!(
            "SELECT k.id, k.user_id, k.name, k.scopes, k.created_at, k.expires_at, k.revoked_at, \
                    u.name AS user_name, u.created_at AS user_created_at \
             FROM keys k JOIN users u ON u.id = k.user_id ",
            $rest
        )
    };
}

pub(crate) async fn ensure_user(tx: &mut Tx, name: &str, now: Timestamp) -> sqlx::Result<User> {
    sqlx::query("INSERT INTO users (name, vt, created_at) VALUES ($1, 0, $2) ON CONFLICT (name) DO NOTHING")
        .bind(name)
        .bind(now.0)
        .execute(&mut *tx.conn)
        .await?;
    let row = sqlx::query("SELECT id, name, created_at FROM users WHERE name = $1")
        .bind(name)
        .fetch_one(&mut *tx.conn)
        .await?;
    user_row(&row)
}

pub(crate) async fn user(conn: &mut Conn, id: UserId) -> sqlx::Result<Option<User>> {
    let row = sqlx::query("SELECT id, name, created_at FROM users WHERE id = $1")
        .bind(i64::from(id.0))
        .fetch_optional(conn)
        .await?;
    row.as_ref().map(user_row).transpose()
}

pub(crate) async fn create_key(tx: &mut Tx, key: &NewKey, now: Timestamp) -> sqlx::Result<Option<ApiKey>> {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.wire()).collect();
    let inserted = sqlx::query(
        "INSERT INTO keys (id, user_id, name, hash, scopes, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
    )
    .bind(key.id.0)
    .bind(i64::from(key.user_id.0))
    .bind(&key.name)
    .bind(&key.hash[..])
    .bind(scopes.join(" "))
    .bind(now.0)
    .bind(key.expires_at.map(|moment| moment.0))
    .execute(&mut *tx.conn)
    .await?;
    if inserted.rows_affected() == 0 {
        // It was stored already, and the answer lost: id and hash are the caller's own.
        let stored = key_by_hash(&mut tx.conn, &key.hash).await?;
        return Ok(stored.map(|(stored, _)| stored).filter(|stored| stored.id == key.id));
    }
    Ok(Some(ApiKey {
        id: key.id,
        user_id: key.user_id,
        name: key.name.clone(),
        scopes: key.scopes.clone(),
        created_at: now,
        expires_at: key.expires_at,
        revoked_at: None,
    }))
}

pub(crate) async fn key_by_hash(conn: &mut Conn, hash: &[u8; 32]) -> sqlx::Result<Option<(ApiKey, User)>> {
    let row = sqlx::query(keys_and_users!("WHERE k.hash = $1")).bind(&hash[..]).fetch_optional(conn).await?;
    row.as_ref().map(key_row).transpose()
}

pub(crate) async fn list_keys(conn: &mut Conn) -> sqlx::Result<Vec<(ApiKey, User)>> {
    let rows = sqlx::query(keys_and_users!("ORDER BY k.created_at, k.id")).fetch_all(conn).await?;
    rows.iter().map(key_row).collect()
}

pub(crate) async fn revoke_key(tx: &mut Tx, name: &str, now: Timestamp) -> sqlx::Result<bool> {
    let revoked = sqlx::query("UPDATE keys SET revoked_at = $2 WHERE name = $1 AND revoked_at IS NULL")
        .bind(name)
        .bind(now.0)
        .execute(&mut *tx.conn)
        .await?;
    Ok(revoked.rows_affected() > 0)
}

fn user_row(row: &Row) -> sqlx::Result<User> {
    Ok(User { id: UserId(number(row, "id")?), name: row.try_get("name")?, created_at: moment(row, "created_at")? })
}

fn key_row(row: &Row) -> sqlx::Result<(ApiKey, User)> {
    let scopes: &str = row.try_get("scopes")?;
    let scopes: Option<Vec<Scope>> = scopes.split_whitespace().map(Scope::from_wire).collect();
    let key = ApiKey {
        id: KeyId(row.try_get("id")?),
        user_id: user_id(row)?,
        name: row.try_get("name")?,
        scopes: scopes.ok_or_else(|| nonsense("scopes"))?,
        created_at: moment(row, "created_at")?,
        expires_at: moment_if_any(row, "expires_at")?,
        revoked_at: moment_if_any(row, "revoked_at")?,
    };
    let user = User { id: key.user_id, name: row.try_get("user_name")?, created_at: moment(row, "user_created_at")? };
    Ok((key, user))
}
