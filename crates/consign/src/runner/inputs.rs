//! The files that an attempt works on, opened before it begins.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::error::{Code, TaskError};
use crate::files::{self, Files};
use crate::model::{BlobKey, File};
use crate::operations::context::InputFile;
use crate::store::Input;

/// Input files of an attempt that are held open, so that it goes on when their task is deleted meanwhile. Of those beyond, each
/// is opened when it is read: a task may have thousands, and a process may not have so many files open.
const HELD_MAX: usize = 64;
/// Files that are opened at once: in an object store each is looked at with a request, at every attempt.
const AT_ONCE: usize = 16;

/// Opens the files of all inputs, in their order.
pub(super) async fn open(files: &Files, inputs: Vec<Input>, files_max: usize) -> Result<Vec<InputFile>, TaskError> {
    // Files that were delivered elsewhere have no bytes here and are nobody's input.
    let kept = |file: File| file.blob.clone().map(|blob| (blob, file));
    let kept: Vec<_> = inputs.into_iter().flat_map(|input| input.files).filter_map(kept).collect();
    if kept.len() > files_max {
        let message = format!("A task takes {files_max} files at the most; use several tasks.");
        return Err(TaskError::new(Code::TooManyFiles, message));
    }
    let opening = kept.into_iter().enumerate().map(|(before, (blob, file))| one(files, blob, file, before < HELD_MAX));
    let opening: Vec<_> = opening.collect();
    Ok(stream::iter(opening).buffered(AT_ONCE).try_collect().await?)
}

async fn one(files: &Files, blob: BlobKey, file: File, is_held: bool) -> Result<InputFile, files::Error> {
    let source = if is_held { files.source(&blob, &file).await? } else { files.input(&blob, &file).await? };
    Ok(InputFile { file, source })
}

#[cfg(test)]
mod tests {
    use connectors::{Digests, Progress};

    use super::*;
    use crate::clock::Timestamp;
    use crate::id::{TaskId, Token};

    #[tokio::test]
    async fn files_come_in_their_order_and_not_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::open(folder.path()).await.unwrap();
        let task_id = TaskId::new(Timestamp(0));
        let mut inputs = Vec::new();
        for number in 1..=100_u32 {
            let (blob, text) = (BlobKey::new(task_id, Token(1), number), number.to_string());
            let stream = Box::pin(stream::iter([Ok(text.clone().into())]));
            files.receive(&blob, stream, None, 100, &Progress::default()).await.unwrap();
            let file = File {
                name: text.clone(),
                size: text.len() as u64,
                digests: Digests::of(text.as_bytes()),
                content_type: String::new(),
                // Every tenth was delivered elsewhere.
                blob: (number % 10 != 0).then_some(blob),
                download: None,
                receipt: None,
            };
            inputs.push(Input { task_id, name: None, files: vec![file] });
        }
        let opened = open(&files, inputs.clone(), 90).await.unwrap();
        assert_eq!(opened.len(), 90);
        let expected = (1..=100_u32).filter(|number| number % 10 != 0);
        for (input, number) in opened.iter().zip(expected) {
            let text = number.to_string();
            assert_eq!(input.file.name, text);
            assert_eq!(input.source.read_at(0, text.len()).await.unwrap(), text);
        }
        let error = open(&files, inputs, 89).await.unwrap_err();
        assert_eq!(error.code, Code::TooManyFiles);
    }
}
