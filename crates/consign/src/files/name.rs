//! Names of files: from whatever a stranger calls a file to a name that is safe in a folder, a header and a page.

/// Longest name in bytes: what common file systems take.
const NAME_BYTES_MAX: usize = 255;
/// What a file without a usable name is called.
const NAMELESS: &str = "file";

/// Makes a safe name: the last segment of a path, without control characters, never `.` or `..`, never empty, at
/// most 255 bytes.
pub fn safe(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).find(|segment| !segment.is_empty()).unwrap_or_default();
    let clean: String = last.chars().filter(|letter| !letter.is_control()).collect();
    let clean = clean.trim();
    if clean.is_empty() || clean == "." || clean == ".." {
        return NAMELESS.to_owned();
    }
    shortened(clean)
}

/// Cuts the middle out of a long name, so that its extension stays.
fn shortened(name: &str) -> String {
    if name.len() <= NAME_BYTES_MAX {
        return name.to_owned();
    }
    let (stem, extension) = name.rsplit_once('.').filter(|(_, after)| after.len() <= 16).unwrap_or((name, ""));
    let dot = usize::from(!extension.is_empty());
    let stem = &stem[..stem.floor_char_boundary(NAME_BYTES_MAX - extension.len() - dot)];
    if dot == 0 { stem.to_owned() } else { format!("{stem}.{extension}") }
}

/// The media type that a name suggests.
pub fn content_type(name: &str) -> String {
    mime_guess::from_path(name).first_or_octet_stream().essence_str().to_owned()
}

#[cfg(test)]
mod tests {
    use super::safe;

    #[test]
    fn only_the_last_segment_counts_and_it_never_climbs() {
        assert_eq!(safe("a/b\\c.txt"), "c.txt");
        assert_eq!(safe("../.."), "file");
        assert_eq!(safe(" \u{0}\r\n"), "file");
        assert_eq!(safe("ünï code.pdf"), "ünï code.pdf");
        let long = safe(&format!("{}.pdf", "ü".repeat(300)));
        assert!(long.len() <= 255 && long.strip_suffix(".pdf").is_some());
    }
}
