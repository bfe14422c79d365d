//! Operations of the contract that this server does not have. Clients that ask for one are told so, instead of being
//! left to look for a mistake of their own.

/// Their names on the wire, as documented for the API v2 in 2026.
pub const NAMES: [&str; 19] = [
    "archive",
    "archive/extract",
    "capture-website",
    "command",
    "convert",
    "merge",
    "metadata",
    "metadata/write",
    "optimize",
    "pdf/a",
    "pdf/decrypt",
    "pdf/encrypt",
    "pdf/extract-pages",
    "pdf/ocr",
    "pdf/rotate-pages",
    "pdf/split-pages",
    "pdf/x",
    "thumbnail",
    "watermark",
];

/// What is said of one of them.
pub fn sentence(name: &str) -> String {
    format!("The operation {name} is not built into this server; GET /v2/operations lists those that are.")
}
