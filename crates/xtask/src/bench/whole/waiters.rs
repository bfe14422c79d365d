//! What a client costs that only waits, and one that takes its file slowly: a thousand of each.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::json;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Place;
use super::downloads::offered;
use super::origin::Origin;
use super::report::{Bars, Section, median, quantile};
use super::served::{Served, Setup};

pub(super) const TITLE: &str = "A thousand who wait";
/// What a thousand of each, both at once, may add to the resident set.
const BUDGET_MIB: f64 = 256.0;
/// Bytes that a slow client takes at a time, and its pause.
const SIP_BYTES: usize = 1024;
const SIP_PAUSE: Duration = Duration::from_secs(1);
/// The socket of a slow client holds no more than this, as far as the system allows.
const SOCKET_BYTES: usize = 4096;
/// Until what was opened has come to rest: at first a server fills the buffers of all who download.
const REST: Duration = Duration::from_secs(5);
/// How often, and for how long each time, the processor is then watched: the median counts, for anything else that wakes up
/// once would count as the crowd's.
const WATCHES: u32 = 5;
const WATCH: Duration = Duration::from_secs(2);
const MIB: f64 = 1024.0 * 1024.0;

/// What a crowd costs.
struct Crowd {
    name: &'static str,
    count: u32,
    bytes: f64,
    /// Of one core, in each time of watching.
    cpu_shares: Vec<f64>,
}

const BARS: Bars<'static> =
    Bars { file: "jobs-waiters.svg", title: "KiB of memory a client", label: "less is better", series: &["KiB"] };

impl Crowd {
    fn kib_each(&self) -> f64 {
        self.bytes / 1024.0 / f64::from(self.count.max(1))
    }
}

/// Opens the crowds one after the other, all on a server of its own, then both at once.
///
/// # Errors
/// When a connection cannot be opened.
pub(super) async fn measure(place: &Place<'_>) -> Result<Section> {
    let (count, mebibytes) = if place.small { (3, 1) } else { (1000, 64) };
    let origin = Origin::start("127.0.0.1").await?;
    let file = origin.url(&format!("bytes/{}", mebibytes * 1024 * 1024));
    let mut all = Vec::new();
    for (name, waiters, followers, downloads) in [
        ("idle waiters (`/wait`)", count, 0, 0),
        ("idle followers (server-sent events)", 0, count, 0),
        ("slow downloads", 0, 0, count),
        ("waiters and as many slow downloads", count, 0, count),
    ] {
        let folder = tempfile::tempdir_in(&place.folder)?;
        let server = Served::start(&Setup::new(&place.program, folder.path())).await?;
        let link = offered(&server, &file).await?;
        let jobs = open_jobs(&server, waiters.max(followers)).await?;
        tokio::time::sleep(place.rest(REST)).await;
        let before = server.resident_bytes()?;
        let mut clients = JoinSet::new();
        for job in jobs.iter().take(waiters as usize) {
            connect(&mut clients, &server, &format!("/v2/jobs/{job}/wait")).await?;
        }
        for job in jobs.iter().take(followers as usize) {
            connect(&mut clients, &server, &format!("/v2/jobs/{job}/events")).await?;
        }
        let path = link.strip_prefix(server.url()).context("a link elsewhere")?;
        for _ in 0..downloads {
            connect(&mut clients, &server, path).await?;
        }
        tokio::time::sleep(place.rest(REST)).await;
        let mut cpu_shares = Vec::new();
        for _ in 0..WATCHES {
            let (cpu, began) = (server.cpu_secs()?, Instant::now());
            tokio::time::sleep(place.rest(WATCH)).await;
            cpu_shares.push((server.cpu_secs()? - cpu) / began.elapsed().as_secs_f64());
        }
        let count = waiters + followers + downloads;
        all.push(Crowd { name, count, bytes: server.resident_bytes()? - before, cpu_shares });
        anyhow::ensure!(clients.len() == count as usize && clients.try_join_next().is_none(), "a client was sent away");
        place.say(&format!("{TITLE}: {count} {name}"));
        clients.shutdown().await;
        server.stop().await?;
    }
    let groups: Vec<_> = all.iter().map(|crowd| (crowd.name.replace('`', ""), vec![Some(crowd.kib_each())])).collect();
    Ok(Section { title: TITLE, text: told(mebibytes, &all), plots: vec![BARS.plot(&groups)] })
}

/// Jobs that wait for an upload, and so for ever.
async fn open_jobs(server: &Served, count: u32) -> Result<Vec<String>> {
    let mut jobs = Vec::new();
    for _ in 0..count {
        let tasks = json!({ "tasks": { "file": { "operation": "import/upload" } } });
        let job = server.call("POST", "/v2/jobs", Some(&tasks)).await?;
        jobs.push(job["data"]["id"].as_str().context("a job without id")?.to_owned());
    }
    Ok(jobs)
}

/// Asks for something, and takes the answer sip by sip.
#[expect(clippy::disallowed_methods, reason = "a client of the server that is measured, on loopback")]
async fn connect(clients: &mut JoinSet<Result<()>>, server: &Served, path: &str) -> Result<()> {
    let address = server.url().strip_prefix("http://").context("not plain HTTP")?;
    let mut stream = TcpStream::connect(address).await?;
    SockRef::from(&stream).set_recv_buffer_size(SOCKET_BYTES)?;
    let head = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {}\r\n\r\n", server.key());
    stream.write_all(head.as_bytes()).await?;
    clients.spawn(async move {
        let mut sip = vec![0; SIP_BYTES];
        while stream.read(&mut sip).await? > 0 {
            tokio::time::sleep(SIP_PAUSE).await;
        }
        Ok(())
    });
    Ok(())
}

fn told(mebibytes: u64, all: &[Crowd]) -> String {
    let mut text = format!(
        "Each crowd on a server of its own: what its resident set grew by while all are connected, and how much of one core it \
         took: the median of {WATCHES} times {} seconds, beginning {} seconds after the last has come, with the range. Waiters \
         and followers wait for jobs that do not end, each for one of its own; a slow client takes {SIP_BYTES} bytes a second of a \
         file of {mebibytes} MiB. **Budget: a thousand waiters and a thousand slow downloads at once in \
         {BUDGET_MIB:.0} MiB.**\n\n| | clients | MiB in all | KiB each | share of a core |\n|---|---|---|---|---|\n",
        WATCH.as_secs(),
        REST.as_secs(),
    );
    for crowd in all {
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | **{:.0}** | {:.1} % ({:.1}–{:.1}) |",
            crowd.name,
            crowd.count,
            crowd.bytes / MIB,
            crowd.kib_each(),
            median(&crowd.cpu_shares) * 100.0,
            quantile(&crowd.cpu_shares, 0.0) * 100.0,
            quantile(&crowd.cpu_shares, 1.0) * 100.0,
        );
    }
    text.push_str(&BARS.line());
    if let Some(both) = all.last() {
        let verdict = if both.bytes / MIB <= BUDGET_MIB { "kept" } else { "**missed**" };
        let _ = writeln!(text, "\nThe budget is {verdict}.");
    }
    text
}
