//! Transfers: Consign beside rclone, OpenSSH and the AWS command line, in alternating pairs on the same servers.
//!
//! What is measured is the product: a server process that runs one task on files it already has, from the request that
//! makes the task to the answer that it ended, against one process of the peer from its start to its end. CPU is that of
//! the client side only (user and system), peak memory its largest resident set. Ratios are made inside a pair, because
//! the same command varies more between minutes than the two differ. Every lane has a server of ours of its own, so that
//! what one lane leaves in memory does not count in the next. What arrived is looked at after every run (where the server
//! keeps it if that is on this machine, else fetched by rclone), and its SHA-256 compared.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::lanes::{At, Lane, Side, Way};
use self::null_sink::NullSink;
use self::originals::{Digests, Original, Originals};
use self::page::Record;
use self::place::{Kept, Place};
use self::row::{Row, Run};
use super::Bed;
use super::consign::Server;
use super::cost::Cost;
use super::figures::median;

mod goals;
mod lanes;
pub(super) mod null_sink;
mod originals;
mod page;
mod peers;
mod place;
mod row;

/// Files of a lane of many, and how many with `--small`.
const FILES: usize = 1000;
const FILES_SMALL: usize = 20;
/// Size of each of them.
const FILE_BYTES: usize = 64 * 1024;
/// Where the sink shows our server the file that it is to send.
const LENT: &str = "/lent/original.bin";

/// Measures all lanes that are wanted, and writes the page.
///
/// # Errors
/// When a side fails, or other bytes arrive.
pub(super) async fn run(bed: &Bed) -> Result<()> {
    let sink = NullSink::start(&bed.folder).await?;
    let mut peers = BTreeMap::new();
    // The start of `aws` alone takes seconds, which is no test's concern.
    for side in Side::PEERS.into_iter().filter(|side| *side != Side::Aws || !bed.is_small()) {
        match peers::version(side).await {
            Some(version) => {
                peers.insert(side.tag(), version);
            }
            None => bed.say(&format!("{side} is missing: its columns stay empty (scripts/testbed/setup.sh bench)")),
        }
    }
    ensure!(peers.contains_key(Side::Shipped.tag()), "rclone is missing: run scripts/testbed/setup.sh");
    let mut record = Record::begin(bed)?;
    let mut originals = Originals::new(bed);
    let mut failed = Vec::new();
    for lane in lanes::ALL.iter().filter(|lane| bed.wants(lane.name)) {
        let began = Instant::now();
        match Box::pin(row(bed, lane, &sink, &mut originals, &peers)).await {
            Ok(row) => record.add(row),
            Err(error) if error.is::<testkit::Missing>() => bed.say(&format!("{}: skipped: {error}", lane.name)),
            // What the others took half an hour to find is not thrown away.
            Err(error) => {
                bed.say(&format!("{}: failed: {error:#}", lane.name));
                failed.push(lane.name);
            }
        }
        bed.say(&format!("{}: {:.0} s in all", lane.name, began.elapsed().as_secs_f64()));
    }
    bed.publish("transfers.md", &record.page(), &record.files()?)?;
    ensure!(failed.is_empty(), "not measured: {}", failed.join("; "));
    Ok(())
}

/// Measures a lane.
async fn row(
    bed: &Bed,
    lane: &Lane,
    sink: &NullSink,
    originals: &mut Originals<'_>,
    peers: &BTreeMap<&'static str, String>,
) -> Result<Row> {
    let place = match lane.at {
        At::NullSink => place::null_sink(sink),
        At::Ceph => place::ceph().await?,
        At::Sshd => place::sshd().await?,
        At::Azurite => place::azurite().await?,
        At::Swift => place::swift().await?,
        At::Gcs => place::gcs().await?,
    };
    let original = originals.of(lane.way, size_bytes(bed, lane))?;
    let track = Track { bed, lane, place, sink, original };
    let sides = track.sides(peers);
    let runs = Box::pin(track.measure(&sides)).await?;
    let versions = sides.iter().filter_map(|side| Some((side.tag().to_owned(), peers.get(side.tag())?.clone())));
    Ok(Row::of(bed, lane, &track.place, size_bytes(bed, lane), versions.collect(), runs))
}

/// Bytes that a run of a lane moves.
fn size_bytes(bed: &Bed, lane: &Lane) -> u64 {
    match (lane.way, lane.mebibytes_max) {
        (Way::Many, _) => (files(bed) * FILE_BYTES) as u64,
        (_, Some(max)) => bed.size_bytes().min(max << 20),
        (_, None) => bed.size_bytes(),
    }
}

/// Files of a lane of many.
fn files(bed: &Bed) -> usize {
    if bed.is_small() { FILES_SMALL } else { FILES }
}

/// What a lane needs before its first run.
struct Ready {
    folder: TempDir,
    server: Server,
    /// The task of ours that has what is sent.
    source: String,
}

/// A lane with what it runs on.
struct Track<'a> {
    bed: &'a Bed,
    lane: &'a Lane,
    place: Place,
    sink: &'a NullSink,
    original: Original,
}

impl Track<'_> {
    /// Who runs on this lane.
    fn sides(&self, installed: &BTreeMap<&'static str, String>) -> Vec<Side> {
        let speaks = |side: &Side| match side {
            Side::Ours | Side::Shipped => true,
            Side::Tuned => !self.lane.tuned.is_empty(),
            Side::OpenSsh => self.place.openssh.is_some() && installed.contains_key(side.tag()),
            Side::Aws => self.place.aws.is_some() && installed.contains_key(side.tag()),
        };
        Side::ALL.into_iter().filter(speaks).collect()
    }

    /// Rounds that count.
    fn pairs(&self) -> usize {
        self.bed.pairs().min(self.lane.pairs_max.unwrap_or(usize::MAX))
    }

    async fn measure(&self, sides: &[Side]) -> Result<Vec<Run>> {
        let ready = self.prepare().await?;
        let mut runs: Vec<Run> = Vec::new();
        for round in self.bed.rounds().take_while(|round| *round <= self.pairs()) {
            let mut turns = sides.to_vec();
            turns.rotate_left(round % sides.len());
            for side in turns {
                let name = format!("{}-{round}{}", side.tag(), if self.lane.way == Way::Many { "" } else { ".bin" });
                let turn = Box::pin(self.turn(&ready, side, &name));
                let cost = turn.await.with_context(|| format!("{side}, round {round}"))?;
                if round > 0 {
                    runs.push(Run::of(side, round, &cost));
                }
            }
            self.tell(round, sides, &runs);
        }
        if self.lane.way != Way::Up {
            peers::remove(&self.place, self.lane.way, self.stored()).await?;
        }
        ready.server.stop().await?;
        Ok(runs)
    }

    /// Starts a server of ours, and puts everything where the sides find it.
    async fn prepare(&self) -> Result<Ready> {
        let folder = tempfile::tempdir_in(&self.bed.folder)?;
        let trusted = [("CONSIGN_EGRESS__CA_FILE", self.sink.ca_file().display().to_string())];
        let server = Server::start(&self.bed.program, folder.path(), &trusted).await?;
        if self.lane.way != Way::Up {
            peers::store(&self.place, self.lane.way, &self.original.path, self.stored()).await?;
        }
        let source = match self.lane.way {
            Way::Up => self.imported(&server).await?,
            Way::Down => String::new(),
            Way::Many => server.run(&self.path("import"), &self.many(self.stored())).await?.task_id,
        };
        Ok(Ready { folder, server, source })
    }

    /// Imports what is sent by its address, as nearly all files come: an upload form would have computed its MD5, which
    /// Azure and Swift want, before the clock runs.
    async fn imported(&self, server: &Server) -> Result<String> {
        let url = self.sink.lend(LENT, std::fs::read(&self.original.path)?.into());
        let ran = server.run("/sync/v2/import/url", &json!({ "url": url })).await?;
        self.sink.withdraw(LENT);
        Ok(ran.task_id)
    }

    /// What is downloaded, and what becomes the many files of our server.
    fn stored(&self) -> &'static str {
        if self.lane.way == Way::Many { "stored" } else { "stored.bin" }
    }

    /// One side's run, and the look at what arrived, which is not measured.
    async fn turn(&self, ready: &Ready, side: Side, name: &str) -> Result<Cost> {
        let Ready { folder, server, source } = ready;
        match (side, self.lane.way) {
            (Side::Ours, Way::Down) => {
                let ran = server.run(&self.path("import"), &self.one(self.stored())).await?;
                let files = server.files(&ran.task_id)?;
                let [file] = files.as_slice() else { bail!("{} files arrived", files.len()) };
                self.compare(&originals::digests(file)?)?;
                server.delete(&ran.task_id).await?;
                Ok(ran.cost)
            }
            (Side::Ours, Way::Up | Way::Many) => {
                let mut body = if self.lane.way == Way::Up { self.one(name) } else { self.many(name) };
                body["input"] = json!([source]);
                let ran = server.run(&self.path("export"), &body).await?;
                server.delete(&ran.task_id).await?;
                self.arrived(name, folder.path()).await?;
                Ok(ran.cost)
            }
            (Side::Shipped | Side::Tuned | Side::OpenSsh | Side::Aws, Way::Down) => {
                let local = folder.path().join(name);
                let cost = peers::run(side, self.lane, &self.place, &local, self.stored()).await?;
                self.compare(&originals::digests(&local)?)?;
                std::fs::remove_file(local)?;
                Ok(cost)
            }
            (Side::Shipped | Side::Tuned | Side::OpenSsh | Side::Aws, Way::Up | Way::Many) => {
                let cost = peers::run(side, self.lane, &self.place, &self.original.path, name).await?;
                self.arrived(name, folder.path()).await?;
                Ok(cost)
            }
        }
    }

    fn path(&self, way: &str) -> String {
        format!("/sync/v2/{way}/{}", self.place.operation)
    }

    /// Arguments of ours for one object.
    fn one(&self, name: &str) -> Value {
        let mut body = self.place.account.clone();
        body[self.place.names.0] = json!(format!("{}{name}", self.place.root));
        body
    }

    /// Arguments of ours for all objects in a folder.
    fn many(&self, name: &str) -> Value {
        let mut body = self.place.account.clone();
        body[self.place.names.1] = json!(format!("{}{name}/", self.place.root));
        body
    }

    /// Compares what arrived, and removes it.
    async fn arrived(&self, name: &str, folder: &Path) -> Result<()> {
        let found = match &self.place.kept {
            Kept::Sink => {
                self.sink.take(&format!("/bench/{name}{}", if self.lane.way == Way::Many { "/" } else { "" }))
            }
            Kept::Folder(home) => originals::digests(&home.join(name))?,
            Kept::Remote => {
                let back = folder.join("back");
                peers::fetch(&self.place, self.lane.way, name, &back).await?;
                let found = originals::digests(&back)?;
                if back.is_dir() {
                    std::fs::remove_dir_all(&back)?;
                } else {
                    std::fs::remove_file(&back)?;
                }
                found
            }
        };
        self.compare(&found)?;
        match self.place.kept {
            Kept::Sink => Ok(()),
            Kept::Folder(_) | Kept::Remote => peers::remove(&self.place, self.lane.way, name).await,
        }
    }

    fn compare(&self, found: &Digests) -> Result<()> {
        let sent = &self.original.digests;
        ensure!(found.len() == sent.len(), "{} of {} files arrived", found.len(), sent.len());
        let other = sent.iter().find(|(name, sha256)| found.get(*name) != Some(sha256));
        ensure!(other.is_none(), "{}: other bytes arrived than were sent: {other:?}", self.lane.name);
        Ok(())
    }

    /// How it stands.
    fn tell(&self, round: usize, sides: &[Side], runs: &[Run]) {
        let mut line = format!("{}: round {round} of {}", self.lane.name, self.pairs());
        let walls = |side| runs.iter().filter(move |run| run.side == side).map(|run| run.wall_secs);
        if let Some(last) = walls(Side::Ours).next_back() {
            let _ = write!(line, ": {last:.2} s");
        }
        for side in sides.iter().filter(|side| **side != Side::Ours) {
            let ratios: Vec<f64> = walls(Side::Ours).zip(walls(*side)).map(|(ours, theirs)| theirs / ours).collect();
            if !ratios.is_empty() {
                let _ = write!(line, ", {side} ×{:.2}", median(ratios));
            }
        }
        self.bed.say(&line);
    }
}
