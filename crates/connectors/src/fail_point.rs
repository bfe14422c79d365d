//! Points at which a test lets the process die as if it were killed: between what was done and what is written down of it.
//!
//! A build without the feature `fail-points` has none of them. In one with it, `CONSIGN_TEST_FAIL_POINT=name` lets the process
//! abort when it passes that point, `name:3` when it passes it for the third time.

#[cfg(feature = "fail-points")]
use std::sync::OnceLock;
#[cfg(feature = "fail-points")]
use std::sync::atomic::{AtomicU32, Ordering};

/// All of them: the name, and what has just happened there. Each stands in the code once.
pub const ALL: &[(&str, &str)] = &[
    ("job.created", "a job is stored, and not answered for"),
    ("job.deleted", "a job is deleted, and not answered for"),
    ("signed.created", "the job of a signed address is stored, and nobody waits for it"),
    ("task.created", "a task of its own is stored, and not answered for"),
    ("task.retried", "a task that does the same as another is stored, and not answered for"),
    ("task.deleted", "a task is deleted, and not answered for"),
    ("upload.kept", "the file of an upload is kept, and its task does not know"),
    ("upload.finished", "an upload has ended its task, and is not answered for"),
    ("task.cancelled", "a task is cancelled, and not answered for"),
    ("sessions.ended", "a server that is alone has taken back what earlier ones held, and has no session yet"),
    ("session.opened", "a process has a session, and does nothing yet"),
    ("session.beat", "a heartbeat was answered"),
    ("session.renewed", "a process that was declared dead has a new session, and does not know"),
    ("session.closed", "a process has closed its session, and has not ended"),
    ("recover.expired", "the tasks of a dead process are taken back"),
    ("recover.given_back", "a lease that its own process does not know of is given back"),
    ("recover.released", "tasks that were put off are queued"),
    ("recover.uploads_ended", "tasks whose file did not come in time have ended"),
    ("runner.claimed", "tasks are claimed, and nobody works on them"),
    ("runner.worked", "an operation has ended, and its end is not recorded"),
    ("runner.finished", "a task is finished"),
    ("runner.failed", "a task has failed"),
    ("runner.delayed", "a task is put off"),
    ("runner.given_back", "a lease is given back"),
    ("ledger.opened", "an upload is in the ledger"),
    ("ledger.part", "a part is in the ledger"),
    ("ledger.closed", "an upload is struck out of the ledger"),
    ("ahead.sealed", "the ledger says what file was sent ahead, and its import has not ended"),
    ("ahead.handed_over", "an export has taken over what was sent ahead"),
    ("ahead.cleared", "what an earlier attempt sent ahead is aborted and struck out of the ledger"),
    ("files.written", "a file is written, and has its final name not yet"),
    ("files.published", "a file has its final name"),
    ("files.linked", "files have a second name, which is nobody's yet"),
    ("bucket.published", "a file is in the bucket of the file store, and its task does not know"),
    ("bucket.linked", "files have a copy in the bucket, which is nobody's yet"),
    ("sweep.expired", "jobs and tasks that ended long ago are gone, and their files are not"),
    ("sweep.removed", "files of removed tasks are gone, and the trash is not emptied"),
    ("sweep.emptied", "files of removed tasks are gone, and so is their line in the trash"),
    ("abort.aborted", "an upload is aborted, and is in the ledger still"),
    ("abort.closed", "an upload that was aborted is struck out of the ledger"),
    ("abort.put_off", "an upload could not be aborted, and that is counted"),
    ("abort.given_up", "an upload that could not be aborted too often is struck out of the ledger"),
    ("webhook.told", "a line of the outbox has become deliveries"),
    ("webhook.released", "what an earlier server was sending is due again"),
    ("webhook.claimed", "a delivery is claimed, and not sent"),
    ("webhook.sent", "a receiver was told, and that is not recorded"),
    ("webhook.recorded", "an attempt at a delivery is recorded"),
    ("webhook.due_again", "a delivery is due again because somebody asked, and not answered for"),
    ("s3.stored", "S3 has a small object"),
    ("s3.created", "S3 has opened an upload whose id is not written down"),
    ("s3.part", "S3 has a part that is not written down"),
    ("s3.completed", "S3 has completed an upload"),
    ("azure.stored", "Azure has a small blob"),
    ("azure.block", "Azure has a block that is not written down"),
    ("azure.committed", "Azure has a blob of blocks"),
    ("gcs.stored", "Google has a small object"),
    ("gcs.created", "Google has opened a session that is not written down"),
    ("gcs.chunk", "Google has a chunk that is not written down"),
    ("gcs.completed", "Google has an object of chunks"),
    ("swift.stored", "Swift has a small object"),
    ("swift.segment", "Swift has a segment that is not written down"),
    ("swift.published", "Swift has a manifest, and what it replaces as well"),
    ("sftp.created", "the SSH server has an empty file under a temporary name"),
    ("sftp.written", "all bytes are under the temporary name"),
    ("sftp.renamed", "the file has its final name"),
    ("web.sent", "a web server has taken a file"),
];

/// Whether there is a point of that name.
#[must_use]
pub const fn is_declared(name: &str) -> bool {
    let mut at = 0;
    while at < ALL.len() {
        if is_same(ALL[at].0.as_bytes(), name.as_bytes()) {
            return true;
        }
        at += 1;
    }
    false
}

const fn is_same(one: &[u8], other: &[u8]) -> bool {
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

/// Dies here if a test wants that. Called by `fail_point!` only.
#[cfg(feature = "fail-points")]
pub fn passed(name: &str) {
    static WANTED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static PASSED: AtomicU32 = AtomicU32::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var_os("CONSIGN_TEST_FAIL_POINT")?.into_string().ok()?;
        let (name, nth) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), nth.parse().ok()?))
    });
    if let Some((wanted, nth)) = wanted
        && wanted == name
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *nth
    {
        std::process::abort();
    }
}

/// A point at which a test lets the process die; nothing in a build without the feature `fail-points`.
#[cfg(feature = "fail-points")]
#[macro_export]
macro_rules! fail_point {
    ($name:literal) => {{
        const { assert!($crate::fail_point::is_declared($name), "it stands in the table") }
        $crate::fail_point::passed($name);
    }};
}

/// A point at which a test lets the process die; nothing in a build without the feature `fail-points`.
#[cfg(not(feature = "fail-points"))]
#[macro_export]
macro_rules! fail_point {
    ($name:literal) => {{}};
}
