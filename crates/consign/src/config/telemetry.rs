//! Traces for an OpenTelemetry collector.

use std::path::PathBuf;

use connectors::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::load::given_twice;
use super::{address, redacted};

/// Traces for an OpenTelemetry collector.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// Collector that takes traces, OTLP over HTTP with protobuf: `http://collector:4318`. None: no traces.
    #[serde(serialize_with = "address", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub otlp_endpoint: Option<Secret>,
    /// Headers to send along, `name=value` with commas between them, such as a key for the collector.
    #[serde(serialize_with = "redacted", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub otlp_headers: Option<Secret>,
    /// File that holds `otlp_headers`.
    pub otlp_headers_file: Option<PathBuf>,
    /// Which part of the jobs and requests is traced: 1 for all, 0.01 for every hundredth.
    pub sample_ratio: f64,
    /// What this program is called there.
    pub service_name: String,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            otlp_headers: None,
            otlp_headers_file: None,
            sample_ratio: 1.0,
            service_name: "consign".to_owned(),
        }
    }
}

impl Telemetry {
    /// What is wrong with these settings.
    pub(super) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(endpoint) = &self.otlp_endpoint {
            let is_fine = url::Url::parse(endpoint.expose()).is_ok_and(|url| {
                let is_bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
                matches!(url.scheme(), "http" | "https") && url.has_host() && is_bare
            });
            if !is_fine {
                faults.push(
                    "telemetry.otlp_endpoint: give an http or https URL without user info and query, such as \
                     `http://collector:4318`; keys belong into telemetry.otlp_headers"
                        .to_owned(),
                );
            }
        }
        if self.otlp_headers.is_some() && self.otlp_headers_file.is_some() {
            faults.push(given_twice("telemetry.otlp_headers"));
        }
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            faults.push("telemetry.sample_ratio: must be between 0 and 1".to_owned());
        }
        faults
    }
}
