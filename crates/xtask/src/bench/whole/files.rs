//! How time and memory grow with the number of files in a task.

use std::fmt::Write as _;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::Place;
use super::origin::Origin;
use super::report::{Growing, Section, told_cpu};
use super::served::{Served, Setup};

pub(super) const TITLE: &str = "Files in a task";
/// Size of each file: of no matter here.
const FILE_BYTES: u64 = 16;
/// Links of one task that are fetched, at the most.
const LINKS_MAX: usize = 1000;
const MIB: f64 = 1024.0 * 1024.0;

/// What so many files took.
struct Sample {
    files: u32,
    /// Seconds of the import, the export to S3, the export to links.
    secs: [f64; 3],
    cpu_secs: [f64; 3],
    peak_bytes: f64,
    /// Seconds to read the task.
    read_secs: f64,
    /// Seconds to fetch one link.
    link_secs: f64,
    /// Seconds until a request to delete the job is answered.
    delete_secs: f64,
}

/// Runs one job for each number of files, on one server.
///
/// # Errors
/// When a job does not finish.
pub(super) async fn measure(place: &Place<'_>) -> Result<Section> {
    let steps: &[u32] = if place.small { &[1, 5] } else { &[1, 10, 100, 1_000, 10_000, 30_000, 100_000] };
    let origin = Origin::start("127.0.0.1").await?;
    let more = [("CONSIGN_LIMITS__FILES_PER_TASK_MAX", "100000")];
    let server = Served::start(&Setup { more: &more, ..Setup::new(&place.program, &place.folder) }).await?;
    // Opens connections and fills caches.
    sample(&server, &origin, 1).await?;
    let (mut all, mut left_out) = (Vec::new(), Vec::new());
    let began = Instant::now();
    for &files in steps {
        if place.is_late(began) {
            left_out.push(crate::bench::figures::thousands(files.into()));
            continue;
        }
        let sample = sample(&server, &origin, files).await?;
        place.say(&format!(
            "{TITLE}: {files}: import {:.2} s, export/s3 {:.2} s, export/url {:.2} s",
            sample.secs[0], sample.secs[1], sample.secs[2]
        ));
        all.push(sample);
    }
    server.stop().await?;
    Ok(Section { title: TITLE, text: told(&all, &left_out), plots: plots(&all) })
}

async fn sample(server: &Served, origin: &Origin, files: u32) -> Result<Sample> {
    server.reset_peak()?;
    let (mut secs, mut cpu_secs) = ([0.0; 3], [0.0; 3]);
    let mut jobs: Vec<Value> = Vec::new();
    let source = |jobs: &[Value]| jobs[0]["tasks"][0]["id"].as_str().unwrap_or_default().to_owned();
    for step in 0..3 {
        let (cpu, began) = (server.cpu_secs()?, Instant::now());
        let task = match step {
            0 => origin.bucket_import(files.into(), FILE_BYTES),
            1 => origin.bucket_export(&source(&jobs)),
            _ => json!({ "operation": "export/url", "input": source(&jobs) }),
        };
        jobs.push(server.run(json!({ "task": task })).await?);
        (secs[step], cpu_secs[step]) = (began.elapsed().as_secs_f64(), server.cpu_secs()? - cpu);
    }
    let peak_bytes = server.peak_bytes()?;
    for job in &jobs {
        let found = job["tasks"][0]["result"]["files"].as_array().map_or(0, Vec::len);
        ensure!(found == files as usize, "{found} of {files} files");
    }
    let began = Instant::now();
    server.bytes(&format!("/v2/tasks/{}", source(&jobs))).await?;
    let read_secs = began.elapsed().as_secs_f64();
    let links = jobs[2]["tasks"][0]["result"]["files"].as_array().context("no files")?;
    let links: Vec<&str> = links
        .iter()
        .rev()
        .take(LINKS_MAX)
        .filter_map(|file| file["url"].as_str()?.strip_prefix(server.url()))
        .collect();
    let began = Instant::now();
    for link in &links {
        server.bytes(link).await?;
    }
    let link_secs = began.elapsed().as_secs_f64() / f64::from(u32::try_from(links.len().max(1))?);
    let began = Instant::now();
    for job in &jobs {
        server.remove(job).await?;
    }
    let delete_secs = began.elapsed().as_secs_f64() / 3.0;
    Ok(Sample { files, secs, cpu_secs, peak_bytes, read_secs, link_secs, delete_secs })
}

fn each(sample: &Sample, step: usize) -> f64 {
    sample.secs[step] * 1e3 / f64::from(sample.files)
}

fn told(all: &[Sample], left_out: &[String]) -> String {
    let mut text = format!(
        "Files of {FILE_BYTES} bytes, imported from an S3 server inside the benchmark, then exported to it, then offered at \
         links; milliseconds a file, and the server's CPU. The default allows 10,000 files in a task \
         (`limits.files_per_task_max`, raised here to 100,000); a listing of S3 has 1,000 to a page. An imported file is synced, \
         with its folder, before the task ends. *A link* is one of the task's last files, fetched through its link.\n\n\
         | files | import/s3 ms/file | CPU | export/s3 ms/file | CPU | export/url ms/file | CPU | peak MiB | read the task ms | \
         a link ms | delete a job ms |\n|---|---|---|---|---|---|---|---|---|---|---|\n"
    );
    for sample in all {
        let _ = write!(text, "| {} |", crate::bench::figures::thousands(sample.files.into()));
        for step in 0..3 {
            let cpu = told_cpu(sample.cpu_secs[step], |secs| format!("{:.3}", secs * 1e3 / f64::from(sample.files)));
            let _ = write!(text, " **{:.3}** | {cpu} |", each(sample, step));
        }
        let _ = writeln!(
            text,
            " {:.0} | {:.1} | {:.2} | {:.1} |",
            sample.peak_bytes / MIB,
            sample.read_secs * 1e3,
            sample.link_secs * 1e3,
            sample.delete_secs * 1e3
        );
    }
    if !left_out.is_empty() {
        let _ = writeln!(text, "\nNot measured, as it would take too long: {} files.", left_out.join(", "));
    }
    text.push_str("\n![milliseconds a file](growth-files.svg)\n\n![memory](growth-files-memory.svg)\n");
    text
}

fn plots(all: &[Sample]) -> Vec<(String, String)> {
    let line =
        |figure: &dyn Fn(&Sample) -> f64| all.iter().map(|sample| (sample.files.into(), figure(sample))).collect();
    let time = Growing { title: "Milliseconds a file", across: "files in the task", up: "ms" };
    let memory = Growing { title: "Peak memory of the server", across: "files in the task", up: "MiB" };
    vec![
        (
            "growth-files.svg".to_owned(),
            time.plot(vec![
                ("import/s3", line(&|sample| each(sample, 0))),
                ("export/s3", line(&|sample| each(sample, 1))),
                ("export/url", line(&|sample| each(sample, 2))),
                ("fetch one link", line(&|sample| sample.link_secs * 1e3)),
            ]),
        ),
        ("growth-files-memory.svg".to_owned(), memory.plot(vec![("peak", line(&|sample| sample.peak_bytes / MIB))])),
    ]
}
