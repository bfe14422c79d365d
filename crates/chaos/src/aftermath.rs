//! When all is calm: what the API says of each job, what lies at the destinations, what should be gone and is not.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::{Method, StatusCode};
use serde_json::Value;
use testkit::bytes;
use tokio::time::{Instant, sleep};

use crate::client::Ask;
use crate::count::metric;
use crate::fleet::Fleet;
use crate::gate::Gate;
use crate::history::{Event, Status};
use crate::jobs::{Place, Spec};
use crate::workload::Clients;
use crate::{Options, check};

/// How long webhooks may take when nothing fails any more: their lease after a crash is a minute; the pauses between
/// attempts are 5 s, 30 s and 2 min, or up to a fifth longer. All of it is waited for only while one is missing.
const WEBHOOKS_WITHIN: Duration = Duration::from_mins(3);
/// After the end of a job nothing of a transfer may be left for longer; nor anything of a job after its deletion.
const TIDY_WITHIN: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A number of the metrics may be as old as this.
const METRIC_AGE_MAX: Duration = Duration::from_secs(5);
/// Says in a file store whose the files are, and stays.
const MARK: &str = "consign-database";
/// Jobs of a page of the list.
const PAGE: usize = 100;

/// Reads everything back into the history.
pub(crate) async fn look(
    options: &Options,
    folder: &Path,
    files: &str,
    fleet: &Fleet,
    clients: &Clients,
) -> Result<()> {
    let entries = clients.history.entries();
    let mut jobs: BTreeMap<String, String> = BTreeMap::new();
    let mut specs: BTreeMap<String, Spec> = BTreeMap::new();
    for entry in entries {
        if let Event::Accepted { tag, job } = entry.event {
            jobs.insert(tag, job);
        } else if let Event::Asked { spec } = entry.event {
            specs.insert(spec.tag.clone(), spec);
        }
    }
    let ends = finals(clients, &jobs, &specs).await?;
    list(clients).await?;
    webhooks(clients).await;
    leftovers(clients).await?;
    for (place, name, sha256) in clients.destinations.objects().await? {
        clients.history.note(Event::Delivered { place: place.name().to_owned(), name, sha256 });
    }
    for (tag, job) in &jobs {
        if ends.contains_key(tag) {
            let path = format!("/v2/jobs/{job}");
            let ask = Ask::new("delete", Method::DELETE, &path).about(tag);
            let (status, answer) = clients.client.call(&ask).await?;
            ensure!(status.is_success(), "{tag} cannot be deleted: {status} {answer}");
        }
    }
    if let Some(gate) = &fleet.files {
        abandoned(fleet, gate, files, clients).await?;
    }
    file_store(options, folder, files, clients).await
}

/// What each job and each task of it is in the end, and what the links give. Gives the ends of those that are there.
async fn finals(
    clients: &Clients,
    jobs: &BTreeMap<String, String>,
    specs: &BTreeMap<String, Spec>,
) -> Result<BTreeMap<String, Status>> {
    let mut ends = BTreeMap::new();
    for (tag, job) in jobs {
        let (status, answer) = clients.client.show(tag, &format!("/v2/jobs/{job}")).await?;
        ensure!(matches!(status, StatusCode::OK | StatusCode::NOT_FOUND), "{tag}: {status} {answer}");
        let job = &answer["data"];
        for task in job["tasks"].as_array().into_iter().flatten() {
            clients.history.note(Event::Seen {
                client: "the last look".to_owned(),
                tag: tag.clone(),
                task: task["name"].as_str().map(str::to_owned),
                status: serde_json::from_value(task["status"].clone())?,
                code: task["code"].as_str().map(str::to_owned),
            });
        }
        let end: Option<Status> = serde_json::from_value(job["status"].clone()).context("the status of a job")?;
        ends.extend(end.map(|end| (tag.clone(), end)));
        clients.history.note(Event::Final { tag: tag.clone(), status: end });
        if let Some(spec) = specs.get(tag) {
            link(clients, spec, job).await?;
        }
    }
    Ok(ends)
}

/// Fetches the file behind a job's link.
async fn link(clients: &Clients, spec: &Spec, job: &Value) -> Result<()> {
    let tasks = job["tasks"].as_array().into_iter().flatten();
    let Some(task) = tasks.clone().find(|task| task["name"] == Spec::task(Place::Url).as_str()) else { return Ok(()) };
    let Some(url) = task["result"]["files"][0]["url"].as_str() else { return Ok(()) };
    let path = &url[url.find("/files/").context("the path of a link")?..];
    let (status, content) = clients.client.fetch(&Ask::new("fetch", Method::GET, path).about(&spec.tag)).await?;
    if status == StatusCode::OK {
        let (place, sha256) = (Place::Url.name().to_owned(), bytes::digest(&content).sha256);
        clients.history.note(Event::Delivered { place, name: spec.object(), sha256 });
    }
    Ok(())
}

/// All jobs that there are, page by page.
async fn list(clients: &Clients) -> Result<()> {
    for page in 1.. {
        let path = format!("/v2/jobs?per_page={PAGE}&page={page}");
        let (status, answer) = clients.client.call(&Ask::new("list", Method::GET, &path)).await?;
        ensure!(status == StatusCode::OK, "the list of jobs: {status} {answer}");
        let jobs = answer["data"].as_array().context("a list of jobs")?;
        for job in jobs {
            let text = |key: &str| job[key].as_str().unwrap_or_default().to_owned();
            clients.history.note(Event::Listed { tag: text("tag"), job: text("id") });
        }
        if jobs.len() < PAGE {
            break;
        }
    }
    Ok(())
}

/// Waits until every end that somebody wants to hear of was told, or for as long as that may take.
async fn webhooks(clients: &Clients) {
    let began = Instant::now();
    while began.elapsed() < WEBHOOKS_WITHIN && !clients.history.look(check::untold).is_empty() {
        sleep(LOOK_EVERY).await;
    }
}

/// Notes what of transfers is still there when it has to be gone.
async fn leftovers(clients: &Clients) -> Result<()> {
    let began = Instant::now();
    let mut ledger = Ledger::default();
    loop {
        let mut left: Vec<(String, String)> = Vec::new();
        for (place, what) in clients.destinations.left_over().await? {
            left.push((place.name().to_owned(), what));
        }
        let open = metric(&clients.client, "consign_open_uploads").await.context("the metrics")?;
        if open > 0 {
            left.push(("ledger".to_owned(), format!("{open} open lines")));
        }
        if ledger.is_surely_empty(open, Instant::now()) && left.is_empty() {
            return Ok(());
        }
        if began.elapsed() > TIDY_WITHIN && !left.is_empty() {
            for (place, what) in left {
                clients.history.note(Event::LeftOver { place, what });
            }
            return Ok(());
        }
        sleep(LOOK_EVERY).await;
    }
}

/// What the metrics said of open uploads, look by look.
#[derive(Default)]
struct Ledger {
    empty_since: Option<Instant>,
}

impl Ledger {
    /// Whether it is empty by this number and by one that was read before this one was counted.
    fn is_surely_empty(&mut self, open: u64, now: Instant) -> bool {
        if open > 0 {
            self.empty_since = None;
            return false;
        }
        now.duration_since(*self.empty_since.get_or_insert(now)) > METRIC_AGE_MAX
    }
}

/// Uploads that a killed process left open in the file store are aborted by a search that looks for old ones only. The store is
/// made to say that they are, and a runner to search: it does so when it starts.
async fn abandoned(fleet: &Fleet, gate: &Gate, bucket: &str, clients: &Clients) -> Result<()> {
    let script = format!(
        "result = [f\"{{it['Key']}} {{it['UploadId']}}\" for page in s3.get_paginator('list_multipart_uploads').paginate(Bucket={bucket:?}) for it in page.get('Uploads', [])]"
    );
    let open = async || -> Result<Vec<String>> {
        Ok(serde_json::from_value(clients.destinations.ceph().s3api(&script).await?)?)
    };
    clients.history.note(Event::Abandoned { uploads: open().await?.len() as u64 });
    gate.age_uploads();
    let runner = fleet.processes.iter().find(|process| process.role() == "runner").context("a runner")?;
    let mut held = runner.hold_alive(&clients.history).await?;
    held.stop().await?;
    held.start().await?;
    drop(held);
    let began = Instant::now();
    loop {
        let left = open().await?;
        if left.is_empty() {
            return Ok(());
        }
        if began.elapsed() > TIDY_WITHIN {
            for what in left {
                clients.history.note(Event::LeftOver { place: "uploads to the file store".to_owned(), what });
            }
            return Ok(());
        }
        sleep(LOOK_EVERY).await;
    }
}

/// All jobs were deleted: in the file store there must be nothing any more.
async fn file_store(options: &Options, folder: &Path, bucket: &str, clients: &Clients) -> Result<()> {
    let began = Instant::now();
    loop {
        let names: Vec<String> = if options.fleet && options.shared_files {
            let script = format!(
                "result = [it['Key'] for page in s3.get_paginator('list_objects_v2').paginate(Bucket={bucket:?}) for it in page.get('Contents', [])]"
            );
            serde_json::from_value(clients.destinations.ceph().s3api(&script).await?)?
        } else if options.fleet {
            files_below(&folder.join("files"))?
        } else {
            // On a disk of its own it is seen by way of the process that keeps it.
            files_below(clients.local_files.as_deref().context("the files of the one process")?)?
        };
        let (has_mark, left) = without_mark(names);
        if has_mark && left.is_empty() {
            return Ok(());
        }
        if began.elapsed() > TIDY_WITHIN {
            if !has_mark {
                let why = format!("{MARK} is not in the file store: what was looked at is not all of it");
                clients.history.note(Event::GaveUp { why });
            }
            for what in left {
                clients.history.note(Event::LeftOver { place: "file store".to_owned(), what });
            }
            return Ok(());
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Whether the mark is among the names in a file store, and the other names.
fn without_mark(names: Vec<String>) -> (bool, Vec<String>) {
    let (marks, others): (Vec<String>, Vec<String>) =
        names.into_iter().partition(|name| name.rsplit('/').next() == Some(MARK));
    (!marks.is_empty(), others)
}

/// The names of all files below a folder, at whatever depth.
///
/// # Errors
/// When anything cannot be read: it would look empty. Folders in it may vanish meanwhile.
fn files_below(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        let entries = match std::fs::read_dir(&next) {
            Err(error) if error.kind() == ErrorKind::NotFound && next != folder => continue,
            entries => entries.with_context(|| next.display().to_string())?,
        };
        for entry in entries {
            let entry = entry.with_context(|| next.display().to_string())?;
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(path),
                Ok(_) => found.push(path.display().to_string()),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| path.display().to_string()),
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_may_be_old_is_not_believed_at_once() {
        let (mut ledger, began) = (Ledger::default(), Instant::now());
        let mut look = |open, seconds| ledger.is_surely_empty(open, began + Duration::from_secs(seconds));
        assert!(!look(0, 0) && !look(0, 5) && look(0, 6));
        assert!(!look(1, 7) && !look(0, 8) && !look(0, 13) && look(0, 14));
    }

    #[test]
    fn a_file_store_that_cannot_be_read_is_not_empty() {
        let folder = tempfile::tempdir().unwrap();
        let (root, inner) = (folder.path(), folder.path().join("a/b"));
        std::fs::create_dir_all(&inner).unwrap();
        assert_eq!(without_mark(files_below(root).unwrap()), (false, Vec::new()));
        let (mark, file) = (root.join(MARK), inner.join("file"));
        std::fs::write(&mark, "1").unwrap();
        std::fs::write(&file, "x").unwrap();
        assert_eq!(without_mark(files_below(root).unwrap()), (true, vec![file.display().to_string()]));
        assert!(files_below(&root.join("gone")).is_err());
        assert!(files_below(&mark).is_err(), "it is no folder");
    }
}
