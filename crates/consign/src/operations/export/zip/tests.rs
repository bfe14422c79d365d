//! Archives, read by the programs of others.

use std::collections::BTreeMap;
use std::fs::File as Handle;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::operations::testing::Bench;

async fn archived(bench: &Bench, inputs: &[InputFile], names: &[&str]) -> File {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    archive(&bench.context(inputs), "archive.zip", &names).await.unwrap()
}

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect()
}

fn text(length: usize) -> Vec<u8> {
    (0..length).map(|n| b"some text that gets smaller\n"[n % 28]).collect()
}

#[tokio::test]
async fn text_gets_smaller_and_what_is_compressed_is_stored() {
    let bench = Bench::new().await;
    let bytes = text(3_000_000);
    let inputs = [bench.input("a.txt", &bytes).await, bench.input("b.jpg", &bytes).await, bench.input("c", b"").await];
    let file = archived(&bench, &inputs, &["a.txt", "b.jpg", "ünï.bin"]).await;
    let mut archive = zip::ZipArchive::new(Handle::open(bench.path(&file)).unwrap()).unwrap();
    let mut read = |name: &str| {
        let mut entry = archive.by_name(name).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let modified = entry.last_modified().unwrap();
        (bytes, entry.compression(), entry.compressed_size(), modified.year())
    };
    let (read_back, method, packed, year) = read("a.txt");
    assert!(read_back == bytes && method == CompressionMethod::Deflated && packed < 100_000 && year == 2026);
    let (read_back, method, packed, _) = read("b.jpg");
    assert!(read_back == bytes && method == CompressionMethod::Stored && packed == 3_000_000);
    assert_eq!(read("ünï.bin").0, b"");
    assert_eq!(bench.reported().last(), Some(&99));
}

#[tokio::test]
async fn other_programs_read_it() {
    let bench = Bench::new().await;
    let names = ["a.txt", "b.jpg", "ünï code.bin"];
    let inputs = [
        bench.input(names[0], &text(2_000_000)).await,
        bench.input(names[1], &text(70_000)).await,
        bench.input(names[2], b"").await,
    ];
    let file = archived(&bench, &inputs, &names).await;
    let path = bench.path(&file);
    let expected: BTreeMap<_, _> =
        names.iter().map(|&name| name.to_owned()).zip([text(2_000_000), text(70_000), Vec::new()]).collect();
    let path_text = path.to_str().unwrap();
    for (program, arguments) in [
        ("7z", vec!["x", "-y", "-bd", path_text]),
        ("bsdtar", vec!["-x", "-f", path_text]),
        ("unzip", vec!["-q", path_text]),
        ("python3", vec!["-m", "zipfile", "-e", path_text, "."]),
        ("jar", vec!["-x", "-f", path_text]),
    ] {
        // What the setup installs must be there in CI; the others are witnesses where they happen to be.
        let is_set_up = matches!(program, "7z" | "bsdtar");
        let found = testkit::tool::command(program);
        let Some(mut command) = (if is_set_up { testkit::or_skip(found) } else { found.ok() }) else { continue };
        let out = tempfile::tempdir().unwrap();
        let output = command.env("LC_ALL", "C.UTF-8").args(&arguments).current_dir(out.path()).output().await.unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(contents(out.path()) == expected, "{program} unpacks something else");
    }
}

#[tokio::test]
async fn a_reader_that_cannot_seek_reads_it_too() {
    let bench = Bench::new().await;
    let inputs = [bench.input("a.txt", &text(2_000_000)).await, bench.input("b.jpg", &text(70_000)).await];
    let file = archived(&bench, &inputs, &["a.txt", "b.jpg"]).await;
    let Some(mut bsdtar) = testkit::or_skip(testkit::tool::command("bsdtar")) else { return };
    let out = tempfile::tempdir().unwrap();
    bsdtar.args(["-x", "-f", "-"]).stdin(std::process::Stdio::piped()).current_dir(out.path());
    let mut child = bsdtar.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, &bench.read(&file).await).await.unwrap();
    drop(stdin);
    assert!(child.wait().await.unwrap().success());
    assert!(contents(out.path())["a.txt"] == text(2_000_000) && contents(out.path())["b.jpg"] == text(70_000));
}

/// Five GiB of nothing.
#[derive(Debug)]
struct Zeros;

#[async_trait::async_trait]
impl connectors::Source for Zeros {
    fn size(&self) -> u64 {
        5 << 30
    }

    fn digests(&self) -> connectors::Digests {
        connectors::Digests { md5: None, sha256: [0; 32], crc32c: 0 }
    }

    async fn read_at(&self, _offset: u64, length: usize) -> connectors::Result<Bytes> {
        static ZEROS: [u8; 1 << 20] = [0; 1 << 20];
        Ok(Bytes::from_static(&ZEROS[..length]))
    }
}

#[tokio::test]
async fn files_beyond_four_gigabytes_are_readable() {
    // Compressing 10 GiB takes a minute: on request only.
    #[expect(clippy::disallowed_methods, reason = "a switch of the tests, no setting")]
    if std::env::var("CONSIGN_TEST_LARGE").is_err() {
        println!("skipped: set CONSIGN_TEST_LARGE to compress 10 GiB");
        return;
    }
    let bench = Bench::new().await;
    let mut large = bench.input("large.txt", b"").await;
    large.source = Arc::new(Zeros);
    large.file.size = 5 << 30;
    let file = archived(&bench, &[large.clone(), large], &["large.txt", "second.txt"]).await;
    let path = bench.path(&file);
    for (program, arguments) in [("7z", ["t", "-bd"]), ("bsdtar", ["-t", "-f"]), ("python3", ["-m", "zipfile"])] {
        let Some(mut command) = testkit::or_skip(testkit::tool::command(program)) else { continue };
        command.args(arguments).args((program == "python3").then_some("-t")).arg(&path);
        let output = command.output().await.unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn a_dropped_archive_stops_its_thread_and_leaves_nothing() {
    let bench = Bench::new().await;
    let inputs = [bench.input("a.txt", &text(20_000_000)).await];
    let context = bench.context(&inputs);
    let names = ["a.txt".to_owned()];
    let done = tokio::time::timeout(Duration::from_millis(5), archive(&context, "archive.zip", &names)).await;
    assert!(done.is_err(), "20 MB do not take 5 ms");
    assert_eq!(bench.kept(), 0);

    let (steps, waiting) = channel(1);
    let handle = Arc::new(tempfile::tempfile().unwrap());
    let writing = tokio::task::spawn_blocking({
        let handle = Arc::clone(&handle);
        move || write(handle, waiting)
    });
    let options = options(&inputs[0], modified(0));
    assert!(steps.send(Step::File { name: "a".to_owned(), options }).await.is_ok());
    drop(steps);
    writing.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_full_disk_is_the_archives_error() {
    let bench = Bench::new().await;
    let input = bench.input("b.jpg", b"").await;
    let (steps, waiting) = channel(8);
    let full = Arc::new(Handle::options().write(true).open("/dev/full").unwrap());
    let options = options(&input, modified(0));
    assert!(steps.send(Step::File { name: "a".to_owned(), options }).await.is_ok());
    assert!(steps.send(Step::Piece(vec![0; 2 * WRITE_BYTES].into())).await.is_ok());
    // All steps wait before the writer starts: it may end at the first, and then takes no second.
    let writing = tokio::task::spawn_blocking(move || write(full, waiting));
    let error = writing.await.unwrap().unwrap_err();
    assert!(matches!(files::Error::from(error), files::Error::Full(_)));
}

#[test]
fn times_before_zip_was_invented_are_no_fault() {
    assert_eq!(modified(0), DateTime::default());
    assert_eq!(modified(i64::MAX), DateTime::default());
    assert_eq!(modified(1_767_603_600).to_string(), "2026-01-05 09:00:00");
}
