//! The file store in an object store: the suite on real servers, and what is particular about networks.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use connectors::azure_blob::{self, AzureBlob};
use connectors::egress::{Guard, Rule};
use connectors::gcs::{self, Gcs};
use connectors::memory::{MemoryJournal, MemorySource};
use connectors::s3::{self, S3};
use connectors::store::{Ask, ObjectStore, Shown};
use connectors::{Budget, Connector as _, Limits, Network, Put, http};
use futures_util::future::BoxFuture;
use testkit::http_faults::{Action, HttpFaults};
use testkit::{Ceph, or_skip};

use super::suite::{self, Place};
use super::*;
use crate::files;

const BUCKET: &str = "consign-files";
const MIB: usize = 1024 * 1024;

fn network() -> Network {
    let loopback: Rule = "127.0.0.0/8".parse().unwrap();
    // The emulator of Google's storage answers one request at a time, and others ask it too.
    let timeout = Duration::from_mins(2);
    let part_bytes = 5 * MIB as u64;
    let limits = Limits { part_bytes, tries: 3, idle_timeout: timeout, connect_timeout: timeout, ..Limits::default() };
    Network::new(Guard::new([loopback]), http::tls_config(&[]).unwrap(), limits, 100)
}

pub(super) fn settings(store: Arc<dyn ObjectStore>, folder: &Path) -> BucketSettings {
    BucketSettings {
        store,
        prefix: format!("in here/{:016x}/", rand::random::<u64>()),
        scratch: Arc::from(folder.join("tmp")),
        memory: Budget::default(),
        limits: network().limits,
        abandoned_after: Duration::from_hours(1),
        redirects: true,
    }
}

async fn names(store: &dyn ObjectStore, prefix: &str) -> Vec<String> {
    let mut ask = Ask { prefix: prefix.to_owned(), limit: 1000, ..Ask::default() };
    let mut names = Vec::new();
    loop {
        let page = store.page(&ask).await.unwrap();
        names.extend(page.names);
        ask.mark = page.next;
        if ask.mark.is_none() {
            names.sort_unstable();
            return names;
        }
    }
}

async fn passes(store: Arc<dyn ObjectStore>, uploads: Option<Arc<S3>>) {
    passes_with(store, uploads, false).await;
}

async fn passes_with(store: Arc<dyn ObjectStore>, uploads: Option<Arc<S3>>, is_slow: bool) {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(Arc::clone(&store), folder.path());
    let prefix = settings.prefix.clone();
    let left = move || -> BoxFuture<'static, Vec<String>> {
        let (store, uploads, prefix) = (Arc::clone(&store), uploads.clone(), prefix.clone());
        Box::pin(async move {
            let mut left = names(&*store, &prefix).await;
            if let Some(s3) = uploads {
                let open = s3.open_uploads(&prefix).await.unwrap();
                left.extend(open.into_iter().map(|open| format!("{} as {}", open.key, open.upload_id)));
            }
            left
        })
    };
    suite::all(&Place { files: Files::in_bucket(settings).await.unwrap(), left: Box::new(left), is_slow }).await;
    assert_eq!(folder::below(&folder.path().join("tmp")).len(), 0, "scratch files have no names");
}

async fn ceph() -> Option<Ceph> {
    let ceph = or_skip(testkit::ceph().await)?;
    ceph.create_bucket(BUCKET).await.unwrap();
    Some(ceph)
}

fn s3_at(ceph: &Ceph, endpoint: &str) -> Arc<S3> {
    let config = s3::Config {
        bucket: BUCKET.to_owned(),
        region: ceph.region.clone(),
        endpoint: Some(endpoint.to_owned()),
        access_key_id: ceph.account.access_key_id.clone(),
        secret_access_key: ceph.account.secret_access_key.clone().into(),
        ..s3::Config::default()
    };
    let network = network();
    Arc::new(S3::new(&config, network.http, network.limits).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn ceph_passes() {
    let Some(ceph) = ceph().await else { return };
    let s3 = s3_at(&ceph, &ceph.endpoint);
    passes(Arc::clone(&s3) as _, Some(s3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_s3_api_of_swift_passes() {
    let Some(openstack) = or_skip(testkit::openstack().await) else { return };
    let containers = format!("\nfor name in [{BUCKET:?}, {BUCKET:?} + '+segments']:\n    swift.put_container(name)");
    if or_skip(openstack.swift(&containers).await).is_none() {
        return;
    }
    let account = openstack.s3_account();
    let config = s3::Config {
        bucket: BUCKET.to_owned(),
        region: "RegionOne".to_owned(),
        endpoint: Some(format!("http://{}", openstack.swift_addr())),
        access_key_id: account.access_key_id,
        secret_access_key: account.secret_access_key.into(),
        ..s3::Config::default()
    };
    let network = network();
    let s3 = Arc::new(S3::new(&config, network.http, network.limits).unwrap());
    passes(Arc::clone(&s3) as _, Some(s3)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure_passes_with_a_key_and_with_a_token() {
    let Some(azurite) = or_skip(testkit::azurite().await) else { return };
    azurite.empty_container(BUCKET).await.unwrap();
    let sas = azurite.container_sas(BUCKET, "racwdl", 1).await.unwrap();
    for (key, sas) in [(Some(azurite.key.clone().into()), None), (None, Some(sas.into()))] {
        let config = azure_blob::Config {
            account: azurite.account.clone(),
            key,
            sas,
            container: BUCKET.to_owned(),
            endpoint: Some(azurite.endpoint.clone()),
            ..azure_blob::Config::default()
        };
        let network = network();
        passes(Arc::new(AzureBlob::new(&config, network.http, network.limits).unwrap()), None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn google_cloud_storage_passes() {
    let Some(server) = or_skip(testkit::gcs().await) else { return };
    server.create_bucket(BUCKET).await.unwrap();
    let config = gcs::Config {
        bucket: BUCKET.to_owned(),
        client_email: server.client_email.clone(),
        private_key: server.private_key.clone().into(),
        endpoint: Some(server.endpoint.clone()),
        token_uri: Some(server.token_uri.clone()),
    };
    let network = network();
    let gcs = Gcs::new(&config, network.http, &network.google_tokens, network.limits).unwrap();
    // Its emulator answers one request at a time, behind those of other tests, and does not notice that a client is gone.
    passes_with(Arc::new(gcs), None, true).await;
    // The case of dropped uploads may stop one before it knows its session.
    assert_eq!(server.known_sessions(BUCKET).await.unwrap(), Vec::<String>::new());
}

/// Under a name there is the whole file or nothing, whichever request fails and however.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_is_whole_whichever_request_fails() {
    let Some(ceph) = ceph().await else { return };
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let direct = s3_at(&ceph, &ceph.endpoint);
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(s3_at(&ceph, &faults.endpoint()), folder.path());
    let prefix = settings.prefix.clone();
    let files = Files::in_bucket(settings).await.unwrap();
    let bad = Action::Answer { status: 500, retry_after_secs: None };
    let is_write = |method: &str| matches!(method, "PUT" | "POST");
    // Always, so that it must fail in the end, and once, so that it must get through.
    for (action, times) in [(bad, u64::MAX), (Action::Drop, u64::MAX), (bad, 1), (Action::DropAnswer, 1)] {
        for (length, target) in [(1000, 1), (12 * MIB, 1), (12 * MIB, 2), (12 * MIB, 5)] {
            let seen = std::sync::atomic::AtomicU64::new(0);
            faults.rule(move |request| {
                if !is_write(&request.method) {
                    return Action::Pass;
                }
                let number = seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
                if number >= target && number - target < times { action } else { Action::Pass }
            });
            let (key, bytes) = (key(), vec![7; length]);
            let sent = files.receive(&key, stream_of(&bytes, MIB), None, LIMIT_BYTES, &Progress::default()).await;
            faults.heal();
            let case = format!("{action:?} of request {target}, {times} times, {length} bytes");
            match sent {
                Ok(received) => {
                    assert_eq!(times, 1, "{case}");
                    let source = files.source(&key, &row(received)).await.unwrap();
                    assert!(source.read_at(0, length).await.unwrap() == bytes, "{case}");
                    assert_eq!(names(&*direct, &prefix).await, [format!("{prefix}{key}")], "{case}");
                    remove_all(&files).await;
                }
                Err(error) => {
                    assert!(times > 1 && matches!(error, Error::Store(_)), "{case}: {error:?}");
                    let error = TaskError::from(error);
                    assert_eq!(error.code, Code::Unavailable, "{case}");
                    assert!(matches!(error.retry, connectors::Retry::Later(_)), "{case}");
                }
            }
            assert_eq!(names(&*direct, &prefix).await, Vec::<String>::new(), "{case}");
            assert_eq!(direct.open_uploads(&prefix).await.unwrap(), [], "{case}");
        }
    }
}

async fn remove_all(files: &Files) {
    for task in files.list_tasks(None, 100).await.unwrap() {
        files.remove_task(task).await.unwrap();
    }
}

/// A range that breaks is asked for again; a store that stays away is a reason to come back later.
#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_breaks_goes_on_and_one_that_cannot_is_tried_later() {
    let Some(ceph) = ceph().await else { return };
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let files = Files::in_bucket(settings(s3_at(&ceph, &faults.endpoint()), folder.path())).await.unwrap();
    let (key, bytes) = (key(), suite::bytes(3 * MIB));
    let received = files.receive(&key, stream_of(&bytes, MIB), None, LIMIT_BYTES, &Progress::default()).await.unwrap();
    let source = files.source(&key, &row(received)).await.unwrap();
    faults.rule(|request| if request.number % 2 == 0 { Action::CutAnswer(700_000) } else { Action::Pass });
    assert!(source.read_at(7, 2 * MIB).await.unwrap() == bytes[7..7 + 2 * MIB]);
    faults.rule(|_| Action::Drop);
    let error = source.read_at(0, 10).await.unwrap_err();
    assert_eq!((error.kind, error.is_transient()), (Kind::Local, true));
    let error = TaskError::from(error);
    assert_eq!(error.code, Code::Unavailable, "{error:?}");
    assert!(matches!(error.retry, connectors::Retry::Later(_)));
    assert!(matches!(files.ping().await, Err(Error::Store(_))));
    assert!(matches!(files.source(&key, &row(received)).await, Err(Error::Store(_))));
    assert!(matches!(files.remove_task(task()).await, Err(Error::Store(_))));
    faults.heal();
    files.ping().await.unwrap();
    remove_all(&files).await;
}

/// Who may read and list, and not write, is not ready. It is found out within a while, and its end at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_takes_nothing_is_not_ready() {
    let Some(ceph) = ceph().await else { return };
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(s3_at(&ceph, &faults.endpoint()), folder.path());
    let (prefix, direct) = (settings.prefix.clone(), s3_at(&ceph, &ceph.endpoint));
    let files = Files::in_bucket(settings).await.unwrap();
    let writes = || faults.requests().iter().filter(|request| request.method == "PUT").count();
    for _ in 0..20 {
        files.ping().await.unwrap();
    }
    assert_eq!(writes(), 1, "it is written now and then, not whenever somebody asks");
    let refuse = |method: &'static str| {
        let refused = Action::Answer { status: 403, retry_after_secs: None };
        faults.rule(move |request| if request.method == method { refused } else { Action::Pass });
    };
    for method in ["PUT", "DELETE"] {
        refuse(method);
        let began = std::time::Instant::now();
        while let Ok(()) = files.ping().await {
            assert!(began.elapsed() < Duration::from_secs(30), "{method} is refused, and it is ready");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(matches!(files.ping().await, Err(Error::Store(_))), "{method}");
        faults.heal();
        files.ping().await.unwrap();
    }
    assert_eq!(names(&*direct, &prefix).await, Vec::<String>::new(), "nothing is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_may_come_back_and_one_that_refuses_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let nobody: SocketAddr = ([127, 0, 0, 1], 1).into();
    let config = s3::Config {
        bucket: BUCKET.to_owned(),
        endpoint: Some(format!("http://{nobody}")),
        access_key_id: "id".to_owned(),
        secret_access_key: "secret".into(),
        ..s3::Config::default()
    };
    let network = network();
    let away: Arc<dyn ObjectStore> = Arc::new(S3::new(&config, network.http.clone(), network.limits).unwrap());
    let files = Files::in_bucket(settings(away, folder.path())).await.unwrap();
    let received = files.receive(&key(), stream_of(b"x", 1), None, LIMIT_BYTES, &Progress::default()).await;
    assert_eq!(TaskError::from(received.unwrap_err()).code, Code::Unavailable);

    let Some(ceph) = ceph().await else { return };
    for (bucket, key, expected) in [
        (BUCKET, "wrong-secret-of-somebody", "check "),
        ("consign-no-such-bucket", ceph.account.secret_access_key.as_str(), "does not exist"),
    ] {
        let config = s3::Config {
            bucket: bucket.to_owned(),
            endpoint: Some(ceph.endpoint.clone()),
            access_key_id: ceph.account.access_key_id.clone(),
            secret_access_key: key.into(),
            ..config.clone()
        };
        let store = Arc::new(S3::new(&config, network.http.clone(), network.limits).unwrap());
        let error = Files::in_bucket(settings(store, folder.path())).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Store(_)) && text.contains(expected) && !text.contains("wrong-"), "{text}");
    }
}

/// Leaves an upload open, as a process does that is killed.
async fn cut_off(s3: &S3, name: &str) {
    let source = Arc::new(MemorySource::new(vec![1; 12 * MIB]).failing_from(6 * MIB as u64));
    let put = Put {
        name: name.to_owned(),
        source,
        content_type: "text/plain".to_owned(),
        journal: Arc::new(MemoryJournal::default()),
        resume: None,
        progress: Progress::default(),
        memory: Budget::default().share(),
    };
    s3.put(put).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn abandoned_uploads_are_aborted_and_living_ones_stay() {
    let Some(ceph) = ceph().await else { return };
    let s3 = s3_at(&ceph, &ceph.endpoint);
    let folder = tempfile::tempdir().unwrap();
    let patient = settings(Arc::clone(&s3) as _, folder.path());
    let prefix = patient.prefix.clone();
    let other = format!("other/{prefix}");
    for prefix in [&prefix, &other] {
        cut_off(&s3, &format!("{prefix}{}", key())).await;
    }
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let hasty = BucketSettings { abandoned_after: Duration::from_secs(1), ..patient.clone() };
    let patient = Files::in_bucket(patient).await.unwrap();
    assert_eq!(patient.abort_abandoned().await.unwrap(), 0, "younger than an hour");
    assert_eq!(s3.open_uploads(&prefix).await.unwrap().len(), 1);
    let hasty = Files::in_bucket(hasty).await.unwrap();
    assert_eq!(hasty.abort_abandoned().await.unwrap(), 1);
    assert_eq!(s3.open_uploads(&prefix).await.unwrap(), []);
    let others = s3.open_uploads(&other).await.unwrap();
    assert_eq!(others.len(), 1, "not ours");
    s3.abort_older(&other, Duration::ZERO).await.unwrap();
}

/// What a signed link of Ceph gives to a stranger.
#[tokio::test(flavor = "multi_thread")]
async fn a_signed_link_gives_the_file_and_its_headers_for_a_while() {
    let Some(ceph) = ceph().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(s3_at(&ceph, &ceph.endpoint), folder.path());
    let proxied = BucketSettings { redirects: false, ..settings.clone() };
    let files = Files::in_bucket(settings).await.unwrap();
    let key = key();
    files.receive(&key, stream_of(b"123456789", 9), None, LIMIT_BYTES, &Progress::default()).await.unwrap();
    let shown = Shown {
        life: Duration::from_secs(2),
        content_type: "text/x-own".to_owned(),
        content_disposition: "attachment; filename*=UTF-8''%C3%BC%20b.txt".to_owned(),
        cache_control: "private, no-cache".to_owned(),
    };
    let link = files.signed_link(&key, &shown).unwrap().unwrap();
    assert!(!link.contains(&ceph.account.secret_access_key));
    let client = network().http;
    let get = |link: String, range: &'static str| {
        let request = ::http::Request::get(link).header("range", range).body(http::Body::empty()).unwrap();
        let client = client.clone();
        async move { client.send(request, "testing").await.unwrap() }
    };
    let answer = get(link.clone(), "bytes=2-4").await;
    assert_eq!(answer.status(), 206);
    for (name, value) in [("content-type", "text/x-own"), ("content-disposition", shown.content_disposition.as_str())] {
        assert_eq!(answer.headers()[name], value);
    }
    assert_eq!(answer.into_body().bytes(100).await.unwrap(), "345");
    assert_eq!(get(link.replace("x-own", "html"), "bytes=0-").await.status(), 403, "it covers the headers");
    tokio::time::sleep(Duration::from_millis(3100)).await;
    assert_eq!(get(link, "bytes=0-").await.status(), 403, "it ends");
    let files_without = Files::in_bucket(proxied).await.unwrap();
    assert_eq!(files_without.signed_link(&key, &shown).unwrap(), None);
    remove_all(&files).await;
}

/// What is too large for the storage to copy is carried.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_storage_does_not_copy_the_bytes_are_carried() {
    let Some(ceph) = ceph().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let files = Files::in_bucket(settings(s3_at(&ceph, &ceph.endpoint), folder.path())).await.unwrap();
    let (from, to, bytes) = (key(), key(), suite::bytes(6 * MIB));
    let received = files.receive(&from, stream_of(&bytes, MIB), None, LIMIT_BYTES, &Progress::default()).await.unwrap();
    let files::Place::Bucket(bucket) = &files.place else { panic!("no bucket") };
    bucket.carry(&Link { from, to: to.clone(), digests: received.digests }, &files.room).await.unwrap();
    assert!(files.source(&to, &row(received)).await.unwrap().read_at(0, bytes.len()).await.unwrap() == bytes);
    remove_all(&files).await;
}
