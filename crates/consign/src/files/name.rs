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

/// The media type of a file: as told, unless that says nothing; then what its name suggests.
pub fn media_type(name: &str, told: Option<&str>) -> String {
    told.filter(|told| !says_nothing(told)).map_or_else(|| content_type(name), str::to_owned)
}

/// Tells whether a media type only says that nobody knows it: storages have one for files that came without.
fn says_nothing(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    ["", "application/octet-stream", "binary/octet-stream"].iter().any(|vague| essence.eq_ignore_ascii_case(vague))
}

/// The media type that a name suggests.
pub fn content_type(name: &str) -> String {
    mime_guess::from_path(name).first_or_octet_stream().essence_str().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{media_type, safe};

    #[test]
    fn only_the_last_segment_counts_and_it_never_climbs() {
        assert_eq!(safe("a/b\\c.txt"), "c.txt");
        assert_eq!(safe("../.."), "file");
        assert_eq!(safe(" \u{0}\r\n"), "file");
        assert_eq!(safe("ünï code.pdf"), "ünï code.pdf");
        let long = safe(&format!("{}.pdf", "ü".repeat(300)));
        assert!(long.len() <= 255 && long.strip_suffix(".pdf").is_some());
    }

    #[test]
    fn a_media_type_that_says_nothing_is_left_to_the_name() {
        for vague in ["", "application/octet-stream", "Binary/Octet-Stream; x=y"] {
            assert_eq!(media_type("a.png", Some(vague)), "image/png", "{vague}");
        }
        assert_eq!(media_type("a.png", None), "image/png");
        assert_eq!(media_type("a.png", Some("text/html; charset=utf-8")), "text/html; charset=utf-8");
        assert_eq!(media_type("a", Some("application/octet-stream")), "application/octet-stream");
    }
}
