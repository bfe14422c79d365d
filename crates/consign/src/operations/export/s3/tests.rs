//! Arguments as clients send them, and a delivery to a real server.

use connectors::{Kind, OpenUpload, Retry};
use serde_json::{Value, json};
use testkit::http_faults::HttpFaults;
use testkit::{Ceph, or_skip};

use super::*;
use crate::error::Code;
use crate::operations::storage::Export;
use crate::operations::testing::{Bench, network};
use crate::operations::{self, Arguments as _, Context, Operation as _, RawArgs};

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
    let required = json!(["bucket", "region", "access_key_id", "secret_access_key"]);
    assert_eq!(entry.schema().as_value()["required"], required);
}

fn of_ceph(ceph: &Ceph, bucket: &str, more: &Value) -> Args {
    let mut all = json!({
        "bucket": bucket,
        "region": "default",
        "endpoint": ceph.endpoint,
        "access_key_id": ceph.account.access_key_id,
        "secret_access_key": ceph.account.secret_access_key,
    });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Args::take(all).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_arrive_and_a_second_run_leaves_the_same() {
    let bucket = "export-s3";
    let Some(ceph) = or_skip(testkit::ceph().await) else { return };
    ceph.create_bucket(bucket).await.unwrap();
    let bench = Bench::new().await;
    let large = connectors::contract::bytes(20 << 20, 1);
    let inputs =
        [bench.input("a b.txt", b"one").await, bench.input("ü.bin", &large).await, bench.input("a b.txt", b"").await];
    let more = json!({ "key_prefix": "//out/", "acl": "PublicRead", "metadata": { "job": "7" } });
    for _ in 0..2 {
        let context = Context { network: network(), ..bench.context(&inputs) };
        let outcome = Export::<ExportS3>::run(of_ceph(&ceph, bucket, &more), context).await.unwrap();
        let found: Vec<(&str, &str)> = outcome
            .files
            .iter()
            .map(|file| (file.name.as_str(), file.receipt.as_ref().unwrap().location.as_str()))
            .collect();
        let expected = [
            ("a b.txt", "s3://export-s3///out/a b.txt"),
            ("ü.bin", "s3://export-s3///out/ü.bin"),
            ("a b-2.txt", "s3://export-s3///out/a b-2.txt"),
        ];
        assert_eq!(found, expected);
        assert!(outcome.files.iter().all(|file| file.receipt.as_ref().unwrap().verified == "md5"), "{outcome:?}");
    }
    assert_eq!(bench.reported().last(), Some(&99), "100 is for the end of the task");
    let script = format!(
        "
listed = s3.list_objects_v2(Bucket={bucket:?})['Contents']
heads = [s3.head_object(Bucket={bucket:?}, Key=found['Key']) for found in listed]
result = [[found['Key'], found['Size'], head['ContentType'], head['Metadata']] for found, head in zip(listed, heads)]"
    );
    let left = json!([
        ["//out/a b-2.txt", 0, "text/plain", { "job": "7" }],
        ["//out/a b.txt", 3, "text/plain", { "job": "7" }],
        ["//out/ü.bin", large.len(), "application/octet-stream", { "job": "7" }],
    ]);
    assert_eq!(ceph.s3api(&script).await.unwrap(), left);
}

/// What a client says as JSON is found at the server, for a file in one write and one in parts.
#[tokio::test(flavor = "multi_thread")]
async fn every_argument_reaches_the_server() {
    let bucket = "export-s3-arguments";
    let Some(ceph) = or_skip(testkit::ceph().await) else { return };
    ceph.create_bucket(bucket).await.unwrap();
    let session = ceph.session_account().await.unwrap();
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let more = json!({
        "endpoint": faults.endpoint(), "region": "eu-north-9", "access_key_id": session.access_key_id,
        "secret_access_key": session.secret_access_key, "session_token": session.session_token,
        "key": "all/%02d.bin", "acl": "PublicRead", "cache_control": "max-age=5", "content_disposition": "inline",
        "content_type": "video/x-own", "metadata": { "x-amz-meta-job": "7" }, "tagging": { "team": "a b" },
        "server_side_encryption": "aes256",
    });
    let bench = Bench::new().await;
    let large = connectors::contract::bytes(20 << 20, 1);
    let inputs = [bench.input("a.txt", b"one").await, bench.input("b.txt", &large).await];
    let context = Context { network: network(), ..bench.context(&inputs) };
    Export::<ExportS3>::run(of_ceph(&ceph, bucket, &more), context).await.unwrap();
    for (key, is_single) in [("all/01.bin", true), ("all/02.bin", false)] {
        let script = format!(
            "
at = {{'Bucket': {bucket:?}, 'Key': {key:?}}}
head = s3.head_object(**at)
grants = s3.get_object_acl(**at)['Grants']
tags = s3.get_object_tagging(**at).get('TagSet', [])
result = [head['CacheControl'], head['ContentDisposition'], head['ContentType'], head['Metadata'],
          any('AllUsers' in grant['Grantee'].get('URI', '') for grant in grants), [[t['Key'], t['Value']] for t in tags]]"
        );
        // This gateway forgets the tags of multipart uploads.
        let tags = if is_single { json!([["team", "a b"]]) } else { json!([]) };
        let expected = json!(["max-age=5", "inline", "video/x-own", { "job": "7" }, true, tags]);
        assert_eq!(ceph.s3api(&script).await.unwrap(), expected, "{key}");
        let stat = ceph.object_stat(bucket, key).await.unwrap();
        assert_eq!(stat["attrs"]["user.rgw.x-amz-server-side-encryption"], "AES256", "{key}: {stat}");
    }
    let requests = faults.requests();
    assert!(requests.iter().all(|request| request.header("authorization").unwrap().contains("/eu-north-9/s3/")));
    let opened = requests.iter().find(|request| request.path.ends_with("?uploads=")).unwrap();
    assert_eq!(opened.header("x-amz-tagging"), Some("team=a%20b"));
}

#[tokio::test]
async fn what_the_service_refuses_is_said_with_its_words_and_what_to_do() {
    let Some(ceph) = or_skip(testkit::ceph().await) else { return };
    let bench = Bench::new().await;
    let inputs = [bench.input("a.txt", b"one").await];
    let context = || Context { network: network(), ..bench.context(&inputs) };
    let error =
        Export::<ExportS3>::run(of_ceph(&ceph, "no-such-bucket-at-all", &json!({})), context()).await.unwrap_err();
    assert_eq!((error.code, error.retry), (Code::ContainerNotFound, Retry::Never));
    assert!(error.message.contains("`no-such-bucket-at-all` does not exist"), "{}", error.message);
    let private = bench.context(&inputs);
    let error = Export::<ExportS3>::run(of_ceph(&ceph, "x", &json!({})), private).await.unwrap_err();
    assert_eq!(error.code, Code::HostNotAllowed, "{}", error.message);
    let open = OpenUpload {
        target: "a.txt".to_owned(),
        handle: "gone".to_owned(),
        sha256: String::new(),
        part_bytes: 1,
        parts: BTreeMap::new(),
    };
    let wrong = of_ceph(&ceph, "export-s3", &json!({ "secret_access_key": "wrong" }));
    let error = Export::<ExportS3>::abort(wrong, open.clone(), network()).await.unwrap_err();
    assert!(matches!(error.kind, Kind::InvalidCredentials | Kind::AccessDenied), "{error:?}");
    ceph.create_bucket("export-s3").await.unwrap();
    Export::<ExportS3>::abort(of_ceph(&ceph, "export-s3", &json!({})), open, network()).await.unwrap();
}
