use serde_json::{Value, json};

use super::*;
use crate::operations::{self, RawArgs};

/// Arguments that say everything that is required, and `more`.
fn args(more: Value) -> RawArgs {
    let mut args = json!({
        "bucket": "bkt",
        "region": "eu-west-1",
        "access_key_id": "AKIDEXAMPLE",
        "secret_access_key": "canary-secret",
    });
    let (Some(args), Value::Object(more)) = (args.as_object_mut(), more) else { panic!("both are objects") };
    args.extend(more);
    args.clone()
}

fn faults(mut args: RawArgs) -> Vec<String> {
    match operations::find("export/s3").unwrap().prepare(&mut args) {
        Ok(warnings) => {
            assert_eq!(warnings, Vec::<String>::new());
            Vec::new()
        }
        Err(faults) => faults.0.into_keys().collect(),
    }
}

#[test]
fn every_argument_of_the_contract_is_taken() {
    let all = json!({
        "endpoint": "s3.example.com",
        "key": "report-%d.pdf",
        "session_token": "token",
        "acl": "PublicRead",
        "cache_control": "max-age=60",
        "content_disposition": "inline",
        "content_type": "a/b",
        "metadata": { "x-amz-meta-some-key": "ü", "n": "1" },
        "server_side_encryption": "aws:kms",
        "tagging": { "a": "b" },
    });
    assert_eq!(faults(args(all)), Vec::<String>::new());
    assert_eq!(faults(args(json!({ "key_prefix": "in/", "metadata": [], "tagging": null }))), Vec::<String>::new());
    assert_eq!(faults(args(json!({ "key": null, "acl": "own-acl", "endpoint": "" }))), Vec::<String>::new());
}

#[test]
fn what_is_missing_or_excluded_is_said_all_at_once() {
    assert_eq!(faults(RawArgs::new()), ["access_key_id", "bucket", "region", "secret_access_key"]);
    assert_eq!(faults(args(json!({ "key": "a", "key_prefix": "b" }))), ["key_prefix"]);
    assert_eq!(faults(args(json!({ "secret_access_key": "", "bucket": "" }))), ["bucket", "secret_access_key"]);
}

#[test]
fn what_would_make_another_header_is_refused() {
    for (bad, field) in [
        (json!({ "acl": "public-read\r\nx: y" }), "acl"),
        (json!({ "content_disposition": "inline; filename=ü" }), "content_disposition"),
        (json!({ "metadata": { "a b": "c", "good": "ü" } }), "metadata.a b"),
        (json!({ "metadata": { "d": "e\nf", "good": "ü" } }), "metadata.d"),
    ] {
        assert_eq!(faults(args(bad)), [field]);
    }
}

#[test]
fn known_values_are_taken_in_any_spelling() {
    for (text, meant) in [
        ("PublicRead", "public-read"),
        ("public_read", "public-read"),
        ("BucketOwnerFullControl", "bucket-owner-full-control"),
        ("PRIVATE", "private"),
        ("log-delivery-write", "log-delivery-write"),
    ] {
        assert_eq!(spelled(text, &ACLS), meant);
    }
    assert_eq!(spelled("aes-256", &ENCRYPTIONS), "AES256");
    assert_eq!(spelled("AwsKms", &ENCRYPTIONS), "aws:kms");
    assert_eq!(spelled("aws:kms:dsse", &ENCRYPTIONS), "aws:kms:dsse");
}

#[test]
fn secrets_are_hidden_and_marked() {
    let entry = operations::find("export/s3").unwrap();
    let shown = entry.redact(&args(json!({ "session_token": "canary-token" })));
    assert_eq!((&shown["secret_access_key"], &shown["session_token"]), (&json!("***"), &json!("***")));
    assert_eq!(shown["access_key_id"], "AKIDEXAMPLE");
    let typed: Args = serde_json::from_value(Value::Object(args(json!({ "session_token": "canary-token" })))).unwrap();
    assert!(!format!("{typed:?}").contains("canary"));
    let required = json!(["bucket", "region", "access_key_id", "secret_access_key"]);
    assert_eq!(entry.schema().as_value()["required"], required);
}
