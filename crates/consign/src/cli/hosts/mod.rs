//! `consign hosts`: what is needed to bring programs that were written for the hosted service to this server.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Failure, print};
use crate::clock::Clock;

mod certificates;

/// The guide, with places for what differs from machine to machine.
const GUIDE: &str = include_str!("guide.md");

/// Make certificates for the hosted service's host names, and print how to point existing programs at this server.
///
/// Makes a private certificate authority that can speak for those names only, and a certificate for this server, in a
/// folder. Run again, it keeps the authority and renews the certificate; a running server takes it up by itself. Then prints,
/// for each language, the exact lines: the client's own option where it has one, else host names and trust.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  consign hosts --folder /etc/consign/hosts --address 192.168.1.20 > drop-in.md")]
pub(super) struct Hosts {
    /// Folder for the certificates
    #[arg(long, value_name = "FOLDER", default_value = "./consign-hosts")]
    folder: PathBuf,
    /// Address of the server as the programs reach it
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    address: IpAddr,
}

impl Hosts {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let is_new = certificates::make(&self.folder, Clock::system().now())?;
        let folder = self.folder.canonicalize()?;
        let what = if is_new { "made an authority and a certificate" } else { "renewed the certificate" };
        print::note(format!("{what} in {}", folder.display()));
        print::line(guide(&folder.display().to_string(), &self.address.to_string()).trim_end());
        Ok(ExitCode::SUCCESS)
    }
}

/// The guide for certificates in `folder` and a server at `address`.
pub fn guide(folder: &str, address: &str) -> String {
    let shown = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let entries: Vec<String> = certificates::NAMES.iter().map(|name| format!("{address} {name}")).collect();
    GUIDE.replace("{folder}", folder).replace("{address}", &shown).replace("{entries}", &entries.join("\n"))
}
