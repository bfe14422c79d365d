//! The guarded network that the settings describe.

use std::time::Duration;

use connectors::egress::{Guard, Rule};
use connectors::{Limits, Network, http};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::Error;
use crate::config::Config;

/// Opens the way out.
///
/// # Errors
/// [`Error::Setting`] when a rule or a certificate cannot be read.
pub fn open(config: &Config) -> Result<Network, Error> {
    let rules: Result<Vec<Rule>, _> = config.egress.allow.iter().map(|entry| entry.parse()).collect();
    let rules = rules.map_err(|error| Error::Setting(format!("egress.allow: {error}")))?;
    behind(config, Guard::new(rules))
}

/// Opens the way to the file store: to public addresses, and to the hosts and ports of the URLs that `files_url` names, not
/// to what tasks may reach. `bucket` may stand in front of the host.
///
/// # Errors
/// [`Error::Setting`] when a URL or a certificate cannot be read.
pub(super) fn for_files(config: &Config, named: &[String], bucket: Option<&str>) -> Result<Network, Error> {
    let mut rules: Vec<Rule> = Vec::new();
    for text in named {
        let refused =
            || Error::Setting("files_url: an address in it is not a host name or an http or https URL".to_owned());
        let whole = if text.contains("://") { text.clone() } else { format!("https://{text}") };
        let url = url::Url::parse(&whole).map_err(|_| refused())?;
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return Err(refused()) };
        rules.push(format!("{host}:{port}").parse().map_err(|_| refused())?);
        if let Some(bucket) = bucket {
            rules.extend(format!("{bucket}.{host}:{port}").parse::<Rule>());
        }
    }
    behind(config, Guard::new(rules))
}

fn behind(config: &Config, guard: Guard) -> Result<Network, Error> {
    let transfer = &config.transfer;
    let limits = Limits {
        part_bytes: transfer.part_bytes.as_u64(),
        parts_in_flight: transfer.parts_in_flight as usize,
        segment_bytes: config.swift.segment_bytes.as_u64(),
        tries: transfer.tries,
        connect_timeout: transfer.connect_timeout.0.max(Duration::from_millis(1)),
        idle_timeout: transfer.idle_timeout.0.max(Duration::from_millis(1)),
    };
    let tls =
        http::tls_config(&trusted(config)?).map_err(|error| Error::Setting(format!("egress.ca_file: {error}")))?;
    Ok(Network::new(guard, tls, limits, config.limits.transfers_per_host_max as usize))
}

/// Opens a way out for traces: to public addresses, as every way out, and to the collector of the settings, which is allowed by
/// being named there. Nothing else is ever sent this way.
///
/// # Errors
/// [`Error::Setting`] when the collector's address or a certificate cannot be read.
pub fn to_collector(config: &Config) -> Result<Option<http::Client>, Error> {
    let Some(endpoint) = &config.telemetry.otlp_endpoint else { return Ok(None) };
    let bad = || Error::Setting("telemetry.otlp_endpoint: give a URL such as `http://collector:4318`".to_owned());
    let url = url::Url::parse(endpoint.expose()).map_err(|_| bad())?;
    let host = url.host_str().ok_or_else(bad)?;
    let rule = match url.port_or_known_default() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    let guard = Guard::new([rule.parse::<Rule>().map_err(|_| bad())?]);
    let tls =
        http::tls_config(&trusted(config)?).map_err(|error| Error::Setting(format!("egress.ca_file: {error}")))?;
    Ok(Some(http::Client::new(guard, tls, &Limits::default())))
}

fn trusted(config: &Config) -> Result<Vec<CertificateDer<'static>>, Error> {
    let Some(path) = &config.egress.ca_file else { return Ok(Vec::new()) };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates =
        read.map_err(|error| Error::Setting(format!("egress.ca_file: {} cannot be read: {error}", path.display())))?;
    if certificates.is_empty() {
        return Err(Error::Setting(format!("egress.ca_file: {} holds no certificate", path.display())));
    }
    Ok(certificates)
}
