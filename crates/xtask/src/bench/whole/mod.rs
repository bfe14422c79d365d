//! Whole jobs and growth: what a server does with its store, its files and its clients together.
//!
//! One module a measurement; each writes its section of a page and leaves the others as they are, so that `--only` measures
//! one again. Everything is on disk, as a server is, unless a section says otherwise.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::{Bed, PAGES, figures, ground};
use report::{Page, Section};

mod archive;
mod downloads;
mod files;
mod latency;
mod memory;
mod origin;
mod peer;
mod pipeline;
mod rate;
mod report;
mod rows;
mod served;
mod tasks;
mod waiters;

/// Time after which a measurement that grows does not begin with a larger size.
const LATE: Duration = Duration::from_mins(3);

const JOBS: Page = Page {
    file: "jobs.md",
    title: "Whole jobs, measured",
    intro: "<!-- Written by `cargo xtask bench jobs`. -->\n\nA server of ours, as shipped, with its database and its files, from \
            outside. Each section says how it was measured, by what it was checked, and which build it was; ratios are made inside a \
            round, and the load is that of the benchmark and of whatever else the machine did.",
    order: &[pipeline::TITLE, latency::TITLE, rate::TITLE, downloads::TITLE, archive::TITLE, waiters::TITLE],
};

const GROWTH: Page = Page {
    file: "growth.md",
    title: "Growth, measured",
    intro: "<!-- Written by `cargo xtask bench growth`. -->\n\nWhat one more costs when there are many already. A figure that \
            stays the same from the first row to the last is the aim; one that grows with the size means that the whole is \
            quadratic. Both axes of the plots count in powers of ten. CPU time is counted in hundredths of a second: where less than ten \
            of them were used, there is a dash.",
    order: &[files::TITLE, tasks::TITLE, rows::TITLE],
};

const MEMORY: Page = Page {
    file: "memory.md",
    title: "Memory, measured",
    intro: "<!-- Written by `cargo xtask bench memory`. -->\n\nWhat transfers hold in memory, seen from outside: the resident set of \
            the whole server. What a thousand clients hold that only wait stands in [jobs.md](jobs.md); what limits what, in \
            `docs/performance.md`.",
    order: &[memory::ONE, memory::MANY],
};

/// Where a measurement is made.
#[derive(Debug)]
struct Place<'a> {
    bed: &'a Bed,
    program: PathBuf,
    /// An empty folder on disk.
    folder: PathBuf,
    small: bool,
    began: Instant,
}

impl Place<'_> {
    /// A folder in memory, if the machine has room there.
    fn in_memory(&self) -> Result<TempDir> {
        Ok(tempfile::tempdir_in(&self.bed.folder)?)
    }

    fn say(&self, line: &str) {
        self.bed.say(line);
    }

    /// Rounds that count: so many, unless `--pairs` says otherwise.
    fn rounds(&self, full: u32) -> u32 {
        let asked = self.bed.options.pairs.and_then(|pairs| u32::try_from(pairs.max(1)).ok());
        asked.unwrap_or(if self.small { 1 } else { full })
    }

    /// Size of a large file.
    fn mebibytes(&self) -> u64 {
        self.bed.size_bytes() >> 20
    }

    /// How long to rest: where nothing is measured, hardly at all.
    fn rest(&self, full: Duration) -> Duration {
        if self.small { full / 50 } else { full }
    }

    fn is_late(&self, began: Instant) -> bool {
        !self.small && began.elapsed() > LATE
    }
}

/// Measures whole jobs.
///
/// # Errors
/// When something does not run or does not deliver.
pub(super) async fn jobs(bed: &Bed) -> Result<()> {
    for title in JOBS.order {
        let Some((place, _folder)) = place(bed, title)? else { continue };
        let section = match *title {
            pipeline::TITLE => pipeline::measure(&place).await,
            latency::TITLE => latency::measure(&place).await,
            rate::TITLE => rate::measure(&place).await,
            downloads::TITLE => downloads::measure(&place).await,
            archive::TITLE => archive::measure(&place).await,
            _ => waiters::measure(&place).await,
        };
        publish(&place, &JOBS, section.with_context(|| (*title).to_owned())?)?;
    }
    Ok(())
}

/// Measures growth.
///
/// # Errors
/// When something does not run.
pub(super) async fn growth(bed: &Bed) -> Result<()> {
    for title in GROWTH.order {
        let Some((place, _folder)) = place(bed, title)? else { continue };
        let section = match *title {
            files::TITLE => files::measure(&place).await,
            tasks::TITLE => tasks::measure(&place).await,
            _ => rows::measure(&place).await,
        };
        publish(&place, &GROWTH, section.with_context(|| (*title).to_owned())?)?;
    }
    Ok(())
}

/// Measures memory.
///
/// # Errors
/// When something does not run.
pub(super) async fn memory(bed: &Bed) -> Result<()> {
    for title in MEMORY.order {
        let Some((place, _folder)) = place(bed, title)? else { continue };
        let section = match *title {
            memory::ONE => memory::one(&place).await,
            _ => memory::many(&place).await,
        };
        publish(&place, &MEMORY, section.with_context(|| (*title).to_owned())?)?;
    }
    Ok(())
}

/// A folder for this section, if it is wanted.
fn place<'a>(bed: &'a Bed, title: &str) -> Result<Option<(Place<'a>, TempDir)>> {
    if !bed.wants(title) {
        return Ok(None);
    }
    let folder = tempfile::Builder::new().prefix("consign-bench-").tempdir_in(parent(bed))?;
    let (program, small) = (bed.program.clone(), bed.is_small());
    let place = Place { bed, program, folder: folder.path().to_owned(), small, began: Instant::now() };
    Ok(Some((place, folder)))
}

/// Where the files and databases of whole jobs are: on disk, unless it is said otherwise.
fn parent(bed: &Bed) -> PathBuf {
    bed.options.folder.clone().unwrap_or_else(std::env::temp_dir)
}

/// Puts the section into its page, with what it was measured on.
fn publish(place: &Place<'_>, page: &Page, mut section: Section) -> Result<()> {
    let bed = place.bed;
    place.say(&format!("{}: {:.0} s in all", section.title, place.began.elapsed().as_secs_f64()));
    let (build, machine, load) = (&bed.build, figures::machine(), figures::load());
    let folder = ground::folder(&parent(bed));
    let now = format!("\n\n{build}; {machine}; load {load:.1} at the end; files and database in {folder}.");
    section.text = format!("{}{now}", section.text.trim_end());
    let default = (!bed.is_small()).then(|| bed.root.join(PAGES));
    let out = bed.options.out.clone().or(default);
    let old = out.and_then(|out| std::fs::read_to_string(out.join(page.file)).ok()).unwrap_or_default();
    bed.publish(page.file, &page.with(&old, &section), &section.plots)
}
