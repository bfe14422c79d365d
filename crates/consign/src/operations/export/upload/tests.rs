//! Addresses as clients give them, and uploads to signed addresses of a real server.

use connectors::egress::Guard;
use connectors::http::tls_config;
use connectors::{Kind, Limits, Network};
use serde_json::{Value, json};
use testkit::http_faults::{Action, HttpFaults};
use testkit::proxy::Proxy;
use testkit::{Ceph, or_skip};

use super::*;
use crate::operations::testing::Bench;
use crate::operations::{self, InputFile};

const MIB: usize = 1024 * 1024;

fn faults(args: Value) -> Vec<String> {
    let Value::Object(mut args) = args else { panic!("arguments are an object") };
    match operations::find("export/upload").unwrap().prepare(&mut args) {
        Ok(warnings) => warnings,
        Err(faults) => faults.0.into_keys().collect(),
    }
}

#[test]
fn the_address_is_checked_for_form_and_headers_for_being_headers() {
    assert_eq!(faults(json!({ "url": "http://invalid.url/%d?a=%2F" })), Vec::<String>::new());
    assert_eq!(faults(json!({ "url": "https://x.example", "headers": [] })), Vec::<String>::new());
    assert_eq!(faults(json!({})), ["url"]);
    assert_eq!(faults(json!({ "url": "ftp://x.example/", "headers": { "a b": "c" } })), ["headers.a b", "url"]);
}

#[test]
fn secrets_are_hidden_and_marked() {
    let entry = operations::find("export/upload").unwrap();
    let args = json!({ "url": "https://u:p@h.example/a?sig=canary", "headers": { "Authorization": "canary" } });
    let shown = Value::Object(entry.redact(args.as_object().unwrap()));
    assert_eq!(shown["headers"]["Authorization"], "***");
    assert!(!shown.to_string().contains("canary") && shown["url"].as_str().unwrap().contains("h.example/a"), "{shown}");
    let schema = entry.schema();
    assert_eq!(schema.as_value()["properties"]["headers"]["additionalProperties"]["writeOnly"], true);
    assert_eq!(schema.as_value()["properties"]["url"]["format"], "uri");
}

#[test]
fn files_are_counted_in_the_path_only_and_encodings_stay() {
    for (url, second) in [
        ("http://h/a-%d.pdf?sig=%d%2F", "http://h/a-2.pdf?sig=%d%2F"),
        ("http://h/%d", "http://h/2"),
        ("http://h/%dir/%03d/%d/%db#%d", "http://h/2ir/002/2/%db#%d"),
        ("http://u:%d@h:1/%da%20%d", "http://u:%d@h:1/%da%202"),
        ("http://h/%D0%9F-%d-%0d-%1d", "http://h/%D0%9F-2-%0d-%1d"),
    ] {
        assert_eq!(numbered(url, 2).unwrap()[1], second, "{url}");
    }
    for url in ["http://h/a", "http://h/%da?%d", "http://%d/", "http://h?%d", "http://h/%25d"] {
        let error = numbered(url, 3).unwrap_err();
        assert_eq!(error.code, Code::NameConflict, "{url}");
        assert!(error.message.starts_with("3 files would"), "{}", error.message);
        assert_eq!(numbered(url, 1).unwrap(), [url]);
    }
}

/// Runs the operation with a context whose network leads to this machine.
async fn run(bench: &Bench, args: Value, inputs: &[InputFile]) -> Result<Outcome, TaskError> {
    let limits = Limits { tries: 3, ..Limits::default() };
    let guard = Guard::new(["127.0.0.0/8".parse().unwrap()]);
    let network = Network::new(guard, tls_config(&[]).unwrap(), limits, 4);
    let context = Context { network, ..bench.context(inputs) };
    ExportUpload::run(serde_json::from_value(args).unwrap(), context).await
}

/// An address of the gateway that boto3 signs, reached through `endpoint`.
async fn signed_with(ceph: &Ceph, endpoint: &str, version: &str, call: &str, more: &str) -> String {
    let script = format!(
        "
import boto3
from botocore.config import Config
signer = boto3.client('s3', endpoint_url={endpoint:?}, region_name='default',
    aws_access_key_id={key:?}, aws_secret_access_key={secret:?},
    config=Config(signature_version={version:?}, s3={{'addressing_style': 'path'}},
        request_checksum_calculation='when_required'))
result = signer.generate_presigned_url('{call}', {more})",
        key = ceph.account.access_key_id,
        secret = ceph.account.secret_access_key,
    );
    ceph.s3api(&script).await.unwrap().as_str().unwrap().to_owned()
}

async fn signed(ceph: &Ceph, endpoint: &str, call: &str, more: &str) -> String {
    signed_with(ceph, endpoint, "s3v4", call, more).await
}

async fn signed_put(ceph: &Ceph, endpoint: &str, bucket: &str, key: &str) -> String {
    signed(ceph, endpoint, "put_object", &format!("dict(Bucket={bucket:?}, Key={key:?}), ExpiresIn=600")).await
}

async fn left(ceph: &Ceph, bucket: &str, key: &str) -> Value {
    let script = format!(
        "
found = s3.get_object(Bucket={bucket:?}, Key={key:?})
body = found['Body'].read()
result = [len(body), hashlib.md5(body).hexdigest(), found['ContentType'], found['Metadata']]"
    );
    ceph.s3api(&script).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn files_arrive_at_a_signed_address_and_a_second_run_leaves_the_same() {
    let bucket = "export-upload";
    let Some(ceph) = or_skip(testkit::ceph().await) else { return };
    ceph.create_bucket(bucket).await.unwrap();
    let bench = Bench::new().await;
    let large = connectors::contract::bytes(20 * MIB, 1);
    for (key, content) in [("dir/ü %41+.bin", large.to_vec()), ("empty", Vec::new())] {
        let inputs = [bench.input("own name.txt", &content).await];
        let url = signed_put(&ceph, &ceph.endpoint, bucket, key).await;
        for _ in 0..2 {
            let outcome = run(&bench, json!({ "url": url }), &inputs).await.unwrap();
            let file = &outcome.files[0];
            let receipt = file.receipt.as_ref().unwrap();
            assert_eq!((file.name.as_str(), file.size), ("own name.txt", content.len() as u64));
            assert_eq!(receipt.verified, "md5");
            assert_eq!(receipt.location, url.split('?').next().unwrap());
            assert_eq!(receipt.etag, Some(hex::encode(file.digests.md5.unwrap())));
            let md5 = hex::encode(connectors::Digests::of(&content).md5.unwrap());
            assert_eq!(left(&ceph, bucket, key).await, json!([content.len(), md5, "text/plain", {}]));
        }
    }
    assert!(bench.reported().len() > 10 && bench.reported().last() == Some(&99), "{:?}", bench.reported());
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_were_signed_are_sent() {
    let bucket = "export-upload-headers";
    let Some(ceph) = or_skip(testkit::ceph().await) else { return };
    ceph.create_bucket(bucket).await.unwrap();
    let bench = Bench::new().await;
    let inputs = [bench.input("a.txt", b"one").await];
    let params = format!("dict(Bucket={bucket:?}, Key='k', ContentType='a/b', Metadata=dict(job='7')), ExpiresIn=600");
    let url = signed(&ceph, &ceph.endpoint, "put_object", &params).await;
    let error = run(&bench, json!({ "url": url }), &inputs).await.unwrap_err();
    // What other services call `SignatureDoesNotMatch` is `AccessDenied` here.
    assert_eq!(error.code, Code::AccessDenied, "{error}");
    assert!(error.message.contains("the headers that are sent with it (content-type)"), "{}", error.message);
    assert!(error.message.contains("code AccessDenied, request tx"), "{}", error.message);
    let headers = json!({ "Content-Type": "a/b", "X-Amz-Meta-Job": "7", "Content-MD5": "+Xx3pysYyTGVRwONLkGktw==" });
    let error = run(&bench, json!({ "url": url, "headers": headers }), &inputs).await.unwrap_err();
    assert_eq!(error.code, Code::IntegrityMismatch, "{error}");
    let headers = json!({ "Content-Type": "a/b", "X-Amz-Meta-Job": "7" });
    run(&bench, json!({ "url": url, "headers": headers }), &inputs).await.unwrap();
    let one = hex::encode(connectors::Digests::of(b"one").md5.unwrap());
    assert_eq!(left(&ceph, bucket, "k").await, json!([3, one, "a/b", { "job": "7" }]));
    // The older signature covers the media type, and here there was none: an empty one sends none.
    let params = format!("dict(Bucket={bucket:?}, Key='v2'), ExpiresIn=600");
    let url = signed_with(&ceph, &ceph.endpoint, "s3", "put_object", &params).await;
    let error = run(&bench, json!({ "url": url }), &inputs).await.unwrap_err();
    assert!(matches!(error.code, Code::InvalidCredentials | Code::AccessDenied), "{error}");
    run(&bench, json!({ "url": url, "headers": { "content-type": "" } }), &inputs).await.unwrap();
    assert_eq!(left(&ceph, bucket, "v2").await[1], one);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_say_what_to_do() {
    let bucket = "export-upload-refused";
    let Some(ceph) = or_skip(testkit::ceph().await) else { return };
    ceph.create_bucket(bucket).await.unwrap();
    let bench = Bench::new().await;
    // A large one too: the answer comes while the body is still on its way.
    let large = connectors::contract::bytes(32 * MIB, 1);
    let inputs = [[bench.input("a.txt", b"one").await], [bench.input("b.txt", &large).await]];
    let soon = format!("dict(Bucket={bucket:?}, Key='k'), ExpiresIn=1");
    let expired = signed(&ceph, &ceph.endpoint, "put_object", &soon).await;
    let reading = signed(&ceph, &ceph.endpoint, "get_object", &format!("dict(Bucket={bucket:?}, Key='k')")).await;
    let nowhere = signed_put(&ceph, &ceph.endpoint, "no-such-bucket-at-all", "k").await;
    let altered = signed_put(&ceph, &ceph.endpoint, bucket, "k").await.replace("/k?", "/other?");
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    for inputs in &inputs {
        for (url, code, words) in [
            (&expired, Code::AccessDenied, "expired"),
            (&reading, Code::AccessDenied, "sign it for PUT"),
            (&nowhere, Code::ContainerNotFound, "does not exist"),
            (&altered, Code::AccessDenied, "sign it for PUT"),
        ] {
            let error = run(&bench, json!({ "url": url }), inputs).await.unwrap_err();
            assert_eq!((error.code, error.retry), (code, connectors::Retry::Never), "{error}");
            assert!(error.message.contains(words) && error.message.contains("status 40"), "{}", error.message);
            assert!(error.message.contains(".txt\" was not delivered"), "{}", error.message);
            let signature = url.split("Signature=").nth(1).unwrap();
            assert!(!error.message.contains(signature), "{}", error.message);
        }
    }
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let url = signed_put(&ceph, &faults.endpoint(), bucket, "k").await;
    for (status, kind) in [(413, Kind::TooLarge), (404, Kind::NotFound), (405, Kind::Unsupported), (507, Kind::NoSpace)]
    {
        let from = faults.requests().len();
        faults.rule(move |_| Action::Answer { status, retry_after_secs: None });
        let error = run(&bench, json!({ "url": url }), &inputs[0]).await.unwrap_err();
        // The stand-in's body has the code of another fault, which means more than the status.
        assert!(error.code == Code::RemoteThrottled || error.code == Code::from(kind), "{error}");
        assert!(faults.requests().len() > from);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_is_sent_again_whole() {
    let bucket = "export-upload-broken";
    let Some(ceph) = or_skip(testkit::ceph().await) else { return };
    ceph.create_bucket(bucket).await.unwrap();
    let bench = Bench::new().await;
    let content = connectors::contract::bytes(12 * MIB, 3);
    let inputs = [bench.input("a.bin", &content).await];
    let proxy = Proxy::start(ceph.addr()).await.unwrap();
    let url = signed_put(&ceph, &format!("http://{}", proxy.addr()), bucket, "k").await;
    let md5 = hex::encode(connectors::Digests::of(&content).md5.unwrap());
    let faults: [&dyn Fn(&Proxy); 2] =
        [&|proxy| proxy.cut_after(6 * MIB as u64), &|proxy| proxy.flip_bit_at(6 * MIB as u64)];
    for fault in faults {
        let before = proxy.sent_bytes();
        fault(&proxy);
        let outcome = run(&bench, json!({ "url": url }), &inputs).await.unwrap();
        assert_eq!(outcome.files[0].receipt.as_ref().unwrap().verified, "md5");
        assert!(proxy.sent_bytes() - before > 17 * MIB as u64, "nothing was sent again");
        assert_eq!(left(&ceph, bucket, "k").await[1], md5);
    }
    let throttled = HttpFaults::start(ceph.addr()).await.unwrap();
    let url = signed_put(&ceph, &throttled.endpoint(), bucket, "k").await;
    throttled.rule(|request| match request.number {
        1 => Action::Answer { status: 503, retry_after_secs: Some(1) },
        _ => Action::Pass,
    });
    let began = std::time::Instant::now();
    run(&bench, json!({ "url": url }), &inputs).await.unwrap();
    assert!(began.elapsed() >= std::time::Duration::from_secs(1), "Retry-After was not kept");
}
