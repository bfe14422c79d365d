//! Maps object keys to file names and back, so that no key can touch the structure of the folder.
//!
//! Letters, digits and `-_=,@.` stand for themselves, every other byte is `%XX`; thus `/` is `%2F` and a key is one flat
//! name. A dot at the start of a name is encoded too, so there is no `..` and no hidden file. Names longer than
//! [`PIECE_BYTES`] are cut into pieces, all but the last being folders whose name ends with `+`, which no encoded key
//! contains.

use std::path::{Path, PathBuf};

/// Longest piece in bytes: file systems allow 255, and a sidecar's name needs room for `.json`.
const PIECE_BYTES: usize = 200;
/// Ends the name of a folder that holds the rest of longer names.
const CONTINUED: char = '+';

/// Gives the relative path for a key.
pub(super) fn encode(key: &str) -> PathBuf {
    let mut name = String::with_capacity(key.len());
    for byte in key.bytes() {
        let starts_piece = name.len().is_multiple_of(PIECE_BYTES);
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'_' | b'=' | b',' | b'@' => name.push(char::from(byte)),
            b'.' if !starts_piece => name.push('.'),
            other => name.push_str(percent_encoding::percent_encode_byte(other)),
        }
    }
    let mut path = PathBuf::new();
    let mut rest = name.as_str();
    while rest.len() > PIECE_BYTES {
        let (piece, tail) = rest.split_at(PIECE_BYTES);
        path.push(format!("{piece}{CONTINUED}"));
        rest = tail;
    }
    path.push(rest);
    path
}

/// Gives the key for a relative path, or `None` when no key has it (a file that somebody else put there).
pub(super) fn decode(path: &Path) -> Option<String> {
    let mut name = String::new();
    for piece in path {
        let piece = piece.to_str()?;
        name.push_str(piece.strip_suffix(CONTINUED).unwrap_or(piece));
    }
    let key = percent_encoding::percent_decode_str(&name).decode_utf8().ok()?.into_owned();
    (encode(&key) == path).then_some(key)
}

/// Tells whether a folder holds the rest of longer names.
pub(super) fn is_continued(folder: &Path) -> bool {
    folder.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(CONTINUED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_comes_back_byte_for_byte_and_stays_inside() {
        let long = "x".repeat(1024);
        let dots = format!("{}{}", "a".repeat(PIECE_BYTES), "../..");
        let unicode = "ü".repeat(512);
        let keys = [
            "a",
            "a//b",
            "/a",
            "../x",
            "..",
            ".",
            "a/../b",
            " a +%2F",
            "naïve/日本.txt",
            "\n\u{1}",
            &long,
            &dots,
            &unicode,
        ];
        for key in keys {
            let path = encode(key);
            assert_eq!(decode(&path).as_deref(), Some(key));
            for piece in &path {
                let piece = piece.to_str().unwrap();
                assert!(!piece.is_empty() && !piece.starts_with('.') && piece.len() <= PIECE_BYTES + 1, "{piece}");
            }
        }
    }

    #[test]
    fn keys_that_look_alike_get_different_files() {
        let names = ["a/b", "a%2Fb", "a//b", "a b", "a+b", "A/B"].map(encode);
        for (i, name) in names.iter().enumerate() {
            assert!(!names[..i].contains(name), "{name:?}");
        }
    }

    #[test]
    fn foreign_files_have_no_key() {
        for path in ["my photo.jpg", "a%2fb", "%ZZ", "x+/y", ".hidden"] {
            assert_eq!(decode(Path::new(path)), None, "{path}");
        }
    }
}
