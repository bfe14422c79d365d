//! An export begins while its import still receives the file: `transfer.overlap`. Sources are held by the test, so that what
//! is at the destination then is there before the import can have ended.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use testkit::http_faults::HttpFaults;
use testkit::{bytes, or_skip};

use super::harness::{MIB, Program, eventually, id, task};
use super::places::{Answer, Bucket, Folder, Held};

/// Five parts, the last one short.
const SIZE: usize = 23 * MIB;
/// Three parts, and more than an import gathers before it writes. Less than four parts.
const HELD_AT: usize = 18 * MIB;

async fn of(seed: u64) -> Held {
    Held::start(HELD_AT, &[Answer { seed, size: SIZE, breaks_at: None }]).await
}

/// An import that a test holds is not given up before the test is, however slow the machine.
const SETTINGS: [(&str, &str); 4] = [
    ("TRANSFER__OVERLAP", "true"),
    ("TRANSFER__PART_BYTES", "5MiB"),
    ("TRANSFER__PARTS_IN_FLIGHT", "2"),
    ("TRANSFER__IDLE_TIMEOUT", "10m"),
];

/// A bucket, a look at what is asked of it, and a server that sends ahead.
struct Scene {
    bucket: Bucket,
    path: HttpFaults,
    program: Program,
}

impl Scene {
    async fn new(name: &str, more: &[(&str, &str)]) -> Option<Self> {
        let bucket = Bucket::empty(name).await?;
        let path = HttpFaults::start(bucket.ceph.addr()).await.unwrap();
        let program = Program::started(&[&SETTINGS, more].concat()).await;
        Some(Self { bucket, path, program })
    }

    fn export(&self) -> Value {
        self.bucket.task(self.path.addr(), "big.bin", "in")
    }

    async fn job(&self, source: &Held) -> Value {
        self.program.job(json!({"in": source.import(), "out": self.export()})).await
    }

    /// How often the gateway has taken each part, and how many uploads it has opened.
    fn asked(&self) -> (Vec<usize>, usize) {
        let requests = self.path.requests();
        let taken = |of: &dyn Fn(&str) -> bool, method: &str| {
            requests.iter().filter(|one| one.method == method && one.status == Some(200) && of(&one.path)).count()
        };
        let part = |number: usize| move |path: &str| path.contains(&format!("partNumber={number}&"));
        let parts = (1..=SIZE.div_ceil(5 * MIB)).map(|number| taken(&part(number), "PUT")).collect();
        (parts, taken(&|path| path.contains("?uploads"), "POST"))
    }

    /// Waits until all parts that have come are at the gateway.
    async fn is_ahead(&self) {
        /// Says what was sent if the wait is in vain.
        struct Sent<'a>(&'a Scene);
        impl Drop for Sent<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    println!("parts sent, uploads opened: {:?}", self.0.asked());
                }
            }
        }
        let _sent = Sent(self);
        eventually("three parts", async || (self.asked().0[..3] == [1, 1, 1]).then_some(())).await;
    }

    async fn statuses(&self, job: &Value) -> [String; 2] {
        let shown = self.program.show(&format!("/v2/jobs/{}", id(job))).await;
        ["in", "out"].map(|name| task(&shown, name)["status"].as_str().unwrap().to_owned())
    }

    async fn holds(&self, seed: u64) {
        let digest = bytes::digest_pattern(seed, SIZE as u64).sha256;
        assert_eq!(self.bucket.objects().await, json!({"big.bin": digest}));
        self.bucket.is_tidied().await;
    }

    async fn holds_nothing(&self) {
        self.bucket.is_tidied().await;
        assert_eq!(self.bucket.objects().await, json!({}));
        eventually("an empty ledger", async || {
            let store = self.program.store().await;
            let counts = consign::store::Store::counts(&store, consign::clock::Timestamp(0)).await.unwrap();
            consign::store::Store::close(&store).await;
            (counts.open_uploads == 0).then_some(())
        })
        .await;
    }

    async fn cancel(&self, job: &Value, name: &str) {
        let path = format!("/v2/tasks/{}/cancel", id(task(job, name)));
        let (status, answer) = self.program.call(Method::POST, &path, None).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_at_the_destination_before_the_import_has_ended() {
    let Some(scene) = Scene::new("overlap", &[]).await else { return };
    let source = of(1).await;
    let job = scene.job(&source).await;
    scene.is_ahead().await;
    assert_eq!(scene.statuses(&job).await, ["processing", "waiting"]);
    let shown = scene.program.show(&format!("/v2/tasks/{}", id(task(&job, "out")))).await;
    for member in ["started_at", "host_name", "percent", "result"] {
        assert!(shown[member].is_null() || shown[member] == 0, "nothing shows: {member} is {}", shown[member]);
    }
    assert_eq!(scene.bucket.objects().await, json!({}), "nothing is there under the name");
    source.release();
    let ended = scene.program.finished(&job).await;
    scene.holds(1).await;
    let (parts, opened) = scene.asked();
    // The two on their way at the end go again if this process is too slow to take over its own transfer.
    let is_sent_once = parts.iter().all(|times| *times > 0) && parts.iter().sum::<usize>() <= 5 + 2;
    assert!(opened == 1 && is_sent_once, "{opened} uploads, parts sent {parts:?} times");
    let (import, export) = (task(&ended, "in"), task(&ended, "out"));
    assert_eq!(export["result"]["files"][0]["size"], SIZE, "{export:#}");
    assert!(import["ended_at"].as_str() <= export["started_at"].as_str(), "{ended:#}");
}

/// A job whose import is held at a byte, while nobody asks the gateway for anything.
async fn goes_as_ever(scene: &Scene, seed: u64, held_at: usize) {
    let source = Held::start(held_at, &[Answer { seed, size: SIZE, breaks_at: None }]).await;
    let job = scene.job(&source).await;
    let written =
        || scene.program.files().iter().map(|file| scene.program.data_dir().join("files").join(file)).collect();
    let length = || {
        let files: Vec<std::path::PathBuf> = written();
        files.iter().filter_map(|file| file.metadata().ok()).map(|file| file.len()).sum::<u64>()
    };
    eventually("most of the file", async || (length() >= (held_at - 2 * MIB) as u64).then_some(())).await;
    assert_eq!(scene.path.requests().len(), 0, "{held_at} bytes have come, and nobody asks the gateway");
    assert_eq!(scene.statuses(&job).await, ["processing", "waiting"]);
    source.release();
    scene.program.finished(&job).await;
    scene.holds(seed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_ahead_without_the_setting() {
    let Some(scene) = Scene::new("overlap-off", &[("TRANSFER__OVERLAP", "false")]).await else { return };
    goes_as_ever(&scene, 2, HELD_AT).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_opened_before_a_part_has_come() {
    let Some(scene) = Scene::new("overlap-first", &[]).await else { return };
    goes_as_ever(&scene, 16, 4 * MIB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_slot_of_a_host_is_for_files_that_are_whole() {
    let Some(scene) = Scene::new("overlap-one-slot", &[("LIMITS__TRANSFERS_PER_HOST_MAX", "1")]).await else { return };
    goes_as_ever(&scene, 17, HELD_AT).await;
}

/// Two imports hang with all that has come of them sent ahead. A file that is whole goes out as if they were not there.
#[tokio::test(flavor = "multi_thread")]
async fn imports_that_hang_keep_no_slot_of_the_destination() {
    let Some(scene) = Scene::new("overlap-slots", &[("LIMITS__TRANSFERS_PER_HOST_MAX", "2")]).await else { return };
    let (sources, mut jobs) = ([of(18).await, of(19).await], Vec::new());
    for (source, key) in sources.iter().zip(["first.bin", "second.bin"]) {
        let mut export = scene.export();
        export["key"] = json!(key);
        jobs.push(scene.program.job(json!({"in": source.import(), "out": export})).await);
    }
    eventually("three parts of both", async || (scene.asked().0[..3] == [2, 2, 2]).then_some(())).await;
    let mut whole = scene.export();
    whole["key"] = json!("whole.txt");
    let raw = json!({"operation": "import/raw", "file": "whole", "filename": "whole.txt"});
    let job = scene.program.job(json!({"in": raw, "out": whole})).await;
    scene.program.finished(&job).await;
    for job in &jobs {
        assert_eq!(scene.statuses(job).await, ["processing", "waiting"]);
    }
    for source in &sources {
        source.release();
    }
    for job in &jobs {
        scene.program.finished(job).await;
    }
    scene.bucket.is_tidied().await;
    let digest = |seed| bytes::digest_pattern(seed, SIZE as u64).sha256;
    let objects = scene.bucket.objects().await;
    assert_eq!((&objects["first.bin"], &objects["second.bin"]), (&json!(digest(18)), &json!(digest(19))));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_fails_leaves_nothing() {
    let Some(scene) = Scene::new("overlap-fails", &[("LIMITS__ATTEMPTS_MAX", "1")]).await else { return };
    let source = Held::start(HELD_AT, &[Answer { seed: 3, size: SIZE, breaks_at: Some(20 * MIB) }]).await;
    let job = scene.job(&source).await;
    scene.is_ahead().await;
    source.release();
    let ended = scene.program.follow(&job).await;
    assert_eq!(task(&ended, "in")["status"], "error", "{ended:#}");
    assert_eq!(task(&ended, "out")["code"], "INPUT_TASK_FAILED", "{ended:#}");
    scene.holds_nothing().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_brings_other_bytes_the_second_time_is_delivered_as_it_is_then() {
    let Some(scene) = Scene::new("overlap-again", &[("TRANSFER__TRIES", "1")]).await else { return };
    let whole = Answer { seed: 5, size: SIZE, breaks_at: None };
    let source = Held::start(HELD_AT, &[Answer { seed: 4, breaks_at: Some(20 * MIB), ..whole }, whole]).await;
    let job = scene.job(&source).await;
    scene.is_ahead().await;
    source.release();
    let ended = scene.program.finished(&job).await;
    assert_eq!(task(&ended, "out")["status"], "finished", "{ended:#}");
    scene.holds(5).await;
    assert_eq!(scene.asked().1, 2, "an upload for each attempt of the import");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_meanwhile_delivers_the_file() {
    let Some(mut scene) = Scene::new("overlap-kill", &[]).await else { return };
    let whole = Answer { seed: 7, size: SIZE, breaks_at: None };
    let source = Held::start(HELD_AT, &[Answer { seed: 6, ..whole }, whole]).await;
    let job = scene.job(&source).await;
    scene.is_ahead().await;
    scene.program.restart_after_kill().await;
    source.release();
    scene.program.finished(&job).await;
    scene.holds(7).await;
    eventually("the file of the import that ended", async || (scene.program.files().len() == 1).then_some(())).await;
}

/// Dies when the import has ended and nobody has claimed the export: what is open then is of this file, and is gone on with.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_ahead_of_a_death_is_not_sent_again() {
    let Some(bucket) = Bucket::empty("overlap-sealed").await else { return };
    let path = HttpFaults::start(bucket.ceph.addr()).await.unwrap();
    let mut program = Program::new(&SETTINGS);
    program.set("TEST_FAIL_POINT", "runner.finished");
    program.start().await;
    let mut scene = Scene { bucket, path, program };
    let source = of(13).await;
    let job = scene.job(&source).await;
    scene.is_ahead().await;
    source.release();
    scene.program.exit(Duration::from_mins(1)).await;
    scene.program.unset("TEST_FAIL_POINT");
    scene.program.start().await;
    scene.program.finished(&job).await;
    scene.holds(13).await;
    let (parts, opened) = scene.asked();
    // The third part went when one of the first two was written down.
    assert!(opened == 1 && parts[0] + parts[1] < 4, "{opened} uploads, parts sent {parts:?} times");
}

/// The only slot for tasks goes to another import, so that the export begins when nobody waits with its transfer any more.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_that_begins_late_goes_on_behind_what_was_sent_ahead() {
    let Some(scene) = Scene::new("overlap-late", &[("LIMITS__TASKS_RUNNING_MAX", "1")]).await else { return };
    let source = of(14).await;
    let job = scene.job(&source).await;
    scene.is_ahead().await;
    let other = Held::start(0, &[Answer { seed: 15, size: MIB, breaks_at: None }]).await;
    let next = scene.program.job(json!({"in": other.import()})).await;
    source.release();
    let is_let_go = async || scene.program.log().contains("a head start is let go").then_some(());
    eventually("an end of the wait", is_let_go).await;
    assert_eq!(scene.statuses(&job).await, ["finished", "waiting"]);
    other.release();
    scene.program.finished(&next).await;
    scene.program.finished(&job).await;
    scene.holds(14).await;
    let (parts, opened) = scene.asked();
    // The third part went when one of the first two was written down.
    assert!(opened == 1 && parts[0] + parts[1] < 4, "{opened} uploads, parts sent {parts:?} times");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_or_deleted_meanwhile_leaves_nothing() {
    let Some(scene) = Scene::new("overlap-cancel", &[]).await else { return };
    for what in ["in", "out", "job"] {
        let source = of(8).await;
        let before = scene.asked().0[2];
        let job = scene.job(&source).await;
        eventually("three parts", async || (scene.asked().0[2] > before).then_some(())).await;
        scene.bucket.has_open_upload().await;
        if what == "job" {
            let (status, _) = scene.program.call(Method::DELETE, &format!("/v2/jobs/{}", id(&job)), None).await;
            assert_eq!(status, StatusCode::NO_CONTENT);
        } else {
            scene.cancel(&job, what).await;
        }
        scene.bucket.is_tidied().await;
        source.release();
        if what == "out" {
            eventually("the import", async || (scene.statuses(&job).await[0] == "finished").then_some(())).await;
        }
        scene.holds_nothing().await;
    }
}

/// Two exports of one file, a file of unknown length, a file of one part: all as ever.
#[tokio::test(flavor = "multi_thread")]
async fn where_it_does_not_apply_all_is_as_ever() {
    let Some(scene) = Scene::new("overlap-not", &[]).await else { return };
    let source = of(9).await;
    source.release();
    let mut second = scene.export();
    second["key"] = json!("second.bin");
    let job = scene.program.job(json!({"in": source.import(), "out": scene.export(), "also": second})).await;
    scene.program.finished(&job).await;
    let digest = bytes::digest_pattern(9, SIZE as u64).sha256;
    assert_eq!(scene.bucket.objects().await, json!({"big.bin": digest, "second.bin": digest}));
    let small = Held::start(HELD_AT, &[Answer { seed: 10, size: 4 * MIB, breaks_at: None }]).await;
    let job = scene.job(&small).await;
    scene.program.finished(&job).await;
    scene.bucket.is_tidied().await;
}

/// Delivers a file that is held until something of it is there, then one whose server is killed meanwhile.
#[expect(clippy::future_not_send, reason = "it is awaited where it is made")]
async fn goes_ahead(export: &Value, there: impl AsyncFn() -> bool, objects: impl AsyncFn() -> Value) {
    let mut program = Program::started(&SETTINGS).await;
    for (seed, is_killed) in [(11, false), (12, true)] {
        let source = of(seed).await;
        let job = program.job(json!({"in": source.import(), "out": export})).await;
        eventually("something of the file", async || there().await.then_some(())).await;
        let shown = program.show(&format!("/v2/tasks/{}", id(task(&job, "out")))).await;
        assert_eq!(shown["status"], "waiting", "{shown:#}");
        if is_killed {
            program.restart_after_kill().await;
        }
        source.release();
        program.finished(&job).await;
        let digest = bytes::digest_pattern(seed, SIZE as u64).sha256;
        assert_eq!(objects().await, json!({"big.bin": digest}), "these bytes and nothing else");
    }
}

const PLACE: &str = "overlap";

#[tokio::test(flavor = "multi_thread")]
async fn azure() {
    let Some(azurite) = or_skip(testkit::azurite().await) else { return };
    azurite.empty_container(PLACE).await.unwrap();
    let path = HttpFaults::start(azurite.addr()).await.unwrap();
    let export = json!({"operation": "export/azure/blob", "input": "in", "storage_account": azurite.account,
        "storage_access_key": azurite.key, "container": PLACE, "endpoint": azurite.endpoint_at(path.addr())});
    let sent =
        || path.requests().iter().filter(|one| one.path.contains("comp=block&") && one.status == Some(201)).count();
    let before = AtomicUsize::new(0);
    let objects = async || {
        before.store(sent(), Ordering::Relaxed);
        let script = format!(
            "import hashlib
box = service.get_container_client({PLACE:?})
result = {{n: hashlib.sha256(box.download_blob(n).readall()).hexdigest() for n in box.list_blob_names()}}"
        );
        azurite.sdk(&script).await.unwrap()
    };
    goes_ahead(&export, async || sent() == before.load(Ordering::Relaxed) + 3, objects).await;
    // All five, then three of a killed server and all five; each time the two that were on their way may go again.
    assert!((13..=13 + 2 * 2).contains(&sent()), "{} blocks were sent", sent());
}

#[tokio::test(flavor = "multi_thread")]
async fn gcs() {
    let Some(gcs) = or_skip(testkit::gcs().await) else { return };
    gcs.create_bucket(PLACE).await.unwrap();
    gcs.lose_sessions(PLACE).await.unwrap();
    let email = gcs.account(PLACE, &["create", "delete", "get", "list"], 3600).await.unwrap();
    let export = json!({"operation": "export/google-cloud-storage", "input": "in", "endpoint": gcs.endpoint,
        "token_uri": gcs.token_uri, "project_id": "p", "bucket": PLACE, "client_email": email,
        "private_key": gcs.private_key});
    let there = async || !gcs.open_sessions(PLACE).await.unwrap().is_empty();
    let objects = async || {
        let script = format!(
            "import hashlib
box = client.bucket({PLACE:?})
read = lambda name: box.blob(name).download_as_bytes(checksum=None)
result = {{b.name: hashlib.sha256(read(b.name)).hexdigest() for b in client.list_blobs({PLACE:?})}}"
        );
        gcs.python(&script).await.unwrap()
    };
    goes_ahead(&export, there, objects).await;
    eventually("an end of all sessions", async || (!there().await).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp() {
    let Some(folder) = Folder::empty(PLACE).await else { return };
    let export = folder.task(folder.sshd.addr(), "in");
    let lengths = || {
        let named = folder.names().into_iter().filter(|name| name != "big.bin");
        named.filter_map(|name| folder.path.join(name).metadata().ok()).map(|file| file.len()).max()
    };
    let objects = async || {
        let digest = |name: &String| bytes::digest_file(&folder.path.join(name)).unwrap().sha256;
        folder.names().iter().map(|name| (name.clone(), json!(digest(name)))).collect::<serde_json::Map<_, _>>().into()
    };
    goes_ahead(&export, async || lengths().is_some_and(|length| length > 10 * MIB as u64), objects).await;
}
