//! Deliveries to a storage in memory.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use connectors::{Kind, OpenUpload, Retry};

use super::*;
use crate::operations::testing::{Bench, MemoryConnector};

fn prefix() -> Naming {
    Naming::Prefix("out/".to_owned())
}

async fn inputs(bench: &Bench, names: &[&str]) -> Vec<InputFile> {
    let mut inputs = Vec::new();
    for name in names {
        inputs.push(bench.input(name, name.as_bytes()).await);
    }
    inputs
}

#[tokio::test]
async fn files_arrive_under_their_names_with_receipts_in_order() {
    let bench = Bench::new().await;
    let inputs = inputs(&bench, &["a.txt", "b.txt", "a.txt", "d", "e", "f"]).await;
    let connector = Arc::new(MemoryConnector::default());
    let outcome = bench.context(&inputs).deliver(Arc::clone(&connector) as _, &prefix()).await.unwrap();
    let names: Vec<&str> = outcome.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["a.txt", "b.txt", "a-2.txt", "d", "e", "f"]);
    assert!(outcome.files.iter().all(|file| file.blob.is_none()));
    let receipts: Vec<&Receipt> = outcome.files.iter().filter_map(|file| file.receipt.as_ref()).collect();
    assert_eq!(receipts[2].location, "memory://out/a-2.txt");
    let note = "It was renamed because another file is called \"a.txt\".";
    assert_eq!(
        receipts.iter().map(|receipt| receipt.note.as_deref()).collect::<Vec<_>>(),
        [None, None, Some(note), None, None, None]
    );
    assert_eq!(connector.objects()["out/a-2.txt"], "a.txt");
    assert_eq!(connector.active_most.load(Ordering::SeqCst), bench.bounds.files_at_once);

    let reported = bench.reported();
    assert!(reported.is_sorted() && reported.last() == Some(&99), "{reported:?}");

    // Once more, as after a crash: the same objects and nothing else.
    let left = connector.objects();
    let again = bench.context(&inputs).deliver(Arc::clone(&connector) as _, &prefix()).await.unwrap();
    assert_eq!((again, connector.objects()), (outcome, left));
}

#[tokio::test]
async fn a_permanent_failure_stops_the_others_and_names_the_file() {
    let bench = Bench::new().await;
    let inputs = inputs(&bench, &["hang-1", "hang-2", "bad", "never"]).await;
    let connector = Arc::new(MemoryConnector::default());
    connector.fail("out/bad", Kind::AccessDenied);
    let mut context = bench.context(&inputs);
    context.bounds.files_at_once = 3;
    let error = context.deliver(Arc::clone(&connector) as _, &prefix()).await.unwrap_err();
    assert_eq!((error.code, error.retry), (Code::AccessDenied, Retry::Never));
    assert!(error.message.starts_with("\"bad\" was not delivered. It was told to fail"), "{}", error.message);
    assert_eq!(connector.active.load(Ordering::SeqCst), 0, "dropped");
    assert!(connector.objects().is_empty());
}

#[tokio::test]
async fn a_transient_failure_may_be_tried_again() {
    let bench = Bench::new().await;
    let inputs = inputs(&bench, &["a"]).await;
    let connector = Arc::new(MemoryConnector::default());
    connector.fail("out/a", Kind::Throttled);
    let error = bench.context(&inputs).deliver(connector, &prefix()).await.unwrap_err();
    assert_eq!((error.code, error.retry), (Code::RemoteThrottled, Retry::Later(None)));
}

#[tokio::test]
async fn what_an_earlier_attempt_left_open_is_offered_for_its_own_name_only() {
    let mut bench = Bench::new().await;
    bench.open = vec![OpenUpload {
        target: "out/b".to_owned(),
        handle: "7".to_owned(),
        sha256: String::new(),
        part_bytes: 5,
        parts: BTreeMap::new(),
    }];
    let inputs = inputs(&bench, &["a", "b", "c"]).await;
    let connector = Arc::new(MemoryConnector::default());
    bench.context(&inputs).deliver(Arc::clone(&connector) as _, &prefix()).await.unwrap();
    assert_eq!(connector.resumed.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_cannot_work_is_refused_before_a_byte_is_sent() {
    let bench = Bench::new().await;
    let connector = Arc::new(MemoryConnector::default());
    let refused = async |inputs: &[InputFile], naming: Naming| {
        let error = bench.context(inputs).deliver(Arc::clone(&connector) as _, &naming).await.unwrap_err();
        error.code
    };
    assert_eq!(refused(&[], Naming::Own).await, Code::NoInputFiles);
    let two = inputs(&bench, &["a", "b"]).await;
    assert_eq!(refused(&two, Naming::Exact("same".to_owned())).await, Code::NameConflict);
    assert_eq!(refused(&two, Naming::Prefix("x".repeat(64))).await, Code::InvalidData);
    let large = [bench.input("a", b"a").await, bench.input("large", &[0; 4097]).await];
    assert_eq!(refused(&large, Naming::Own).await, Code::FileTooLarge);
    assert_eq!(connector.active_most.load(Ordering::SeqCst), 0);
}
