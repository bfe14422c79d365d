//! Where the bucket is: the service's address, and whether the bucket stands in the host name or in the path.

use std::sync::atomic::{AtomicBool, Ordering};

use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use url::Host;

use super::Config;
use crate::address::{self, ESCAPED, ESCAPED_IN_PATH};
use crate::error::{Error, Result};

/// Where the name of the bucket stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Addressing {
    /// In the host name at Amazon, in the path elsewhere; the other one where the service says that it wants it.
    #[default]
    Auto,
    /// In the path: `https://endpoint/bucket/key`.
    Path,
    /// In the host name: `https://bucket.endpoint/key`.
    VirtualHost,
}

/// The address of a bucket.
#[derive(Debug)]
pub(super) struct Endpoint {
    scheme: String,
    host: String,
    port: Option<u16>,
    /// Path in front of everything, without a slash at its end.
    base: String,
    bucket: String,
    is_virtual: AtomicBool,
    may_switch: bool,
}

impl Endpoint {
    /// Works the address out of bucket, region and endpoint.
    pub(super) fn new(config: &Config) -> Result<Self> {
        let text = match address::given(config.endpoint.as_deref()) {
            None => default_endpoint(&config.region)?,
            Some(text) => text.to_owned(),
        };
        let url = address::read(&text, "`endpoint` must be a host name or a URL such as https://s3.example.com")?;
        let bucket = config.bucket.as_str();
        if bucket.is_empty() || matches!(bucket, "." | "..") || bucket.contains('/') {
            return Err(Error::argument("`bucket` must be the name of a bucket, without a path"));
        }
        let can_be_virtual = matches!(url.host(), Some(Host::Domain(_))) && is_dns_label(bucket);
        let host_text = url.host_str().unwrap_or_default().to_owned();
        let is_amazon = host_text.ends_with(".amazonaws.com") || host_text.ends_with(".amazonaws.com.cn");
        let is_virtual = match config.addressing {
            Addressing::Auto => is_amazon && can_be_virtual,
            Addressing::Path => false,
            Addressing::VirtualHost if can_be_virtual => true,
            Addressing::VirtualHost => {
                return Err(Error::argument(
                    "this bucket or endpoint cannot be addressed with the bucket in the host name",
                ));
            }
        };
        Ok(Self {
            scheme: url.scheme().to_owned(),
            host: host_text,
            port: url.port(),
            base: url.path().trim_end_matches('/').to_owned(),
            bucket: bucket.to_owned(),
            is_virtual: AtomicBool::new(is_virtual),
            may_switch: can_be_virtual && !is_virtual && config.addressing == Addressing::Auto,
        })
    }

    /// The absolute URL of the bucket or of one of its objects.
    pub(super) fn url(&self, key: Option<&str>, query: &[(&str, String)]) -> String {
        let mut url = format!("{}://", self.scheme);
        let in_host = self.is_virtual();
        if in_host {
            url.extend([self.bucket.as_str(), "."]);
        }
        url.push_str(&self.host);
        if let Some(port) = self.port {
            url.extend([":", &port.to_string()]);
        }
        url.push_str(&self.base);
        if !in_host {
            url.push('/');
            url.extend(utf8_percent_encode(&self.bucket, ESCAPED));
        }
        if key.is_some() || in_host {
            url.push('/');
        }
        url.extend(utf8_percent_encode(key.unwrap_or_default(), ESCAPED_IN_PATH));
        address::push_query(&mut url, query.iter().map(|(name, value)| (*name, value.as_str())));
        url
    }

    /// Whether the bucket stands in the host name.
    pub(super) fn is_virtual(&self) -> bool {
        self.is_virtual.load(Ordering::Relaxed)
    }

    /// Puts the bucket into the host name, where that is possible and left open.
    pub(super) fn switch(&self) -> bool {
        self.may_switch && !self.is_virtual.swap(true, Ordering::Relaxed)
    }

    pub(super) fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Host and port, for people.
    pub(super) fn shown(&self) -> String {
        self.port.map_or_else(|| self.host.clone(), |port| format!("{}:{port}", self.host))
    }
}

/// # Source
/// AWS General Reference, "Amazon Simple Storage Service endpoints and quotas".
fn default_endpoint(region: &str) -> Result<String> {
    if !is_dns_label(region) {
        return Err(Error::argument("`region` must be a region such as eu-west-1"));
    }
    let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    Ok(format!("https://s3.{region}.{suffix}"))
}

fn is_dns_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (3..=63).contains(&text.len()) && text.bytes().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn url(endpoint: Option<&str>, region: &str, bucket: &str, addressing: Addressing) -> Result<String> {
        let config = Config {
            bucket: bucket.to_owned(),
            region: region.to_owned(),
            endpoint: endpoint.map(str::to_owned),
            addressing,
            ..Config::default()
        };
        Ok(Endpoint::new(&config)?.url(Some("a//b +ü"), &[("uploadId", "x/y".to_owned())]))
    }

    #[test]
    fn urls_are_built_for_every_kind_of_endpoint() {
        use Addressing::{Auto, Path, VirtualHost};
        let rest = "a//b%20%2B%C3%BC?uploadId=x%2Fy";
        for (endpoint, region, bucket, addressing, expected) in [
            (None, "eu-west-1", "bkt", Auto, "https://bkt.s3.eu-west-1.amazonaws.com/"),
            (None, "eu-west-1", "b.k.t", Auto, "https://s3.eu-west-1.amazonaws.com/b.k.t/"),
            (None, "cn-north-1", "bkt", Auto, "https://bkt.s3.cn-north-1.amazonaws.com.cn/"),
            (None, "us-gov-west-1", "bkt", Path, "https://s3.us-gov-west-1.amazonaws.com/bkt/"),
            (Some("minio.example:9000"), "x", "bkt", Auto, "https://minio.example:9000/bkt/"),
            (Some("http://127.0.0.1:80/"), "x", "Bkt_1", Auto, "http://127.0.0.1/Bkt_1/"),
            (Some("http://[::1]:9000"), "x", "bkt", Auto, "http://[::1]:9000/bkt/"),
            (Some("https://x.example/storage/v1/s3"), "x", "bkt", Auto, "https://x.example/storage/v1/s3/bkt/"),
            (Some("https://cos.example"), "x", "bkt", VirtualHost, "https://bkt.cos.example/"),
        ] {
            assert_eq!(url(endpoint, region, bucket, addressing).unwrap(), format!("{expected}{rest}"));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for (endpoint, region, bucket, addressing) in [
            (None, "evil.example/", "bkt", Addressing::Auto),
            (None, "", "bkt", Addressing::Auto),
            (Some("https://user:pw@x.example"), "x", "bkt", Addressing::Auto),
            (Some("https://x.example?a=b"), "x", "bkt", Addressing::Auto),
            (Some("ftp://x.example"), "x", "bkt", Addressing::Auto),
            (Some("http://127.0.0.1"), "x", "bkt", Addressing::VirtualHost),
            (Some("https://x.example"), "x", "a/b", Addressing::Auto),
            (Some("https://x.example"), "x", "..", Addressing::Auto),
        ] {
            let error = url(endpoint, region, bucket, addressing).unwrap_err();
            assert_eq!(error.kind, Kind::InvalidRequest);
        }
    }
}
