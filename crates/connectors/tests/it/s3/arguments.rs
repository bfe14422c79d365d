//! Every argument, read back from the server by another client, for single and for multipart uploads.

use std::sync::Arc;

use connectors::memory::MemorySource;
use connectors::s3::Config;
use connectors::{Connector as _, Kind, Receipt, contract};
use practice::{Practice, Settings};
use serde_json::{Value, json};
use testkit::conformance::{self, Cell, Form};
use testkit::http_faults::{Action, HttpFaults};
use testkit::witness::Witness;

use super::{boto3, ceph_server, ceph_with, of_ceph, of_practice, practice_server, s3};
use crate::PART_BYTES;

/// A single and a multipart upload, with the size that makes it one.
const FORMS: [(Form, usize); 2] = [(Form::Single, 1000), (Form::Parts, PART_BYTES + 1000)];

const ENCRYPTION: &str = "x-amz-server-side-encryption";

fn full(config: Config) -> Config {
    Config {
        acl: Some("public-read".to_owned()),
        cache_control: Some("max-age=60, public".to_owned()),
        content_disposition: Some("attachment; filename=\"a b.bin\"".to_owned()),
        content_type: Some("video/x-own".to_owned()),
        metadata: [("job", "7"), ("x-amz-meta-some-key", "some value"), ("who", "Jürgen")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        tagging: [("team", "a & b"), ("stage", "done")].map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        server_side_encryption: Some("AES256".to_owned()),
        ..config
    }
}

/// What a client by another hand must find, by argument.
fn expected() -> Value {
    json!({
        "cache_control": "max-age=60, public",
        "content_disposition": "attachment; filename=\"a b.bin\"",
        "content_type": "video/x-own",
        "metadata": {"job": "7", "some-key": "some value", "who": "=?UTF-8?B?SsO8cmdlbg==?="},
        "tagging": {"team": "a & b", "stage": "done"},
    })
}

async fn read_back(witness: &Witness, key: &str) -> Value {
    let script = format!(
        "
at = {{'Bucket': settings['bucket'], 'Key': {key:?}}}
head = client.head_object(**at)
result = {{
    'cache_control': head.get('CacheControl'),
    'content_disposition': head.get('ContentDisposition'),
    'content_type': head['ContentType'],
    'metadata': head['Metadata'],
    'tagging': {{tag['Key']: tag['Value'] for tag in client.get_object_tagging(**at).get('TagSet', [])}},
    'server_side_encryption': head.get('ServerSideEncryption'),
}}"
    );
    witness.run(&script).await.unwrap()
}

async fn put(config: &Config, key: &str, size: usize) -> connectors::Result<Receipt> {
    contract::put(&s3(config), key, &Arc::new(MemorySource::new(contract::bytes(size, 1)))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_argument_arrives() {
    let bucket = "s3-arguments";
    let Some(ceph) = ceph_with(bucket).await else { return };
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let plain = of_ceph(&ceph.account, &ceph.endpoint, bucket);
    let Some(witness) = boto3(&plain).await else { return };
    let server = ceph_server(&ceph);
    let config = full(of_ceph(&ceph.account, &faults.endpoint(), bucket));
    for (form, size) in FORMS {
        let key = format!("full-{size}");
        let receipt = put(&config, &key, size).await.unwrap();
        assert_eq!(receipt.location, format!("s3://{bucket}/{key}"));
        assert_eq!(receipt.verified, "md5", "this gateway does not know CRC32C");
        assert!(receipt.etag.is_some());
        let found = read_back(&witness, &key).await;
        for (argument, expected) in expected().as_object().unwrap() {
            let is_forgotten = argument == "tagging" && form == Form::Parts && found[argument] == json!({});
            let cell = if is_forgotten {
                // The header is checked below.
                let note = "this version of the gateway forgets the tags of multipart uploads, whoever makes them: seen \
                            on the wire, and kept by the practice server";
                Cell::Otherwise(note.to_owned())
            } else {
                assert_eq!(&found[argument], expected, "{argument}, {form:?}");
                Cell::Shown
            };
            conformance::argument(&server, argument, form, cell);
        }
        let stat = ceph.object_stat(bucket, &key).await.unwrap();
        // The gateway encrypts everything once it has a default key; only its own note of the header tells that it was asked.
        let asked = (&stat["attrs"]["user.rgw.x-amz-server-side-encryption"], &stat["attrs"]["user.rgw.crypt.mode"]);
        assert_eq!(asked, (&json!("AES256"), &json!("RGW-AUTO")), "{form:?}: {stat}");
        conformance::argument(&server, "server_side_encryption: AES256", form, Cell::Shown);
    }
    let opened = faults.requests().into_iter().find(|request| request.path.ends_with("?uploads=")).unwrap();
    assert_eq!(opened.header("x-amz-tagging"), Some("stage=done&team=a%20%26%20b"));
    let on_parts = faults.requests().into_iter().filter(|request| request.path.contains("uploadId="));
    for request in on_parts {
        for header in [ENCRYPTION, "x-amz-acl", "x-amz-tagging", "x-amz-meta-job"] {
            assert_eq!(request.header(header), None, "{header} on {} {}", request.method, request.path);
        }
    }
}

/// The practice server keeps what the gateway forgets.
#[tokio::test(flavor = "multi_thread")]
async fn every_argument_arrives_at_the_practice_server() {
    let folder = tempfile::tempdir().unwrap();
    let practice = Practice::start(Settings::new(folder.path())).await.unwrap();
    let plain = of_practice(&practice, &practice.s3_endpoint());
    let Some(witness) = boto3(&plain).await else { return };
    let config = full(plain.clone());
    for (form, size) in FORMS {
        put(&config, "full", size).await.unwrap();
        let mut found = read_back(&witness, "full").await;
        let kept = found.as_object_mut().unwrap().remove("server_side_encryption");
        assert_eq!(kept, Some(json!("AES256")), "{form:?}");
        assert_eq!(found, expected(), "{form:?}");
        for argument in expected().as_object().unwrap().keys() {
            conformance::argument(&practice_server(), argument, form, Cell::Shown);
        }
    }
}

/// Whoever may see the object is asked of somebody who is nobody.
#[tokio::test(flavor = "multi_thread")]
async fn an_acl_lets_in_whom_it_names() {
    let bucket = "s3-acl";
    let Some(ceph) = ceph_with(bucket).await else { return };
    let plain = of_ceph(&ceph.account, &ceph.endpoint, bucket);
    let Some(witness) = boto3(&plain).await else { return };
    let anonymous = "
import urllib.error, urllib.request
def status(key):
    try:
        return urllib.request.urlopen(settings['endpoint'] + '/' + settings['bucket'] + '/' + key).status
    except urllib.error.HTTPError as error:
        return error.code
result = {key: status(key) for key in ('open', 'closed', 'private')}";
    for (form, size) in FORMS {
        for (key, acl) in [("open", Some("public-read")), ("closed", None), ("private", Some("private"))] {
            put(&Config { acl: acl.map(str::to_owned), ..plain.clone() }, key, size).await.unwrap();
        }
        let found = witness.run(anonymous).await.unwrap();
        assert_eq!(found, json!({"open": 200, "closed": 403, "private": 403}), "{form:?}");
        conformance::argument(&ceph_server(&ceph), "acl", form, Cell::Shown);
    }
}

/// The gateway takes `aws:kms` with a named key only, which the API cannot name: a header that is added on the way does.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_key_service_encrypt() {
    let bucket = "s3-kms";
    let Some(ceph) = ceph_with(bucket).await else { return };
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let config = Config {
        server_side_encryption: Some("aws:kms".to_owned()),
        ..of_ceph(&ceph.account, &faults.endpoint(), bucket)
    };
    for (form, size) in FORMS {
        faults.heal();
        let error = put(&config, "x", size).await.unwrap_err();
        assert_eq!(error.kind, Kind::InvalidRequest, "{error:?}");
        assert!(error.detail.contains("requires HTTP header x-amz-server-side-encryption-aws-kms-key-id"), "{error:?}");
        faults.rule(|request| match request.header(ENCRYPTION) {
            Some(_) => Action::PassWith("x-amz-server-side-encryption-aws-kms-key-id: testkey"),
            None => Action::Pass,
        });
        put(&config, "x", size).await.unwrap();
        let stat = ceph.object_stat(bucket, "x").await.unwrap();
        assert_eq!(stat["attrs"]["user.rgw.crypt.mode"], "SSE-KMS", "{form:?}: {stat}");
        let note = "encrypted by the gateway with a key of its key service, which had to be named by a header that was \
                    added on the way: it has no key by default";
        conformance::argument(
            &ceph_server(&ceph),
            "server_side_encryption: aws:kms",
            form,
            Cell::Otherwise(note.to_owned()),
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_arguments_nothing_is_asked_for() {
    let bucket = "s3-plain";
    let Some(ceph) = ceph_with(bucket).await else { return };
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let config = Config { acl: Some("private".to_owned()), ..of_ceph(&ceph.account, &faults.endpoint(), bucket) };
    put(&config, "x", 1).await.unwrap();
    let requests = faults.requests();
    assert_eq!(requests.len(), 1, "one object, one request: {requests:?}");
    for header in ["x-amz-acl", ENCRYPTION, "x-amz-tagging", "cache-control"] {
        assert_eq!(requests[0].header(header), None, "{header}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_the_service_does_not_know_come_back_with_its_words() {
    let bucket = "s3-unknown-values";
    let Some(ceph) = ceph_with(bucket).await else { return };
    let plain = of_ceph(&ceph.account, &ceph.endpoint, bucket);
    for (_, size) in FORMS {
        for config in [
            Config { acl: Some("bogus".to_owned()), ..plain.clone() },
            Config { server_side_encryption: Some("bogus".to_owned()), ..plain.clone() },
        ] {
            let error = put(&config, "x", size).await.unwrap_err();
            assert_eq!(error.kind, Kind::InvalidRequest, "{error:?}");
            let answer = error.answer.unwrap();
            assert_eq!(answer.code.as_deref(), Some("InvalidArgument"));
            assert!(answer.request_id.is_some());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_credentials_need_their_token() {
    let bucket = "s3-session";
    let Some(ceph) = ceph_with(bucket).await else { return };
    let session = ceph.session_account().await.unwrap();
    let config = of_ceph(&session, &ceph.endpoint, bucket);
    for (form, size) in FORMS {
        put(&config, "x", size).await.unwrap();
        for token in [None, Some("bogus-session-token".into())] {
            let config = Config { session_token: token, ..config.clone() };
            let error = put(&config, "x", size).await.unwrap_err();
            assert!(
                matches!(error.kind, Kind::InvalidCredentials | Kind::AccessDenied | Kind::InvalidRequest),
                "{error:?}"
            );
            assert!(!format!("{error:?}").contains("bogus-session-token"), "{error:?}");
        }
        conformance::argument(&ceph_server(&ceph), "session_token", form, Cell::Shown);
    }
}

/// The gateway takes any region, but checks the signature, which is made for one.
#[tokio::test(flavor = "multi_thread")]
async fn requests_are_signed_for_the_region() {
    let bucket = "s3-region";
    let Some(ceph) = ceph_with(bucket).await else { return };
    for (form, size) in FORMS {
        let faults = HttpFaults::start(ceph.addr()).await.unwrap();
        let region = "ap-southeast-7".to_owned();
        put(&Config { region, ..of_ceph(&ceph.account, &faults.endpoint(), bucket) }, "x", size).await.unwrap();
        for request in faults.requests() {
            let signed = request.header("authorization").unwrap_or_default();
            assert!(
                signed.contains("/ap-southeast-7/s3/aws4_request,"),
                "{} {}: {signed}",
                request.method,
                request.path
            );
        }
        let note = "the gateway takes any region: seen in the scope of the signatures that it checked";
        conformance::argument(&ceph_server(&ceph), "region", form, Cell::Otherwise(note.to_owned()));
    }
}

/// The least right: the user may put objects, and neither look at them, nor list, nor abort.
#[tokio::test(flavor = "multi_thread")]
async fn the_right_to_put_is_enough() {
    let bucket = "s3-write-only";
    let Some(ceph) = ceph_with(bucket).await else { return };
    let policy = format!(
        "
who = client('iam', 'other')
statement = {{'Effect': 'Allow', 'Principal': {{'AWS': ['arn:aws:iam:::user/other']}}, 'Action': ['s3:PutObject'],
             'Resource': ['arn:aws:s3:::{bucket}/*']}}
s3.put_bucket_policy(Bucket={bucket:?}, Policy=json.dumps({{'Version': '2012-10-17', 'Statement': [statement]}}))"
    );
    ceph.s3api(&policy).await.unwrap();
    let config = of_ceph(&ceph.other, &ceph.endpoint, bucket);
    for (_, size) in FORMS {
        put(&config, &format!("x-{size}"), size).await.unwrap();
    }
    let own = of_ceph(&ceph.account, &ceph.endpoint, bucket);
    assert_eq!(s3(&own).list("", 10).await.unwrap().len(), 2);
    put(&own, "own", 1).await.unwrap();
    let connector = s3(&config);
    for error in [connector.stat("own").await.unwrap_err(), connector.list("", 10).await.unwrap_err()] {
        assert_eq!(error.kind, Kind::AccessDenied, "the policy grants more than this test believes: {error:?}");
    }
}
