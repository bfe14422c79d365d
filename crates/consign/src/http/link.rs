//! Download links: who holds one may fetch one file until it expires. The signature covers task, number and name of
//! the file and the expiry, and is checked on decoded values, because clients re-encode queries.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::clock::Timestamp;
use crate::id::TaskId;
use crate::secret::Vault;

/// What stays as it is in one segment of a path: RFC 3986's unreserved characters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Which of a task's files a link is for, where it is not the first.
pub const NUMBER: &str = "temp_url_number";

/// The link of the `number`th file (from 1) of a task.
pub fn url(public_url: &str, vault: &Vault, task: TaskId, number: u32, name: &str, expires_at: Timestamp) -> String {
    let expires = expires_at.unix_seconds();
    let signature = vault.sign(&text(task, number, name, expires));
    // So that one file of ten thousand is found without reading all of them; links of one file stay as short as they were.
    let which = if number > 1 { format!("&{NUMBER}={number}") } else { String::new() };
    format!("{public_url}/files/{task}/{}?temp_url_sig={signature}&temp_url_expires={expires}{which}", segment(name))
}

/// Whether a signature belongs to that file and expiry; in constant time.
pub fn is_genuine(vault: &Vault, signature: &str, task: TaskId, number: u32, name: &str, expires: i64) -> bool {
    vault.verify(&text(task, number, name, expires), signature)
}

/// A name as one segment of a path.
pub fn segment(name: &str) -> String {
    utf8_percent_encode(name, SEGMENT).to_string()
}

/// What is signed. The first line keeps it apart from everything else that this key signs; the name comes last, so
/// that nothing in it can pass for another field.
fn text(task: TaskId, number: u32, name: &str, expires: i64) -> String {
    format!("download\n{task}\n{number}\n{expires}\n{name}")
}
