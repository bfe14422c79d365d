//! Links to files and archives.

use serde_json::json;

use super::*;
use crate::operations::testing::{Bench, NOW};

#[tokio::test]
async fn files_are_offered_for_a_day_without_being_copied() {
    let bench = Bench::new().await;
    let inputs = [bench.input("a.txt", b"one").await, bench.input("a.txt", b"two").await];
    let outcome = bench.twice::<ExportUrl, _>(json!({ "inline": true }), &inputs, || ()).await;
    let names: Vec<&str> = outcome.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["a.txt", "a-2.txt"]);
    assert_eq!(bench.read(&outcome.files[1]).await, "two");
    let expires_at = NOW.plus(std::time::Duration::from_hours(24));
    assert!(outcome.files.iter().all(|file| file.download == Some(Download { inline: true, expires_at })));
    assert!(std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata(bench.path(&outcome.files[0])).unwrap()) > 1);
}

#[tokio::test]
async fn several_files_become_one_archive_and_one_stays_as_it_is() {
    let bench = Bench::new().await;
    let inputs = [bench.input("a.txt", b"one").await, bench.input("a.txt", b"two").await];
    let args = json!({ "archive_multiple_files": true });
    let outcome = bench.twice::<ExportUrl, _>(args.clone(), &inputs, || ()).await;
    assert_eq!(outcome.files.len(), 1);
    let file = &outcome.files[0];
    assert_eq!((file.name.as_str(), file.content_type.as_str()), ("archive.zip", "application/zip"));
    assert!(bench.read(file).await.starts_with(b"PK\x03\x04"));
    let single = bench.run::<ExportUrl>(args, &inputs[..1]).await.unwrap();
    assert_eq!(single.files[0].name, "a.txt");
}

#[tokio::test]
async fn without_files_there_is_nothing_to_offer() {
    let bench = Bench::new().await;
    let error = bench.run::<ExportUrl>(json!({}), &[]).await.unwrap_err();
    assert_eq!(error.code, Code::NoInputFiles);
}
