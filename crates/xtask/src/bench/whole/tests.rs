//! Every measurement runs, on sizes that take seconds, with the program as the tests have it. No time is looked at.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::Options;
use super::*;

/// The program that was built beside this test.
fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let found = test.parent().and_then(Path::parent).map(|folder| folder.join("consign")).filter(|file| file.is_file());
    found.expect("the program is not built: cargo build -p consign")
}

fn bed(program: PathBuf, folder: &Path) -> Bed {
    let options = Options {
        small: true,
        mebibytes: None,
        pairs: None,
        only: Vec::new(),
        folder: Some(folder.to_owned()),
        out: Some(folder.join("out")),
        program: None,
    };
    Bed { root: folder.join("no-such-folder"), options, program, folder: folder.to_owned() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_jobs_are_measured() {
    for peer in ["rclone", "bsdtar", "7z"] {
        if testkit::or_skip(testkit::tool::find(peer)).is_none() {
            return;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let bed = bed(program(), folder.path());
    jobs(&bed).await.unwrap();
    let page = fs::read_to_string(folder.path().join("out/jobs.md")).unwrap();
    for title in JOBS.order {
        assert!(page.contains(&format!("\n## {title}\n")), "{title} is missing:\n{page}");
    }
    assert!(page.contains("behind a backlog that is worked on") && !page.contains("NaN"), "{page}");
    assert!(!folder.path().join("no-such-folder").exists(), "nothing is written but what was asked for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn growth_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let bed = bed(program(), folder.path());
    growth(&bed).await.unwrap();
    let page = fs::read_to_string(folder.path().join("out/growth.md")).unwrap();
    for title in GROWTH.order {
        assert!(page.contains(&format!("\n## {title}\n")), "{title} is missing:\n{page}");
    }
    let plots = page.lines().filter_map(|line| line.strip_prefix("![")?.split_once("](")?.1.strip_suffix(')'));
    for plot in plots {
        let svg = fs::read_to_string(folder.path().join("out").join(plot)).unwrap();
        assert!(svg.contains("<polyline"), "{plot}: {svg}");
    }
}
