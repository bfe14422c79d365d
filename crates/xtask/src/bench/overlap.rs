//! Overlap: `import/url` → `export/s3` of one large file, with and without `transfer.overlap`, in alternating pairs.
//!
//! Both wires are limited, as those of the world are: without a limit both halves would share the processor, and overlap
//! could save nothing. The source is inside the benchmark; the sink swallows what it gets over TLS, behind a relay.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::consign::Server;
use super::cost::{Cost, cpu_secs, peak_bytes, reset_peak};
use super::figures::{load, machine, median, range};
use super::transfers::null_sink::NullSink;
use super::{Bed, PAGES, content, plot};

/// What each wire lets through at the most, in bytes a second.
const WIRE_BYTES_PER_SEC: f64 = 100.0 * 1024.0 * 1024.0;
/// Size of the file in MiB, unless another is asked for.
const MEBIBYTES: u64 = 512;
/// Bytes that are passed on at once.
const PIECE_BYTES: usize = 64 * 1024;
/// The plot beside the page.
const PLOT: &str = "overlap.svg";
/// Where the sink keeps what is sent.
const STORED: &str = "/bench/file.bin";
/// How far a wire may be ahead of its rate: what a switch buffers.
const BURST: Duration = Duration::from_millis(10);

/// Runs the pairs and writes the page.
///
/// # Errors
/// When something cannot be started, or a job does not finish.
pub(super) async fn run(bed: &Bed) -> Result<()> {
    let size = bed.options.mebibytes.unwrap_or(if bed.is_small() { 24 } else { MEBIBYTES }) * 1024 * 1024;
    let sink = NullSink::start(&bed.folder).await?;
    let behind = sink.endpoint().trim_start_matches("https://").parse().context("the sink's address")?;
    let relay = relay(behind).await?;
    let source = source(size).await?;
    let sent = content::sha256(content::repeated(0, size));
    let mut servers = Vec::new();
    for overlap in ["false", "true"] {
        let folder = bed.folder.join(format!("overlap-{overlap}"));
        std::fs::create_dir_all(&folder)?;
        let settings = [
            ("CONSIGN_TRANSFER__OVERLAP", overlap.to_owned()),
            ("CONSIGN_EGRESS__CA_FILE", sink.ca_file().display().to_string()),
        ];
        servers.push(Server::start(&bed.program, &folder, &settings).await?);
    }
    let mut pairs = Vec::new();
    for round in bed.rounds() {
        // Whoever runs second finds caches that the first has filled: they take turns.
        let mut pair = [None; 2];
        for side in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
            pair[side] = Some(job(&servers[side], source, relay, size).await?);
            let found = sink.take(STORED);
            ensure!(found.values().eq([&sent]), "other bytes arrived: {found:?}");
        }
        let [Some(without), Some(with)] = pair else { bail!("a side did not run") };
        let pair = [without, with];
        bed.say(&format!("round {round}: {:.2} s without, {:.2} s with overlap", pair[0].wall_secs, pair[1].wall_secs));
        // The first opens connections and fills caches.
        if round > 0 {
            pairs.push(pair);
        }
    }
    for server in servers {
        server.stop().await?;
    }
    let secs = |side: usize| Some(median(pairs.iter().map(|pair| pair[side].wall_secs).collect()));
    let groups = [("whole job".to_owned(), vec![secs(0), secs(1)])];
    let plot = plot::bars("Seconds of a whole job", "less is better", &["without", "with overlap"], &groups, None);
    bed.publish("overlap.md", &page(bed, size, &pairs), &[(PLOT.to_owned(), plot)])
}

/// Runs one job to its end.
async fn job(server: &Server, source: SocketAddr, relay: SocketAddr, size: u64) -> Result<Cost> {
    let tasks = json!({"tasks": {
        "in": { "operation": "import/url", "url": format!("http://{source}/file.bin") },
        "out": { "operation": "export/s3", "input": "in", "bucket": "bench", "region": "default", "key": "file.bin",
            "endpoint": format!("https://{relay}"), "access_key_id": "bench", "secret_access_key": "bench" },
    }});
    let pid = server.pid()?;
    reset_peak(pid)?;
    let (cpu, began) = (cpu_secs(pid)?, Instant::now());
    let made = server.call("POST", "/v2/jobs", Some(&tasks)).await?;
    let path = format!("/v2/jobs/{}", made["data"]["id"].as_str().context("the job has no id")?);
    let job = loop {
        let shown = server.call("GET", &format!("{path}/wait"), None).await?;
        if shown["data"]["status"] != "processing" && shown["data"]["status"] != "waiting" {
            break shown;
        }
    };
    let wall_secs = began.elapsed().as_secs_f64();
    let cost = Cost { wall_secs, cpu_secs: cpu_secs(pid)? - cpu, peak_bytes: peak_bytes(pid)? };
    let delivered = |task: &Value| task["result"]["files"][0]["size"] == size;
    let is_whole = job["data"]["tasks"].as_array().is_some_and(|tasks| tasks.iter().all(delivered));
    ensure!(job["data"]["status"] == "finished" && is_whole, "{job:#}");
    server.call("DELETE", &path, None).await?;
    Ok(cost)
}

/// When so many bytes may have gone over a wire.
#[derive(Debug)]
struct Wire(Mutex<Instant>);

impl Wire {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Instant::now())))
    }

    /// Waits until the wire has taken so many bytes more; all connections share it.
    #[expect(clippy::cast_precision_loss, reason = "pieces are small")]
    async fn take(&self, bytes: usize) {
        let free_at = {
            let mut free_at = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let earliest = Instant::now().checked_sub(BURST).unwrap_or_else(Instant::now);
            *free_at = earliest.max(*free_at) + Duration::from_secs_f64(bytes as f64 / WIRE_BYTES_PER_SEC);
            *free_at
        };
        tokio::time::sleep_until(free_at.into()).await;
    }
}

/// A web server with one file behind a limited wire.
async fn source(size: u64) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let wire = Wire::new();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let wire = Arc::clone(&wire);
            // A client that goes away is none of the source's business.
            tokio::spawn(async move { drop(give(stream, size, &wire).await) });
        }
    });
    Ok(addr)
}

async fn give(mut stream: TcpStream, size: u64, wire: &Wire) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    for block in content::repeated(0, size) {
        for piece in block.chunks(PIECE_BYTES) {
            wire.take(piece.len()).await;
            stream.write_all(piece).await?;
        }
    }
    Ok(stream.shutdown().await?)
}

/// Passes connections on to `target`; what clients send goes over one limited wire.
async fn relay(target: SocketAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    let wire = Wire::new();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let wire = Arc::clone(&wire);
            tokio::spawn(async move { drop(pass(client, target, &wire).await) });
        }
    });
    Ok(addr)
}

#[expect(clippy::disallowed_methods, reason = "loopback only, and no part of the program")]
async fn pass(client: TcpStream, target: SocketAddr, wire: &Wire) -> Result<()> {
    let server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let up = async {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let length = from_client.read(&mut piece).await?;
            if length == 0 {
                break;
            }
            wire.take(length).await;
            to_server.write_all(&piece[..length]).await?;
        }
        to_server.shutdown().await
    };
    let down = tokio::io::copy(&mut from_server, &mut to_client);
    tokio::try_join!(up, down)?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn page(bed: &Bed, size: u64, pairs: &[[Cost; 2]]) -> String {
    let mebibytes = size as f64 / 1024.0 / 1024.0;
    let wire_mebibytes = WIRE_BYTES_PER_SEC / 1024.0 / 1024.0;
    let mut text = format!(
        "# Overlap: an export that begins while its import arrives\n\nWritten by `{}`. {}; {}; load {:.1} at the end; files and database in {}.\n\n\
         One job `import/url` → `export/s3` of {mebibytes:.0} MiB, from the request that makes it to the answer that it has \
         finished, {} pairs, whose order changes from pair to pair. The source (plain HTTP) and the sink (TLS) let through \
         {wire_mebibytes:.0} MiB/s each, so that either half takes {:.2} s at the least. After every run the SHA-256 of what the sink \
         has was compared. At full speed, without a wire that waits, the whole job stands in [jobs.md](jobs.md). `docs/overlap.md` says when `transfer.overlap` applies.\n\n\
         | `transfer.overlap` | s | MiB/s | CPU-s/GiB | peak MiB |\n|---|---|---|---|---|\n",
        bed.command("overlap"),
        bed.build,
        machine(),
        load(),
        bed.files_on(),
        pairs.len(),
        mebibytes / wire_mebibytes,
    );
    for (side, name) in [(0, "`false`"), (1, "`true`")] {
        let of = |figure: fn(&Cost) -> f64| median(pairs.iter().map(|pair| figure(&pair[side])).collect());
        let wall = of(|cost| cost.wall_secs);
        let _ = writeln!(
            text,
            "| {name} | {wall:.2} | {:.0} | {:.2} | {:.0} |",
            mebibytes / wall,
            of(|cost| cost.cpu_secs) / (mebibytes / 1024.0),
            of(|cost| cost.peak_bytes as f64) / 1024.0 / 1024.0,
        );
    }
    let ratios: Vec<f64> = pairs.iter().map(|pair| pair[0].wall_secs / pair[1].wall_secs).collect();
    let (low, high) = range(&ratios);
    let _ = writeln!(
        text,
        "\n![seconds of a whole job]({PLOT})\n\nWithout / with, inside each pair: **{:.2}×** (from {low:.2} to {high:.2}). Pages of the other benchmarks are in \
         `{PAGES}`.",
        median(ratios)
    );
    text
}
