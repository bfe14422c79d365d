//! Every argument, read back from the gateway by another client, for single and for multipart uploads.

use std::sync::Arc;

use connectors::contract;
use connectors::memory::MemorySource;
use connectors::s3::Config;
use connectors::{Connector as _, Kind};
use serde_json::{Value, json};
use testkit::Ceph;
use testkit::http_faults::HttpFaults;

use super::{ceph_with, of_ceph, s3};
use crate::{LIMITS, PART_BYTES};

/// Sizes of a single and of a multipart upload.
const SIZES: [usize; 2] = [1000, PART_BYTES + 1000];

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

async fn read_back(ceph: &Ceph, bucket: &str, key: &str) -> Value {
    let script = format!(
        "
import urllib.request
head = s3.head_object(Bucket={bucket:?}, Key={key:?})
grants = s3.get_object_acl(Bucket={bucket:?}, Key={key:?})['Grants']
tags = s3.get_object_tagging(Bucket={bucket:?}, Key={key:?})
result = {{
    'type': head['ContentType'],
    'cache': head.get('CacheControl'),
    'disposition': head.get('ContentDisposition'),
    'metadata': head['Metadata'],
    'tags': {{tag['Key']: tag['Value'] for tag in tags.get('TagSet', [])}},
    'public': any('AllUsers' in grant['Grantee'].get('URI', '') for grant in grants),
    'anonymous': len(urllib.request.urlopen(endpoint + '/' + {bucket:?} + '/' + {key:?}).read()),
    'md5': hashlib.md5(s3.get_object(Bucket={bucket:?}, Key={key:?})['Body'].read()).hexdigest(),
}}"
    );
    ceph.s3api(&script).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_argument_arrives() {
    let bucket = "s3-arguments";
    let Some(ceph) = ceph_with(bucket).await else { return };
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let connector = s3(&full(of_ceph(&ceph.account, &faults.endpoint(), bucket)));
    for size in SIZES {
        let key = format!("full-{size}");
        let source = Arc::new(MemorySource::new(contract::bytes(size, 1)));
        let receipt = contract::put(&connector, &key, &source).await.unwrap();
        assert_eq!(receipt.location, format!("s3://{bucket}/{key}"));
        assert_eq!(receipt.verified, "md5", "this gateway does not know CRC32C");
        assert!(receipt.etag.is_some());
        // This version of the gateway forgets the tags of multipart uploads, whoever makes them.
        let tags = if size == SIZES[0] { json!({"team": "a & b", "stage": "done"}) } else { json!({}) };
        let expected = json!({
            "type": "video/x-own",
            "cache": "max-age=60, public",
            "disposition": "attachment; filename=\"a b.bin\"",
            "metadata": {"job": "7", "some-key": "some value", "who": "=?UTF-8?B?SsO8cmdlbg==?="},
            "tags": tags,
            "public": true,
            "anonymous": size,
            "md5": testkit::bytes::digest(source.bytes()).md5,
        });
        assert_eq!(read_back(&ceph, bucket, &key).await, expected, "{size} bytes");
        let stat = ceph.object_stat(bucket, &key).await.unwrap();
        assert_eq!(stat["attrs"]["user.rgw.crypt.mode"], "RGW-AUTO", "{size} bytes are not encrypted: {stat}");
    }
    let opened = faults.requests().into_iter().find(|request| request.path.ends_with("?uploads=")).unwrap();
    assert_eq!(opened.header("x-amz-tagging"), Some("stage=done&team=a%20%26%20b"));
    let on_parts = faults.requests().into_iter().filter(|request| request.path.contains("uploadId="));
    for request in on_parts {
        for header in ["x-amz-server-side-encryption", "x-amz-acl", "x-amz-tagging", "x-amz-meta-job"] {
            assert_eq!(request.header(header), None, "{header} on {} {}", request.method, request.path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_arguments_nothing_is_asked_for() {
    let bucket = "s3-plain";
    let Some(ceph) = ceph_with(bucket).await else { return };
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let config = Config { acl: Some("private".to_owned()), ..of_ceph(&ceph.account, &faults.endpoint(), bucket) };
    contract::put(&s3(&config), "x", &Arc::new(MemorySource::new("x"))).await.unwrap();
    let requests = faults.requests();
    assert_eq!(requests.len(), 1, "one object, one request: {requests:?}");
    for header in ["x-amz-acl", "x-amz-server-side-encryption", "x-amz-tagging", "cache-control"] {
        assert_eq!(requests[0].header(header), None, "{header}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_the_service_does_not_know_come_back_with_its_words() {
    let bucket = "s3-unknown-values";
    let Some(ceph) = ceph_with(bucket).await else { return };
    for size in SIZES {
        let config = Config { acl: Some("bogus".to_owned()), ..of_ceph(&ceph.account, &ceph.endpoint, bucket) };
        let source = Arc::new(MemorySource::new(contract::bytes(size, 2)));
        let error = contract::put(&s3(&config), "x", &source).await.unwrap_err();
        assert_eq!(error.kind, Kind::InvalidRequest, "{error:?}");
        let answer = error.answer.unwrap();
        assert_eq!(answer.code.as_deref(), Some("InvalidArgument"));
        assert!(answer.request_id.is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_credentials_need_their_token() {
    let bucket = "s3-session";
    let Some(ceph) = ceph_with(bucket).await else { return };
    let session = ceph.session_account().await.unwrap();
    let config = of_ceph(&session, &ceph.endpoint, bucket);
    for size in SIZES {
        let source = Arc::new(MemorySource::new(contract::bytes(size, 3)));
        contract::put(&s3(&config), "x", &source).await.unwrap();
        for token in [None, Some("bogus-session-token".into())] {
            let config = Config { session_token: token, ..config.clone() };
            let error = contract::put(&s3(&config), "x", &source).await.unwrap_err();
            assert!(
                matches!(error.kind, Kind::InvalidCredentials | Kind::AccessDenied | Kind::InvalidRequest),
                "{error:?}"
            );
            assert!(!format!("{error:?}").contains("bogus-session-token"), "{error:?}");
        }
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
    let connector = s3(&of_ceph(&ceph.other, &ceph.endpoint, bucket));
    for size in SIZES {
        let source = Arc::new(MemorySource::new(contract::bytes(size, 4)));
        contract::put(&connector, &format!("x-{size}"), &source).await.unwrap();
    }
    let own = s3(&of_ceph(&ceph.account, &ceph.endpoint, bucket));
    assert_eq!(own.list("", 10).await.unwrap().len(), 2);
    contract::put(&own, "own", &Arc::new(MemorySource::new("x"))).await.unwrap();
    for error in [connector.stat("own").await.unwrap_err(), connector.list("", 10).await.unwrap_err()] {
        assert_eq!(error.kind, Kind::AccessDenied, "the policy grants more than this test believes: {error:?}");
    }
}

/// The bucket in the host name, on a real server.
#[tokio::test(flavor = "multi_thread")]
async fn the_bucket_may_stand_in_the_host_name() {
    let bucket = "s3-virtual-host";
    let Some(ceph) = ceph_with(bucket).await else { return };
    let endpoint = format!("http://s3.localhost:{}", ceph.addr().port());
    let config =
        Config { addressing: connectors::s3::Addressing::VirtualHost, ..of_ceph(&ceph.account, &endpoint, bucket) };
    let connector = connectors::s3::S3::new(&config, crate::client_that_knows_no_names(), LIMITS).unwrap();
    let source = Arc::new(MemorySource::new("in the host name"));
    for key in ["a b/ü.txt", "//leading"] {
        contract::put(&connector, key, &source).await.unwrap();
        assert_eq!(contract::get(&connector, key).await.unwrap(), *source.bytes());
    }
    let names: Vec<String> = connector.list("", 10).await.unwrap().into_iter().map(|object| object.name).collect();
    assert_eq!(names, ["//leading", "a b/ü.txt"]);
}
