//! What an object carries beside its bytes: the headers of `PutObject` and `CreateMultipartUpload`, and of nothing else.
//!
//! They never stand on a part: Amazon answers `server_side_encryption` there with `InvalidArgument`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::utf8_percent_encode;

use super::Config;
use crate::address::ESCAPED;
use crate::error::{Error, Result};

const METADATA_PREFIX: &str = "x-amz-meta-";

/// UTF-8 bytes in one encoded word of RFC 2047: 45 bytes are 60 characters of base64, and 75 is the limit with frame.
const ENCODED_WORD_BYTES: usize = 45;

/// The headers that the configuration asks for.
pub(super) fn headers(config: &Config) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    let mut set = |name: HeaderName, argument: &str, text: &str| {
        let value = value(argument, text)?;
        headers.insert(name, value);
        Ok::<(), Error>(())
    };
    for (name, argument, text) in [
        (HeaderName::from_static("x-amz-acl"), "acl", config.acl.as_deref().filter(|acl| *acl != "private")),
        (CACHE_CONTROL, "cache_control", config.cache_control.as_deref()),
        (CONTENT_DISPOSITION, "content_disposition", config.content_disposition.as_deref()),
        (CONTENT_TYPE, "content_type", config.content_type.as_deref()),
        (
            HeaderName::from_static("x-amz-server-side-encryption"),
            "server_side_encryption",
            config.server_side_encryption.as_deref(),
        ),
    ] {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            set(name, argument, text)?;
        }
    }
    for (key, text) in &config.metadata {
        set(metadata_name(key)?, "metadata", &encoded_words(text))?;
    }
    if !config.tagging.is_empty() {
        set(HeaderName::from_static("x-amz-tagging"), "tagging", &tagging(&config.tagging))?;
    }
    Ok(headers)
}

/// The headers of one object: those of all, and its own media type unless one was set for all.
pub(super) fn of_object(common: &HeaderMap, content_type: &str) -> HeaderMap {
    let mut headers = common.clone();
    if !headers.contains_key(CONTENT_TYPE)
        && let Ok(value) = HeaderValue::from_str(content_type)
        && !value.is_empty()
    {
        headers.insert(CONTENT_TYPE, value);
    }
    headers
}

fn value(argument: &str, text: &str) -> Result<HeaderValue> {
    let value = HeaderValue::from_str(text).ok().filter(|_| text.is_ascii());
    value.ok_or_else(|| {
        let hint = if argument == "content_disposition" { "; write other letters as filename*=UTF-8''…" } else { "" };
        Error::argument(format!("`{argument}` may hold printable ASCII characters only, and no line break{hint}"))
    })
}

fn metadata_name(key: &str) -> Result<HeaderName> {
    let lower = key.to_ascii_lowercase();
    let bare = lower.strip_prefix(METADATA_PREFIX).unwrap_or(&lower);
    HeaderName::try_from(format!("{METADATA_PREFIX}{bare}")).ok().filter(|_| !bare.is_empty()).ok_or_else(|| {
        Error::argument("a key of `metadata` may hold ASCII letters, digits and hyphens only, as it becomes a header")
    })
}

/// Printable ASCII as it is; anything else as encoded words, which S3 itself answers with and its clients decode.
///
/// # Source
/// RFC 2047, section 2; Amazon S3 User Guide, "Working with object metadata".
fn encoded_words(text: &str) -> String {
    let is_control = |c: char| c.is_ascii_control();
    if text.is_ascii() || text.contains(is_control) {
        return text.to_owned();
    }
    let mut words = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.floor_char_boundary(ENCODED_WORD_BYTES);
        words.push(format!("=?UTF-8?B?{}?=", STANDARD.encode(&rest[..end])));
        rest = &rest[end..];
    }
    words.join(" ")
}

fn tagging(tags: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = tags
        .iter()
        .map(|(key, value)| format!("{}={}", utf8_percent_encode(key, ESCAPED), utf8_percent_encode(value, ESCAPED)))
        .collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn with_metadata(key: &str, value: &str) -> Result<HeaderMap> {
        headers(&Config { metadata: [(key.to_owned(), value.to_owned())].into(), ..Config::default() })
    }

    #[test]
    fn metadata_keys_are_taken_with_and_without_prefix() {
        for key in ["some-key", "x-amz-meta-some-key", "X-Amz-Meta-Some-Key"] {
            assert_eq!(with_metadata(key, "v").unwrap()["x-amz-meta-some-key"], "v");
        }
    }

    #[test]
    fn other_alphabets_become_encoded_words() {
        let headers = with_metadata("who", "Jürgen").unwrap();
        assert_eq!(headers["x-amz-meta-who"], "=?UTF-8?B?SsO8cmdlbg==?=");
        let long = with_metadata("who", &"ü".repeat(40)).unwrap()["x-amz-meta-who"].to_str().unwrap().to_owned();
        let words: Vec<&str> = long.split(' ').collect();
        assert_eq!(words.len(), 2);
        assert!(words.iter().all(|word| word.len() <= 75), "{long}");
    }

    #[test]
    fn a_line_break_never_makes_a_header() {
        for (key, value) in
            [("k", "a\r\nx-amz-acl: public-read"), ("k", "ü\r\nx: y"), ("k\r\nx", "v"), ("", "v"), ("ü", "v")]
        {
            assert_eq!(with_metadata(key, value).unwrap_err().kind, Kind::InvalidRequest, "{key:?}");
        }
        let config = Config { acl: Some("public-read\r\nx: y".to_owned()), ..Config::default() };
        assert!(headers(&config).unwrap_err().detail.contains("`acl`"));
        let config = Config { content_disposition: Some("inline; filename=\"ä\"".to_owned()), ..Config::default() };
        assert!(headers(&config).unwrap_err().detail.contains("filename*="));
    }

    #[test]
    fn private_sends_no_acl_and_tags_are_escaped() {
        let config = Config {
            acl: Some("private".to_owned()),
            tagging: [("a b".to_owned(), "c&d=ü".to_owned()), ("e".to_owned(), String::new())].into(),
            ..Config::default()
        };
        let headers = headers(&config).unwrap();
        assert!(!headers.contains_key("x-amz-acl"));
        assert_eq!(headers["x-amz-tagging"], "a%20b=c%26d%3D%C3%BC&e=");
    }

    #[test]
    fn the_media_type_of_all_objects_wins() {
        let config = Config { content_type: Some("a/b".to_owned()), ..Config::default() };
        assert_eq!(of_object(&headers(&config).unwrap(), "c/d")[CONTENT_TYPE], "a/b");
        assert_eq!(of_object(&HeaderMap::new(), "c/d")[CONTENT_TYPE], "c/d");
    }
}
