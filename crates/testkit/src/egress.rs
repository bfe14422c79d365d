//! The corpus of hosts that must be refused, in every spelling, for whatever takes a host from a client: URLs,
//! redirects, endpoints, SSH hosts, webhooks.

use std::net::IpAddr;

const CORPUS: &str = include_str!("../data/egress-corpus.txt");

/// One spelling of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// As a client would write it; IPv6 without brackets.
    pub host: &'static str,
    /// The address that it means, or nothing where it is no host at all.
    pub address: Option<IpAddr>,
}

impl Form {
    /// The host as it stands in a URL: an IPv6 address in brackets.
    pub fn in_url(&self) -> String {
        if self.host.contains(':') && self.host.parse::<IpAddr>().is_ok() {
            format!("[{}]", self.host)
        } else {
            self.host.to_owned()
        }
    }
}

/// Addresses, in every spelling, that are refused unless the operator allowed them, and what is no host at all.
pub fn forbidden() -> Vec<Form> {
    part("")
}

/// Names that are refused when a resolver answers with the given address.
pub fn forbidden_names() -> Vec<Form> {
    part("@names")
}

/// Addresses that need no permission.
pub fn public() -> Vec<Form> {
    part("@public")
}

fn part(wanted: &str) -> Vec<Form> {
    let mut part = "";
    let mut forms = Vec::new();
    for line in CORPUS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('@') {
            part = line;
        } else if part == wanted {
            let (host, address) = line.split_once(' ').expect("every line has two columns");
            let address = match address.trim() {
                "-" => None,
                address => Some(address.parse().expect("the second column is an address")),
            };
            forms.push(Form { host, address });
        }
    }
    forms
}
