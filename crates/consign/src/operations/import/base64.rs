//! `import/base64`: takes a file from the request itself, base64-encoded.

use ::base64::Engine as _;
use ::base64::alphabet::STANDARD;
use ::base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use connectors::ByteStream;
use garde::Validate;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::{Code, Faults, TaskError};
use crate::operations::{Context, Feed, Operation, Outcome};

/// Text that is decoded at once. A multiple of four: each piece decodes by itself.
const PIECE_BYTES: usize = 64 * 1024;

/// Encoders differ in whether they pad, and a few leave bits behind the end.
const TOLERANT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The operation `import/base64`; its manual stands on [`Args`], where OpenAPI and the manual find it.
pub(super) struct ImportBase64;

/// Makes a file of base64 text in the request. For more than a few megabytes use `import/upload`.
///
/// The plain and the URL-safe alphabet are read, with and without padding, with line breaks; a `data:` URL too.
///
/// ## Result
/// `result.files` has the file, with its size in bytes.
///
/// ## Retries
/// The file of an earlier try is replaced, so running again leaves one file.
///
/// ## Errors
/// `INVALID_DATA` when `file` is not base64, `FILE_TOO_LARGE`.
#[derive(Deserialize, JsonSchema, Validate)]
#[schemars(rename = "ImportBase64Args")]
pub(super) struct Args {
    /// Content of the file, base64-encoded.
    #[garde(skip)]
    file: String,
    /// Name of the file, with its extension.
    #[garde(length(min = 1, max = 255))]
    filename: String,
}

impl Operation for ImportBase64 {
    const NAME: &'static str = "import/base64";
    const FEED: Feed = Feed::Itself;
    type Args = Args;

    fn check(args: &Args, faults: &mut Faults) {
        if Encoded::read(&args.file).is_none_or(|encoded| encoded.pieces().any(|piece| piece.is_none())) {
            faults.add("file", "The file is not valid base64.");
        }
    }

    async fn run(args: Args, task: Context) -> Result<Outcome, TaskError> {
        let encoded = Encoded::read(&args.file).ok_or_else(not_base64)?;
        drop(args.file);
        let (size, media_type) = (encoded.size(), encoded.media_type.clone());
        let file = task.save(1, &args.filename, media_type.as_deref(), Some(size), encoded.stream()).await?;
        Ok(Outcome { files: vec![file] })
    }
}

fn not_base64() -> TaskError {
    TaskError::new(Code::InvalidData, "The file is not valid base64.")
}

/// Base64 text in one spelling: plain alphabet, no white space, no padding.
struct Encoded {
    text: Bytes,
    media_type: Option<String>,
}

impl Encoded {
    /// Brings the text into that spelling. None for a `data:` URL that is not base64.
    fn read(text: &str) -> Option<Self> {
        let text = text.trim_start();
        let (media_type, text) = match text.get(..5).filter(|scheme| scheme.eq_ignore_ascii_case("data:")) {
            Some(_) => {
                let (head, data) = text[5..].split_once(',')?;
                (Some(head.strip_suffix(";base64")?), data)
            }
            None => (None, text),
        };
        let one_alphabet = |byte: u8| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        };
        let mut clean: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).map(one_alphabet).collect();
        let padding = clean.iter().rev().take_while(|byte| **byte == b'=').count();
        if padding > 2 {
            return None;
        }
        clean.truncate(clean.len() - padding);
        let media_type = media_type.filter(|given| !given.is_empty() && !given.starts_with(';')).map(str::to_owned);
        Some(Self { text: clean.into(), media_type })
    }

    /// Length of what it decodes to, in bytes.
    fn size(&self) -> u64 {
        self.text.len() as u64 * 3 / 4
    }

    /// Decodes piece by piece; none for one that cannot be decoded.
    fn pieces(self) -> impl Iterator<Item = Option<Bytes>> + Send {
        let mut rest = self.text;
        std::iter::from_fn(move || {
            let piece = rest.split_to(rest.len().min(PIECE_BYTES));
            (!piece.is_empty()).then(|| TOLERANT.decode(&piece).ok().map(Bytes::from))
        })
    }

    fn stream(self) -> ByteStream {
        let damaged = || {
            let detail = "the file is not valid base64";
            connectors::Error::new(connectors::Kind::InvalidRequest, "decoding the file", detail)
        };
        Box::pin(futures_util::stream::iter(self.pieces().map(move |piece| piece.ok_or_else(damaged))))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;
    use proptest::prelude::*;

    use super::*;

    fn decode(text: &str) -> Option<Vec<u8>> {
        let encoded = Encoded::read(text)?;
        let size = encoded.size();
        let decoded: Vec<u8> = encoded.pieces().collect::<Option<Vec<_>>>()?.concat();
        assert_eq!(decoded.len() as u64, size, "the announced size of {text:?}");
        Some(decoded)
    }

    #[test]
    fn every_usual_spelling_is_read() {
        for text in ["+/+/aA==", "-_-_aA", "+/+/aA", " +/+/\r\n aA==\n", "-_+/aA=", "data:;base64,+/+/aA==", "+/+/aB"] {
            assert_eq!(decode(text).as_deref(), Some(&[0xfb, 0xff, 0xbf, 0x68][..]), "{text:?}");
        }
        assert_eq!(decode("").as_deref(), Some(&[][..]));
        let image = Encoded::read("DATA:image/png;base64,AAAA").unwrap();
        assert_eq!(image.media_type.as_deref(), Some("image/png"));
        assert!(Encoded::read("data:;charset=utf-8;base64,AAAA").unwrap().media_type.is_none());
    }

    #[test]
    fn what_is_not_base64_is_a_fault() {
        for file in
            ["A", "AAAAA", "AA===", "AA==AA==", "AÄA", "A.AA", "data:text/plain,hello", "data:x", "=AAA", "\u{0}"]
        {
            let mut faults = Faults::default();
            ImportBase64::check(&Args { file: file.to_owned(), filename: "a".to_owned() }, &mut faults);
            assert_eq!(faults.0["file"], ["The file is not valid base64."], "{file:?}");
        }
    }

    #[tokio::test]
    async fn damage_far_behind_breaks_the_stream() {
        let text = format!("{}!AAA", "A".repeat(PIECE_BYTES));
        let mut stream = Encoded::read(&text).unwrap().stream();
        assert_eq!(stream.try_next().await.unwrap().map(|piece| piece.len()), Some(PIECE_BYTES / 4 * 3));
        assert_eq!(stream.try_next().await.unwrap_err().kind, connectors::Kind::InvalidRequest);
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(bytes: Vec<u8>, repeat in 1_usize..2000) {
            let bytes = bytes.repeat(repeat);
            for engine in [&::base64::engine::general_purpose::STANDARD, &::base64::engine::general_purpose::URL_SAFE_NO_PAD] {
                prop_assert_eq!(decode(&engine.encode(&bytes)), Some(bytes.clone()));
            }
        }
    }
}
