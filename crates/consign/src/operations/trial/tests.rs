//! Trials of a destination in memory that refuses what it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use connectors::egress::Guard;
use connectors::{
    ByteStream, Capability, Connector, Error, HostSlots, Kind, Limits, Object, OpenUpload, Put, Receipt, http,
};
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::operations::export::Naming;
use crate::operations::permissions::{Grant, Permissions, Right};

/// What the destination does at a step.
#[derive(Clone, Copy, Debug)]
enum Does {
    Refuses(Kind),
    /// It never answers.
    Hangs,
    /// It does it, and the answer gets lost.
    LosesTheAnswer,
    /// It gives something else than it was given.
    Changes,
}

#[derive(Debug, Default)]
struct Fake {
    does: BTreeMap<&'static str, Does>,
    objects: Mutex<BTreeMap<String, Bytes>>,
    asked: Mutex<Vec<String>>,
}

impl Fake {
    fn that(does: &[(Name, Does)]) -> Arc<Self> {
        Arc::new(Self { does: does.iter().map(|(step, does)| (step.wire(), *does)).collect(), ..Self::default() })
    }

    async fn at(&self, step: Name) -> connectors::Result<()> {
        self.asked.lock().unwrap().push(step.wire().to_owned());
        match self.does.get(step.wire()) {
            Some(Does::Refuses(kind)) => Err(Error::new(*kind, "trying", "it was told to refuse")
                .answered(connectors::ProviderAnswer { code: Some("Told".to_owned()), ..Default::default() })),
            Some(Does::Hangs) => std::future::pending().await,
            Some(Does::LosesTheAnswer | Does::Changes) | None => Ok(()),
        }
    }

    fn names(&self) -> BTreeSet<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl Connector for Fake {
    fn capability(&self) -> Capability {
        unreachable!("a trial does not ask")
    }

    fn host(&self) -> String {
        "storage.example".to_owned()
    }

    async fn put(&self, put: Put) -> connectors::Result<Receipt> {
        let is_new = self.names().is_empty();
        self.at(if is_new { Name::Write } else { Name::Replace }).await?;
        let size = usize::try_from(put.source.size()).unwrap();
        let bytes = put.source.read_at(0, size).await?;
        self.objects.lock().unwrap().insert(put.name.clone(), bytes);
        if let Some(Does::LosesTheAnswer) = self.does.get("write") {
            return Err(Error::new(Kind::Timeout, "storing", "no answer"));
        }
        Ok(Receipt { location: format!("fake://{}", put.name), verified: "md5".to_owned(), ..Receipt::default() })
    }

    async fn stat(&self, name: &str) -> connectors::Result<Object> {
        self.at(Name::Stat).await?;
        let size = self.objects.lock().unwrap()[name].len() as u64;
        let size = if let Some(Does::Changes) = self.does.get("stat") { size + 1 } else { size };
        Ok(Object { name: name.to_owned(), size, etag: None, content_type: None })
    }

    async fn read(&self, name: &str, range: Range<u64>) -> connectors::Result<ByteStream> {
        self.at(Name::Read).await?;
        let bytes = self.objects.lock().unwrap()[name].clone();
        assert_eq!(range, 0..bytes.len() as u64);
        let bytes = if let Some(Does::Changes) = self.does.get("read") { bytes.slice(1..) } else { bytes };
        Ok(stream::iter([Ok(bytes)]).boxed())
    }

    async fn list(&self, prefix: &str, limit: usize) -> connectors::Result<Vec<Object>> {
        self.at(Name::List).await?;
        assert!(prefix.is_empty() || prefix.ends_with('/'), "{prefix}");
        Err(Error::new(Kind::TooMany, "listing", format!("more than {limit}")))
    }

    async fn delete(&self, name: &str) -> connectors::Result<()> {
        self.at(Name::Delete).await?;
        self.objects.lock().unwrap().remove(name);
        Ok(())
    }

    async fn abort(&self, open: &OpenUpload) -> connectors::Result<()> {
        assert_ne!(open.handle, "", "an empty handle makes connectors search");
        self.at(Name::Abort).await
    }
}

/// Every step takes a right.
fn permissions() -> Permissions {
    let right = |step: Name| Right::new(step, format!("may-{}", step.wire()));
    let extras = [Name::Replace, Name::Abort, Name::Stat, Name::Read, Name::List, Name::Delete];
    Permissions {
        needed: Grant { rights: vec![right(Name::Write)], grant: "write".to_owned() },
        extras: Some(Grant { rights: extras.map(right).into(), grant: "extras".to_owned() }),
    }
}

async fn probe(fake: &Arc<Fake>, naming: &Naming) -> probe::Probed {
    let known = permissions();
    let connector = Arc::<Fake>::clone(fake);
    Probe::new(connector, naming, Some(&known)).run(HostSlots::new(1), TaskTracker::new()).await
}

/// The steps that ended so.
fn ended(probed: &probe::Probed, status: Status) -> Vec<&'static str> {
    probed.steps.iter().filter(|step| step.status == status).map(|step| step.step.wire()).collect()
}

fn step(probed: &probe::Probed, name: Name) -> &Step {
    probed.steps.iter().find(|step| step.step == name).unwrap()
}

#[tokio::test]
async fn what_works_is_said_step_by_step_and_nothing_stays() {
    let fake = Fake::that(&[]);
    let probed = probe(&fake, &Naming::Prefix("a/b-".to_owned())).await;
    assert_eq!(ended(&probed, Status::Ok), Name::ALL.map(Name::wire));
    assert_eq!((fake.names(), probed.left_behind), (BTreeSet::new(), None));
    assert_eq!(fake.asked(), ["write", "replace", "abort", "stat", "read", "list", "delete"]);
}

#[tokio::test]
async fn rights_that_are_none_are_not_tried() {
    let fake = Fake::that(&[]);
    let connector = Arc::<Fake>::clone(&fake);
    let probed = Probe::new(connector, &Naming::Own, None).run(HostSlots::new(1), TaskTracker::new()).await;
    assert_eq!(fake.asked(), ["write", "stat", "read", "list", "delete"]);
    assert!(probed.steps.iter().all(|step| !matches!(step.step, Name::Replace | Name::Abort)));
}

/// The test file never takes the name of a file that the task would write, but lies where the task would write.
#[tokio::test]
async fn the_test_file_has_a_name_of_its_own() {
    for (naming, start) in [
        (Naming::Prefix("a/b-".to_owned()), "a/b-consign-test-"),
        (Naming::Directory("a".to_owned()), "a/consign-test-"),
        (Naming::Exact("a/%d/c.pdf".to_owned()), "a/1/consign-test-"),
        (Naming::Exact("c.pdf".to_owned()), "consign-test-"),
        (Naming::Own, "consign-test-"),
    ] {
        let mut names = BTreeSet::new();
        for _ in 0..2 {
            let fake = Fake::that(&[(Name::Delete, Does::Refuses(Kind::AccessDenied))]);
            let probed = probe(&fake, &naming).await;
            names.extend(fake.names());
            assert_eq!(probed.left_behind, fake.names().pop_first(), "what stays is named");
        }
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names.iter().all(|name| name.starts_with(start)), "{names:?}");
        for name in names {
            let is_covered = |glob: &String| {
                let (start, end) = glob.split_once('*').unwrap_or((glob, "a glob without a star"));
                name.starts_with(start) && name.ends_with(end)
            };
            let globs = naming.globs();
            assert!(globs.iter().any(is_covered), "{name}: {globs:?}");
        }
    }
}

#[tokio::test]
async fn refused_extras_name_the_right_and_what_is_lost() {
    let extras = [Name::Replace, Name::Abort, Name::Stat, Name::Read, Name::List, Name::Delete];
    let fake = Fake::that(&extras.map(|step| (step, Does::Refuses(Kind::AccessDenied))));
    let probed = probe(&fake, &Naming::Own).await;
    assert_eq!(ended(&probed, Status::Refused), extras.map(Name::wire));
    assert!(probed.steps.iter().all(|step| !step.needed || step.status == Status::Ok));
    for name in extras {
        let step = step(&probed, name);
        assert_eq!((step.code, step.provider_code.as_deref()), (Some("ACCESS_DENIED"), Some("Told")));
        assert_eq!(step.missing, [format!("may-{}", name.wire())]);
        assert!(step.loses.is_some_and(|loses| loses.ends_with('.')));
    }
}

#[tokio::test]
async fn what_comes_back_changed_is_refused() {
    let fake = Fake::that(&[(Name::Stat, Does::Changes), (Name::Read, Does::Changes)]);
    let probed = probe(&fake, &Naming::Own).await;
    assert_eq!(ended(&probed, Status::Refused), ["stat", "read"]);
    assert_eq!(step(&probed, Name::Read).code, Some("INTEGRITY_MISMATCH"));
    assert_eq!(step(&probed, Name::Read).missing, [""; 0], "no right is missing");
}

#[tokio::test]
async fn a_refused_write_ends_the_trial_and_proves_what_went_before() {
    for (kind, at, fine) in [
        (Kind::AccessDenied, "write", vec!["arguments", "connect", "credentials", "list"]),
        (Kind::ContainerNotFound, "write", vec!["arguments", "connect", "credentials", "list"]),
        (Kind::Throttled, "write", vec!["arguments", "connect"]),
        (Kind::InvalidCredentials, "credentials", vec!["arguments", "connect"]),
        (Kind::TlsRefused, "connect", vec!["arguments"]),
        (Kind::HostNotAllowed, "connect", vec!["arguments"]),
    ] {
        let fake = Fake::that(&[(Name::Write, Does::Refuses(kind))]);
        let probed = probe(&fake, &Naming::Own).await;
        assert_eq!(probed.left_behind, None);
        assert!(fake.asked().iter().all(|step| ["write", "list", "delete"].contains(&step.as_str())), "{kind:?}");
        let missing = if kind == Kind::AccessDenied { vec!["may-write"] } else { Vec::new() };
        assert_eq!(probed.steps.iter().flat_map(|step| &step.missing).collect::<Vec<_>>(), missing);
        assert_eq!((ended(&probed, Status::Ok), ended(&probed, Status::Refused)), (fine, vec![at]), "{kind:?}");
    }
}

/// A service may answer wrong credentials as it answers missing rights.
#[tokio::test]
async fn where_nothing_is_allowed_nothing_is_said_of_the_credentials() {
    let denied = Does::Refuses(Kind::AccessDenied);
    let probed = probe(&Fake::that(&[(Name::Write, denied), (Name::List, denied)]), &Naming::Own).await;
    assert_eq!(
        (ended(&probed, Status::Ok), ended(&probed, Status::Refused)),
        (vec!["arguments", "connect"], vec!["write"])
    );
    assert!(step(&probed, Name::Credentials).message.as_ref().unwrap().contains("not known"));
}

#[tokio::test]
async fn what_may_have_arrived_is_deleted() {
    let fake = Fake::that(&[(Name::Write, Does::LosesTheAnswer)]);
    let probed = probe(&fake, &Naming::Own).await;
    assert_eq!((fake.names(), probed.left_behind), (BTreeSet::new(), None));
    let fake = Fake::that(&[(Name::Write, Does::LosesTheAnswer), (Name::Delete, Does::Refuses(Kind::AccessDenied))]);
    let probed = probe(&fake, &Naming::Own).await;
    assert_eq!(probed.left_behind, fake.names().pop_first());
    assert_eq!(ended(&probed, Status::Refused), ["connect", "delete"]);
}

#[tokio::test]
async fn silence_ends_a_step_and_the_whole() {
    let began = Instant::now();
    let fake = Fake::that(&[(Name::Write, Does::Hangs)]);
    let probed = probe(&fake, &Naming::Own).await;
    assert_eq!(step(&probed, Name::Connect).code, Some("REMOTE_TIMEOUT"));
    let hangs = [Name::Replace, Name::Stat, Name::Read, Name::List, Name::Delete].map(|step| (step, Does::Hangs));
    let probed = probe(&Fake::that(&hangs), &Naming::Own).await;
    assert_eq!(ended(&probed, Status::Refused), ["replace", "stat", "read", "list", "delete"]);
    assert!(probed.left_behind.is_some());
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_trial_that_is_broken_off_leaves_nothing() {
    let fake = Fake::that(&[(Name::List, Does::Hangs)]);
    let (known, cleaning) = (permissions(), TaskTracker::new());
    let connector = Arc::<Fake>::clone(&fake);
    let trial = Probe::new(connector, &Naming::Own, Some(&known)).run(HostSlots::new(1), cleaning.clone());
    timeout(Duration::from_millis(50), trial).await.unwrap_err();
    assert_eq!(fake.names().len(), 1, "it was under way");
    cleaning.close();
    cleaning.wait().await;
    assert_eq!(fake.names(), BTreeSet::new());
}

fn trials() -> Trials {
    Trials::new(Network::new(Guard::new([]), http::tls_config(&[]).unwrap(), Limits::default(), 4))
}

#[test]
fn trials_are_bounded_by_user_and_altogether() {
    let trials = trials();
    let user = UserId(1);
    let first: Vec<Turn> = (0..PER_USER_MAX).map(|_| trials.admit(user).unwrap()).collect();
    let refused = trials.admit(user).unwrap_err();
    assert_eq!((refused.code, refused.retry_after), (Code::TooManyRequests, Some(RETRY_AFTER)));
    drop(first);
    let all: Vec<Turn> =
        (0..AT_ONCE_MAX).map(|number| trials.admit(UserId(i32::try_from(number).unwrap())).unwrap()).collect();
    trials.admit(UserId(99)).unwrap_err();
    drop(all);
    assert!(trials.turns.lock().unwrap().is_empty());
}

fn read(task: Value) -> Result<Subject, Vec<String>> {
    let Value::Object(task) = task else { panic!("a task is an object") };
    Subject::read(task).map_err(|faults| faults.0.into_keys().collect())
}

#[test]
fn only_exports_to_storages_have_a_destination() {
    let s3 = json!({"operation": "export/s3", "name": "save", "input": ["fetch"], "ignore_error": true, "bucket": "b",
        "region": "r", "access_key_id": "k", "secret_access_key": "canary-secret", "colour": 1});
    let subject = read(s3).unwrap();
    assert_eq!(subject.warnings.len(), 1, "{:?}", subject.warnings);
    assert!(!format!("{subject:?}").contains("canary"));
    for (task, fields) in [
        (json!({}), vec!["operation"]),
        (json!({"operation": "export/s4"}), vec!["operation"]),
        (json!({"operation": "export/url"}), vec!["operation"]),
        (json!({"operation": "import/s3", "bucket": "b"}), vec!["operation"]),
        (json!({"operation": "export/sftp", "host": "h"}), vec!["password", "username"]),
    ] {
        assert_eq!(read(task.clone()).unwrap_err(), fields, "{task}");
    }
}

#[tokio::test]
async fn a_destination_that_cannot_be_made_is_a_step() {
    let task = json!({"operation": "export/sftp", "host": "h", "username": "u", "private_key": "no key at all"});
    let report = trials().run(read(task).unwrap()).await;
    assert!(!report.ok);
    assert_eq!(report.steps[0].step, Name::Arguments);
    assert_eq!(report.steps[0].code, Some("INVALID_CREDENTIALS"));
    assert!(report.steps[1..].iter().all(|step| step.status == Status::Skipped));
    assert!(report.permissions.is_some());
}

/// Arguments of each export to a storage, as little as it takes.
fn least() -> Vec<Value> {
    vec![
        json!({"operation": "export/s3", "bucket": "b", "region": "r", "access_key_id": "k",
            "secret_access_key": "canary-secret"}),
        json!({"operation": "export/azure/blob", "storage_account": "a", "container": "c", "sas_token": "canary-secret"}),
        json!({"operation": "export/azure/blob", "storage_account": "a", "container": "c",
            "storage_access_key": "canary-secret"}),
        json!({"operation": "export/google-cloud-storage", "project_id": "p", "bucket": "b",
            "client_email": "me@p.iam.gserviceaccount.com", "private_key": "canary-secret"}),
        json!({"operation": "export/openstack", "auth_url": "k", "username": "u", "password": "canary-secret",
            "region": "r", "container": "c"}),
        json!({"operation": "export/sftp", "host": "h", "username": "u", "password": "canary-secret"}),
        json!({"operation": "export/sftp", "host": "h", "username": "u", "password": "canary-secret", "path": "/a b"}),
    ]
}

#[test]
fn every_export_says_what_it_must_be_allowed_and_how_to_allow_it() {
    for entry in crate::operations::all().filter(|entry| entry.has_destination()) {
        let own = || least().into_iter().filter(|task| task["operation"] == entry.name);
        assert_ne!(own().count(), 0, "{} is not among the cases", entry.name);
        for subject in own().map(|task| read(task).unwrap()) {
            let known = entry.permissions(subject.args).expect(entry.name);
            assert_ne!(known.of(Name::Write), [""; 0], "{}", entry.name);
            for grant in [Some(&known.needed), known.extras.as_ref()].into_iter().flatten() {
                println!("{}\n", grant.grant);
                assert!(!grant.grant.is_empty() && !grant.grant.contains("canary"), "{}", entry.name);
            }
        }
    }
}
