//! `consign serve`: the server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::interrupt::Interrupts;
use super::{Failure, Settings, doctor, print};
use crate::server::{self, Role, Server, network};
use crate::telemetry::{self, traces::Traces};

/// Start the server: the API, and the runner that works on tasks.
///
/// On an empty data directory it makes a first API key and prints it once; with PostgreSQL, which processes share, make one
/// with `consign key create NAME`. It stops gently on Ctrl-C or SIGTERM:
/// uploads, downloads and running tasks get the grace time of `limits.stop_grace`, and tasks are given back after it.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  CONSIGN_PUBLIC_URL=https://consign.example.com CONSIGN_EGRESS__ALLOW=nas.local \\\n    consign serve --listen 0.0.0.0:8080 --data-dir /var/lib/consign"
)]
pub(super) struct Serve {
    #[command(flatten)]
    settings: Settings,
    /// Which parts to run
    #[arg(long, value_enum, default_value = "all")]
    role: Part,
    /// Address of the API, such as 127.0.0.1:8080
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Folder for database, files and secret key
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Part {
    /// API and runner
    All,
    /// The API only
    Api,
    /// The runner only
    Runner,
}

impl Serve {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let mut config = self.settings.load()?;
        config.listen = self.listen.unwrap_or(config.listen);
        config.data_dir = self.data_dir.unwrap_or(config.data_dir);
        let refused = |error: String| Failure::usage(anyhow::anyhow!(error));
        let traces = match network::to_collector(&config)? {
            Some(client) => Traces::start(&config.telemetry, client, &server::host_name()).map_err(refused)?,
            None => None,
        };
        telemetry::logs::start(&config.log, traces.as_ref()).map_err(refused)?;
        let mut interrupts = Interrupts::new()?;
        let role = match self.role {
            Part::All => Role::All,
            Part::Api => Role::Api,
            Part::Runner => Role::Runner,
        };
        let data_dir = config.data_dir.clone();
        let server = Server::start(config, role).await?;
        greet(&server, &data_dir);
        interrupts.next().await;
        print::note("stopping: running tasks get time to end; press Ctrl-C again to stop at once");
        let stop = async {
            server.stop().await;
            if let Some(traces) = traces {
                traces.stop().await;
            }
        };
        tokio::select! {
            () = stop => Ok(ExitCode::SUCCESS),
            // What is under way is recovered at the next start, as after a crash.
            code = interrupts.next() => Ok(code),
        }
    }
}

fn greet(server: &Server, data_dir: &std::path::Path) {
    if server.address().is_some() {
        print::line(format!("Consign is ready at {}", server.public_url()));
    } else {
        print::line("Consign's runner is ready");
    }
    let config = &server.base().config;
    if server.address().is_some_and(|address| config.links_lead_nowhere(address)) {
        print::line(format!("Note: {}", doctor::no_public_url(server.public_url())));
    }
    if let Some(address) = server.sync_address() {
        print::line(format!("Requests to http://{address} wait until their job or task has ended"));
    }
    if let Some(address) = server.metrics_address() {
        print::line(format!("Health and metrics are at http://{address}"));
    }
    if server.lacks_key() {
        print::line("There is no API key yet; make one: consign key create NAME");
    }
    print::line(format!("Data is kept in {}", data_dir.display()));
    if let Some(first) = server.first_key() {
        print::line(format!(
            "\nThis is the first API key; it is not shown again:\n\n  {}\n\nTry it:\n\n  curl -H 'Authorization: Bearer {}' {}/v2/users/me\n\nMore keys: consign key create NAME · the API: {}/docs",
            first.key.expose(),
            first.key.expose(),
            server.public_url(),
            server.public_url(),
        ));
    }
}
