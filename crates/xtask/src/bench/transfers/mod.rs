//! Transfers: Consign beside rclone, OpenSSH and the AWS command line, in alternating pairs on the same servers.
//!
//! What is measured is the product: a server process that runs one task on files it already has, from the request that
//! makes the task to the answer that it ended, against one process of the peer from its start to its end. CPU is that of
//! the client side only (user and system), peak memory its largest resident set. Ratios are made inside a pair, because
//! the same command varies more between minutes than the two differ. Every lane has a server of ours of its own, so that
//! what one lane leaves in memory does not count in the next. What arrived is fetched by rclone after every run, and its
//! SHA-256 compared.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::lanes::{At, Lane, Side, Way};
use self::null_sink::NullSink;
use self::page::{Record, Row, Run};
use self::place::Place;
use super::Bed;
use super::consign::Server;
use super::cost::Cost;
use super::figures::median;

mod lanes;
pub(super) mod null_sink;
mod page;
mod peers;
mod place;

/// Files of a lane of many, and how many with `--small`.
const FILES: usize = 1000;
const FILES_SMALL: usize = 20;
/// Size of each of them.
const FILE_BYTES: usize = 64 * 1024;

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
    let mut record = Record::begin(bed, &peers).await?;
    for lane in lanes::ALL.iter().filter(|lane| bed.wants(lane.name)) {
        let place = match at(lane.at, &sink).await {
            Ok(place) => place,
            Err(error) if error.is::<testkit::Missing>() => {
                bed.say(&format!("{}: skipped: {error}", lane.name));
                continue;
            }
            Err(error) => return Err(error.context(lane.name)),
        };
        let track = Track { bed, lane, place, trusted: sink.ca_file() };
        let sides = track.sides(&peers);
        record.add(Box::pin(track.measure(&sides)).await.context(lane.name)?);
    }
    bed.publish("transfers.md", &record.page(), &record.files()?)
}

async fn at(at: At, sink: &NullSink) -> Result<Place> {
    match at {
        At::NullSink => Ok(place::null_sink(sink)),
        At::Ceph => place::ceph().await,
        At::Sshd => place::sshd().await,
        At::Azurite => place::azurite().await,
        At::Swift => place::swift().await,
        At::Gcs => place::gcs().await,
    }
}

/// SHA-256 by name: what is to arrive.
type Digests = BTreeMap<String, String>;

/// What a lane needs before its first run.
struct Ready {
    folder: TempDir,
    /// The file that is sent, or the folder of many.
    original: PathBuf,
    digests: Digests,
    server: Server,
    /// The task of ours that has what is sent.
    source: String,
}

/// A lane with what it runs on.
struct Track<'a> {
    bed: &'a Bed,
    lane: &'a Lane,
    place: Place,
    trusted: &'a Path,
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

    fn size_bytes(&self) -> u64 {
        match (self.lane.way, self.lane.mebibytes_max) {
            (Way::Many, _) => (self.files() * FILE_BYTES) as u64,
            (_, Some(max)) => self.bed.size_bytes().min(max << 20),
            (_, None) => self.bed.size_bytes(),
        }
    }

    fn files(&self) -> usize {
        if self.bed.is_small() { FILES_SMALL } else { FILES }
    }

    async fn measure(&self, sides: &[Side]) -> Result<Row> {
        let ready = self.prepare().await?;
        let mut runs: Vec<Run> = Vec::new();
        for round in self.bed.rounds() {
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
        Ok(Row::of(self.bed, self.lane, &self.place, self.size_bytes(), runs))
    }

    /// Starts a server of ours, and puts everything where the sides find it.
    async fn prepare(&self) -> Result<Ready> {
        let folder = tempfile::tempdir_in(&self.bed.folder)?;
        let (original, digests) = self.original(folder.path())?;
        let trusted = [("CONSIGN_EGRESS__CA_FILE", self.trusted.display().to_string())];
        let server = Server::start(&self.bed.program, folder.path(), &trusted).await?;
        if self.lane.way != Way::Up {
            peers::store(&self.place, self.lane.way, &original, self.stored()).await?;
        }
        let source = match self.lane.way {
            Way::Up => server.upload(&original).await?,
            Way::Down => String::new(),
            Way::Many => server.run(&self.path("import"), &self.many(self.stored())).await?.task_id,
        };
        Ok(Ready { folder, original, digests, server, source })
    }

    /// What is downloaded, and what becomes the many files of our server.
    fn stored(&self) -> &'static str {
        if self.lane.way == Way::Many { "stored" } else { "stored.bin" }
    }

    /// One side's run, and the look at what arrived, which is not measured.
    async fn turn(&self, ready: &Ready, side: Side, name: &str) -> Result<Cost> {
        let Ready { folder, original, digests, server, source } = ready;
        match (side, self.lane.way) {
            (Side::Ours, Way::Down) => {
                let ran = server.run(&self.path("import"), &self.one(self.stored())).await?;
                let files = server.files(&ran.task_id)?;
                let [file] = files.as_slice() else { bail!("{} files arrived", files.len()) };
                self.compare(file, digests)?;
                server.delete(&ran.task_id).await?;
                Ok(ran.cost)
            }
            (Side::Ours, Way::Up | Way::Many) => {
                let mut body = if self.lane.way == Way::Up { self.one(name) } else { self.many(name) };
                body["input"] = json!([source]);
                let ran = server.run(&self.path("export"), &body).await?;
                server.delete(&ran.task_id).await?;
                self.arrived(name, folder.path(), digests).await?;
                Ok(ran.cost)
            }
            (Side::Shipped | Side::Tuned | Side::OpenSsh | Side::Aws, Way::Down) => {
                let local = folder.path().join(name);
                let cost = peers::run(side, self.lane, &self.place, &local, self.stored()).await?;
                self.compare(&local, digests)?;
                std::fs::remove_file(local)?;
                Ok(cost)
            }
            (Side::Shipped | Side::Tuned | Side::OpenSsh | Side::Aws, Way::Up | Way::Many) => {
                let cost = peers::run(side, self.lane, &self.place, original, name).await?;
                self.arrived(name, folder.path(), digests).await?;
                Ok(cost)
            }
        }
    }

    /// Writes what is sent, and tells what it is known by.
    fn original(&self, folder: &Path) -> Result<(PathBuf, Digests)> {
        if self.lane.way != Way::Many {
            let path = folder.join("original.bin");
            let digests = testkit::bytes::write_file(&path, 1, self.size_bytes())?;
            return Ok((path, Digests::from([(String::new(), digests.sha256)])));
        }
        let (path, mut digests) = (folder.join("originals"), Digests::new());
        std::fs::create_dir(&path)?;
        for seed in 0..self.files() {
            let name = format!("file-{seed:04}.bin");
            let written = testkit::bytes::write_file(&path.join(&name), seed as u64, FILE_BYTES as u64)?;
            digests.insert(name, written.sha256);
        }
        Ok((path, digests))
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

    /// Gets back what was sent, compares it, and removes it.
    async fn arrived(&self, name: &str, folder: &Path, digests: &Digests) -> Result<()> {
        let back = folder.join("back");
        peers::fetch(&self.place, self.lane.way, name, &back).await?;
        if self.lane.way == Way::Many {
            let found = std::fs::read_dir(&back)?.count();
            ensure!(found == digests.len(), "{found} of {} files arrived", digests.len());
            for (name, sha256) in digests {
                let digest = testkit::bytes::digest_file(&back.join(name)).with_context(|| name.clone())?;
                ensure!(digest.sha256 == *sha256, "other bytes arrived as {name}");
            }
            std::fs::remove_dir_all(&back)?;
        } else {
            self.compare(&back, digests)?;
            std::fs::remove_file(&back)?;
        }
        peers::remove(&self.place, self.lane.way, name).await
    }

    fn compare(&self, file: &Path, digests: &Digests) -> Result<()> {
        let found = testkit::bytes::digest_file(file)?.sha256;
        ensure!(digests.values().eq([&found]), "{}: other bytes arrived (SHA-256 {found})", self.lane.name);
        Ok(())
    }

    /// How it stands.
    fn tell(&self, round: usize, sides: &[Side], runs: &[Run]) {
        let mut line = format!("{}: round {round} of {}", self.lane.name, self.bed.pairs());
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
