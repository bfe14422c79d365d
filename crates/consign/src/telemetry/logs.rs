//! Logs on standard error, as text or as one JSON object a line.

use std::io::IsTerminal as _;

use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, registry};

use super::json::Flat;
use super::traces::Traces;
use crate::config::Log;

/// Libraries that log requests, headers or packets when they are asked for details: whatever `log.level` says, these
/// levels hold, because what they log may hold credentials.
const QUIET: [&str; 6] = ["aws_sigv4=info", "h2=info", "hyper=info", "russh=info", "russh_sftp=info", "s3s=off"];

/// Starts logging, and hands spans to whoever collects traces.
///
/// # Errors
/// A sentence when `log.level` cannot be read. Logging that was started before stays as it is.
pub fn start(settings: &Log, traces: Option<&Traces>) -> Result<(), String> {
    let filter = EnvFilter::try_new(&settings.level).map_err(|error| {
        format!("log.level: `{}` cannot be read ({error}); give `info`, or `info,consign=debug`", settings.level)
    })?;
    let filter = QUIET.into_iter().filter_map(|quiet| quiet.parse().ok()).fold(filter, EnvFilter::add_directive);
    let lines = layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
    let lines = if settings.json {
        lines.fmt_fields(JsonFields::new()).event_format(Flat).with_filter(filter).boxed()
    } else {
        lines.with_filter(filter).boxed()
    };
    if registry().with(traces.map(Traces::layer)).with(lines).try_init().is_err() {
        tracing::debug!("logging was started before");
    }
    Ok(())
}
