//! Reads the settings from their four places, and says which key is wrong and where it stood.

use std::path::Path;
use std::time::Duration;

use connectors::egress::Rule;
use figment::Figment;
use figment::error::{Error as FigmentError, Kind};
use figment::providers::{Env, Serialized};
use figment::value::{Dict, Map};
use figment::{Metadata, Profile, Provider};
use schemars::schema_for;
use serde_json::Value;

use super::Config;
use super::limits::REQUEST_BYTES_LIMIT;
use crate::secret::without_credentials;

/// Prefix of environment variables.
const PREFIX: &str = "CONSIGN_";
/// Shorter than that a period of time makes no sense.
const PERIOD_MIN: Duration = Duration::from_secs(1);
/// What begins with these is for the project's own scripts.
const NOT_SETTINGS: [&str; 4] = ["test_", "ci_", "bench_", "key"];

/// Settings whose values are never quoted.
const SECRETS: [&str; 9] = [
    "secret_key",
    "database_url",
    "files_url",
    "files.secret_access_key",
    "files.session_token",
    "files.storage_access_key",
    "files.sas_token",
    "files.private_key",
    "telemetry.otlp",
];

/// A setting that cannot be used: one sentence a fault, each with its key and where it stood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct BadConfig(pub Vec<String>);

impl Config {
    /// Loads the settings: defaults, then `file`, then the environment.
    ///
    /// # Errors
    /// [`BadConfig`] with every fault that could be found at once.
    pub fn load(file: Option<&Path>) -> Result<Self, BadConfig> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = file {
            figment = figment.merge(SettingsFile::read(file)?);
        }
        let environment = Env::prefixed(PREFIX)
            .filter(|key| !NOT_SETTINGS.iter().any(|prefix| key.as_str().to_ascii_lowercase().starts_with(prefix)))
            .split("__");
        let mut config: Self = figment
            .merge(environment)
            .extract()
            .map_err(|error| BadConfig(error.into_iter().map(|error| sentence(&error)).collect()))?;
        config.read_files()?;
        config.check()?;
        Ok(config)
    }

    /// Reads settings that stand in files of their own.
    fn read_files(&mut self) -> Result<(), BadConfig> {
        if let (None, Some(path)) = (&self.database_url, &self.database_url_file) {
            let text = std::fs::read_to_string(path).map_err(|error| {
                BadConfig(vec![format!("database_url_file: cannot read {}: {error}", path.display())])
            })?;
            self.database_url = Some(connectors::Secret::new(text.trim()));
        }
        Ok(())
    }

    /// Checks what a type cannot say.
    fn check(&self) -> Result<(), BadConfig> {
        let mut faults = Vec::new();
        for entry in &self.egress.allow {
            if let Err(error) = entry.parse::<Rule>() {
                faults.push(format!("egress.allow: {error}"));
            }
        }
        if let Some(url) = &self.public_url
            && !url::Url::parse(url).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        {
            let shown = without_credentials(url);
            faults
                .push(format!("public_url: `{shown}` is not an http or https URL such as `https://files.example.com`"));
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            faults.push("tls: `cert` and `key` belong together; give both or neither".to_owned());
        }
        if self.secret_key.is_some() && self.secret_key_file.is_some() {
            faults.push(given_twice("secret_key"));
        }
        faults.extend(self.files.given_twice().map(|key| given_twice(&format!("files.{key}"))));
        for (key, value) in self.limits.counts().into_iter().chain(self.transfer.counts()) {
            if value == 0 {
                faults.push(format!("{key}: must be at least 1"));
            }
        }
        faults.extend(self.telemetry.faults());
        if self.limits.request_bytes_max.as_u64() > REQUEST_BYTES_LIMIT {
            faults.push("limits.request_bytes_max: must be 256 MiB at the most".to_owned());
        }
        if self.swift.segment_bytes.as_u64() == 0 {
            faults.push("swift.segment_bytes: must be at least 1 B".to_owned());
        }
        for (key, period) in [
            ("retention", self.retention),
            ("limits.task_timeout", self.limits.task_timeout),
            ("limits.upload_lifetime", self.limits.upload_lifetime),
            ("limits.wait_max", self.limits.wait_max),
            ("transfer.connect_timeout", self.transfer.connect_timeout),
            ("transfer.idle_timeout", self.transfer.idle_timeout),
        ] {
            if period.0 < PERIOD_MIN {
                faults.push(format!("{key}: must be at least 1 s"));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(BadConfig(faults)) }
    }
}

/// Says that a secret is given as itself and as a file. Either may come from a settings file, or from the environment, where
/// a unit sets it that the operator does not look at.
pub(super) fn given_twice(key: &str) -> String {
    let name = variable(key);
    format!("{key}: give either `{key}` ({name} in the environment) or `{key}_file` ({name}_FILE), not both")
}

/// The environment variable of a setting.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_ascii_uppercase())
}

/// What a settings file says. It is parsed here and not by the library, which shows the lines that it cannot parse:
/// they may hold a secret.
struct SettingsFile<'a> {
    path: &'a Path,
    table: toml::Table,
}

impl<'a> SettingsFile<'a> {
    fn read(path: &'a Path) -> Result<Self, BadConfig> {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| BadConfig(vec![format!("the settings file {shown} cannot be read: {error}")]))?;
        let table = text.parse().map_err(|error: toml::de::Error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            BadConfig(vec![format!(
                "the settings file {shown} is not TOML: line {line}, column {column}: {}",
                error.message()
            )])
        })?;
        Ok(Self { path, table })
    }
}

impl Provider for SettingsFile<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::from("TOML file", self.path)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, FigmentError> {
        Serialized::defaults(&self.table).data()
    }
}

/// Says what is wrong with which key, and where it stood.
#[expect(clippy::wildcard_enum_match_arm, reason = "the library's own words do for all other kinds")]
fn sentence(error: &FigmentError) -> String {
    let path = error.path.join(".");
    let place = match &error.metadata {
        Some(metadata) if metadata.name.contains("environment") => {
            format!(" in the environment ({})", variable(&path))
        }
        Some(metadata) => match &metadata.source {
            Some(source) => format!(" in {source}"),
            None => format!(" in {}", metadata.name),
        },
        None => String::new(),
    };
    match &error.kind {
        Kind::UnknownField(field, _) => {
            let prefix = path.strip_suffix(field.as_str()).unwrap_or(&path).trim_end_matches('.');
            let key = if prefix.is_empty() { field.clone() } else { format!("{prefix}.{field}") };
            match closest(&key) {
                Some(known) => format!("there is no setting `{key}`{place}; did you mean `{known}`?"),
                None => {
                    format!("there is no setting `{key}`{place}; `consign doctor --default-config` lists all settings")
                }
            }
        }
        // The library quotes what it read.
        _ if SECRETS.iter().any(|secret| path.starts_with(secret)) => format!("{path}{place}: this must be a text"),
        kind => format!("{}{place}: {kind}", if path.is_empty() { "settings" } else { &path }),
    }
}

/// The known key that is spelled most like this one: in the same section, or anywhere for a key without one.
fn closest(key: &str) -> Option<String> {
    let section = key.rsplit_once('.').map(|(section, _)| section);
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    keys()
        .into_iter()
        .filter(|known| section.is_none_or(|section| known.rsplit_once('.').is_some_and(|(place, _)| place == section)))
        .map(|known| (strsim::jaro_winkler(&last(key), &last(&known)), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// All keys with dots, in the order of the types.
pub fn keys() -> Vec<String> {
    let schema = schema_for!(Config).to_value();
    let mut keys = Vec::new();
    collect(&schema, &schema, "", &mut keys);
    keys
}

fn collect(root: &Value, schema: &Value, prefix: &str, keys: &mut Vec<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let key = format!("{prefix}{name}");
        match section(root, property) {
            Some(section) => collect(root, section, &format!("{key}."), keys),
            None => keys.push(key),
        }
    }
}

/// The schema of a section, if this property is one.
pub(super) fn section<'a>(root: &'a Value, property: &Value) -> Option<&'a Value> {
    let name = property["$ref"].as_str()?.strip_prefix("#/$defs/")?;
    let definition = &root["$defs"][name];
    definition["properties"].is_object().then_some(definition)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_bounded_by_what_a_backup_can_hold() {
        for (bytes, is_fine) in [(REQUEST_BYTES_LIMIT, true), (REQUEST_BYTES_LIMIT + 1, false)] {
            let mut config = Config::default();
            config.limits.request_bytes_max = bytesize::ByteSize(bytes);
            assert_eq!(config.check().is_ok(), is_fine, "{bytes}");
        }
    }

    #[test]
    fn a_secret_that_is_given_twice_is_named_with_both_its_variables() {
        let mut config = Config { secret_key_file: Some("a".into()), ..Config::default() };
        config.secret_key = Some(connectors::Secret::new("needle"));
        config.files.secret_access_key = Some(connectors::Secret::new("needle"));
        config.files.secret_access_key_file = Some("b".into());
        config.telemetry.otlp_headers = Some(connectors::Secret::new("needle"));
        config.telemetry.otlp_headers_file = Some("c".into());
        let said = config.check().unwrap_err().to_string();
        for name in ["SECRET_KEY", "FILES__SECRET_ACCESS_KEY", "TELEMETRY__OTLP_HEADERS"] {
            assert!(said.contains(&format!("(CONSIGN_{name} in the environment)")), "{said}");
            assert!(said.contains(&format!("(CONSIGN_{name}_FILE)")), "{said}");
        }
        assert!(!said.contains("needle"), "{said}");
    }
}
