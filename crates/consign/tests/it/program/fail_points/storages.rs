//! Deliveries: whatever was done at the storage before the death, it ends with these bytes and nothing else.

use consign::clock::{Clock, Timestamp};
use serde_json::{Value, json};
use testkit::http_faults::{Action, HttpFaults};
use testkit::{Azurite, Gcs, OpenStack, User, bytes, or_skip};

use super::super::harness::{MIB, eventually, task};
use super::super::places::{Answer, Bucket, Folder, Held};
use super::life::{LARGE, Life, SMALL};
use super::{Drive, Size};

/// What every storage is called here, and the name of the file there.
const PLACE: &str = "fail-points";
const NAME: &str = "out.bin";
/// Tries to abort an upload, of which the last one is that.
const ABORTS_MAX: u32 = 20;

pub(super) const S3: Drive = Drive {
    exports: "export/s3",
    imports: Some("import/s3"),
    points: &[
        (Size::Large, "s3.created"),
        (Size::Large, "s3.part:2"),
        (Size::Large, "s3.completed"),
        (Size::Large, "ledger.opened"),
        (Size::Large, "ledger.opened:2"),
        (Size::Large, "ledger.part:2"),
        (Size::Large, "ledger.closed"),
        (Size::Small, "s3.stored"),
        (Size::Small, "runner.claimed"),
        (Size::Small, "runner.worked"),
        (Size::Small, "runner.finished"),
    ],
};
pub(super) const AZURE: Drive = Drive {
    exports: "export/azure/blob",
    imports: Some("import/azure/blob"),
    points: &[(Size::Large, "azure.block:2"), (Size::Large, "azure.committed"), (Size::Small, "azure.stored")],
};
pub(super) const GCS: Drive = Drive {
    exports: "export/google-cloud-storage",
    imports: Some("import/google-cloud-storage"),
    points: &[
        (Size::Large, "gcs.created"),
        (Size::Large, "gcs.chunk"),
        (Size::Large, "gcs.completed"),
        (Size::Small, "gcs.stored"),
    ],
};
pub(super) const SWIFT: Drive = Drive {
    exports: "export/openstack",
    imports: Some("import/openstack"),
    points: &[
        (Size::Large, "swift.segment:2"),
        (Size::Large, "swift.published"),
        (Size::Large, "swift.published"),
        (Size::Small, "swift.stored"),
    ],
};
pub(super) const SFTP: Drive = Drive {
    exports: "export/sftp",
    imports: Some("import/sftp"),
    points: &[
        (Size::Large, "sftp.created"),
        (Size::Large, "ledger.part"),
        (Size::Large, "sftp.written"),
        (Size::Small, "sftp.renamed"),
    ],
};

/// Points of an upload that goes ahead of its export, the first ones while the import cannot have ended.
pub(super) const AHEAD: [&str; 8] = [
    "s3.created",
    "s3.part:2",
    "ledger.opened:2",
    "ledger.part:2",
    "ahead.sealed",
    "runner.finished",
    "ahead.handed_over",
    "s3.completed",
];
const AHEAD_WHILE_HELD: &[&str] = AHEAD.split_at(4).0;
/// Points of an abort that is done.
pub(super) const ABORTED: [&str; 2] = ["abort.aborted", "abort.closed"];
/// Points that tests name themselves.
pub(super) const NAMED: [&str; 3] = ["abort.put_off", "abort.given_up", "ahead.cleared"];

/// A storage that is empty.
enum Place {
    S3(Bucket),
    Azure(Azurite),
    Gcs(Gcs, String),
    Swift(OpenStack),
    Sftp(Folder),
}

impl Place {
    /// The storage's members of a task.
    fn members(&self) -> Value {
        match self {
            Self::S3(bucket) => bucket.task(bucket.ceph.addr(), NAME, "in"),
            Self::Azure(azurite) => json!({"storage_account": azurite.account, "storage_access_key": azurite.key,
                "container": PLACE, "endpoint": azurite.endpoint, "blob": NAME}),
            Self::Gcs(gcs, email) => json!({"endpoint": gcs.endpoint, "token_uri": gcs.token_uri, "project_id": "p",
                "bucket": PLACE, "client_email": email, "private_key": gcs.private_key, "file": NAME}),
            Self::Swift(openstack) => json!({"auth_url": openstack.auth_url(), "username": User::Demo.name(),
                "password": openstack.password(User::Demo), "region": "RegionOne", "container": PLACE, "file": NAME}),
            Self::Sftp(folder) => {
                let mut task = folder.task(folder.sshd.addr(), "in");
                task["file"] = json!(folder.path.join(NAME));
                task.as_object_mut().unwrap().remove("path");
                task
            }
        }
    }

    fn task(&self, operation: &str) -> Value {
        let mut task = self.members();
        let members = task.as_object_mut().unwrap();
        members.insert("operation".to_owned(), json!(operation));
        members.remove("input");
        if operation.starts_with("export/") {
            members.insert("input".to_owned(), json!("in"));
        }
        task
    }

    /// SHA-256 of every object by its name, read by a program of others.
    async fn objects(&self) -> Value {
        match self {
            Self::S3(bucket) => bucket.objects().await,
            Self::Azure(azurite) => {
                let script = format!(
                    "import hashlib
box = service.get_container_client({PLACE:?})
result = {{n: hashlib.sha256(box.download_blob(n).readall()).hexdigest() for n in box.list_blob_names()}}"
                );
                azurite.sdk(&script).await.unwrap()
            }
            Self::Gcs(gcs, _) => {
                let script = format!(
                    "import hashlib
box = client.bucket({PLACE:?})
read = lambda name: box.blob(name).download_as_bytes(checksum=None)
result = {{b.name: hashlib.sha256(read(b.name)).hexdigest() for b in client.list_blobs({PLACE:?})}}"
                );
                gcs.python(&script).await.unwrap()
            }
            Self::Swift(openstack) => {
                let script = format!(
                    "import hashlib
names = [f['name'] for f in swift.get_container({PLACE:?})[1]]
result = {{n: hashlib.sha256(swift.get_object({PLACE:?}, n)[1]).hexdigest() for n in names}}"
                );
                openstack.swift(&script).await.unwrap()
            }
            Self::Sftp(folder) => {
                let digest = |name: &String| bytes::digest_file(&folder.path.join(name)).unwrap().sha256;
                let names = folder.names();
                names.iter().map(|name| (name.clone(), json!(digest(name)))).collect::<serde_json::Map<_, _>>().into()
            }
        }
    }

    /// What is at the storage and is no object: open uploads, segments.
    async fn beside(&self) -> usize {
        match self {
            Self::S3(bucket) => bucket.open_uploads().await,
            Self::Azure(azurite) => {
                let open = azurite.sdk(&format!("result = uncommitted({PLACE:?})")).await.unwrap();
                open.as_object().unwrap().len()
            }
            Self::Gcs(gcs, _) => gcs.open_sessions(PLACE).await.unwrap().len(),
            Self::Swift(openstack) => openstack.names_in(&format!("{PLACE}_segments")).await.unwrap().len(),
            Self::Sftp(_) => 0,
        }
    }

    /// How much of that is right.
    fn beside_allowed(&self, size: Size, point: &str) -> usize {
        match self {
            // Nobody knows the address of a session that was opened and not written down: Google forgets it after a week.
            Self::Gcs(..) if point == "gcs.created" => 1,
            Self::Swift(_) if size == Size::Large => LARGE.div_ceil(5 << 20),
            Self::S3(_) | Self::Azure(_) | Self::Gcs(..) | Self::Swift(_) | Self::Sftp(_) => 0,
        }
    }
}

async fn drive(place: Place, what: &Drive) {
    let mut life = Life::new(&[]).await;
    let tasks = json!({"in": {"operation": "import/upload"}, "out": place.task(what.exports)});
    let mut sessions = 0;
    let mut content = Vec::new();
    for (seed, &(size, point)) in (1..).zip(what.points) {
        content = bytes::pattern(seed, if size == Size::Large { LARGE } else { SMALL });
        life.doomed(point).await;
        let job = life.job(&tasks).await;
        life.upload_that_kills(&job, &content).await;
        let ended = life.ends_well(&job).await;
        let digest = bytes::digest(&content).sha256;
        assert_eq!(place.objects().await, json!({NAME: digest}), "{point}: these bytes and nothing else");
        let receipt = &task(&ended, "out")["result"]["files"][0];
        assert_eq!(receipt["size"], content.len(), "{point}: {receipt}");
        let is_proved = |member: &str| receipt[member].as_str().is_some_and(|text| !text.is_empty());
        assert!(is_proved("location") && is_proved("verified"), "{point}: {receipt}");
        sessions += usize::from(point == "gcs.created");
        let allowed = place.beside_allowed(size, point).max(sessions);
        let what = format!("{point}: a tidy storage");
        eventually(&what, async || (place.beside().await == allowed).then_some(())).await;
    }
    let Some(import) = what.imports else { return };
    life.doomed("files.published").await;
    let tasks = json!({"in": place.task(import), "out": {"operation": "export/url", "input": "in"}});
    let job = life.job_that_kills(&tasks).await;
    let ended = life.ends_well(&job).await;
    assert_eq!(life.fetched(&ended, "out").await, content, "{import}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3() {
    let Some(bucket) = Bucket::empty(PLACE).await else { return };
    drive(Place::S3(bucket), &S3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azure() {
    let Some(azurite) = or_skip(testkit::azurite().await) else { return };
    azurite.empty_container(PLACE).await.unwrap();
    drive(Place::Azure(azurite), &AZURE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gcs() {
    let Some(gcs) = or_skip(testkit::gcs().await) else { return };
    gcs.create_bucket(PLACE).await.unwrap();
    gcs.lose_sessions(PLACE).await.unwrap();
    let email = gcs.account(PLACE, &["create", "delete", "get", "list"], 3600).await.unwrap();
    drive(Place::Gcs(gcs, email), &GCS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn swift() {
    let Some(openstack) = or_skip(testkit::openstack().await) else { return };
    openstack.empty_container(PLACE).await.unwrap();
    drive(Place::Swift(openstack), &SWIFT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp() {
    let Some(folder) = Folder::empty(PLACE).await else { return };
    drive(Place::Sftp(folder), &SFTP).await;
}

/// Parts that go ahead of their export: the server dies while the import still runs, and when it hands over.
#[tokio::test(flavor = "multi_thread")]
async fn ahead() {
    let Some(bucket) = Bucket::empty("fail-points-ahead").await else { return };
    let place = Place::S3(bucket);
    let mut life = Life::new(&[("TRANSFER__OVERLAP", "true")]).await;
    for (seed, &point) in (1..).zip(&AHEAD) {
        let source = Held::start(13 * MIB, &[Answer { seed, size: 16 * MIB, breaks_at: None }]).await;
        life.doomed(point).await;
        let job = life.job(&json!({"in": source.import(), "out": place.task("export/s3")})).await;
        if !AHEAD_WHILE_HELD.contains(&point) {
            let Place::S3(bucket) = &place else { return };
            bucket.has_open_upload().await;
            source.release();
        }
        life.dies().await;
        source.release();
        life.ends_well(&job).await;
        let digest = bytes::digest_pattern(seed, 16 * MIB as u64).sha256;
        assert_eq!(place.objects().await, json!({NAME: digest}), "{point}: these bytes and nothing else");
        let what = format!("{point}: a tidy storage");
        eventually(&what, async || (place.beside().await == 0).then_some(())).await;
        life.nothing_is_open().await;
    }
}

/// What an attempt of the import sent ahead that died is cleared away before the next one sends: another death there.
#[tokio::test(flavor = "multi_thread")]
async fn ahead_after_a_death() {
    let Some(bucket) = Bucket::empty("fail-points-cleared").await else { return };
    let place = Place::S3(bucket);
    let mut life = Life::new(&[("TRANSFER__OVERLAP", "true")]).await;
    let source = Held::start(13 * MIB, &[Answer { seed: 1, size: 16 * MIB, breaks_at: None }]).await;
    life.doomed("ledger.part:2").await;
    let job = life.job(&json!({"in": source.import(), "out": place.task("export/s3")})).await;
    life.dies_and_then_at("ahead.cleared").await;
    life.dies().await;
    source.release();
    life.ends_well(&job).await;
    let digest = bytes::digest_pattern(1, 16 * MIB as u64).sha256;
    assert_eq!(place.objects().await, json!({NAME: digest}), "these bytes and nothing else");
    eventually("a tidy storage", async || (place.beside().await == 0).then_some(())).await;
    life.nothing_is_open().await;
}

/// An upload that a cancelled task left open, and no server yet that does anything about it.
async fn left_open(life: &mut Life, export: Value, seed: u64) -> Value {
    life.doomed("ledger.part").await;
    let job = life.job(&json!({"in": {"operation": "import/upload"}, "out": export})).await;
    life.upload_that_kills_and_cancel(&job, &bytes::pattern(seed, LARGE), "out").await;
    job
}

/// The abort itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_abort() {
    let Some(bucket) = Bucket::empty("fail-points-abort").await else { return };
    let place = Place::S3(bucket);
    let mut life = Life::new(&[]).await;
    for (seed, point) in (1..).zip(ABORTED) {
        let job = left_open(&mut life, place.task("export/s3"), seed).await;
        assert_eq!(place.beside().await, 1, "it is open");
        // It is due at once, perhaps before the server is ready.
        life.dies_at_start(point).await;
        eventually("an end of the upload", async || (place.beside().await == 0).then_some(())).await;
        assert_eq!(place.objects().await, json!({}), "{point}");
        life.is_told(&job, "job.failed").await;
        life.nothing_is_open().await;
    }
}

/// An abort that the storage refuses: it is tried again, and in the end given up.
#[tokio::test(flavor = "multi_thread")]
async fn an_abort_that_fails() {
    let Some(bucket) = Bucket::empty("fail-points-abort-fails").await else { return };
    let faults = HttpFaults::start(bucket.ceph.addr()).await.unwrap();
    let export = bucket.task(faults.addr(), NAME, "in");
    let place = Place::S3(bucket);
    let mut life = Life::new(&[("TRANSFER__TRIES", "1")]).await;
    for (seed, point) in [(1, "abort.put_off"), (2, "abort.given_up")] {
        faults.heal();
        let job = left_open(&mut life, export.clone(), seed).await;
        faults.rule(|request| match request.method.as_str() {
            "DELETE" => Action::Answer { status: 503, retry_after_secs: None },
            _ => Action::Pass,
        });
        if point == "abort.given_up" {
            let store = life.store().await;
            let orphans = store.ledger_orphans(Clock::system().now(), 9).await.unwrap();
            assert_eq!(orphans.len(), 1);
            for tries in 0..ABORTS_MAX - 1 {
                let (task, target) = (orphans[0].task_id, &orphans[0].open.target);
                store.ledger_abort_failed(task, target, tries, Timestamp(0)).await.unwrap();
            }
            store.close().await;
        }
        // It is due at once, perhaps before the server is ready.
        life.dies_at_start(point).await;
        if point == "abort.put_off" {
            faults.heal();
            eventually("an end of the upload", async || (place.beside().await == 0).then_some(())).await;
        }
        life.nothing_is_open().await;
        life.is_told(&job, "job.failed").await;
    }
    assert_eq!(place.beside().await, 1, "the one that was given up is for the storage's own clean-up");
}
