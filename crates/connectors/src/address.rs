//! Addresses: read from the argument that names them, and written so that a name arrives byte for byte.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use crate::error::{Error, Result};

/// What stands in a query, or in one segment of a path, as it is; everything else is percent-encoded.
///
/// # Source
/// RFC 3986, 2.3, "Unreserved Characters"; Amazon S3 User Guide, "Signature Calculations: `UriEncode`".
pub(crate) const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// The same for a path of many segments.
pub(crate) const ESCAPED_IN_PATH: &AsciiSet = &ESCAPED.remove(b'/');

/// Reads the base URL that an argument names, which may have lost its scheme: then `https://` is meant. `detail` says
/// what the argument must be.
///
/// # Errors
/// [`Kind::InvalidRequest`](crate::Kind::InvalidRequest) unless it is a plain `http:` or `https:` URL.
pub(crate) fn read(text: &str, detail: &str) -> Result<Url> {
    let text = text.trim();
    let bad = || Error::argument(detail);
    let whole = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url = Url::parse(&whole).map_err(|error| bad().because(error))?;
    if is_plain(&url) { Ok(url) } else { Err(bad()) }
}

/// An argument that is given, and not blank.
pub(crate) fn given(text: Option<&str>) -> Option<&str> {
    text.map(str::trim).filter(|text| !text.is_empty())
}

/// Whether a URL is of the web, and can have a path added: no user, no query, no fragment.
pub(crate) fn is_plain(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
}

/// Host, and the port where it is not the usual one.
pub(crate) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The URL without a slash at its end, for paths to be added to.
pub(crate) fn base_of(url: &Url) -> String {
    format!("{}://{}{}", url.scheme(), host_of(url), url.path().trim_end_matches('/'))
}

/// Adds a query to a URL that has none, or a part of one.
pub(crate) fn push_query<'a>(url: &mut String, query: impl IntoIterator<Item = (&'a str, &'a str)>) {
    let mut sign = if url.contains('?') { "&" } else { "?" };
    for (name, value) in query {
        url.extend([sign, name, "="]);
        url.extend(utf8_percent_encode(value, ESCAPED));
        sign = "&";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn addresses_are_read_with_and_without_scheme() {
        for (text, host, base) in [
            ("h.example", "h.example", "https://h.example"),
            (" http://h.example:5000/a// ", "h.example:5000", "http://h.example:5000/a"),
            ("https://h.example:443/a/b", "h.example", "https://h.example/a/b"),
            ("http://[::1]:80", "[::1]", "http://[::1]"),
            ("１27.0.0.1:81", "127.0.0.1:81", "https://127.0.0.1:81"),
        ] {
            let url = read(text, "x").unwrap();
            assert_eq!((host_of(&url).as_str(), base_of(&url).as_str()), (host, base), "{text}");
        }
        for text in [
            "",
            "https://",
            "ftp://h.example",
            "file:///etc/passwd",
            "https://u@h.example",
            "https://:p@h.example",
            "https://h.example?x=1",
            "https://h.example/#x",
        ] {
            let error = read(text, "`x` must be a URL").unwrap_err();
            assert_eq!((error.kind, error.detail.as_str()), (Kind::InvalidRequest, "`x` must be a URL"), "{text}");
        }
        assert_eq!((given(Some(" a ")), given(Some(" ")), given(None)), (Some("a"), None, None));
    }

    #[test]
    fn a_query_is_escaped_and_added_to() {
        let mut url = "https://h.example/a".to_owned();
        push_query(&mut url, []);
        push_query(&mut url, [("a", "x/y")]);
        push_query(&mut url, [("b", ""), ("c", "ü&=+ ~")]);
        assert_eq!(url, "https://h.example/a?a=x%2Fy&b=&c=%C3%BC%26%3D%2B%20~");
    }
}
