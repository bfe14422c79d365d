//! Several files in one ZIP archive.
//!
//! The archive is written to a file that can seek, so that sizes stand in front of the data and every reader, also one
//! that streams, takes it. Compression has a thread of its own, fed through a channel; when the task is dropped the
//! channel closes, and the thread stops at the next piece.

use std::io::{self, BufWriter, Seek, SeekFrom, Write};

use bytes::Bytes;
use time::{OffsetDateTime, PrimitiveDateTime};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

use crate::error::TaskError;
use crate::files;
use crate::model::{BlobKey, File};
use crate::operations::{Context, InputFile};

/// Bytes that are read from an input file at once.
const READ_BYTES: u64 = 1024 * 1024;
/// Pieces between reading and writing. With the piece on each side they bound the memory of an archive.
const PIECES_WAITING_MAX: usize = 2;
/// Bytes that are written to the archive at once.
const WRITE_BYTES: usize = 256 * 1024;
/// Effort of compression, from 1 to 9: the lowest saves nearly as much as the usual 6, in a third of the time.
const DEFLATE_LEVEL: i64 = 1;
/// Files from this size on get 64-bit lengths: 4 GiB, less what compression may add to what cannot be compressed.
const LARGE_FROM_BYTES: u64 = (4 << 30) - (64 << 20);
/// Everybody may read what is unpacked, its owner may write it.
const MODE: u32 = 0o644;

/// Puts the input files under the given names into the task's first output file.
pub(super) async fn archive(task: &Context, archive_name: &str, names: &[String]) -> Result<File, TaskError> {
    let key = BlobKey::new(task.task_id, task.token, 1);
    let scratch = task.files.scratch(&key).await?;
    let (pieces, waiting) = channel(PIECES_WAITING_MAX);
    let out = scratch.writer();
    let writing = tokio::task::spawn_blocking(move || write(out, waiting));
    let fed = feed(task, names, pieces).await;
    // First what the writer says: when it fails, feeding it fails too, without knowing why.
    let written = writing.await.map_err(io::Error::other).and_then(|written| written);
    written.map_err(files::Error::from)?;
    fed?;
    let received = task.files.publish_scratch(scratch).await?;
    Ok(File {
        name: archive_name.to_owned(),
        size: received.size,
        digests: received.digests,
        content_type: "application/zip".to_owned(),
        blob: Some(key),
        download: None,
        receipt: None,
    })
}

/// What the writer is told, in this order for each file; the end comes after the last.
enum Step {
    File { name: String, options: SimpleFileOptions },
    Piece(Bytes),
    End,
}

async fn feed(task: &Context, names: &[String], pieces: Sender<Step>) -> Result<(), TaskError> {
    let progress = task.progress(task.inputs.iter().map(|input| input.file.size).sum());
    let modified = modified(task.clock.now().unix_seconds());
    for (input, name) in task.inputs.iter().zip(names) {
        let step = Step::File { name: name.clone(), options: options(input, modified) };
        if pieces.send(step).await.is_err() {
            return Ok(());
        }
        let size = input.source.size();
        let mut offset = 0;
        while offset < size {
            let length = READ_BYTES.min(size - offset);
            let piece = input.source.read_at(offset, usize::try_from(length).unwrap_or(usize::MAX)).await?;
            if pieces.send(Step::Piece(piece)).await.is_err() {
                return Ok(());
            }
            progress.add(length);
            offset += length;
        }
    }
    // Fails only when the writer has stopped; it says why.
    drop(pieces.send(Step::End).await);
    Ok(())
}

fn write(below: impl Write + Seek, mut steps: Receiver<Step>) -> io::Result<()> {
    let out = Out { below, has_failed: false };
    let mut archive = ZipWriter::new(BufWriter::with_capacity(WRITE_BYTES, out));
    while let Some(step) = steps.blocking_recv() {
        match step {
            Step::File { name, options } => archive.start_file(name, options)?,
            Step::Piece(piece) => archive.write_all(&piece)?,
            Step::End => {
                let out = archive.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
                return if out.has_failed { Err(io::Error::other("the archive is not whole")) } else { Ok(()) };
            }
        }
    }
    // Nobody waits for the archive any more.
    Ok(())
}

/// The file below an archive. Once it has failed it takes everything: the archive's writer tries to finish when it is
/// dropped, and would complain on the terminal.
struct Out<W> {
    below: W,
    has_failed: bool,
}

impl<W: Write> Write for Out<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.has_failed {
            return Ok(bytes.len());
        }
        self.below.write(bytes).inspect_err(|error| self.has_failed = error.kind() != io::ErrorKind::Interrupted)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Seek> Seek for Out<W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.below.seek(to)
    }
}

fn options(input: &InputFile, modified: DateTime) -> SimpleFileOptions {
    let options = SimpleFileOptions::default()
        .last_modified_time(modified)
        .unix_permissions(MODE)
        .large_file(input.file.size >= LARGE_FROM_BYTES);
    if is_compressed(&input.file.content_type) {
        options.compression_method(CompressionMethod::Stored)
    } else {
        options.compression_method(CompressionMethod::Deflated).compression_level(Some(DEFLATE_LEVEL))
    }
}

/// Whether files of this type hardly get smaller.
fn is_compressed(content_type: &str) -> bool {
    match content_type.split_once('/') {
        Some(("video", _)) => true,
        Some(("audio", kind)) => !matches!(kind, "wav" | "x-wav" | "aiff" | "x-aiff" | "basic" | "midi"),
        Some(("image", kind)) => {
            !matches!(kind, "svg+xml" | "bmp" | "x-ms-bmp" | "tiff" | "x-icon" | "vnd.adobe.photoshop")
        }
        Some(("font", kind)) => kind.starts_with("woff"),
        Some(("application", kind)) => {
            const PACKED: [&str; 15] = [
                "7z-compressed",
                "brotli",
                "bzip",
                "compress",
                "epub+zip",
                "gzip",
                "java-archive",
                "opendocument",
                "openxmlformats",
                "pdf",
                "rar",
                "x-xz",
                "zip",
                "zstd",
                "lzma",
            ];
            PACKED.iter().any(|packed| kind.contains(packed))
        }
        Some(_) | None => false,
    }
}

fn modified(unix_seconds: i64) -> DateTime {
    let moment = OffsetDateTime::from_unix_timestamp(unix_seconds).ok();
    let moment = moment.map(|moment| PrimitiveDateTime::new(moment.date(), moment.time()));
    // Before 1980 a ZIP archive knows no time.
    moment.and_then(|moment| DateTime::try_from(moment).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
