//! Logs on standard error, as text or as one JSON object a line.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::Log;

/// Libraries that log requests, headers or packets when they are asked for details: whatever `log.level` says, these
/// levels hold, because what they log may hold credentials.
const QUIET: [&str; 6] = ["aws_sigv4=info", "h2=info", "hyper=info", "russh=info", "russh_sftp=info", "s3s=off"];

/// Starts logging.
///
/// # Errors
/// A sentence when `log.level` cannot be read. Logging that was started before stays as it is.
pub fn start(settings: &Log) -> Result<(), String> {
    let filter = EnvFilter::try_new(&settings.level).map_err(|error| {
        format!("log.level: `{}` cannot be read ({error}); give `info`, or `info,consign=debug`", settings.level)
    })?;
    let filter = QUIET.into_iter().filter_map(|quiet| quiet.parse().ok()).fold(filter, EnvFilter::add_directive);
    let is_terminal = std::io::stderr().is_terminal();
    let lines = fmt().with_env_filter(filter).with_ansi(is_terminal).with_writer(std::io::stderr);
    let started = if settings.json { lines.json().finish().try_init() } else { lines.finish().try_init() };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
    Ok(())
}
