//! Where the API is, and which addresses are its own.

use percent_encoding::utf8_percent_encode;
use url::Url;

use crate::address::{self, ESCAPED};
use crate::error::Result;

const GOOGLE: &str = "https://storage.googleapis.com";
/// Longest address of a session in bytes; Google's have less than 1,000.
const SESSION_BYTES_MAX: usize = 8 * 1024;

/// The address of the API.
#[derive(Debug)]
pub(super) struct Endpoint {
    scheme: String,
    host: String,
    port: Option<u16>,
    /// Path in front of everything, without a slash at its end.
    base: String,
}

/// The three trees of the API.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tree {
    Metadata,
    Upload,
    Download,
}

impl Endpoint {
    pub(super) fn new(endpoint: Option<&str>) -> Result<Self> {
        let url = read(endpoint, GOOGLE, "endpoint")?;
        Ok(Self {
            scheme: url.scheme().to_owned(),
            host: url.host_str().unwrap_or_default().to_owned(),
            port: url.port(),
            base: url.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The absolute URL of an object, or of all objects of a bucket.
    pub(super) fn url(&self, tree: Tree, bucket: &str, object: Option<&str>, query: &[(&str, &str)]) -> String {
        let tree = match tree {
            Tree::Metadata => "",
            Tree::Upload => "/upload",
            Tree::Download => "/download",
        };
        let mut url = format!("{}://{}{}{tree}/storage/v1/b/", self.scheme, self.shown(), self.base);
        url.extend(utf8_percent_encode(bucket, ESCAPED));
        url.push_str("/o");
        if let Some(object) = object {
            url.push('/');
            url.extend(utf8_percent_encode(object, ESCAPED));
        }
        address::push_query(&mut url, query.iter().copied());
        url
    }

    /// Whether an address that the service gave is at this very endpoint: neither a token nor bytes go elsewhere.
    ///
    /// It is judged by the parser that also finds out where to connect to.
    pub(super) fn owns(&self, address: &str) -> bool {
        let Ok(uri) = address.parse::<http::Uri>() else { return false };
        let default = |scheme: &str| if scheme == "https" { 443 } else { 80 };
        let (Some(scheme), Some(host), Some(authority)) = (uri.scheme_str(), uri.host(), uri.authority()) else {
            return false;
        };
        address.len() <= SESSION_BYTES_MAX
            && !authority.as_str().contains('@')
            && scheme == self.scheme
            && host.eq_ignore_ascii_case(&self.host)
            && uri.port_u16().unwrap_or(default(scheme)) == self.port.unwrap_or(default(&self.scheme))
    }

    /// Host and port, for people.
    pub(super) fn shown(&self) -> String {
        self.port.map_or_else(|| self.host.clone(), |port| format!("{}:{port}", self.host))
    }
}

/// Reads the URL of an argument; Google's own when it is absent.
pub(super) fn read(text: Option<&str>, default: &str, argument: &str) -> Result<Url> {
    let detail = format!("`{argument}` must be a host name or a URL such as {default}");
    address::read(address::given(text).unwrap_or(default), &detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn a_name_is_one_segment() {
        for (endpoint, expected) in [
            (None, "https://storage.googleapis.com/"),
            (Some(" gcs.example:444 "), "https://gcs.example:444/"),
            (Some("http://[::1]:80/base/"), "http://[::1]/base/"),
        ] {
            let endpoint = Endpoint::new(endpoint).unwrap();
            let url = endpoint.url(Tree::Download, "b_1.x", Some("/a//../ü %?#"), &[("alt", "a&b")]);
            let rest = "download/storage/v1/b/b_1.x/o/%2Fa%2F%2F..%2F%C3%BC%20%25%3F%23?alt=a%26b";
            assert_eq!(url, format!("{expected}{rest}"));
        }
        for endpoint in ["https://user:pw@x.example", "https://x.example?a=b", "ftp://x.example", "https://"] {
            assert_eq!(Endpoint::new(Some(endpoint)).unwrap_err().kind, Kind::InvalidRequest, "{endpoint}");
        }
    }

    #[test]
    fn only_its_own_addresses_are_followed() {
        let google = Endpoint::new(None).unwrap();
        for good in ["https://storage.googleapis.com/x?upload_id=1", "https://STORAGE.googleapis.com:443/x"] {
            assert!(google.owns(good), "{good}");
        }
        for bad in [
            "http://storage.googleapis.com/x",
            "https://storage.googleapis.com:444/x",
            "https://storage.googleapis.com.evil.example/x",
            "https://storage.googleapis.com@evil.example/x",
            "https://u@storage.googleapis.com/x",
            "https://evil.example\\@storage.googleapis.com/x",
            "//storage.googleapis.com/x",
            "/upload/x",
            "",
        ] {
            assert!(!google.owns(bad), "{bad}");
        }
        assert!(!google.owns(&format!("https://storage.googleapis.com/{}", "x".repeat(SESSION_BYTES_MAX))));
        let local = Endpoint::new(Some("http://[::1]:8080")).unwrap();
        assert!(local.owns("http://[::1]:8080/x") && !local.owns("http://[::1]/x"));
    }
}
