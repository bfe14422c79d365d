//! `import/raw`: takes a file from the request itself, as text.

use bytes::Bytes;
use garde::Validate;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::TaskError;
use crate::operations::{Context, Feed, Operation, Outcome};

/// The operation `import/raw`; its manual stands on [`Args`], where OpenAPI and the manual find it.
pub(super) struct ImportRaw;

/// Makes a file of text in the request. For more than a few megabytes use `import/upload`.
///
/// ## Result
/// `result.files` has the file, with its size in bytes.
///
/// ## Retries
/// The file of an earlier try is replaced, so running again leaves one file.
///
/// ## Errors
/// `FILE_TOO_LARGE`.
#[derive(Deserialize, JsonSchema, Validate)]
#[schemars(rename = "ImportRawArgs")]
pub(super) struct Args {
    /// Content of the file, stored as UTF-8.
    #[garde(skip)]
    file: String,
    /// Name of the file, with its extension.
    #[garde(length(min = 1, max = 255))]
    filename: String,
}

impl Operation for ImportRaw {
    const NAME: &'static str = "import/raw";
    const FEED: Feed = Feed::Itself;
    type Args = Args;

    async fn run(args: Args, task: Context) -> Result<Outcome, TaskError> {
        let size = args.file.len() as u64;
        let content = Bytes::from(args.file);
        let stream = Box::pin(futures_util::stream::once(std::future::ready(Ok(content))));
        let file = task.save(1, &args.filename, None, Some(size), stream).await?;
        Ok(Outcome { files: vec![file] })
    }
}
