//! Conditions and ranges of a download (RFC 9110, sections 13 and 14), pure.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderName, header};

use crate::clock::Timestamp;

/// What a file looks like to a condition.
#[derive(Clone, Debug)]
pub struct Version {
    /// Strong entity tag, with its quotes.
    pub etag: String,
    /// When it came to be, in whole seconds since 1970.
    pub modified_secs: u64,
    /// Length in bytes.
    pub size: u64,
}

/// What to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The whole file.
    Whole,
    /// These bytes of it.
    Part(Range<u64>),
    /// The client has it.
    NotModified,
    /// A condition does not hold.
    PreconditionFailed,
    /// The range lies outside.
    RangeNotSatisfiable,
}

impl Version {
    /// Describes a file by the digest of its mark and the end of its task.
    pub fn new(digest: &[u8], modified: Timestamp, size: u64) -> Self {
        let modified_secs = u64::try_from(modified.unix_seconds()).unwrap_or(0);
        Self { etag: format!("\"{}\"", hex::encode(digest)), modified_secs, size }
    }

    /// `Last-Modified`.
    pub fn modified(&self) -> String {
        httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(self.modified_secs))
    }
}

/// Decides, in the order of RFC 9110, section 13.2.2.
pub fn decide(headers: &HeaderMap, version: &Version) -> Verdict {
    let modified = UNIX_EPOCH + Duration::from_secs(version.modified_secs);
    if headers.contains_key(header::IF_MATCH) {
        if !names(headers, &header::IF_MATCH, version, false) {
            return Verdict::PreconditionFailed;
        }
    } else if date(headers, &header::IF_UNMODIFIED_SINCE).is_some_and(|since| modified > since) {
        return Verdict::PreconditionFailed;
    }
    if headers.contains_key(header::IF_NONE_MATCH) {
        if names(headers, &header::IF_NONE_MATCH, version, true) {
            return Verdict::NotModified;
        }
    } else if date(headers, &header::IF_MODIFIED_SINCE).is_some_and(|since| modified <= since) {
        return Verdict::NotModified;
    }
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    match range {
        Some(range) if range_applies(headers, version) => ranged(range, version.size),
        Some(_) | None => Verdict::Whole,
    }
}

/// `If-Range`: an entity tag must be the same and strong, a date the very same.
fn range_applies(headers: &HeaderMap, version: &Version) -> bool {
    let Some(condition) = headers.get(header::IF_RANGE) else { return true };
    let Ok(condition) = condition.to_str() else { return false };
    let condition = condition.trim();
    if condition.starts_with('"') || condition.starts_with("W/") {
        return condition == version.etag;
    }
    httpdate::parse_http_date(condition)
        .is_ok_and(|date| date == UNIX_EPOCH + Duration::from_secs(version.modified_secs))
}

fn names(headers: &HeaderMap, name: &HeaderName, version: &Version, weak_counts: bool) -> bool {
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|tag| {
        let tag = tag.trim();
        let tag = if weak_counts { tag.strip_prefix("W/").unwrap_or(tag) } else { tag };
        tag == "*" || tag == version.etag
    })
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

/// One range of bytes; several, and what is no range, count as none.
fn ranged(text: &str, size: u64) -> Verdict {
    let Some((unit, spec)) = text.split_once('=') else { return Verdict::Whole };
    let Some((first, last)) = spec.trim().split_once('-') else { return Verdict::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
        return Verdict::Whole;
    }
    let (Ok(first), Ok(last)) = (number(first), number(last)) else { return Verdict::Whole };
    match (first, last) {
        (None, None) => Verdict::Whole,
        (Some(first), Some(last)) if last < first => Verdict::Whole,
        (None, Some(0)) => Verdict::RangeNotSatisfiable,
        (None, Some(_)) if size == 0 => Verdict::RangeNotSatisfiable,
        (None, Some(suffix)) => Verdict::Part(size.saturating_sub(suffix)..size),
        (Some(first), _) if first >= size => Verdict::RangeNotSatisfiable,
        (Some(first), last) => Verdict::Part(first..last.map_or(size, |last| last.saturating_add(1).min(size))),
    }
}

/// Something that is neither a number nor nothing.
struct NoNumber;

/// A number, or nothing. One that is too long counts as the greatest.
fn number(text: &str) -> Result<Option<u64>, NoNumber> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { Ok(Some(text.parse().unwrap_or(u64::MAX))) } else { Err(NoNumber) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn verdict(headers: &[(HeaderName, &str)]) -> Verdict {
        let version = Version { etag: "\"abc\"".to_owned(), modified_secs: 784_111_777, size: 100 };
        decide(&headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect(), &version)
    }

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    #[test]
    fn ranges() {
        for (range, expected) in [
            ("bytes=0-9", Verdict::Part(0..10)),
            ("bytes=90-", Verdict::Part(90..100)),
            ("bytes=90-1000", Verdict::Part(90..100)),
            ("bytes=-10", Verdict::Part(90..100)),
            ("bytes=-1000", Verdict::Part(0..100)),
            ("bytes=99999999999999999999999-", Verdict::RangeNotSatisfiable),
            ("bytes=100-", Verdict::RangeNotSatisfiable),
            ("bytes=-0", Verdict::RangeNotSatisfiable),
            ("bytes=9-0", Verdict::Whole),
            ("bytes=0-1,5-6", Verdict::Whole),
            ("bytes=-", Verdict::Whole),
            ("bytes=a-b", Verdict::Whole),
            ("lines=0-9", Verdict::Whole),
            ("bytes", Verdict::Whole),
        ] {
            assert_eq!(verdict(&[(header::RANGE, range)]), expected, "{range}");
        }
    }

    #[test]
    fn conditions() {
        use header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
        for (name, value, expected) in [
            (IF_MATCH, "\"x\", \"abc\"", Verdict::Whole),
            (IF_MATCH, "*", Verdict::Whole),
            (IF_MATCH, "W/\"abc\"", Verdict::PreconditionFailed),
            (IF_MATCH, "\"x\"", Verdict::PreconditionFailed),
            (IF_NONE_MATCH, "W/\"abc\"", Verdict::NotModified),
            (IF_NONE_MATCH, "*", Verdict::NotModified),
            (IF_NONE_MATCH, "\"x\"", Verdict::Whole),
            (IF_MODIFIED_SINCE, DATE, Verdict::NotModified),
            (IF_MODIFIED_SINCE, LATER, Verdict::NotModified),
            (IF_MODIFIED_SINCE, EARLIER, Verdict::Whole),
            (IF_MODIFIED_SINCE, "yesterday", Verdict::Whole),
            (IF_UNMODIFIED_SINCE, DATE, Verdict::Whole),
            (IF_UNMODIFIED_SINCE, EARLIER, Verdict::PreconditionFailed),
        ] {
            assert_eq!(verdict(&[(name.clone(), value)]), expected, "{name}: {value}");
        }
        let both = verdict(&[(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, LATER)]);
        assert_eq!(both, Verdict::Whole, "the tag overrules the date");
    }

    #[test]
    fn a_range_applies_only_to_the_version_that_the_client_has() {
        use header::{IF_RANGE, RANGE};
        for (condition, expected) in [
            ("\"abc\"", Verdict::Part(0..1)),
            ("W/\"abc\"", Verdict::Whole),
            ("\"x\"", Verdict::Whole),
            (DATE, Verdict::Part(0..1)),
            (LATER, Verdict::Whole),
        ] {
            assert_eq!(verdict(&[(RANGE, "bytes=0-0"), (IF_RANGE, condition)]), expected, "{condition}");
        }
    }

    proptest! {
        #[test]
        fn a_part_lies_within_the_file(text in "bytes=[0-9]{0,3}-[0-9]{0,3}|\\PC{0,20}", size in 0_u64..300) {
            if let Verdict::Part(range) = ranged(&text, size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
