//! Headers that a client gives to be sent along: their values are secrets.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::Faults;
use crate::secret::Secret;

/// Says which of the headers cannot be sent.
pub(super) fn check(headers: &BTreeMap<String, Secret>, faults: &mut Faults) {
    for (name, value) in headers {
        if header(name, value).is_none() {
            faults.add(format!("headers.{name}"), "This is no header: check for spaces and line breaks.");
        }
    }
}

/// The headers as they are sent, their values marked as sensitive.
pub(super) fn read(headers: &BTreeMap<String, Secret>) -> HeaderMap {
    headers.iter().filter_map(|(name, value)| header(name, value)).collect()
}

fn header(name: &str, value: &Secret) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
    let mut value = HeaderValue::from_bytes(value.expose().trim().as_bytes()).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_sensitive() {
        let (name, value) = header(" X-Key ", &Secret::new("k")).unwrap();
        assert!(name == "x-key" && value.is_sensitive());
    }
}
