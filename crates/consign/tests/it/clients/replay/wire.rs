//! Requests as bytes, and what comes back.

use serde_json::Value;
use testkit::Result;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use anyhow::{Context as _, ensure};

/// What a server answered, as it was on the wire.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) reason: String,
    headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The first header of that name, or nothing.
    pub(super) fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value)
    }

    /// The body of an answer that every client takes for JSON.
    pub(super) fn json(&self) -> Result<Value> {
        ensure!(self.header("content-type").contains("application/json"), "{self:?}");
        Ok(serde_json::from_slice(&self.body)?)
    }

    pub(super) fn is(self, status: u16) -> Result<Self> {
        ensure!(self.status == status, "{} instead of {status}: {}", self.status, String::from_utf8_lossy(&self.body));
        Ok(self)
    }
}

/// Sends the bytes as they are, and reads one answer. The connection is HTTP/1.1 and stays open, as with every client.
pub(super) async fn exchange(port: u16, request: &[u8]) -> Result<Answer> {
    let mut stream = TcpSocket::new_v4()?.connect(([127, 0, 0, 1], port).into()).await?;
    stream.write_all(request).await?;
    let mut read = Vec::new();
    let end = loop {
        if let Some(end) = read.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        ensure!(stream.read_buf(&mut read).await? > 0, "the answer ended too early");
    };
    let head = String::from_utf8(read[..end].to_vec())?;
    let mut lines = head.trim_end().split("\r\n");
    let status_line = lines.next().context("a status line")?;
    let (status, reason) =
        status_line.strip_prefix("HTTP/1.1 ").and_then(|line| line.split_once(' ')).context("HTTP/1.1")?;
    let headers =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut answer =
        Answer { status: status.parse()?, reason: reason.to_owned(), headers: headers.collect(), body: Vec::new() };
    let is_empty = matches!(answer.status, 204 | 304);
    let length = if is_empty { 0 } else { answer.header("content-length").parse().context("a length")? };
    answer.body = read[end..].to_vec();
    while answer.body.len() < length {
        ensure!(stream.read_buf(&mut answer.body).await? > 0, "the body ended too early");
    }
    ensure!(answer.body.len() == length, "bytes after the body");
    Ok(answer)
}

/// A request: its line, the headers in the order given, the body.
pub(super) fn request(line: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{line} HTTP/1.1\r\n{}\r\n\r\n", headers.join("\r\n")).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}
