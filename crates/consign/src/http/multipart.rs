//! Reads `multipart/form-data` as it streams in, in every dialect that clients are known to speak.
//!
//! Our own, because the parsers at hand give no bound to the headers of a part (a body without a blank line would
//! fill the memory) and cut an unquoted file name at its first blank, as one official client sends it.

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use percent_encoding::percent_decode_str;

/// Longest head of a part, and longest text before the first part, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Longest boundary that RFC 2046 allows, in bytes.
const BOUNDARY_BYTES_MAX: usize = 70;

/// What is wrong with a body.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// The content type names no boundary.
    #[error("the content type must be multipart/form-data with a boundary")]
    NoBoundary,
    /// It ended within a part, or before the first one.
    #[error("the body ended too early")]
    Ended,
    /// The head of a part is longer than allowed.
    #[error("the head of a part is longer than {HEAD_BYTES_MAX} bytes")]
    HeadTooLong,
    /// A part does not say which field it is.
    #[error("a part has no name")]
    NoName,
    /// The connection broke.
    #[error("the connection broke")]
    Connection(#[source] axum::Error),
}

/// What a part says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Which field of the form it is.
    pub name: String,
    /// The name that the client gives the file, as it was sent.
    pub filename: Option<String>,
    /// Its media type.
    pub content_type: Option<String>,
}

/// The parts of a body.
#[derive(Debug)]
pub struct Parts<S> {
    stream: S,
    stream_ended: bool,
    buffer: BytesMut,
    /// CRLF, two dashes and the boundary.
    delimiter: Vec<u8>,
    at: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Inside a part, or in the text before the first one.
    Content,
    /// Right behind a delimiter.
    Delimiter,
    /// Behind the last part.
    End,
}

/// The boundary that a content type names, quoted or not, whatever parameters stand around it.
pub fn boundary(content_type: &str) -> Option<String> {
    let (kind, params) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parameters(params).into_iter().find(|(name, _)| name == "boundary")?.1;
    (1..=BOUNDARY_BYTES_MAX).contains(&boundary.len()).then_some(boundary)
}

impl<S: Stream<Item = Result<Bytes, axum::Error>> + Unpin> Parts<S> {
    /// Reads a body with that boundary.
    pub fn new(stream: S, boundary: &str) -> Self {
        let delimiter = format!("\r\n--{boundary}").into_bytes();
        // The first delimiter may stand at the very beginning, without a line before it.
        Self { stream, stream_ended: false, buffer: BytesMut::from(&b"\r\n"[..]), delimiter, at: Place::Content }
    }

    /// Goes to the next part, past what is left of this one.
    ///
    /// # Errors
    /// [`Malformed`].
    pub async fn next(&mut self) -> Result<Option<Head>, Malformed> {
        let mut skipped = 0;
        while self.at == Place::Content {
            skipped += self.data().await?.map_or(0, |bytes| bytes.len());
            if skipped > HEAD_BYTES_MAX {
                return Err(Malformed::HeadTooLong);
            }
        }
        if self.at == Place::End {
            return Ok(None);
        }
        let line = self.line().await?;
        if line.starts_with(b"--") {
            self.at = Place::End;
            return Ok(None);
        }
        let head = self.head().await?;
        self.at = Place::Content;
        Ok(Some(head))
    }

    /// The next bytes of this part; none when it is at its end.
    ///
    /// # Errors
    /// [`Malformed`].
    pub async fn data(&mut self) -> Result<Option<Bytes>, Malformed> {
        loop {
            if self.at != Place::Content {
                return Ok(None);
            }
            if let Some(found) = memchr::memmem::find(&self.buffer, &self.delimiter) {
                let bytes = self.buffer.split_to(found).freeze();
                if !bytes.is_empty() {
                    return Ok(Some(bytes));
                }
                bytes::Buf::advance(&mut self.buffer, self.delimiter.len());
                self.at = Place::Delimiter;
                return Ok(None);
            }
            // All but what may be the beginning of a delimiter.
            let sure = self.buffer.len().saturating_sub(self.delimiter.len() - 1);
            if sure > 0 {
                return Ok(Some(self.buffer.split_to(sure).freeze()));
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> Result<(), Malformed> {
        if self.stream_ended {
            return Err(Malformed::Ended);
        }
        match self.stream.next().await {
            Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
            Some(Err(error)) => return Err(Malformed::Connection(error)),
            None => {
                self.stream_ended = true;
                return Err(Malformed::Ended);
            }
        }
        Ok(())
    }

    /// The rest of a line, without its end.
    async fn line(&mut self) -> Result<Bytes, Malformed> {
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer) {
                let line = self.buffer.split_to(end + 1).freeze();
                let line = line.slice(..line.len() - 1);
                return Ok(if line.ends_with(b"\r") { line.slice(..line.len() - 1) } else { line });
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(Malformed::HeadTooLong);
            }
            match self.fill().await {
                // The last delimiter needs no line end behind it.
                Err(Malformed::Ended) if self.buffer.starts_with(b"--") => return Ok(self.buffer.split().freeze()),
                filled => filled?,
            }
        }
    }

    async fn head(&mut self) -> Result<Head, Malformed> {
        let (mut name, mut filename, mut content_type) = (None, None, None);
        let mut length = 0;
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            length += line.len();
            if length > HEAD_BYTES_MAX {
                return Err(Malformed::HeadTooLong);
            }
            let line = text(&line);
            let Some((field, value)) = line.split_once(':') else { continue };
            if field.trim().eq_ignore_ascii_case("content-disposition") {
                (name, filename) = disposition(value);
            } else if field.trim().eq_ignore_ascii_case("content-type") {
                content_type = Some(value.trim().to_owned());
            }
        }
        Ok(Head { name: name.ok_or(Malformed::NoName)?, filename, content_type })
    }
}

/// Bytes of a header as text: UTF-8, or else Latin-1.
fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().copied().map(char::from).collect(), str::to_owned)
}

/// Name and file name of a `Content-Disposition`. The extended form of the file name wins.
fn disposition(value: &str) -> (Option<String>, Option<String>) {
    let params = value.split_once(';').map_or("", |(_, params)| params);
    let (mut name, mut filename, mut extended) = (None, None, None);
    for (key, value) in parameters(params) {
        match key.as_str() {
            "name" => name = Some(value),
            // Browsers write a quote in a file name like this.
            "filename" => filename = Some(value.replace("%22", "\"")),
            "filename*" => extended = extended_value(&value),
            _ => {}
        }
    }
    (name, extended.or(filename).filter(|name| !name.is_empty()))
}

/// The value of RFC 8187: `utf-8''caf%C3%A9.pdf`.
fn extended_value(value: &str) -> Option<String> {
    let (charset, rest) = value.split_once('\'')?;
    let (_language, encoded) = rest.split_once('\'')?;
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    Some(percent_decode_str(encoded).decode_utf8().ok()?.into_owned())
}

/// Splits `a=b; c="d"`, names in lower case. A value without quotes goes to the next semicolon that has another
/// parameter behind it, so that it may hold blanks and semicolons.
fn parameters(mut rest: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let Some((name, after)) = rest.split_once('=') else { return found };
        let name = name.trim().to_ascii_lowercase();
        let after = after.trim_start();
        let value;
        (value, rest) = if let Some(quoted) = after.strip_prefix('"') {
            quoted_value(quoted)
        } else {
            let end = after.match_indices(';').map(|(at, _)| at).find(|&at| is_parameter(&after[at + 1..]));
            let (value, rest) = after.split_at(end.unwrap_or(after.len()));
            (value.trim().to_owned(), rest)
        };
        found.push((name, value));
    }
}

fn is_parameter(text: &str) -> bool {
    let name = text.split_once('=').map_or("", |(name, _)| name.trim());
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'*' | b'_'))
}

/// Text up to the closing quote, and what is behind it. A backslash escapes a quote or itself; before anything else
/// it is part of a path, as an old browser sends it.
fn quoted_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match (letter, letters.peek()) {
            ('"', _) => return (value, &text[at + 1..]),
            ('\\', Some(&(_, next @ ('"' | '\\')))) => {
                value.push(next);
                letters.next();
            }
            (other, _) => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests;
