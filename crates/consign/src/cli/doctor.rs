//! `consign doctor`: what works, what does not, what to do.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use connectors::egress::Guard;

use super::{EXIT_FAILED, Failure, Settings, destination, print};
use crate::config::{Config, reference};
use crate::server::ownership::Ownership;
use crate::server::{self, Base, file_store};

/// Below this much free space tasks soon fail.
const FREE_BYTES_MIN: u64 = 1024 * 1024 * 1024;

/// Check this installation: settings, database, file store, secret key, egress rules. Works while the server runs.
///
/// Prints one line a check and what to do about those that fail. Exit code 0 when all passed, 1 when one failed, 2 when
/// the settings themselves are wrong.
///
/// With --destination it tries where a task delivers to instead: it writes a small file there under a name of its own
/// (`consign-test-…`) with all arguments of the task, reads it back and deletes it, says what works, and which right is
/// missing and how to give it. No server is needed. Exit code 0 when the export would work, 1 when not, 2 when the task
/// cannot be read.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  consign doctor --destination task.json\n\nwith task.json, a task as it stands in a job, or the whole job:\n  {\"operation\": \"export/s3\", \"bucket\": \"reports\", \"region\": \"eu-central-1\",\n   \"access_key_id\": \"…\", \"secret_access_key\": \"…\", \"key_prefix\": \"2026/\"}"
)]
pub(super) struct Doctor {
    #[command(flatten)]
    settings: Settings,
    /// Print a settings file with every setting, its meaning and its default, and do nothing else
    #[arg(long)]
    default_config: bool,
    /// Try the destination of this task, or of every export of this job, and do nothing else; `-` reads standard input
    #[arg(long, value_name = "TASK.json", conflicts_with = "default_config")]
    destination: Option<PathBuf>,
    /// Print what was found as JSON on standard output
    #[arg(long, requires = "destination")]
    json: bool,
}

/// How to come by an API key where there is none: processes that share a database make none by themselves.
const NO_KEY: &str = "none yet: `consign serve` makes the first, `consign key create NAME` more";
const NO_KEY_SHARED: &str = "none yet: make one with `consign key create NAME`";

/// Prints checks and counts those that failed.
#[derive(Default)]
struct Report {
    passed: usize,
    failed: usize,
}

impl Report {
    fn good(&mut self, what: &str, detail: impl AsRef<str>) {
        self.passed += 1;
        print::line(format!("  ok    {what:<14} {}", detail.as_ref()));
    }

    fn bad(&mut self, what: &str, detail: impl AsRef<str>) {
        self.failed += 1;
        print::line(format!("  FAIL  {what:<14} {}", detail.as_ref()));
    }
}

/// Prints what is neither good nor bad.
fn note(what: &str, detail: impl AsRef<str>) {
    print::line(format!("  note  {what:<14} {}", detail.as_ref()));
}

impl Doctor {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        if self.default_config {
            print::line(reference::default_file().trim_end());
            return Ok(ExitCode::SUCCESS);
        }
        if let Some(path) = &self.destination {
            return destination::run(&self.settings, path, self.json).await;
        }
        let config = self.settings.load()?;
        print::line(format!("Consign {}\n\nSettings in force (secrets are not shown):", env!("CARGO_PKG_VERSION")));
        let shown = toml::to_string(&serde_json::to_value(&config).map(without_nulls)?)?;
        for line in shown.lines() {
            print::line(format!("  {line}"));
        }
        print::line("\nChecks:");
        let mut report = Report::default();
        let base = check_base(&config, &mut report).await;
        check_files(&config, &mut report).await;
        if let Some(base) = base {
            check_owner(&base, &mut report).await;
            base.store.close().await;
        }
        check_network(&config, &mut report).await;
        if config.links_lead_nowhere(config.listen) {
            note("links", no_public_url(&config.public_url_at(config.listen)));
        }
        note("converters", "none are built in yet: this version imports and exports");
        if report.failed == 0 {
            print::line(format!("\nEverything works: {} checks passed.", report.passed));
            return Ok(ExitCode::SUCCESS);
        }
        print::line(format!("\n{} of the checks failed.", report.failed));
        Ok(ExitCode::from(EXIT_FAILED))
    }
}

/// Warns of links that begin with an address such as 0.0.0.0.
pub(super) fn no_public_url(url: &str) -> String {
    format!("all links begin with {url}, which leads nowhere; set `public_url` to how clients reach the server")
}

/// TOML has no null: a setting without a value is left out.
#[expect(clippy::wildcard_enum_match_arm, reason = "only objects hold settings")]
fn without_nulls(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(map) => serde_json::Value::Object(
            map.into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_nulls(value)))
                .collect(),
        ),
        other => other,
    }
}

async fn check_base(config: &Config, report: &mut Report) -> Option<Base> {
    let base = match Base::open(config.clone(), false).await {
        Ok(base) => base,
        Err(error) => {
            report.bad("database", error.to_string());
            return None;
        }
    };
    report.good("secret key", if config.secret_key.is_some() { "from the settings" } else { "from its file" });
    match base.store.counts(base.clock.now()).await {
        Ok(counts) => {
            report.good("database", base.store.describe());
            if counts.keys == 0 {
                note("API keys", if base.is_shared { NO_KEY_SHARED } else { NO_KEY });
            } else {
                report.good("API keys", format!("{} valid, {} users", counts.keys, counts.users));
            }
            report.good(
                "queue",
                format!(
                    "{} waiting, {} queued, {} running, {} to be tried again, {} uploads open at destinations",
                    counts.waiting, counts.queued, counts.running, counts.delayed, counts.open_uploads
                ),
            );
        }
        Err(error) => {
            report.bad("database", format!("{error}; check that the disk is not full and the file is writable"));
        }
    }
    Some(base)
}

/// Whether the files belong to the database. What fails here has been told before.
async fn check_owner(base: &Base, report: &mut Report) {
    let Ok(files) = base.files().await else { return };
    match server::ownership::of(base.store.as_ref(), &files).await {
        Ok(Ownership::Ours) => report.good("files", "belong to this database"),
        Ok(Ownership::Foreign(stranger)) => report.bad("files", stranger.to_string()),
        Err(_) => {}
    }
}

async fn check_files(config: &Config, report: &mut Report) {
    let root = match file_store::place(config) {
        Ok(file_store::Place::Folder(root)) => root,
        Ok(file_store::Place::Bucket(address)) => return check_bucket(config, &address.shown(), report).await,
        Err(error) => return report.bad("file store", error.to_string()),
    };
    if let Err(error) = server::make_private_folder(&root) {
        return report.bad("file store", error.to_string());
    }
    let probe = root.join(format!(".doctor-{:08x}", rand::random::<u32>()));
    let tried = async {
        tokio::fs::write(&probe, b"probe").await?;
        tokio::fs::remove_file(&probe).await
    };
    if let Err(error) = tried.await {
        let shown = root.display();
        return report.bad("file store", format!("{shown} cannot be written: {error}; give its folder to this user"));
    }
    let free = free_bytes(&root);
    let detail = format!("{}, {} free", root.display(), bytesize::ByteSize(free));
    if free < FREE_BYTES_MIN {
        report.bad("file store", format!("{detail}; make room, tasks will fail with STORAGE_FULL"));
    } else {
        report.good("file store", detail);
    }
}

/// Tries all rights on the bucket that a file store needs.
async fn check_bucket(config: &Config, shown: &str, report: &mut Report) {
    let tried = match file_store::open(config, &connectors::Budget::default()).await {
        Ok(files) => files.probe().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match tried {
        Ok(()) => report.good("file store", format!("{shown} takes files, gives them back, lists and removes them")),
        Err(error) => {
            report.bad("file store", format!("{shown}: {error}; check `files_url` and the settings `files.…`"));
        }
    }
}

fn free_bytes(path: &Path) -> u64 {
    rustix::fs::statvfs(path).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize))
}

async fn check_network(config: &Config, report: &mut Report) {
    if let Err(error) = server::network::open(config) {
        return report.bad("egress", error.to_string());
    }
    match server::tls::Certificate::open(&config.tls) {
        Ok(Some(_)) => report.good("tls", "certificate and key can be used"),
        Ok(None) => note("tls", "none: the server speaks plain HTTP"),
        Err(error) => report.bad("tls", error.to_string()),
    }
    if config.egress.allow.is_empty() {
        report.good("egress", "public addresses only; `egress.allow` adds private ones");
    } else {
        report.good("egress", format!("public addresses, and {}", config.egress.allow.join(", ")));
    }
    // Shows that the guard is in force: the address where clouds keep their credentials is refused unless allowed.
    match Guard::new([]).check("169.254.169.254", 80).await {
        Err(_) => report.good("egress guard", "refuses private addresses that are not allowed"),
        Ok(_) => report.bad("egress guard", "lets a link-local address through; do not run this build"),
    }
}
