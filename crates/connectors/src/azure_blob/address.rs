//! Where a container is, and which names its blobs can have.

use percent_encoding::utf8_percent_encode;

use super::Config;
use crate::address::{self, ESCAPED, ESCAPED_IN_PATH};
use crate::error::{Error, Result};

/// Longest name of a blob in characters.
///
/// # Source
/// Azure documentation, "Naming and referencing containers, blobs, and metadata".
pub(super) const NAME_CHARS_MAX: usize = 1024;

/// The address of a container.
#[derive(Debug)]
pub(super) struct Address {
    /// The service's URL, without a slash at its end.
    base: String,
    /// Host and port, for people.
    host: String,
    container: String,
}

impl Address {
    /// Works the address out of account, endpoint and container.
    pub(super) fn new(config: &Config) -> Result<Self> {
        let text = match address::given(config.endpoint.as_deref()) {
            None => default_endpoint(&config.account)?,
            Some(text) => text.to_owned(),
        };
        let url =
            address::read(&text, "`endpoint` must be a base URL such as https://myaccount.blob.core.windows.net")?;
        let container = config.container.as_str();
        if container.is_empty() || matches!(container, "." | "..") || container.contains(['/', '\\']) {
            return Err(Error::argument("`container` must be the name of a container, without a path"));
        }
        Ok(Self { base: address::base_of(&url), host: address::host_of(&url), container: container.to_owned() })
    }

    /// The absolute URL of the container, or of a blob in it.
    pub(super) fn url(&self, name: Option<&str>) -> String {
        let mut url = format!("{}/{}", self.base, utf8_percent_encode(&self.container, ESCAPED));
        if let Some(name) = name {
            url.push('/');
            url.extend(utf8_percent_encode(name, ESCAPED_IN_PATH));
        }
        url
    }

    pub(super) fn container(&self) -> &str {
        &self.container
    }

    pub(super) fn host(&self) -> String {
        self.host.clone()
    }
}

/// Refuses names that would not arrive as they are: Azure turns `\` into `/`, and the path of a URL cannot hold `.` and
/// `..` as segments, where `..` would lead out of the container.
pub(super) fn check_name(name: &str) -> Result<()> {
    let count = name.encode_utf16().count();
    if count == 0 || count > NAME_CHARS_MAX {
        return Err(Error::argument("the name of a blob must have between 1 and 1,024 characters"));
    }
    if name.contains('\\') {
        return Err(Error::argument("Azure turns a `\\` in the name of a blob into a `/`; write `/`"));
    }
    if name.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err(Error::argument("the name of a blob cannot hold `.` or `..` between slashes"));
    }
    Ok(())
}

/// # Source
/// Azure documentation, "Storage account overview: Standard endpoints".
fn default_endpoint(account: &str) -> Result<String> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if !(3..=63).contains(&account.len()) || !account.bytes().all(is_inner) {
        return Err(Error::argument(
            "`storage_account` must be the name of a storage account, lower-case letters and digits, without a host name",
        ));
    }
    Ok(format!("https://{account}.blob.core.windows.net"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn url(account: &str, endpoint: Option<&str>, container: &str) -> Result<String> {
        let config = Config {
            account: account.to_owned(),
            endpoint: endpoint.map(str::to_owned),
            container: container.to_owned(),
            ..Config::default()
        };
        Ok(Address::new(&config)?.url(Some("/a//b +ü%41")))
    }

    #[test]
    fn urls_are_built_for_every_kind_of_endpoint() {
        for (endpoint, expected) in [
            (None, "https://acct.blob.core.windows.net/c"),
            (Some(" "), "https://acct.blob.core.windows.net/c"),
            (Some("acct.blob.core.chinacloudapi.cn/"), "https://acct.blob.core.chinacloudapi.cn/c"),
            (Some("http://127.0.0.1:10000/acct"), "http://127.0.0.1:10000/acct/c"),
            (Some("http://[::1]:10000/acct/"), "http://[::1]:10000/acct/c"),
            (Some("https://blobs.example:443"), "https://blobs.example/c"),
        ] {
            assert_eq!(url("acct", endpoint, "c").unwrap(), format!("{expected}//a//b%20%2B%C3%BC%2541"));
        }
        assert_eq!(url("a", Some("x.example"), "$web").unwrap(), "https://x.example/%24web//a//b%20%2B%C3%BC%2541");
    }

    #[test]
    fn nonsense_is_refused() {
        for (account, endpoint, container) in [
            ("evil.example/", None, "c"),
            ("Acct", None, "c"),
            ("", None, "c"),
            ("acct", Some("https://user:pw@x.example"), "c"),
            ("acct", Some("https://x.example?sig=abc"), "c"),
            ("acct", Some("ftp://x.example"), "c"),
            ("acct", None, ""),
            ("acct", None, ".."),
            ("acct", None, "c/d"),
        ] {
            let error = url(account, endpoint, container).unwrap_err();
            assert_eq!(error.kind, Kind::InvalidRequest, "{account} {endpoint:?} {container}");
        }
    }

    #[test]
    fn names_that_would_not_arrive_are_refused() {
        for name in ["", "a\\b", "../c/d", "a/./b", "a/..", &"n".repeat(1025)] {
            assert_eq!(check_name(name).unwrap_err().kind, Kind::InvalidRequest, "{name}");
        }
        for name in ["/a", "a//b", "..a", "a./b", "f/", "...", &"ü".repeat(1024)] {
            check_name(name).unwrap();
        }
    }
}
