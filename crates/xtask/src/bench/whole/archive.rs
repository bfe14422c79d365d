//! An archive of many small files, beside `bsdtar` and `7z` on the same files.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::Place;
use super::origin::Origin;
use super::peer;
use super::report::{Bars, Section, median, ratio};
use super::served::{Served, Setup};
use crate::bench::content;
use crate::bench::cost::Cost;

pub(super) const TITLE: &str = "A ZIP archive of many files";
/// Size of each file.
const FILE_BYTES: usize = 4096;
const MIB: f64 = 1024.0 * 1024.0;
const NAMES: [&str; 3] = ["Consign `export/url`", "`bsdtar` (libarchive)", "`7z -mx1`"];
const BARS: Bars<'static> = Bars {
    file: "jobs-archive.svg",
    title: "Files a second into a ZIP",
    label: "more is better",
    series: &["files/s"],
};
/// Reads all of an archive by other hands, and compares every file in it with one on the disk. What an archive has beside
/// files is none of its business.
const UNPACK: &str = "
import sys, zipfile
archive, sample, count = sys.argv[1], open(sys.argv[2], 'rb').read(), int(sys.argv[3])
with zipfile.ZipFile(archive) as archive:
    names = [name for name in archive.namelist() if not name.endswith('/')]
    wanted = {f'file-{number:06}.txt' for number in range(count)}
    if len(names) != count or {name.rsplit('/', 1)[-1] for name in names} != wanted:
        sys.exit(f'{len(names)} of {count} files, among them {names[:3]}')
    for name in names:
        if archive.read(name) != sample:
            sys.exit(f'other bytes in {name}')
";

/// Makes the archive in turns.
///
/// # Errors
/// When a side fails.
pub(super) async fn measure(place: &Place<'_>) -> Result<Section> {
    let (files, rounds): (u32, u32) = (if place.small { 10 } else { 10_000 }, place.rounds(3));
    let origin = Origin::start("127.0.0.1").await?;
    let server = Served::start(&Setup::new(&place.program, &place.folder)).await?;
    place.say(&format!("{TITLE}: importing {files} files"));
    let began = Instant::now();
    let job = server.run(json!({ "in": origin.bucket_import(files.into(), FILE_BYTES as u64) })).await?;
    let import_secs = began.elapsed().as_secs_f64();
    let source = job["tasks"][0]["id"].as_str().context("a task without id")?;
    let folder = place.folder.join("files");
    std::fs::create_dir(&folder)?;
    let content: Vec<u8> = content::repeated(0, FILE_BYTES as u64).flatten().collect();
    for number in 0..files {
        std::fs::write(folder.join(format!("file-{number:06}.txt")), &content)?;
    }
    let mut all = Vec::new();
    for number in 0..=rounds {
        let sample = folder.join("file-000000.txt");
        let zip_file = place.folder.join("made.zip");
        let zip = zip_file.display().to_string();
        let ours = ours(&server, source, &zip_file).await?;
        checked(&zip_file, &sample, files).await.context(NAMES[0])?;
        let mut arguments: Vec<String> =
            ["-c", "-f", &zip, "--format", "zip", "--options", "zip:compression-level=1", "-C"]
                .map(str::to_owned)
                .into();
        arguments.extend([folder.display().to_string(), ".".to_owned()]);
        let bsdtar = peer::run("bsdtar", &arguments, |_| {}).await?;
        checked(&zip_file, &sample, files).await.context(NAMES[1])?;
        let arguments = ["a", "-tzip", "-mx1", "-bd", &zip, &folder.display().to_string()].map(str::to_owned);
        let seven = peer::run("7z", &arguments, |_| {}).await?;
        checked(&zip_file, &sample, files).await.context(NAMES[2])?;
        place.say(&format!(
            "{TITLE}: round {number} of {rounds}: {:.2} s, bsdtar {:.2} s, 7z {:.2} s",
            ours.wall_secs, bsdtar.wall_secs, seven.wall_secs
        ));
        if number > 0 {
            all.push([ours, bsdtar, seven]);
        }
    }
    server.stop().await?;
    let (bsdtar, seven) = (peer::version("bsdtar", "--version").await, peer::version("7z", "i").await);
    let text = format!("{}\n{bsdtar}; {seven}.\n", told(files, import_secs, &all));
    let speed = |at: usize| {
        f64::from(files) / median(&all.iter().map(|round: &[Cost; 3]| round[at].wall_secs).collect::<Vec<_>>())
    };
    let groups: Vec<_> =
        NAMES.iter().enumerate().map(|(at, name)| (name.replace('`', ""), vec![Some(speed(at))])).collect();
    Ok(Section { title: TITLE, text, plots: vec![BARS.plot(&groups)] })
}

/// Compares what is in an archive, and removes it.
async fn checked(zip: &Path, sample: &Path, files: u32) -> Result<()> {
    let arguments = ["-c", UNPACK, &zip.display().to_string(), &sample.display().to_string(), &files.to_string()];
    testkit::tool::run("python", &arguments).await?;
    Ok(std::fs::remove_file(zip)?)
}

/// Makes the archive, and fetches it, which is not measured.
async fn ours(server: &Served, source: &str, zip: &Path) -> Result<Cost> {
    server.reset_peak()?;
    let (cpu, began) = (server.cpu_secs()?, Instant::now());
    let job = server
        .run(json!({ "zip": { "operation": "export/url", "input": [source], "archive_multiple_files": true } }))
        .await?;
    let (wall_secs, cpu_secs) = (began.elapsed().as_secs_f64(), server.cpu_secs()? - cpu);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a size in bytes")]
    let peak_bytes = server.peak_bytes()? as u64;
    let link = job["tasks"][0]["result"]["files"][0]["url"].as_str().context("no link")?;
    let path = link.strip_prefix(server.url()).context("a link elsewhere")?;
    std::fs::write(zip, server.bytes(path).await?)?;
    server.remove(&job).await?;
    Ok(Cost { wall_secs, cpu_secs, peak_bytes })
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn told(files: u32, import_secs: f64, rounds: &[[Cost; 3]]) -> String {
    let mut text = format!(
        "{files} files of {FILE_BYTES} bytes that do not compress, deflate at level 1 on all sides, {} rounds in turns. Consign's \
         clock runs from the request to the answer that the job has finished, with the archive hashed and synced; the others' \
         from start to end of the program, without a sync. After every run Python's `zipfile` has read the archive, and every file in \
         it was compared. (The import of the files from an S3 server before it, with two \
         syncs a file: {:.0} files/s.)\n\n\
         | | s | files/s | CPU s | peak MiB | its time / Consign's |\n|---|---|---|---|---|---|\n",
        rounds.len(),
        f64::from(files) / import_secs,
    );
    for (at, name) in NAMES.into_iter().enumerate() {
        let of = |figure: fn(&Cost) -> f64| median(&rounds.iter().map(|round| figure(&round[at])).collect::<Vec<_>>());
        let ratios: Vec<f64> = rounds.iter().map(|round| round[at].wall_secs / round[0].wall_secs).collect();
        let wall = of(|cost| cost.wall_secs);
        let _ = writeln!(
            text,
            "| {name} | {wall:.2} | {:.0} | {:.2} | {:.0} | {} |",
            f64::from(files) / wall,
            of(|cost| cost.cpu_secs),
            of(|cost| cost.peak_bytes as f64) / MIB,
            if at == 0 { "–".to_owned() } else { ratio(&ratios) },
        );
    }
    text.push_str(&BARS.line());
    text
}
