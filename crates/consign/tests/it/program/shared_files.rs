//! Files in an object store: taken in, delivered, given to whoever has a link, and gone with their jobs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use connectors::egress::Guard;
use connectors::http::{Body, Client, tls_config};
use connectors::{Digests, Limits};
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use testkit::http_faults::{Action, HttpFaults};
use testkit::or_skip;
use tokio::time::sleep;

use super::harness::{MARK, MIB, Program, eventually, id, task};
use super::places::Bucket;

const ANSWER_BYTES_MAX: usize = 32 * MIB;

/// A server whose files are in a bucket of the Ceph gateway.
fn program(bucket: &Bucket, name: &str) -> Program {
    program_at(bucket, name, &bucket.ceph.endpoint)
}

/// The same by another way to the gateway.
fn program_at(bucket: &Bucket, name: &str, endpoint: &str) -> Program {
    let url = format!("s3://{name}/a fleet?endpoint={endpoint}&region={}", bucket.ceph.region);
    let mut program = Program::new(&[("FILES_URL", &url)]);
    program.set("FILES__ACCESS_KEY_ID", &bucket.ceph.account.access_key_id);
    program.set("FILES__SECRET_ACCESS_KEY", &bucket.ceph.account.secret_access_key);
    program
}

async fn ask(method: Method, url: &str, headers: &[(&str, &str)]) -> (StatusCode, HeaderMap, Bytes) {
    let guard = Guard::new(["127.0.0.0/8".parse().unwrap()]);
    let client = Client::new(guard, tls_config(&[]).unwrap(), &Limits::default());
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = client.send(request.body(Body::empty()).unwrap(), "asking").await.unwrap();
    let (head, body) = answer.into_parts();
    (head.status, head.headers, body.bytes(ANSWER_BYTES_MAX).await.unwrap())
}

/// The link of a finished `export/url` task that is called `link`.
fn link(job: &Value) -> String {
    task(job, "link")["result"]["files"][0]["url"].as_str().unwrap().to_owned()
}

async fn delete(program: &Program, job: &Value) {
    let (status, _) = program.call(Method::DELETE, &format!("/v2/jobs/{}", id(job)), None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
}

/// What is kept in a bucket, but for the mark.
async fn kept(bucket: &Bucket) -> BTreeMap<String, Value> {
    let mut objects: BTreeMap<String, Value> = serde_json::from_value(bucket.objects().await).unwrap();
    objects.remove(&format!("a fleet/{MARK}"));
    objects
}

async fn is_emptied(bucket: &Bucket) {
    eventually("an empty bucket", async || {
        sleep(Duration::from_millis(500)).await;
        kept(bucket).await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_in_a_bucket_are_delivered_and_go_with_their_jobs() {
    let Some(store) = Bucket::empty("it-shared-files").await else { return };
    let Some(delivered) = Bucket::empty("it-shared-files-delivered").await else { return };
    let mut program = program(&store, "it-shared-files");
    program.start().await;
    assert_eq!(program.text("/readyz").await.0, StatusCode::OK);

    let mut bytes = vec![0; 12 * MIB + 5];
    testkit::bytes::fill(7, 0, &mut bytes);
    let up = program
        .job(json!({"in": {"operation": "import/upload"}, "link": {"operation": "export/url", "input": "in"}}))
        .await;
    program.upload(task(&up, "in"), "größe.bin", &bytes).await;
    let url = link(&program.finished(&up).await);
    let (status, headers, body) = ask(Method::GET, &url, &[]).await;
    assert!(status == StatusCode::OK && body == bytes);
    let etag = headers["etag"].to_str().unwrap().to_owned();
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=5000000-9000000", 5_000_000, 9_000_001),
        ("bytes=-3", bytes.len() - 3, bytes.len()),
    ] {
        let (status, headers, body) = ask(Method::GET, &url, &[("range", range), ("if-range", &etag)]).await;
        assert!(status == StatusCode::PARTIAL_CONTENT && body == bytes[from..to], "{range}");
        assert_eq!(headers["content-range"], format!("bytes {from}-{}/{}", to - 1, bytes.len()));
    }
    assert_eq!(ask(Method::GET, &url, &[("if-none-match", &etag)]).await.0, StatusCode::NOT_MODIFIED);

    let down = program
        .job(json!({
            "in": {"operation": "import/url", "url": url},
            "out": delivered.task(delivered.ceph.addr(), "big.bin", "in"),
        }))
        .await;
    program.finished(&down).await;
    let sha256 = hex::encode(Digests::of(&bytes).sha256);
    assert_eq!(delivered.objects().await, json!({"big.bin": sha256}));
    let kept = kept(&store).await;
    assert!(kept.len() == 3 && kept.keys().all(|key| key.starts_with("a fleet/")), "{kept:?}");
    assert!(kept.values().all(|found| *found == sha256.as_str()));
    assert!(program.files().is_empty(), "nothing is kept here");
    assert_eq!(std::fs::read_dir(program.data_dir().join("tmp")).unwrap().count(), 0);

    // Links that lead to the bucket itself, after a kill, from the same files.
    program.kill();
    program.set("FILES__REDIRECT_DOWNLOADS", "true");
    program.start().await;
    let here = format!("{}{}", program.base(), &url[url.find("/files/").unwrap()..]);
    let (status, headers, _) = ask(Method::GET, &here, &[]).await;
    assert_eq!(status, StatusCode::TEMPORARY_REDIRECT);
    let there = headers["location"].to_str().unwrap();
    assert!(there.starts_with(&store.ceph.endpoint), "{there}");
    let (status, headers, body) = ask(Method::GET, there, &[("range", "bytes=10-19")]).await;
    assert!(status == StatusCode::PARTIAL_CONTENT && body == bytes[10..20]);
    assert_eq!(
        headers["content-disposition"],
        "attachment; filename=\"gr__e.bin\"; filename*=UTF-8''gr%C3%B6%C3%9Fe.bin"
    );
    for (method, condition) in [(Method::HEAD, None), (Method::GET, Some(("if-match", etag.as_str())))] {
        let (status, headers, _) = ask(method, &here, condition.as_slice()).await;
        assert_eq!((status, headers["etag"].to_str().unwrap()), (StatusCode::OK, etag.as_str()));
    }

    let out = program.run(&["doctor"]);
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("s3://it-shared-files/a fleet/ takes files"), "{said}");
    let secret = &store.ceph.account.secret_access_key;
    assert!(!said.contains(secret) && !program.log().contains(secret));

    delete(&program, &up).await;
    delete(&program, &down).await;
    is_emptied(&store).await;
    store.is_tidied().await;
}

/// A server with these settings keeps a file in the object store that it shows as `store`, gives it to whoever has a link, and removes
/// it with its job. `names` are those of all objects that are there.
#[expect(clippy::future_not_send, reason = "it is awaited where it is made")]
async fn keeps_files(mut program: Program, store: &str, names: impl AsyncFn() -> Vec<String>) {
    program.start().await;
    eventually("readiness", async || (program.text("/readyz").await.0 == StatusCode::OK).then_some(())).await;
    let content = "kept elsewhere";
    let job = program
        .job(json!({
            "in": {"operation": "import/raw", "file": content, "filename": "a.txt"},
            "link": {"operation": "export/url", "input": "in"},
        }))
        .await;
    let url = link(&program.finished(&job).await);
    let (status, _, body) = ask(Method::GET, &url, &[]).await;
    assert!(status == StatusCode::OK && body == content, "{status}: {body:?}");
    assert!(program.files().is_empty(), "nothing is kept here");
    let prefix = format!("a fleet/{}/", id(task(&job, "in")));
    let kept = names().await;
    assert!(kept.contains(&format!("a fleet/{MARK}")), "{kept:?}");
    assert_eq!(kept.iter().filter(|name| name.starts_with(&prefix)).count(), 1, "{kept:?}");

    let out = program.run(&["doctor"]);
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(said.contains(&format!("{store} takes files")), "{said}");

    delete(&program, &job).await;
    eventually("the end of the file", async || {
        sleep(Duration::from_millis(500)).await;
        names().await.iter().all(|name| !name.starts_with(&prefix)).then_some(())
    })
    .await;
}

/// The account may stand in the address or beside it, and each secret in a setting or in a file.
#[tokio::test(flavor = "multi_thread")]
async fn azure_keeps_files_by_a_key_and_by_a_token() {
    let container = "it-azure-files";
    let Some(azurite) = or_skip(testkit::azurite().await) else { return };
    azurite.empty_container(container).await.unwrap();
    let names = async || -> Vec<String> {
        let script = format!("result = [it.name for it in service.get_container_client({container:?}).list_blobs()]");
        serde_json::from_value(azurite.sdk(&script).await.unwrap()).unwrap()
    };
    let address = format!("az://{container}/a fleet?endpoint={}", azurite.endpoint);
    let store = format!("az://{container}/a fleet/");
    let mut by_key = Program::new(&[("FILES_URL", &format!("{address}&account={}", azurite.account))]);
    by_key.set("FILES__STORAGE_ACCESS_KEY", &azurite.key);
    keeps_files(by_key, &store, &names).await;

    // Another database, whose files these are not.
    azurite.empty_container(container).await.unwrap();
    let token = azurite.container_sas(container, "racwdl", 1).await.unwrap();
    let mut by_token = Program::new(&[("FILES_URL", &address), ("FILES__STORAGE_ACCOUNT", &azurite.account)]);
    let file = by_token.folder().join("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    by_token.set("FILES__SAS_TOKEN_FILE", file.to_str().unwrap());
    keeps_files(by_token, &store, &names).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn google_cloud_storage_keeps_files_by_the_file_of_a_service_account() {
    let bucket = "it-gcs-files";
    let Some(gcs) = or_skip(testkit::gcs().await) else { return };
    gcs.create_bucket(bucket).await.unwrap();
    let address = format!("gs://{bucket}/a fleet?endpoint={}&token_uri={}", gcs.endpoint, gcs.token_uri);
    // The emulator answers one request at a time, and others ask it too.
    let mut program = Program::new(&[("FILES_URL", &address), ("TRANSFER__IDLE_TIMEOUT", "2m")]);
    let file = program.folder().join("account.json");
    std::fs::write(&file, gcs.key_file().to_string()).unwrap();
    program.set("FILES__SERVICE_ACCOUNT_FILE", file.to_str().unwrap());
    keeps_files(program, &format!("gs://{bucket}/a fleet/"), async || -> Vec<String> {
        let script = format!("result = [it.name for it in client.list_blobs({bucket:?})]");
        serde_json::from_value(gcs.python(&script).await.unwrap()).unwrap()
    })
    .await;
}

/// A start without the credentials says which setting is missing.
#[test]
fn a_bucket_without_credentials_is_a_start_that_fails_with_a_sentence() {
    let program = Program::new(&[("FILES_URL", "s3://bucket?endpoint=http://127.0.0.1:1&region=r")]);
    let out = program.run(&["serve", "--listen", "127.0.0.1:0"]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && said.contains("files.access_key_id"), "{said}");
}

/// Reading and listing are allowed, writing is not: every import fails, and `readyz` says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_takes_nothing_makes_the_server_unready() {
    let Some(store) = Bucket::empty("it-shared-files-refused").await else { return };
    let faults = HttpFaults::start(store.ceph.addr()).await.unwrap();
    let mut program = program_at(&store, "it-shared-files-refused", &faults.endpoint());
    program.start().await;
    let refused = Action::Answer { status: 403, retry_after_secs: None };
    faults.rule(move |request| if request.method == "PUT" { refused } else { Action::Pass });
    // On a busy machine the first look may be told to take too long.
    eventually("the refusal", async || {
        let (status, body) = program.text("/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
        body.contains("see to its rights").then_some(())
    })
    .await;
    let (_, metrics) = program.text("/metrics").await;
    assert!(metrics.lines().any(|line| line == "consign_file_store_up 0"), "{metrics}");
    faults.heal();
    // What failed is tried again soon.
    eventually("readiness", async || (program.text("/readyz").await.0 == StatusCode::OK).then_some(())).await;
    is_emptied(&store).await;
}

/// Nobody could tell at the start whose the files are. Before any is removed it is asked again.
#[tokio::test(flavor = "multi_thread")]
async fn files_of_another_database_stay_though_the_store_was_away_at_the_start() {
    const TRIES: u64 = 2;
    let Some(store) = Bucket::empty("it-shared-files-foreign").await else { return };
    let mut first = program(&store, "it-shared-files-foreign");
    first.start().await;
    let job = first.job(json!({"in": {"operation": "import/raw", "file": "a", "filename": "a"}})).await;
    first.finished(&job).await;
    first.kill();
    let before = kept(&store).await;
    assert_eq!(before.len(), 1);

    let faults = HttpFaults::start(store.ceph.addr()).await.unwrap();
    let asked = AtomicU64::new(0);
    faults.rule(move |request| {
        let is_early = request.path.contains(MARK) && asked.fetch_add(1, Ordering::SeqCst) < TRIES;
        if is_early { Action::Drop } else { Action::Pass }
    });
    let mut second = program_at(&store, "it-shared-files-foreign", &faults.endpoint());
    second.set("TRANSFER__TRIES", &TRIES.to_string());
    second.start().await;
    eventually("the search", async || {
        second.log().contains("nothing is removed: the file store belongs").then_some(())
    })
    .await;
    assert!(second.log().contains("nobody can tell yet whose the files are"));
    assert_eq!(kept(&store).await, before);
}
