//! `export/upload`: puts files to web addresses that somebody has prepared for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use connectors::web::{Upload, Web, read_url};
use garde::Validate;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{deliver, naming};
use crate::error::{Code, Faults, TaskError};
use crate::model::File;
use crate::operations::{Context, Feed, Operation, Outcome, headers};
use crate::secret::Secret;

/// The operation `export/upload`; its manual stands on [`Args`], where OpenAPI and the manual find it.
pub(super) struct ExportUpload;

/// Sends each input file with an HTTP `PUT` to a URL, such as a presigned one of S3 or Google Cloud Storage, a shared
/// access signature of Azure, or a temporary URL of Swift.
///
/// The URL must be signed for `PUT`. `Content-Type` is sent as the file's, unless it is among `headers`; give it there
/// with an empty value where it must not be sent. Azure wants the header `x-ms-blob-type: BlockBlob`. Redirects with
/// status 307 and 308 are followed, up to ten.
///
/// ## Result
/// `result.files` has each file with its size in bytes, its `location` (the URL without its query), `etag` and
/// `version` where the answer told them, and how it was `verified`: `crc32c`, `sha256` or `md5` when the answer repeats
/// that digest of the bytes, else `status`: the server answered that it has the file, and no more is known.
///
/// ## Retries
/// An upload that breaks starts again from the first byte. Whether the file replaces another is for the server to say.
///
/// ## Errors
/// `ACCESS_DENIED` (such as an expired URL), `INVALID_CREDENTIALS` (such as a signature for another method),
/// `FILE_NOT_FOUND` and `CONTAINER_NOT_FOUND` (no such place), `FILE_TOO_LARGE`, `REMOTE_REFUSED`, `REMOTE_FULL`,
/// `HOST_NOT_ALLOWED`, `NAME_CONFLICT`, `UNSUPPORTED`; tried again: `REMOTE_UNREACHABLE`, `REMOTE_TIMEOUT`,
/// `REMOTE_THROTTLED`, `REMOTE_UNAVAILABLE`, `INTEGRITY_MISMATCH`.
///
/// ## Source
/// Argument names: API reference of the service we are compatible with, page "Export via upload". `%d` is ours.
#[derive(Deserialize, JsonSchema, Validate)]
#[schemars(rename = "ExportUploadArgs")]
pub(super) struct Args {
    /// Address to send the file to, `http:` or `https:`. User info in it becomes basic authentication. With several
    /// files, put `%d` or `%03d` into its path, which becomes 1, 2, 3 …; `%d` before a digit or a letter up to `f` is
    /// the usual encoding of a character, and stays. The query is never changed.
    #[garde(length(max = 8192))]
    #[schemars(extend("format" = "uri"))]
    url: String,
    /// Headers to send along, such as `Authorization`, or those that the URL was signed for. They go to the host of
    /// `url` only, not where it redirects to.
    #[garde(length(max = 64))]
    #[serde(default)]
    #[schemars(with = "BTreeMap<String, String>", extend("additionalProperties" = { "type": "string", "writeOnly": true }))]
    headers: BTreeMap<String, Secret>,
}

impl Operation for ExportUpload {
    const NAME: &'static str = "export/upload";
    const FEED: Feed = Feed::Inputs;
    type Args = Args;

    fn check(args: &Args, faults: &mut Faults) {
        if read_url(&args.url).is_err() {
            faults.add("url", "The url format is invalid.");
        }
        headers::check(&args.headers, faults);
    }

    async fn run(args: Args, task: Context) -> Result<Outcome, TaskError> {
        if task.inputs.is_empty() {
            return Err(TaskError::new(Code::NoInputFiles, "There is no file to deliver: the inputs produced none."));
        }
        let urls = numbered(&args.url, task.inputs.len())?;
        let host = read_url(&args.url).ok().and_then(|url| url.host_str().map(str::to_owned));
        let _slot = task.network.hosts.take(host.as_deref().unwrap_or_default()).await;
        let web = Web::new(task.network.http.clone(), &task.network.limits);
        let headers = headers::read(&args.headers);
        let progress = task.progress(task.inputs.iter().map(|input| input.file.size).sum());
        let sent = task.inputs.iter().zip(&urls).map(|(input, url)| {
            let upload = Upload {
                url,
                headers: &headers,
                content_type: &input.file.content_type,
                source: Arc::clone(&input.source),
                progress: progress.clone(),
            };
            let web = web.clone();
            let sent = async move {
                let receipt = web.put(&upload).await.map_err(|error| deliver::of_file(input, error.into()))?;
                connectors::fail_point!("web.sent");
                Ok(File { blob: None, download: None, receipt: Some(receipt), ..input.file.clone() })
            };
            task.metered(host.as_deref(), false, sent)
        });
        task.some_at_once(sent.collect()).await
    }
}

/// The address of each of `count` files.
///
/// # Errors
/// `NAME_CONFLICT` when several would have the same.
fn numbered(url: &str, count: usize) -> Result<Vec<String>, TaskError> {
    let (before, path, behind) = path_of(url);
    let urls: Vec<String> =
        (1..=count).map(|number| format!("{before}{}{behind}", with_number(path, number))).collect();
    if count > 1 && urls[0] == urls[1] {
        let advice = "Put %d into the path of the URL, or use one task for each file.";
        let message = format!("{count} files would be sent to the same URL. {advice}");
        return Err(TaskError::new(Code::NameConflict, message));
    }
    Ok(urls)
}

/// Splits an address around its path: neither user info nor a signature in the query is touched.
fn path_of(url: &str) -> (&str, &str, &str) {
    let authority = url.find("://").map_or(url.len(), |colon| colon + "://".len());
    let end = url[authority..].find(['?', '#']).map_or(url.len(), |end| authority + end);
    let start = url[authority..end].find('/').map_or(end, |slash| authority + slash);
    (&url[..start], &url[start..end], &url[end..])
}

/// Replaces `%d` and `%0Nd`. `%d` before a hexadecimal digit encodes a character and stays.
fn with_number(path: &str, number: usize) -> String {
    let (first, pieces) = path.split_once('%').map_or((path, None), |(first, rest)| (first, Some(rest.split('%'))));
    let numbered = pieces.into_iter().flatten().map(|piece| match naming::number(piece) {
        Some((width, rest)) if width > 0 || !rest.starts_with(|next: char| next.is_ascii_hexdigit()) => {
            format!("{number:0width$}{rest}")
        }
        Some(_) | None => format!("%{piece}"),
    });
    std::iter::once(first.to_owned()).chain(numbered).collect()
}

#[cfg(test)]
mod tests;
