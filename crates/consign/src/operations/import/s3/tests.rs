//! Imports from the Ceph gateway, also over connections that break, dawdle and lie.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use connectors::Limits;
use connectors::contract::bytes;
use connectors::egress::Guard;
use connectors::http::tls_config;
use serde_json::{Value, json};
use testkit::http_faults::{Action, HttpFaults, Request};
use testkit::proxy::Proxy;
use testkit::{Ceph, or_skip};

use super::*;
use crate::error::{Code, TaskError};
use crate::operations::storage::Import;
use crate::operations::testing::Bench;
use crate::operations::{self, Arguments as _, Context, Operation as _, Outcome};

const MIB: usize = 1024 * 1024;
/// Small parts, so that a test with several of them moves few bytes.
const PART_BYTES: u64 = 2 * MIB as u64;

fn limits() -> Limits {
    Limits { part_bytes: PART_BYTES, tries: 3, ..Limits::default() }
}

fn args(ceph: &Ceph, endpoint: &str, bucket: &str, more: &Value) -> Value {
    let mut all = json!({
        "bucket": bucket,
        "region": "default",
        "endpoint": endpoint,
        "access_key_id": ceph.account.access_key_id,
        "secret_access_key": ceph.account.secret_access_key,
    });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

/// Runs the operation with a context whose network leads to this machine.
async fn run(bench: &Bench, args: Value, limits: Limits) -> Result<Outcome, TaskError> {
    let guard = Guard::new(["127.0.0.0/8".parse().unwrap()]);
    let network = Network::new(guard, tls_config(&[]).unwrap(), limits, 4);
    let context = Context { network, ..bench.context(&[]) };
    Import::<ImportS3>::run(Args::take(args).unwrap(), context).await
}

/// A bucket with an object `large` of so many bytes, in one part or in several.
async fn stocked(bucket: &str, size: usize, in_parts: bool) -> Option<Ceph> {
    let ceph = or_skip(testkit::ceph().await)?;
    ceph.create_bucket(bucket).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large");
    std::fs::write(&path, bytes(size, 1)).unwrap();
    let threshold = if in_parts { 5 * MIB } else { 1024 * MIB };
    let script = format!(
        "
from boto3.s3.transfer import TransferConfig
config = TransferConfig(multipart_threshold={threshold}, multipart_chunksize={chunk})
s3.upload_file({path:?}, {bucket:?}, 'large', Config=config)",
        chunk = 5 * MIB,
    );
    ceph.s3api(&script).await.unwrap();
    Some(ceph)
}

fn is_read(request: &Request) -> bool {
    request.method == "GET" && request.header("range").is_some_and(|range| range != "bytes=0-0")
}

#[test]
fn a_key_or_a_prefix_is_asked_for() {
    let faults = |more: &Value| {
        let mut args = json!({ "bucket": "b", "region": "r", "access_key_id": "k", "secret_access_key": "s" });
        args.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let Value::Object(mut args) = args else { panic!("arguments are an object") };
        operations::find("import/s3")
            .unwrap()
            .prepare(&mut args)
            .unwrap_or_else(|faults| faults.0.into_keys().collect())
    };
    assert_eq!(faults(&json!({ "key": "a", "filename": "b" })), Vec::<String>::new());
    assert_eq!(faults(&json!({ "key_prefix": "a/", "key": "" })), Vec::<String>::new());
    assert_eq!(faults(&json!({})), ["key"]);
    assert_eq!(faults(&json!({ "key": "a", "key_prefix": "b" })), ["key_prefix"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_key_and_odd_names_come_as_they_are() {
    let bucket = "import-s3";
    let Some(ceph) = or_skip(testkit::ceph().await) else { return };
    ceph.create_bucket(bucket).await.unwrap();
    let keys = ["odd/a b  +%41.txt", "odd/ü 日本 ?x=1#y.png", "odd//double", "/lead", "odd/f/", "odd/empty"];
    let script = format!(
        "
for key in {keys:?}:
    body = b'' if key.endswith(('/', 'empty')) else key.encode()
    s3.put_object(Bucket={bucket:?}, Key=key, Body=body)
s3.put_object(Bucket={bucket:?}, Key='typed.bin', Body=b'x', ContentType='text/x-own')"
    );
    ceph.s3api(&script).await.unwrap();
    let bench = Bench::new().await;
    let import = async |more: Value| run(&bench, args(&ceph, &ceph.endpoint, bucket, &more), limits()).await.unwrap();
    for key in keys.iter().filter(|key| !key.ends_with('/')) {
        let outcome = import(json!({ "key": key })).await;
        assert_eq!(outcome.files[0].name, key.rsplit('/').next().unwrap());
        let expected = if key.ends_with("empty") { "" } else { key };
        assert_eq!(bench.read(&outcome.files[0]).await, expected.as_bytes());
    }
    let typed = import(json!({ "key": "typed.bin", "filename": "a.png" })).await;
    assert_eq!((typed.files[0].name.as_str(), typed.files[0].content_type.as_str()), ("a.png", "text/x-own"));
    let outcome = import(json!({ "key_prefix": "odd/" })).await;
    let found: Vec<_> = outcome.files.iter().map(|file| (file.name.as_str(), file.content_type.as_str())).collect();
    let (plain, binary) = ("text/plain", "application/octet-stream");
    let expected =
        [("double", binary), ("a b  +%41.txt", plain), ("empty", binary), ("ü 日本 ?x=1#y.png", "image/png")];
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_brings_more_than_a_page() {
    let bucket = "import-s3-many";
    let Some(ceph) = or_skip(testkit::ceph().await) else { return };
    ceph.create_bucket(bucket).await.unwrap();
    let script = format!(
        "
from concurrent.futures import ThreadPoolExecutor
put = lambda number: s3.put_object(Bucket={bucket:?}, Key=f'many/{{number:04}}', Body=str(number).encode())
list(ThreadPoolExecutor(16).map(put, range(1050)))"
    );
    ceph.s3api(&script).await.unwrap();
    let mut bench = Bench::new().await;
    (bench.bounds.files_max, bench.bounds.files_at_once) = (1050, 8);
    let args = |prefix: &str| args(&ceph, &ceph.endpoint, bucket, &json!({ "key_prefix": prefix }));
    let outcome = run(&bench, args("many/"), limits()).await.unwrap();
    let names: Vec<_> = outcome.files.iter().map(|file| file.name.clone()).collect();
    let expected: Vec<_> = (0..1050).map(|number| format!("{number:04}")).collect();
    assert!(names == expected, "{} names", names.len());
    assert_eq!(bench.read(&outcome.files[1049]).await, "1049".as_bytes());
    bench.bounds.files_max = 1049;
    let error = run(&bench, args("many/"), limits()).await.unwrap_err();
    assert_eq!(error.code, Code::TooManyFiles);
    assert!(error.message.contains("more than 1049 files under `many/`"), "{}", error.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_refuses_is_told_apart() {
    let bucket = "import-s3-refused";
    let Some(ceph) = or_skip(testkit::ceph().await) else { return };
    ceph.create_bucket(bucket).await.unwrap();
    let bench = Bench::new().await;
    let missing = "no-such-bucket-at-all";
    for prefix in [false, true] {
        let wanted = || if prefix { json!({ "key_prefix": "a/" }) } else { json!({ "key": "a/b" }) };
        let with = |more: Value| {
            let mut wanted = wanted();
            wanted.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            wanted
        };
        let found = if prefix { "under `a/`" } else { "no object `a/b`" };
        for (more, code, words) in [
            (wanted(), Code::FileNotFound, found),
            (with(json!({ "bucket": missing })), Code::ContainerNotFound, "no-such-bucket-at-all` does not exist"),
            // Amazon's answers to these two tell the secret from the key; this gateway's do not.
            (with(json!({ "secret_access_key": "wrong-secret" })), Code::AccessDenied, "check the credentials"),
            (with(json!({ "access_key_id": "NOBODY" })), Code::AccessDenied, "check the credentials"),
            (
                with(json!({ "access_key_id": ceph.other.access_key_id,
                    "secret_access_key": ceph.other.secret_access_key })),
                Code::AccessDenied,
                if prefix { "s3:ListBucket" } else { "s3:GetObject" },
            ),
        ] {
            let error = run(&bench, args(&ceph, &ceph.endpoint, bucket, &more), limits()).await.unwrap_err();
            let told = (error.code, error.retry);
            let is_key_named = error.code == Code::InvalidCredentials && error.message.contains("access_key_id");
            assert!(told == (code, connectors::Retry::Never) || is_key_named, "{prefix}: {error}");
            assert!(error.message.contains(words) || is_key_named, "{}", error.message);
            assert!(!error.message.contains("wrong-secret"), "{}", error.message);
        }
    }
    assert_eq!(bench.kept(), 0);
}

/// Cut at half of it, the download goes on: a proxy counts what is asked for again.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_download_goes_on_where_it_broke() {
    let bucket = "import-s3-cut";
    let size = 24 * MIB;
    let Some(ceph) = stocked(bucket, size, true).await else { return };
    let proxy = Proxy::start(ceph.addr()).await.unwrap();
    let bench = Bench::new().await;
    let endpoint = format!("http://{}", proxy.addr());
    let args = args(&ceph, &endpoint, bucket, &json!({ "key": "large" }));
    let cut = async {
        while proxy.received_bytes() < size as u64 / 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        proxy.cut();
        proxy.received_bytes()
    };
    let (outcome, before) = tokio::join!(run(&bench, args, limits()), cut);
    assert!(bench.read(&outcome.unwrap().files[0]).await == bytes(size, 1));
    assert!(before < size as u64 * 3 / 4, "the cut came too late: {before}");
    // What lay in the buffers of four connections is asked for again.
    let lost = proxy.received_bytes() - size as u64;
    assert!(lost < 4 * PART_BYTES, "{lost} bytes were received twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_range_is_mended_by_itself() {
    let bucket = "import-s3-ranges";
    let size = 9 * MIB + 5;
    let Some(ceph) = stocked(bucket, size, true).await else { return };
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let bench = Bench::new().await;
    let args = || args(&ceph, &faults.endpoint(), bucket, &json!({ "key": "large" }));
    let is_new = |range: &str| {
        range.trim_start_matches("bytes=").split('-').next().unwrap().parse::<u64>().unwrap() % PART_BYTES == 0
    };
    for fault in [Action::CutAnswer(100_000), Action::StallAnswer(100_000)] {
        // The first reading of each range, in whichever order they come.
        faults.rule(move |request| {
            let is_hit = is_read(request) && is_new(request.header("range").unwrap());
            if is_hit { fault } else { Action::Pass }
        });
        let from = faults.requests().len();
        let limits = Limits { idle_timeout: Duration::from_secs(1), ..limits() };
        let outcome = run(&bench, args(), limits).await.unwrap();
        assert!(bench.read(&outcome.files[0]).await == bytes(size, 1), "{fault:?}");
        let reads: Vec<String> = faults.requests()[from..]
            .iter()
            .filter(|request| is_read(request))
            .map(|request| request.header("range").unwrap().to_owned())
            .collect();
        assert_eq!(reads.iter().filter(|range| is_new(range)).count(), 5, "{reads:?}");
        assert!(reads.contains(&format!("bytes=100000-{}", PART_BYTES - 1)), "{reads:?}");
    }
    assert!(faults.peak_in_flight() >= 3, "{} ranges at once", faults.peak_in_flight());
    faults.answer_every(3, 503, Some(1));
    let outcome = run(&bench, args(), limits()).await.unwrap();
    assert!(bench.read(&outcome.files[0]).await == bytes(size, 1), "throttled");
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_an_import_and_leaves_nothing() {
    let bucket = "import-s3-silent";
    let Some(ceph) = stocked(bucket, 5 * MIB, false).await else { return };
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    faults.rule(|request| if is_read(request) { Action::StallAnswer(0) } else { Action::Pass });
    let bench = Bench::new().await;
    let limits = Limits { idle_timeout: Duration::from_secs(1), tries: 2, ..limits() };
    let args = args(&ceph, &faults.endpoint(), bucket, &json!({ "key": "large" }));
    let error = run(&bench, args, limits).await.unwrap_err();
    assert_eq!((error.code, error.retry), (Code::RemoteTimeout, connectors::Retry::Later(None)), "{error}");
    assert_eq!(bench.kept(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_is_not_published() {
    let bucket = "import-s3-flip";
    let size = 5 * MIB;
    let Some(ceph) = stocked(bucket, size, false).await else { return };
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let bench = Bench::new().await;
    let args = || args(&ceph, &faults.endpoint(), bucket, &json!({ "key": "large" }));
    let flipped = AtomicU64::new(0);
    faults.rule(move |request| {
        let is_third = is_read(request) && flipped.fetch_add(1, Ordering::Relaxed) == 2;
        if is_third { Action::FlipAnswer(1000) } else { Action::Pass }
    });
    let error = run(&bench, args(), limits()).await.unwrap_err();
    assert_eq!((error.code, error.retry), (Code::IntegrityMismatch, connectors::Retry::Later(None)), "{error}");
    assert_eq!(bench.kept(), 0);
    let outcome = run(&bench, args(), limits()).await.unwrap();
    assert!(bench.read(&outcome.files[0]).await == bytes(size, 1));
}

/// An object that is replaced while it is read is never mixed of both.
#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_object_is_not_mixed() {
    const LAST_RANGE: &str = "bytes=8388608-";
    let bucket = "import-s3-replaced";
    let size = 9 * MIB;
    let Some(ceph) = stocked(bucket, size, true).await else { return };
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let bench = Bench::new().await;
    let args = args(&ceph, &faults.endpoint(), bucket, &json!({ "key": "large" }));
    // The last range stalls until another object of the same size is in place.
    faults.rule(|request| match request.header("range") {
        Some(range) if range.starts_with(LAST_RANGE) && request.number < 8 => Action::StallAnswer(0),
        _ => Action::Pass,
    });
    let limits = Limits { idle_timeout: Duration::from_secs(3), ..limits() };
    let replaced = async {
        let is_last = |request: &Request| request.header("range").is_some_and(|range| range.starts_with(LAST_RANGE));
        while !faults.requests().iter().any(is_last) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let script = format!("s3.put_object(Bucket={bucket:?}, Key='large', Body=b'x' * {size})");
        ceph.s3api(&script).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(run(&bench, args, limits), replaced);
    let error = outcome.unwrap_err();
    assert_eq!((error.code, error.retry), (Code::IntegrityMismatch, connectors::Retry::Later(None)), "{error}");
    assert!(error.message.contains("`large` was changed while it was read"), "{}", error.message);
    assert_eq!(bench.kept(), 0);
}
