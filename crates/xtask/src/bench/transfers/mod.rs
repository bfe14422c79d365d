//! Transfers: Consign beside rclone, in alternating pairs on the same servers, in one run.
//!
//! What is measured is the product: a server process that runs one task on a file it already has, from the request that
//! makes the task to the answer that it ended, against one rclone process from its start to its end. CPU is that of
//! the client side only (user and system), peak memory its largest resident set. Ratios are made inside a pair, because
//! the same command varies more between minutes than the two differ.

use anyhow::{Context as _, Result, ensure};

use super::Bed;
use super::consign::Server;

mod lanes;
mod null_sink;
mod rclone;
mod table;

pub(super) async fn run(bed: &Bed) -> Result<()> {
    let (folder, size) = (&bed.folder, bed.size_bytes());
    let original = folder.join("original.bin");
    bed.say(&format!("writing {} MiB of data that does not compress", size >> 20));
    let digests = testkit::bytes::write_file(&original, 1, size)?;

    let sink = null_sink::NullSink::start(folder).await?;
    let (ceph, sshd) = (testkit::ceph().await?, testkit::sshd().await?);
    ceph.create_bucket(lanes::BUCKET).await?;
    let trusted = [("CONSIGN_EGRESS__CA_FILE", sink.ca_file().display().to_string())];
    let server = Server::start(&bed.program, folder, &trusted).await?;
    let source = server.upload(&original).await?;
    let lanes = lanes::all(&ceph, &sshd, &sink, &original)?;

    let mut rows = Vec::new();
    for lane in lanes.iter().filter(|lane| bed.wants(lane.name)) {
        let mut pairs = Vec::with_capacity(bed.pairs());
        // The first pair opens connections and fills caches; it is not counted.
        for number in 0..=bed.pairs() {
            let ours = server.run(&lane.task(&source)).await.with_context(|| lane.name)?;
            let shipped = rclone::run(&lane.rclone(folder, false)).await.with_context(|| lane.name)?;
            let tuned = rclone::run(&lane.rclone(folder, true)).await.with_context(|| lane.name)?;
            bed.say(&format!("{}: pair {number} of {}", lane.name, bed.pairs()));
            if number > 0 {
                pairs.push(table::Pair { ours, shipped, tuned });
            }
        }
        let back = folder.join("back.bin");
        if let Some(copy) = lane.back(&back) {
            rclone::run(&copy).await?;
            ensure!(testkit::bytes::digest_file(&back)? == digests, "{}: other bytes arrived", lane.name);
            std::fs::remove_file(&back)?;
        }
        rows.push(table::Row { lane: lane.name, pairs });
    }
    bed.publish("transfers.md", &table::markdown(size, &rows), &[])?;
    server.stop().await
}
