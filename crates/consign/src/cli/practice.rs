//! `consign practice`: an S3 and an SFTP server on this machine, to try deliveries without any account.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use practice::{Practice, Settings};
use serde_json::json;

use super::interrupt::Interrupts;
use super::{Failure, print};

/// Start an S3 and an SFTP server on this machine, to try deliveries without any account.
///
/// They speak the real protocols, check credentials, and keep what they get as plain files in a folder. They listen
/// on loopback addresses only. Prints the tasks that deliver to them, ready to paste, and the setting that lets a
/// server of yours reach them. Stops on Ctrl-C; the files stay.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  consign practice --folder /tmp/practice        (in one terminal)\n  CONSIGN_EGRESS__ALLOW=127.0.0.1 consign serve  (in another)"
)]
pub(super) struct PracticeCommand {
    /// Folder for what is delivered
    #[arg(long, value_name = "FOLDER", default_value = "./consign-practice")]
    folder: PathBuf,
    /// Port of the S3 server; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 9000)]
    s3_port: u16,
    /// Port of the SFTP server; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 2222)]
    sftp_port: u16,
}

impl PracticeCommand {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let mut interrupts = Interrupts::new()?;
        let servers = start(self.folder, self.s3_port, self.sftp_port).await?;
        print::line(describe(&servers));
        interrupts.next().await;
        servers.stop().await;
        Ok(ExitCode::SUCCESS)
    }
}

/// Starts both servers.
pub(super) async fn start(folder: PathBuf, s3_port: u16, sftp_port: u16) -> Result<Practice, Failure> {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let settings = Settings { s3_listen: local(s3_port), sftp_listen: local(sftp_port), ..Settings::new(folder) };
    Ok(Practice::start(settings).await?)
}

/// The setting that lets a server reach both, and nothing else.
pub(super) fn allowed(servers: &Practice) -> Vec<String> {
    vec![servers.s3_addr().to_string(), servers.sftp_addr().to_string()]
}

/// Arguments of an `export/s3` task that delivers to the practice bucket.
pub(super) fn s3_task(servers: &Practice, input: &serde_json::Value, prefix: &str) -> serde_json::Value {
    json!({
        "operation": "export/s3",
        "input": input,
        "endpoint": servers.s3_endpoint(),
        "region": servers.region(),
        "bucket": servers.bucket(),
        "access_key_id": servers.access_key_id(),
        "secret_access_key": servers.secret_access_key(),
        "key_prefix": prefix,
    })
}

/// Arguments of an `export/sftp` task that delivers to the practice folder.
pub(super) fn sftp_task(servers: &Practice, input: &serde_json::Value, path: &str) -> serde_json::Value {
    json!({
        "operation": "export/sftp",
        "input": input,
        "host": servers.sftp_addr().ip().to_string(),
        "port": servers.sftp_addr().port(),
        "username": servers.username(),
        "password": servers.password(),
        "host_key": servers.host_key_fingerprint(),
        "path": path,
    })
}

fn describe(servers: &Practice) -> String {
    let input = json!("file");
    let pretty = |task: &serde_json::Value| format!("{task:#}").replace('\n', "\n  ");
    format!(
        "Practice storages are ready; press Ctrl-C to stop them.\n\n\
         S3    {s3}, bucket `{bucket}`; objects appear in {bucket_folder}\n\
         SFTP  {sftp}, user `{user}`; files appear in {sftp_folder}\n\n\
         Let a server reach them (it refuses private addresses otherwise):\n\n  \
         CONSIGN_EGRESS__ALLOW={allow} consign serve\n\n\
         Tasks to paste into a job; `file` is the name of the task whose files are delivered:\n\n  \
         \"to-s3\": {s3_task},\n  \"to-sftp\": {sftp_task}\n\n\
         The SFTP server takes this private key as well as the password:\n\n{key}",
        s3 = servers.s3_endpoint(),
        bucket = servers.bucket(),
        bucket_folder = servers.bucket_folder().display(),
        sftp = servers.sftp_addr(),
        user = servers.username(),
        sftp_folder = servers.sftp_root().display(),
        allow = allowed(servers).join(","),
        s3_task = pretty(&s3_task(servers, &input, "inbox/")),
        sftp_task = pretty(&sftp_task(servers, &input, "inbox")),
        key = servers.private_key(),
    )
}
