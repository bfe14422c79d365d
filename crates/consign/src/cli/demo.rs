//! `consign demo`: first contact. A real job, end to end, offline, with proof.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::routing::get;
use clap::Args;
use connectors::s3::{self, S3};
use connectors::sftp::{self, Sftp};
use connectors::{Connector, Network, Secret};
use futures_util::TryStreamExt as _;
use http::{Method, header};
use practice::Practice;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::api::Meter;
use super::interrupt::Interrupts;
use super::local::Local;
use super::progress::Board;
use super::{Failure, practice as storages, print};
use crate::config::{Config, Egress, Log, Transfer};

/// A real document, taken in by upload. It is large enough for an upload in parts.
const DOCUMENT: (&str, &[u8]) = ("document.pdf", include_bytes!("../../../../examples/document.pdf"));
/// A real photo, fetched from a URL.
const PHOTO: (&str, &[u8]) = ("photo.jpg", include_bytes!("../../../../examples/photo.jpg"));
/// Two files, each to a URL, into an archive, into the bucket and over SFTP.
const DELIVERIES: usize = 2 * 4;
/// Where things are put at the storages.
const PREFIX: &str = "inbox/";
/// Smaller than by default, so that the document goes in parts: S3's smallest part.
const PART_MIB: u64 = 5;

/// See it work: take in a document and a photo, deliver both to a temporary URL, to an S3 bucket and over SFTP.
///
/// Needs no account and no network: the storages are the practice servers of `consign practice`, on free ports of
/// this machine. Everything that was delivered is read back and compared with the original.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Leave the server and the storages running afterwards, and print the link and the API key
    #[arg(long)]
    keep: bool,
}

/// Everything that the demo runs.
struct Stage {
    storages: Practice,
    local: Local,
    photo_url: String,
    network: Network,
}

impl Demo {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        crate::telemetry::logs::start(&Log { level: "error".to_owned(), ..Log::default() }, None)
            .map_err(|error| anyhow!(error))?;
        let mut interrupts = Interrupts::new()?;
        let folder = tempfile::Builder::new().prefix("consign-demo-").tempdir()?;
        print::line("1. Starting a server, an S3 storage and an SFTP storage on free ports of this machine");
        let stage = Stage::set(folder.path()).await?;
        print::line(format!("   server {}", stage.local.server.public_url()));
        print::line(format!("   S3     {}", stage.storages.s3_endpoint()));
        print::line(format!("   SFTP   {}", stage.storages.sftp_addr()));
        let played = tokio::select! {
            played = stage.play(folder.path()) => played.map(|()| ExitCode::SUCCESS),
            code = interrupts.next() => Ok(code),
        };
        if self.keep && played.as_ref().is_ok_and(|code| *code == ExitCode::SUCCESS) {
            stage.show_address(folder.path());
            interrupts.next().await;
        }
        stage.storages.stop().await;
        stage.local.stop().await?;
        Ok(played?)
    }
}

impl Stage {
    async fn set(folder: &Path) -> Result<Self, Failure> {
        let storages = storages::start(folder.join("storages"), 0, 0).await?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let web = listener.local_addr()?;
        let page = || async { ([(header::CONTENT_TYPE, "image/jpeg")], PHOTO.1) };
        let router = Router::new().route(&format!("/{}", PHOTO.0), get(page));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let mut allow = storages::allowed(&storages);
        allow.push(web.to_string());
        let config = Config {
            egress: Egress { allow, ..Egress::default() },
            transfer: Transfer { part_bytes: bytesize::ByteSize::mib(PART_MIB), ..Transfer::default() },
            ..Config::default()
        };
        let network = crate::server::network::open(&config)?;
        let local = Local::start(config).await?;
        Ok(Self { storages, local, photo_url: format!("http://{web}/{}", PHOTO.0), network })
    }

    async fn play(&self, folder: &Path) -> anyhow::Result<()> {
        print::line("2. Creating a job: an upload and a URL come in, four exports go out");
        let both = json!(["document", "photo"]);
        let job = json!({"tag": "demo", "tasks": {
            "document": {"operation": "import/upload"},
            "photo": {"operation": "import/url", "url": self.photo_url},
            "links": {"operation": "export/url", "input": both},
            "zip": {"operation": "export/url", "input": both, "archive_multiple_files": true},
            "bucket": storages::s3_task(&self.storages, &both, PREFIX),
            "sftp": storages::sftp_task(&self.storages, &both, PREFIX),
        }});
        let api = &self.local.api;
        let created = api.call(Method::POST, "/v2/jobs", Some(&job)).await?["data"].take();
        let id = created["id"].as_str().ok_or_else(|| anyhow!("the server's answer is not a job"))?;
        let mut board = Board::new();
        api.upload_bytes(&task(&created, "document")?["result"]["form"], DOCUMENT.0, DOCUMENT.1).await?;
        let ended = board.follow(api, id).await?;
        for task in ended["tasks"].as_array().into_iter().flatten() {
            if task["status"] == "error" {
                bail!(
                    "the task `{}` failed: {}: {}",
                    task["name"].as_str().unwrap_or_default(),
                    task["code"].as_str().unwrap_or_default(),
                    task["message"].as_str().unwrap_or_default()
                );
            }
        }
        print::line("3. Reading everything back and comparing SHA-256");
        let mut checks = Checks::default();
        self.check_links(&ended, folder, &mut checks).await?;
        self.check_zip(&ended, folder, &mut checks).await?;
        self.check_storages(&ended, &mut checks).await?;
        checks.print();
        if checks.rows.len() != DELIVERIES {
            bail!("{} of {DELIVERIES} deliveries were found: please report this as a bug", checks.rows.len());
        }
        print::line(format!("\nAll {DELIVERIES} deliveries hold exactly these bytes."));
        Ok(())
    }

    async fn check_links(&self, job: &Value, folder: &Path, checks: &mut Checks) -> anyhow::Result<()> {
        for file in files(job, "links")? {
            let (name, url) = (text(file, "filename"), text(file, "url"));
            let found = self.local.api.download(url, &folder.join("link"), silent()).await?;
            checks.compare(name, "temporary URL", self.path(url), "download", &found)?;
        }
        Ok(())
    }

    /// A link without what all links of the server begin with.
    fn path<'a>(&self, url: &'a str) -> &'a str {
        url.strip_prefix(self.local.server.public_url()).unwrap_or(url)
    }

    async fn check_zip(&self, job: &Value, folder: &Path, checks: &mut Checks) -> anyhow::Result<()> {
        let path = folder.join("archive");
        let url = text(files(job, "zip")?.first().unwrap_or(&Value::Null), "url").to_owned();
        self.local.api.download(&url, &path, silent()).await?;
        let mut archive = zip::ZipArchive::new(std::fs::File::open(&path)?)?;
        for index in 0..archive.len() {
            let mut entry = archive.by_index(index)?;
            let name = entry.name()?.into_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            checks.compare(&name, "ZIP at a URL", self.path(&url), "unpacked", digest(&SHA256, &bytes).as_ref())?;
        }
        Ok(())
    }

    async fn check_storages(&self, job: &Value, checks: &mut Checks) -> anyhow::Result<()> {
        let storages = &self.storages;
        let bucket = S3::new(
            &s3::Config {
                bucket: storages.bucket().to_owned(),
                region: storages.region().to_owned(),
                endpoint: Some(storages.s3_endpoint()),
                access_key_id: storages.access_key_id().to_owned(),
                secret_access_key: Secret::new(storages.secret_access_key()),
                ..s3::Config::default()
            },
            self.network.http.clone(),
            self.network.limits,
        )?;
        let sftp = Sftp::new(
            sftp::Config {
                host: storages.sftp_addr().ip().to_string(),
                port: storages.sftp_addr().port(),
                username: storages.username().to_owned(),
                password: Some(Secret::new(storages.password())),
                private_key: None,
                host_key: Some(storages.host_key_fingerprint()),
                limits: self.network.limits,
            },
            self.network.guard.clone(),
        )?;
        let stores: [(&str, &str, &dyn Connector); 2] = [("bucket", "S3 bucket", &bucket), ("sftp", "SFTP", &sftp)];
        for (task, kind, connector) in stores {
            for file in files(job, task)? {
                let name = format!("{PREFIX}{}", text(file, "filename"));
                let size = connector.stat(&name).await?.size;
                let stream = connector.read(&name, 0..size).await?;
                let hasher = aws_lc_rs::digest::Context::new(&SHA256);
                let hasher = stream
                    .try_fold(hasher, |mut hasher, chunk| async move {
                        hasher.update(&chunk);
                        Ok(hasher)
                    })
                    .await?;
                let (location, verified) = (text(file, "location"), text(file, "verified"));
                checks.compare(text(file, "filename"), kind, location, verified, hasher.finish().as_ref())?;
            }
        }
        Ok(())
    }

    fn show_address(&self, folder: &Path) {
        let url = self.local.server.public_url();
        let key = self.local.server.first_key().map(|first| first.key.expose().to_owned()).unwrap_or_default();
        print::line(format!(
            "\nThe server stays at {url} until you press Ctrl-C.\n\n  API key    {key}\n  API        {url}/docs\n  storages   {}\n\nTry it:\n\n  curl -H 'Authorization: Bearer {key}' {url}/v2/jobs?include=tasks",
            folder.join("storages").display()
        ));
    }
}

/// What was read back.
#[derive(Default)]
struct Checks {
    rows: Vec<[String; 4]>,
}

impl Checks {
    /// Compares with the original of that name.
    fn compare(&mut self, name: &str, kind: &str, place: &str, proof: &str, found: &[u8]) -> anyhow::Result<()> {
        let originals: BTreeMap<&str, &[u8]> = [DOCUMENT, PHOTO].into_iter().collect();
        let original = originals.get(name).ok_or_else(|| anyhow!("{place} has an unknown name, {name}"))?;
        if digest(&SHA256, original).as_ref() != found {
            bail!("{name} at {place} is not what was sent: please report this as a bug");
        }
        // The signature of a link is a secret of whoever asked for it, and long.
        let place = place.split('?').next().unwrap_or(place);
        self.rows.push([name.to_owned(), kind.to_owned(), proof.to_owned(), place.to_owned()]);
        Ok(())
    }

    fn print(&self) {
        for [name, kind, proof, place] in &self.rows {
            print::line(format!("   ok  {name:<13} {kind:<14} {proof:<9} {place}"));
        }
    }
}

fn task<'a>(job: &'a Value, name: &str) -> anyhow::Result<&'a Value> {
    let mut tasks = job["tasks"].as_array().into_iter().flatten();
    tasks.find(|task| task["name"] == name).ok_or_else(|| anyhow!("the job has no task `{name}`"))
}

fn files<'a>(job: &'a Value, name: &str) -> anyhow::Result<&'a Vec<Value>> {
    let files = task(job, name)?["result"]["files"].as_array();
    files.filter(|files| !files.is_empty()).ok_or_else(|| anyhow!("the task `{name}` has no files"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn silent() -> Meter {
    Arc::new(|_| {})
}
