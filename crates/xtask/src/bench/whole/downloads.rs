//! Downloads of `export/url`, beside nginx on the same file, plain and with TLS.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use connectors::Limits;
use connectors::egress::Guard;
use connectors::http::{Body, Client, tls_config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;
use tokio::process::Child;
use tokio::task::JoinSet;

use super::origin::Origin;
use super::report::{Bars, Section, median, ratio};
use super::served::{Served, Setup, command};
use super::{Place, peer};
use crate::bench::content;
use crate::bench::cost::cpu_secs;

pub(super) const TITLE: &str = "Downloads of export/url";
/// Who fetches: as many at once, each its share of the file.
const STREAMS: [u64; 2] = [1, 4];
const BARS: Bars<'static> = Bars {
    file: "jobs-downloads.svg",
    title: "MiB a second of downloads",
    label: "more is better",
    series: &["Consign", "nginx"],
};
/// What stands below the table.
const WHY_NO_SENDFILE: &str = "\nWhy no `sendfile`: it spares a plain connection one copy through the memory of the process. The \
    bytes of a TLS connection pass through it anyway, to be sealed; files may lie in an object store instead of on a disk; and the HTTP \
    library takes buffers, not descriptors. Whoever wants downloads to cost this server nothing keeps files in an object store and sets \
    `files.redirect_downloads`, so that no byte passes through it.\n";
/// How long nginx may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// What one download took.
#[derive(Clone, Copy)]
struct Took {
    wall_secs: f64,
    cpu_secs: f64,
}

/// Ours, and nginx's where it is there, right after each other.
type Pairs = Vec<(Took, Option<Took>)>;

/// One side: where the file is, and who serves it.
struct Side<'a> {
    url: String,
    cpu: Box<dyn Fn() -> Result<f64> + Send + Sync + 'a>,
}

/// Fetches the file in turns.
///
/// # Errors
/// When a server cannot be started, or the file is not served whole.
pub(super) async fn measure(place: &Place<'_>) -> Result<Section> {
    let (mebibytes, rounds) = (place.mebibytes(), place.rounds(4));
    let size = mebibytes * 1024 * 1024;
    let (cert, key) = certificate(&place.folder)?;
    let origin = Origin::start("127.0.0.1").await?;
    let mut ours = Vec::new();
    for tls in [None, Some((cert.as_path(), key.as_path()))] {
        let folder = place.folder.join(if tls.is_some() { "tls" } else { "plain" });
        std::fs::create_dir(&folder)?;
        let server = Served::start(&Setup { tls, ..Setup::new(&place.program, &folder) }).await?;
        let url = offered(&server, &origin.url(&format!("bytes/{size}"))).await?;
        ours.push((server, url));
    }
    let nginx = Nginx::start(&place.folder, size, &cert, &key).await?;
    let sides = |at: usize| {
        let (server, url) = &ours[at];
        let us = Side { url: url.clone(), cpu: Box::new(|| server.cpu_secs()) };
        let them = nginx.as_ref().map(|nginx| Side { url: nginx.urls[at].clone(), cpu: Box::new(|| nginx.cpu_secs()) });
        (us, them)
    };
    let guard = Guard::new(["127.0.0.0/8".parse().context("a network")?]);
    let client = Client::new(guard, tls_config(&[CertificateDer::from_pem_file(&cert)?])?, &Limits::default());
    let mut lanes: Vec<(String, Pairs)> = Vec::new();
    for (at, name) in ["plain", "TLS"].into_iter().enumerate() {
        for streams in STREAMS {
            let mut pairs = Vec::new();
            for number in 0..=rounds {
                let (us, them) = sides(at);
                let fetch = |side| fetch(&client, side, streams, size);
                // Who comes first changes from round to round.
                let (us, them) = match &them {
                    None => (fetch(&us).await?, None),
                    Some(them) if number % 2 == 0 => (fetch(&us).await?, Some(fetch(them).await?)),
                    Some(them) => {
                        let them = fetch(them).await?;
                        (fetch(&us).await?, Some(them))
                    }
                };
                place.say(&format!(
                    "{TITLE}: {name}, {streams} at once, round {number} of {rounds}: {:.2} s",
                    us.wall_secs
                ));
                if number > 0 {
                    pairs.push((us, them));
                }
            }
            lanes.push((format!("{name}, {streams} at once"), pairs));
        }
    }
    let text = format!("{}\n{}.\n", told(mebibytes, &lanes), peer::version("nginx", "-v").await);
    Ok(Section { title: TITLE, text, plots: vec![BARS.plot(&groups(mebibytes, &lanes))] })
}

/// A certificate of our own for loopback, and its key.
fn certificate(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&cert, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    Ok((cert, key))
}

/// Imports a file and offers it.
pub(super) async fn offered(server: &Served, url: &str) -> Result<String> {
    let job = server
        .run(json!({
            "in": { "operation": "import/url", "url": url },
            "out": { "operation": "export/url", "input": "in" },
        }))
        .await?;
    let link = job["tasks"][1]["result"]["files"][0]["url"].as_str().context("no link")?;
    Ok(link.to_owned())
}

/// Fetches the file over as many connections at once, each its share, and compares what comes: by CRC-32C, which is so cheap
/// that it does not slow the client.
async fn fetch(client: &Client, side: &Side<'_>, streams: u64, size: u64) -> Result<Took> {
    let (cpu, began) = ((side.cpu)()?, Instant::now());
    let share = size / streams;
    let mut fetched = JoinSet::new();
    for number in 0..streams {
        let range = format!("bytes={}-{}", number * share, (number + 1) * share - 1);
        let request = http::Request::get(&side.url).header("range", range).body(Body::empty())?;
        let client = client.clone();
        fetched.spawn(async move {
            let answer = client.send(request, "fetching a file").await?;
            ensure!(answer.status() == http::StatusCode::PARTIAL_CONTENT, "{}", answer.status());
            let (mut body, mut got, mut crc) = (answer.into_body(), 0, content::crc32c());
            while let Some(chunk) = body.chunk().await? {
                got += chunk.len() as u64;
                crc.update(&chunk);
            }
            Ok((number, got, crc.finalize()))
        });
    }
    let mut came = Vec::new();
    while let Some(ended) = fetched.join_next().await {
        came.push(ended??);
    }
    let took = Took { wall_secs: began.elapsed().as_secs_f64(), cpu_secs: (side.cpu)()? - cpu };
    for (number, got, crc) in came {
        ensure!(got == share, "{got} of {share} bytes came");
        let sent = content::crc32c_of_repeated(number * share, (number + 1) * share);
        ensure!(crc == sent, "other bytes came of {} than it has", side.url);
    }
    Ok(took)
}

/// nginx with two addresses for one file.
struct Nginx {
    master: Child,
    urls: [String; 2],
}

impl Nginx {
    /// Starts it, if the test bed has it.
    #[expect(clippy::disallowed_methods, reason = "a client of a server on loopback")]
    async fn start(folder: &Path, size: u64, cert: &Path, key: &Path) -> Result<Option<Self>> {
        let Ok(program) = testkit::tool::find("nginx") else { return Ok(None) };
        let root = folder.join("nginx");
        std::fs::create_dir(&root)?;
        content::write_repeated(&root.join("file.bin"), size)?;
        let port = || Ok::<_, anyhow::Error>(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
        let (plain, secure) = (port()?, port()?);
        let at = root.display();
        let temporary: String =
            ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].iter().fold(String::new(), |mut text, kind| {
                let _ = write!(text, "{kind}_temp_path {at}/{kind}; ");
                text
            });
        let config = format!(
            "daemon off; worker_processes auto; pid {at}/pid; error_log {at}/error.log warn;\n\
             events {{ worker_connections 512; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; {temporary}\n\
             server {{ listen 127.0.0.1:{plain}; root {at}; }}\n\
             server {{ listen 127.0.0.1:{secure} ssl; root {at}; ssl_certificate {}; ssl_certificate_key {}; \
             ssl_protocols TLSv1.3; }} }}\n",
            cert.display(),
            key.display(),
        );
        let file = root.join("nginx.conf");
        std::fs::write(&file, config)?;
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let mut nginx = command(&program);
        nginx.arg("-p").arg(&root).arg("-c").arg(&file).args(["-e", "error.log", "-g", user]);
        let urls = [format!("http://127.0.0.1:{plain}/file.bin"), format!("https://127.0.0.1:{secure}/file.bin")];
        let nginx = Self { master: nginx.spawn()?, urls };
        let until = Instant::now() + START_TIMEOUT;
        while std::net::TcpStream::connect(("127.0.0.1", secure)).is_err() {
            ensure!(Instant::now() < until, "nginx does not start");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Some(nginx))
    }

    /// User and system time of its workers.
    fn cpu_secs(&self) -> Result<f64> {
        let pid = self.master.id().context("nginx has ended")?;
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let workers = children.split_whitespace().map(|worker| cpu_secs(worker.parse()?));
        workers.sum()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers do not end with a master that is killed.
        if let Some(pid) = self.master.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn groups(mebibytes: u64, lanes: &[(String, Pairs)]) -> Vec<(String, Vec<Option<f64>>)> {
    let speed = |secs: Vec<f64>| (!secs.is_empty()).then(|| mebibytes as f64 / median(&secs));
    let group = |(name, pairs): &(String, Pairs)| {
        let us = pairs.iter().map(|(us, _)| us.wall_secs).collect();
        let them = pairs.iter().filter_map(|(_, them)| Some((*them)?.wall_secs)).collect();
        (name.clone(), vec![speed(us), speed(them)])
    };
    lanes.iter().map(group).collect()
}

#[expect(clippy::cast_precision_loss, reason = "sizes far below 2^52")]
fn told(mebibytes: u64, lanes: &[(String, Pairs)]) -> String {
    let size = mebibytes as f64;
    let mut text = format!(
        "One file of {mebibytes} MiB, in the page cache of the system, fetched by one client (several connections at once: each its share, by \
         `Range`), {} pairs, whose order changes from pair to pair; every run is compared by CRC-32C. CPU is that of the server. nginx has `sendfile on` and `tcp_nopush on`, TLS 1.3 on both \
         sides. The clients share the machine.\n\n\
         | | Consign MiB/s | CPU-s/GiB | nginx MiB/s | CPU-s/GiB | nginx's time / ours |\n|---|---|---|---|---|---|\n",
        lanes.first().map_or(0, |(_, pairs)| pairs.len()),
    );
    for (name, pairs) in lanes {
        let us = |figure: fn(Took) -> f64| median(&pairs.iter().map(|(us, _)| figure(*us)).collect::<Vec<_>>());
        let _ = write!(
            text,
            "| {name} | **{:.0}** | {:.2} |",
            size / us(|took| took.wall_secs),
            us(|took| took.cpu_secs) / (size / 1024.0)
        );
        let both: Vec<(Took, Took)> = pairs.iter().filter_map(|(us, them)| Some((*us, (*them)?))).collect();
        if both.is_empty() {
            text.push_str(" nginx is not there | – | – |\n");
            continue;
        }
        let them = |figure: fn(Took) -> f64| median(&both.iter().map(|(_, them)| figure(*them)).collect::<Vec<_>>());
        let ratios: Vec<f64> = both.iter().map(|(us, them)| them.wall_secs / us.wall_secs).collect();
        let _ = writeln!(
            text,
            " {:.0} | {:.2} | {} |",
            size / them(|took| took.wall_secs),
            them(|took| took.cpu_secs) / (size / 1024.0),
            ratio(&ratios)
        );
    }
    text.push_str(&BARS.line());
    text.push_str(WHY_NO_SENDFILE);
    text
}
