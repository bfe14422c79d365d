//! `import/upload`: waits for a file that the client posts to a form.

use garde::Validate;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::{Code, TaskError};
use crate::operations::{Context, Feed, Operation, Outcome};

/// The operation `import/upload`; its manual stands on [`Args`], where OpenAPI and the manual find it.
pub(super) struct ImportUpload;

/// Takes a file that you post to the form in `result.form`: all `parameters`, then the `file`, as
/// `multipart/form-data`.
///
/// ## Result
/// `result.form` while the task waits; then `result.files` has the file with its size in bytes.
///
/// ## Retries
/// A form takes one file. If the post breaks, post again: until the file has come whole, the task waits.
///
/// ## Errors
/// `TIMEOUT` when no file comes, `FILE_TOO_LARGE`.
#[derive(Deserialize, JsonSchema, Validate)]
#[schemars(rename = "ImportUploadArgs")]
pub(super) struct Args {
    /// Web address that the browser is sent to after the upload, instead of the answer `201 Created`. What is no `http`
    /// or `https` address is ignored.
    #[garde(length(max = 8192))]
    redirect: Option<String>,
    /// Name of the file. By default the one that the client posts.
    #[garde(length(max = 255))]
    filename: Option<String>,
}

impl Operation for ImportUpload {
    const NAME: &'static str = "import/upload";
    const FEED: Feed = Feed::Client;
    type Args = Args;

    async fn run(_args: Args, _task: Context) -> Result<Outcome, TaskError> {
        Err(TaskError::new(Code::Internal, "A file that the client sends cannot be fetched."))
    }
}
