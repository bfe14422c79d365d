//! The form of `import/upload`, in the manner of an S3 POST policy, with a signature of our own.
//!
//! Everything in it follows from the task's row and the server's key, so that it is the same at every reading and a
//! posted one is checked by comparing it with what was handed out.

use std::collections::BTreeMap;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::clock::Timestamp;
use crate::id::TaskId;
use crate::model::Task;
use crate::secret::Vault;

/// What S3 would call the bucket.
pub const BUCKET: &str = "tasks";

/// The form that a waiting task shows.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "Form")]
pub struct FormBody {
    /// Where to post it.
    pub url: String,
    /// The fields to post before the file, in this order, under these names.
    pub parameters: Parameters,
}

/// The fields of the form; all are text, for some clients read nothing else.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(rename = "FormParameters")]
pub struct Parameters {
    /// Always `private`.
    pub acl: String,
    /// The name of the file; `${filename}` stands for the name that the client gives it.
    pub key: String,
    /// Always `201`.
    pub success_action_status: String,
    /// Who signed, in the form of S3.
    #[serde(rename = "X-Amz-Credential")]
    pub credential: String,
    /// The name that S3 has for the form of the signature.
    #[serde(rename = "X-Amz-Algorithm")]
    pub algorithm: String,
    /// When the form was made.
    #[serde(rename = "X-Amz-Date")]
    pub date: String,
    /// What may be posted until when, base64 of JSON.
    #[serde(rename = "Policy")]
    pub policy: String,
    /// The server's signature of it.
    #[serde(rename = "X-Amz-Signature")]
    pub signature: String,
}

/// The form of a waiting task.
pub fn of(public_url: &str, vault: &Vault, task: &Task) -> FormBody {
    FormBody { url: format!("{public_url}/upload/{}", task.id), parameters: parameters(vault, task) }
}

/// Whether the posted fields are those that were handed out for this task. Of `key` only the beginning is fixed.
pub fn is_genuine(vault: &Vault, task: &Task, posted: &BTreeMap<String, String>) -> bool {
    let expected = parameters(vault, task);
    let field = |name: &str| posted.get(name).map_or("", String::as_str);
    let same = [
        (expected.acl.as_str(), "acl"),
        (&expected.success_action_status, "success_action_status"),
        (&expected.credential, "X-Amz-Credential"),
        (&expected.algorithm, "X-Amz-Algorithm"),
        (&expected.date, "X-Amz-Date"),
        (&expected.policy, "Policy"),
        (&expected.signature, "X-Amz-Signature"),
    ]
    .into_iter()
    // No early end: the time taken must not tell which field is wrong.
    .fold(true, |same, (value, name)| verify_slices_are_equal(value.as_bytes(), field(name).as_bytes()).is_ok() & same);
    same && field("key").strip_prefix(&prefix(task.id)).is_some_and(|rest| !rest.is_empty())
}

/// When the form stops working.
pub fn expires_at(task: &Task) -> Timestamp {
    task.upload_expires_at.unwrap_or(task.created_at)
}

/// What the object of an upload is called: the task's id, a slash, the file's name.
pub fn key(task: TaskId, name: &str) -> String {
    format!("{}{name}", prefix(task))
}

fn prefix(task: TaskId) -> String {
    format!("{task}/")
}

fn parameters(vault: &Vault, task: &Task) -> Parameters {
    let date = moment(task.created_at, format_description!("[year][month][day]T[hour][minute][second]Z"));
    let credential = format!("consign/{}/local/s3/aws4_request", &date[..8]);
    let expiration = moment(expires_at(task), format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z"));
    let algorithm = "AWS4-HMAC-SHA256";
    let policy = json!({"expiration": expiration, "conditions": [
        {"acl": "private"},
        {"bucket": BUCKET},
        ["starts-with", "$key", prefix(task.id)],
        {"success_action_status": "201"},
        {"X-Amz-Date": date},
        {"X-Amz-Credential": credential},
        {"X-Amz-Algorithm": algorithm},
    ]});
    let policy = STANDARD.encode(policy.to_string());
    Parameters {
        acl: "private".to_owned(),
        key: key(task.id, "${filename}"),
        success_action_status: "201".to_owned(),
        credential,
        algorithm: algorithm.to_owned(),
        date,
        // The first line keeps it apart from everything else that this key signs.
        signature: vault.sign(&format!("upload\n{policy}")),
        policy,
    }
}

fn moment(at: Timestamp, format: &[BorrowedFormatItem<'_>]) -> String {
    OffsetDateTime::from_unix_timestamp(at.unix_seconds())
        .ok()
        .and_then(|moment| moment.format(format).ok())
        .unwrap_or_else(|| "19700101T000000Z".to_owned())
}
