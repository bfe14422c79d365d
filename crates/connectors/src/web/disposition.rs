//! The file name in a `Content-Disposition` header, as servers really write it.

use http::HeaderValue;
use percent_encoding::percent_decode_str;

/// Finds the file name: `filename*` before `filename`, in quotes or without.
///
/// # Source
/// RFC 6266 with RFC 8187; raw UTF-8 and Latin-1, which it does not allow, are read like browsers do.
pub(super) fn file_name(header: Option<&HeaderValue>) -> Option<String> {
    let header = text(header?.as_bytes());
    let mut plain = None;
    let mut extended = None;
    for (name, value) in parameters(&header) {
        if name.eq_ignore_ascii_case("filename*") {
            extended = extended.or_else(|| decode(&value));
        } else if name.eq_ignore_ascii_case("filename") {
            plain = plain.or(Some(value));
        }
    }
    extended.or(plain).filter(|name| !name.is_empty())
}

/// Reads bytes that ought to be UTF-8 and may be Latin-1.
pub(super) fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().map(|byte| char::from(*byte)).collect(), str::to_owned)
}

/// Splits `attachment; a=b; c="d;e"` into its parameters.
fn parameters(header: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = header;
    while let Some((before, after)) = split_at_semicolon(rest) {
        found.extend(parameter(before));
        rest = after;
    }
    found.extend(parameter(rest));
    found
}

fn parameter(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    // Some servers forget the word in front: `filename=a.txt` is the whole header.
    let value = value.trim();
    let value = match value.strip_prefix('"') {
        Some(quoted) => unquoted(quoted),
        None => value.to_owned(),
    };
    Some((name.trim().to_owned(), value))
}

/// Splits at the first semicolon outside quotes.
fn split_at_semicolon(text: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ';' if !quoted => return Some((&text[..at], &text[at + 1..])),
            _ => {}
        }
    }
    None
}

/// Undoes quotes. A backslash before anything but a quote or a backslash is one of a path, not an escape.
fn unquoted(text: &str) -> String {
    let mut value = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' => break,
            '\\' => value.push(chars.next_if(|next| matches!(next, '"' | '\\')).unwrap_or('\\')),
            _ => value.push(c),
        }
    }
    value
}

/// Decodes `UTF-8'en'a%20b.txt`; what is in another character set is not read.
fn decode(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_, encoded) = rest.split_once('\'')?;
    let bytes: Vec<u8> = percent_decode_str(encoded).collect();
    if charset.eq_ignore_ascii_case("utf-8") {
        String::from_utf8(bytes).ok()
    } else if charset.eq_ignore_ascii_case("iso-8859-1") {
        Some(bytes.into_iter().map(char::from).collect())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_every_form_that_servers_write() {
        for (header, name) in [
            (&b"attachment; filename=report.pdf"[..], Some("report.pdf")),
            (b"attachment; filename=\"my report.pdf\"", Some("my report.pdf")),
            (b"attachment; FileName = \"a.pdf\" ; x=y", Some("a.pdf")),
            (b"filename=a.pdf", Some("a.pdf")),
            (b"inline; filename=\"a;b=c.pdf\"", Some("a;b=c.pdf")),
            (b"attachment; filename=\"say \\\"hi\\\".pdf\"", Some("say \"hi\".pdf")),
            (b"attachment; filename=\"C:\\dir\\a.pdf\"", Some("C:\\dir\\a.pdf")),
            (b"attachment; filename=\"open.pdf", Some("open.pdf")),
            (b"attachment; filename=two words.pdf; x=1", Some("two words.pdf")),
            (b"attachment; filename*=UTF-8''na%C3%AFve%20plan.txt", Some("na\u{ef}ve plan.txt")),
            (b"attachment; filename=\"plain.txt\"; filename*=utf-8'en'%e2%82%ac.txt", Some("\u{20ac}.txt")),
            (b"attachment; filename*=UTF-8''%e2%82%ac.txt; filename=\"plain.txt\"", Some("\u{20ac}.txt")),
            (b"attachment; filename*=iso-8859-1''%A3.txt", Some("\u{a3}.txt")),
            (b"attachment; filename*=UTF-8''%ff%fe; filename=plain.txt", Some("plain.txt")),
            (b"attachment; filename*=koi8-r''%C1; filename=plain.txt", Some("plain.txt")),
            (b"attachment; filename=\"caf\xc3\xa9.txt\"", Some("caf\u{e9}.txt")),
            (b"attachment; filename=\"caf\xe9.txt\"", Some("caf\u{e9}.txt")),
            (b"attachment; filename=\"\"", None),
            (b"attachment", None),
            (b"", None),
            (b";;;=;\"", None),
        ] {
            let value = HeaderValue::from_bytes(header).unwrap();
            assert_eq!(file_name(Some(&value)).as_deref(), name, "{}", text(header));
        }
        assert_eq!(file_name(None), None);
    }
}
