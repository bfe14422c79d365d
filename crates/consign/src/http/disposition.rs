//! `Content-Disposition` for a file name that anybody may have chosen (RFC 6266, RFC 8187).

use std::fmt::Write as _;

use axum::http::HeaderValue;

/// Makes the header. Nothing in the name can end a quote, a parameter or the line.
pub fn header(inline: bool, name: &str) -> HeaderValue {
    let kind = if inline { "inline" } else { "attachment" };
    let is_plain = |letter: char| matches!(letter, ' '..='~') && !matches!(letter, '"' | '\\' | '%');
    let fallback: String = name.chars().map(|letter| if is_plain(letter) { letter } else { '_' }).collect();
    let mut text = format!("{kind}; filename=\"{fallback}\"");
    if fallback != name {
        text.push_str("; filename*=UTF-8''");
        for byte in name.bytes() {
            // RFC 8187's attr-char.
            if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
                text.push(char::from(byte));
            } else {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("attachment"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_names_stay_and_others_have_both_forms() {
        assert_eq!(header(false, "photo.png"), "attachment; filename=\"photo.png\"");
        assert_eq!(header(true, "my file (1).pdf"), "inline; filename=\"my file (1).pdf\"");
        assert_eq!(header(false, "é\".pdf"), "attachment; filename=\"__.pdf\"; filename*=UTF-8''%C3%A9%22.pdf");
        assert_eq!(header(false, "a\r\nX: y"), "attachment; filename=\"a__X: y\"; filename*=UTF-8''a%0D%0AX%3A%20y");
    }

    proptest! {
        #[test]
        fn no_name_breaks_out_and_every_name_comes_back(name in "\\PC{0,40}|[\\x00-\\x7f]{0,40}") {
            let value = header(false, &name);
            let text = value.to_str().unwrap();
            let rest = text.strip_prefix("attachment; filename=\"").unwrap();
            let (fallback, rest) = rest.split_once('"').unwrap();
            prop_assert!(fallback.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'\\'));
            let back = if let Some(encoded) = rest.strip_prefix("; filename*=UTF-8''") {
                prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"';, ".contains(&byte)));
                percent_encoding::percent_decode_str(encoded).decode_utf8().unwrap().into_owned()
            } else {
                prop_assert_eq!(rest, "");
                fallback.to_owned()
            };
            prop_assert_eq!(back, name);
        }
    }
}
