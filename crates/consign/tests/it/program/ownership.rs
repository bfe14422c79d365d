//! A file store that belongs to another database: nothing of it is removed, and the start says what to do.

use std::fs;
use std::path::PathBuf;

use http::StatusCode;
use serde_json::{Value, json};

use super::harness::{MARK, Program, id, task};

/// A server that has a file, and its link.
async fn with_a_file() -> (Program, Value, String) {
    let program = Program::started(&[]).await;
    let raw = json!({"operation": "import/raw", "file": "hello", "filename": "hello.txt"});
    let job = program.job(json!({"in": raw, "link": {"operation": "export/url", "input": "in"}})).await;
    let ended = program.finished(&job).await;
    let url = task(&ended, "link")["result"]["files"][0]["url"].as_str().unwrap().to_owned();
    (program, job, url)
}

fn mark(program: &Program) -> PathBuf {
    program.data_dir().join("files").join(MARK)
}

/// The start is refused with these words, and makes neither a key nor anything else that an import would stumble over.
#[track_caller]
fn is_refused(program: &Program, words: &[&str]) {
    let files = program.files();
    let refused = program.run(&["serve", "--listen", "127.0.0.1:0"]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    for word in words {
        assert!(said.contains(word), "{word}: {said}");
    }
    assert_eq!(program.files(), files, "nothing is removed");
    assert!(refused.stdout.is_empty(), "{}", String::from_utf8_lossy(&refused.stdout));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_does_not_know_the_files_removes_none() {
    let (mut program, job, url) = with_a_file().await;
    program.kill();
    let own = fs::read_to_string(mark(&program)).unwrap().split_whitespace().next().unwrap().to_owned();

    // The address of the database is wrong, or its state has still to be read in.
    program.set("DATABASE_URL", &format!("sqlite://{}", program.folder().join("other.db").display()));
    is_refused(&program, &["belongs to another database", &own, MARK, "database_url", "import-state"]);
    let doctor = String::from_utf8(program.run(&["doctor"]).stdout).unwrap();
    assert!(doctor.contains("FAIL  files"), "{doctor}");
    // Without the mark it is the files themselves that nobody knows.
    fs::remove_file(mark(&program)).unwrap();
    is_refused(&program, &["has no mark", "import-state"]);
    assert!(!mark(&program).exists(), "and they get no mark");

    // Reading the state in makes it fit.
    program.unset("DATABASE_URL");
    assert!(program.run(&["export-state", "state.jsonl"]).status.success());
    fs::write(mark(&program), &own).unwrap();
    program.set("DATABASE_URL", &format!("sqlite://{}", program.folder().join("other.db").display()));
    let read = program.run(&["import-state", "state.jsonl"]);
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    program.start().await;
    assert_eq!(program.fetch(&url).await, (StatusCode::OK, "hello".into()));
    let doctor = String::from_utf8(program.run(&["doctor"]).stdout).unwrap();
    assert!(doctor.contains("ok    files"), "{doctor}");
    program.finished(&job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_the_database_knows_get_a_mark_again() {
    let (mut program, job, url) = with_a_file().await;
    let own = fs::read(mark(&program)).unwrap();
    program.kill();
    fs::remove_file(mark(&program)).unwrap();
    program.start().await;
    assert_eq!(fs::read(mark(&program)).unwrap(), own);
    assert_eq!(program.fetch(&url).await.0, StatusCode::OK);
    // Who knows what he does writes the number into the mark himself.
    program.kill();
    program.set("DATABASE_URL", &format!("sqlite://{}", program.folder().join("new.db").display()));
    let refused = program.run(&["serve", "--listen", "127.0.0.1:0"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    let number = said.split("write ").nth(1).unwrap().split(' ').next().unwrap();
    fs::write(mark(&program), number).unwrap();
    program.talk_with("");
    program.start().await;
    assert!(program.printed().contains("first API key"));
    let kept = id(task(&job, "in"));
    super::harness::eventually("the search", async || {
        program.files().iter().all(|path| !path.starts_with(&kept)).then_some(())
    })
    .await;
}
