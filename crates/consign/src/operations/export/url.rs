//! `export/url`: offers files for download at a temporary link.

use garde::Validate;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{naming::Naming, zip};
use crate::error::{Code, TaskError};
use crate::files::Link;
use crate::model::{BlobKey, Download, File};
use crate::operations::{Context, Feed, Operation, Outcome};

/// What several files in one are called.
const ARCHIVE_NAME: &str = "archive.zip";

/// The operation `export/url`; its manual stands on [`Args`], where OpenAPI and the manual find it.
pub(super) struct ExportUrl;

/// Makes a temporary link for each input file, or one for all of them in a ZIP archive.
///
/// The links need no API key. They die after a day (setting `retention`), or with the task.
///
/// ## Result
/// `result.files` has each file with its size in bytes and its `url`.
///
/// ## Retries
/// No byte leaves the server; running again makes the same files.
///
/// ## Errors
/// `NO_INPUT_FILES`; tried again: `STORAGE_FULL`.
#[derive(Deserialize, JsonSchema, Validate)]
#[schemars(rename = "ExportUrlArgs")]
pub(super) struct Args {
    /// Put several files into one ZIP archive, with one link.
    #[garde(skip)]
    #[serde(default)]
    archive_multiple_files: bool,
    /// Let browsers show the files instead of saving them.
    #[garde(skip)]
    #[serde(default)]
    inline: bool,
    /// Accepted for compatibility, without effect.
    #[garde(skip)]
    #[serde(default)]
    #[expect(dead_code, reason = "accepted for compatibility")]
    inline_additional: bool,
}

impl Operation for ExportUrl {
    const NAME: &'static str = "export/url";
    const FEED: Feed = Feed::Inputs;
    type Args = Args;

    async fn run(args: Args, task: Context) -> Result<Outcome, TaskError> {
        let names = Naming::Own.names(task.inputs.iter().map(|input| input.file.name.as_str()))?;
        let names: Vec<String> = names.into_iter().map(|name| name.target).collect();
        let mut files = match task.inputs.len() {
            0 => {
                return Err(TaskError::new(Code::NoInputFiles, "There is no file to offer: the inputs produced none."));
            }
            2.. if args.archive_multiple_files => vec![zip::archive(&task, ARCHIVE_NAME, &names).await?],
            _ => linked(&task, names).await?,
        };
        let expires_at = task.clock.now().plus(task.bounds.link_lifetime);
        for file in &mut files {
            file.download = Some(Download { inline: args.inline, expires_at });
        }
        Ok(Outcome { files })
    }
}

/// The input files as this task's own, which live as long as it does. Their bytes are not copied.
async fn linked(task: &Context, names: Vec<String>) -> Result<Vec<File>, TaskError> {
    let mut files = Vec::with_capacity(names.len());
    let mut links = Vec::with_capacity(names.len());
    for ((input, name), number) in task.inputs.iter().zip(names).zip(1..) {
        let Some(from) = &input.file.blob else {
            return Err(TaskError::new(Code::Internal, "An input file is not kept here; the server's log says more."));
        };
        let to = BlobKey::new(task.task_id, task.token, number);
        links.push(Link { from: from.clone(), to: to.clone(), digests: input.file.digests });
        files.push(File { name, blob: Some(to), ..input.file.clone() });
    }
    task.files.link_all(links).await?;
    Ok(files)
}

#[cfg(test)]
mod tests;
