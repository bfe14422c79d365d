//! The catalogue of a token: where the object store of a region is.

use std::collections::BTreeSet;

use url::Url;

use super::LOG_IN;
use crate::address::is_plain;
use crate::error::{Error, Kind, Result};

/// The type under which object stores stand in a catalogue.
pub(super) const OBJECT_STORE: &str = "object-store";

/// The public endpoints of the object stores, in the order of the catalogue.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    endpoints: Vec<Endpoint>,
}

#[derive(Debug)]
struct Endpoint {
    region: String,
    url: String,
}

impl Catalogue {
    pub(super) fn add(&mut self, region: impl Into<String>, url: impl Into<String>) {
        self.endpoints.push(Endpoint { region: region.into(), url: url.into() });
    }

    /// Takes in what another project's catalogue has.
    pub(super) fn extend(&mut self, other: Self) {
        self.endpoints.extend(other.endpoints);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// The URL of the account in that region, without a slash at its end.
    pub(super) fn find(&self, region: &str) -> Result<String> {
        let found = self.endpoints.iter().find(|endpoint| endpoint.region == region);
        let Some(endpoint) = found else { return Err(self.unknown(region)) };
        if let Some(url) = Url::parse(&endpoint.url).ok().filter(is_plain) {
            // As it was read: other letters in the host are written in ASCII.
            Ok(url.as_str().trim_end_matches('/').to_owned())
        } else {
            let detail = format!("the catalogue has no usable address for the object store in the region `{region}`");
            Err(Error::new(Kind::Protocol, LOG_IN, detail))
        }
    }

    fn unknown(&self, region: &str) -> Error {
        let regions: BTreeSet<&str> = self.endpoints.iter().map(|endpoint| endpoint.region.as_str()).collect();
        let detail = if regions.is_empty() {
            "the catalogue has no object store for this project; check the project".to_owned()
        } else {
            let list = regions.into_iter().map(|region| format!("`{region}`")).collect::<Vec<_>>().join(", ");
            format!("the catalogue has no object store in the region `{region}`; set `region` to one of {list}")
        };
        Error::new(Kind::InvalidRequest, LOG_IN, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_decides_and_others_are_named() {
        let mut catalogue = Catalogue::default();
        catalogue.add("b", "https://b.example/v1/AUTH_x/");
        catalogue.add("a", "ftp://a.example/v1");
        assert_eq!(catalogue.find("b").unwrap(), "https://b.example/v1/AUTH_x");
        catalogue.add("d", "http://１27.0.0.1:80/v1");
        assert_eq!(catalogue.find("d").unwrap(), "http://127.0.0.1/v1");
        assert_eq!(catalogue.find("a").unwrap_err().kind, Kind::Protocol);
        let error = catalogue.find("c").unwrap_err();
        assert_eq!(error.kind, Kind::InvalidRequest);
        assert!(error.detail.ends_with("set `region` to one of `a`, `b`, `d`"), "{}", error.detail);
        assert!(Catalogue::default().find("c").unwrap_err().detail.contains("check the project"));
    }
}
