//! As much of HTTP/1.1 as is needed to find where a message ends.

use std::borrow::Cow;
use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// The most that request line and headers may take.
const HEAD_BYTES_MAX: usize = 256 * 1024;
/// The longest line between chunks.
const LINE_BYTES_MAX: u64 = 16 * 1024;

/// First line and headers of a message, as received.
#[derive(Debug)]
pub(super) struct Head(Vec<u8>);

/// How the end of a body is found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Body {
    Length(u64),
    Chunked,
    UntilClose,
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads up to and with the empty line; nothing when the connection ended before.
pub(super) async fn read_head(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Head>> {
    let mut head = Vec::new();
    loop {
        let line = from.take(LINE_BYTES_MAX).read_until(b'\n', &mut head).await?;
        match line {
            0 if head.is_empty() => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            2 if head.ends_with(b"\n\r\n") => return Ok(Some(Head(head))),
            _ if head.len() > HEAD_BYTES_MAX => return Err(invalid("the head is too long")),
            _ => {}
        }
    }
}

/// The value of a header in the text of a head.
pub(super) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

impl Head {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same with a header line at its end.
    pub(super) fn with(&self, line: &str) -> Self {
        let mut bytes = self.0.clone();
        bytes.truncate(bytes.len() - 2);
        bytes.extend_from_slice(format!("{line}\r\n\r\n").as_bytes());
        Self(bytes)
    }

    pub(super) fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    fn words(&self) -> impl Iterator<Item = &str> {
        let line = self.0.split(|byte| *byte == b'\r').next().unwrap_or_default();
        str::from_utf8(line).unwrap_or_default().split(' ')
    }

    /// Of a request.
    pub(super) fn method_and_path(&self) -> (&str, &str) {
        let mut words = self.words();
        (words.next().unwrap_or_default(), words.next().unwrap_or_default())
    }

    /// Of an answer.
    pub(super) fn status(&self) -> io::Result<u16> {
        self.words().nth(1).and_then(|word| word.parse().ok()).ok_or_else(|| invalid("no status"))
    }

    pub(super) fn header(&self, name: &str) -> Option<String> {
        header(&self.text(), name).map(str::to_owned)
    }

    fn framed(&self) -> io::Result<Option<Body>> {
        if self.header("transfer-encoding").is_some_and(|value| value.to_ascii_lowercase().ends_with("chunked")) {
            return Ok(Some(Body::Chunked));
        }
        let length = self.header("content-length").map(|value| value.parse().map(Body::Length));
        length.transpose().map_err(|_| invalid("content-length is no number"))
    }

    pub(super) fn request_body(&self) -> io::Result<Body> {
        Ok(self.framed()?.unwrap_or(Body::Length(0)))
    }

    pub(super) fn answer_body(&self, status: u16, method: &str) -> io::Result<Body> {
        if method == "HEAD" || matches!(status, 204 | 304) {
            return Ok(Body::Length(0));
        }
        Ok(self.framed()?.unwrap_or(Body::UntilClose))
    }
}

/// Copies a body as it is, chunk sizes and trailers included.
pub(super) async fn copy_body(
    from: &mut (impl AsyncBufRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    body: Body,
) -> io::Result<()> {
    match body {
        Body::Length(length) => copy_exactly(from, to, length).await,
        Body::UntilClose => tokio::io::copy_buf(from, to).await.map(drop),
        Body::Chunked => loop {
            let line = copy_line(from, to).await?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| invalid("a chunk without size"))?;
            if size == 0 {
                while copy_line(from, to).await?.trim() != "" {}
                return Ok(());
            }
            copy_exactly(from, to, size.checked_add(2).ok_or_else(|| invalid("a chunk too large"))?).await?;
        },
    }
}

async fn copy_exactly(
    from: &mut (impl AsyncBufRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    length: u64,
) -> io::Result<()> {
    let copied = tokio::io::copy_buf(&mut from.take(length), to).await?;
    if copied == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

async fn copy_line(from: &mut (impl AsyncBufRead + Unpin), to: &mut (impl AsyncWrite + Unpin)) -> io::Result<String> {
    let mut line = Vec::new();
    from.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
    if !line.ends_with(b"\n") {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    to.write_all(&line).await?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}
