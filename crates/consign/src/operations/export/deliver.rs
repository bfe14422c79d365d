//! From input files to a destination: how every export sends, whatever the protocol.

use std::future::Future;
use std::sync::Arc;

use connectors::{Connector, Put, Receipt};
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};

use super::naming::{Name, Naming};
use crate::error::{Code, TaskError};
use crate::model::File;
use crate::operations::{Context, InputFile, Outcome};

impl Context {
    /// Sends the input files to a destination, some at once, and returns their receipts in the order of the inputs.
    /// What an earlier attempt left open is gone on with.
    ///
    /// # Errors
    /// `NO_INPUT_FILES`, `NAME_CONFLICT` and `FILE_TOO_LARGE` before anything is sent; else the first error of a
    /// file, which stops the others.
    pub async fn deliver(&self, connector: Arc<dyn Connector>, naming: &Naming) -> Result<Outcome, TaskError> {
        if self.inputs.is_empty() {
            return Err(TaskError::new(Code::NoInputFiles, "There is no file to deliver: the inputs produced none."));
        }
        let names = naming.names(self.inputs.iter().map(|input| input.file.name.as_str()))?;
        self.check_sizes(&*connector, &names)?;

        let host = connector.host();
        let progress = self.progress(self.inputs.iter().map(|input| input.file.size).sum());
        if let ([input], [name], Some(head_start)) = (self.inputs.as_slice(), names.as_slice(), &self.head_start)
            && let Some(sending) = head_start.go_on(&name.target, &input.file, &self.journal, &progress).await
        {
            let sent = sending.map(|receipt| match receipt {
                Ok(receipt) => Ok(delivered(input, name, receipt)),
                Err(error) => Err(of_file(input, error.into())),
            });
            return Ok(Outcome { files: vec![self.metered(Some(&host), false, sent).await?] });
        }
        let _slot = self.network.hosts.take(&host).await;
        let memory = self.network.memory.share();
        let puts = self.inputs.iter().zip(&names).map(|(input, name)| {
            let put = Put {
                name: name.target.clone(),
                source: Arc::clone(&input.source),
                content_type: input.file.content_type.clone(),
                journal: Arc::clone(&self.journal),
                resume: self.open.iter().find(|open| open.target == name.target).cloned(),
                progress: progress.clone(),
                memory: memory.clone(),
            };
            let connector = Arc::clone(&connector);
            let sent = async move {
                let receipt = connector.put(put).await.map_err(|error| of_file(input, error.into()))?;
                Ok(delivered(input, name, receipt))
            };
            self.metered(Some(&host), false, sent)
        });
        self.some_at_once(puts.collect()).await
    }

    /// Waits for transfers, some at once, and returns their files in order.
    ///
    /// # Errors
    /// The first error of a transfer, which stops the others.
    pub(in crate::operations) async fn some_at_once<F>(&self, transfers: Vec<F>) -> Result<Outcome, TaskError>
    where
        F: Future<Output = Result<File, TaskError>> + Send,
    {
        let transfers = transfers.into_iter().enumerate().map(|(place, transfer)| async move {
            let file = transfer.await?;
            Ok::<_, TaskError>((place, file))
        });
        // In the order in which they end: the first error is seen at once, and drops the other transfers.
        let at_once = self.bounds.files_at_once.max(1);
        let mut files: Vec<_> = stream::iter(transfers).buffer_unordered(at_once).try_collect().await?;
        files.sort_unstable_by_key(|(place, _)| *place);
        Ok(Outcome { files: files.into_iter().map(|(_, file)| file).collect() })
    }

    /// Refuses what the destination cannot hold before a byte is sent.
    fn check_sizes(&self, connector: &dyn Connector, names: &[Name]) -> Result<(), TaskError> {
        let capability = connector.capability();
        for (input, name) in self.inputs.iter().zip(names) {
            if name.target.len() > capability.name_bytes_max {
                let limit = capability.name_bytes_max;
                let message = format!("The destination takes names of up to {limit} bytes.");
                return Err(of_file(input, TaskError::new(Code::InvalidData, message)));
            }
            if input.file.size > capability.object_bytes_max {
                let limit = capability.object_bytes_max;
                let message = format!("The destination takes files of up to {limit} bytes.");
                return Err(of_file(input, TaskError::new(Code::FileTooLarge, message)));
            }
        }
        Ok(())
    }
}

/// Names the file in an error.
pub(super) fn of_file(input: &InputFile, mut error: TaskError) -> TaskError {
    error.message = format!("\"{}\" was not delivered. {}", input.file.name, error.message);
    error
}

fn delivered(input: &InputFile, name: &Name, mut receipt: Receipt) -> File {
    if name.is_changed {
        let renamed = format!("It was renamed because another file is called \"{}\".", input.file.name);
        receipt.note = Some(receipt.note.map_or_else(|| renamed.clone(), |note| format!("{note} {renamed}")));
    }
    File { name: name.shown.clone(), blob: None, download: None, receipt: Some(receipt), ..input.file.clone() }
}

#[cfg(test)]
mod tests;
