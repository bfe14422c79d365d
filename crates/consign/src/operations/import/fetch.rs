//! From a storage into the file store: how every import receives, whatever the protocol.

use std::sync::Arc;

use connectors::{Connector, Described, Kind, Object, Progress, Share, download};

use crate::error::{Code, TaskError};
use crate::model::File;
use crate::operations::context::Incoming;
use crate::operations::export::Naming;
use crate::operations::storage::{Origin, Wanted};
use crate::operations::{Context, Outcome};

/// Folder markers that a listing may hold beside the files: they are no files, but the storage counts them.
const MARKERS_MAX: usize = 1000;

impl Context {
    /// Receives the wanted objects, some at once, and returns them in the order of their names. Two of the same last
    /// part are both kept, the second as `name-2.ext`. Empty objects whose name ends with `/` stand for folders and are
    /// left out, unless one is asked for by its exact name.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND` when there is none; `TOO_MANY_FILES`, `FILE_TOO_LARGE`, `STORAGE_FULL` before a byte is
    /// received; else the first error of a file, which stops the others. No file is left then.
    pub async fn fetch(&self, origin: Origin) -> Result<Outcome, TaskError> {
        let Origin { connector, wanted, filename } = origin;
        let _slot = self.network.hosts.take(&connector.host()).await;
        let found = match &wanted {
            Wanted::One(name) => vec![Found::Described(connector.describe(name, None).await?)],
            Wanted::All(prefix) => self.list(&*connector, prefix).await?,
        };
        self.check_room(&found).await?;
        let named = match (filename.as_deref(), found.as_slice()) {
            (Some(name), [_]) => vec![name],
            (Some(_) | None, _) => found.iter().map(|found| found.object().name.as_str()).collect(),
        };
        let names = Naming::Own.names(named)?;
        let progress = self.progress(found.iter().map(|found| found.object().size).fold(0, u64::saturating_add));
        let is_only = found.len() == 1;
        let memory = self.network.memory.share();
        let received = found.into_iter().zip(&names).zip(1..).map(|((found, name), number)| {
            self.receive(Arc::clone(&connector), found, (number, name.shown.as_str(), is_only), &memory, &progress)
        });
        let received = self.some_at_once(received.collect()).await;
        if received.is_err()
            && let Err(error) = self.files.remove_attempt(self.task_id, self.token).await
        {
            tracing::warn!(%error, "files of a failed import stay until the next sweep");
        }
        received
    }

    /// The files under a prefix: at least one, and not too many.
    async fn list(&self, connector: &dyn Connector, prefix: &str) -> Result<Vec<Found>, TaskError> {
        let limit = self.bounds.files_max;
        let too_many = || {
            let advice = "Import fewer with a longer prefix, or let the operator raise limits.files_per_task_max.";
            let message = format!("There are more than {limit} files under `{prefix}`. {advice}");
            TaskError::new(Code::TooManyFiles, message)
        };
        let listed = match connector.list(prefix, limit.saturating_add(MARKERS_MAX)).await {
            Err(error) if error.kind == Kind::TooMany => return Err(too_many().because(error)),
            other => other?,
        };
        let is_folder = |object: &Object| object.size == 0 && object.name.ends_with('/');
        let folders = listed.iter().filter(|object| is_folder(object)).count();
        let found: Vec<Found> = listed.into_iter().filter(|object| !is_folder(object)).map(Found::Listed).collect();
        if found.len() > limit {
            return Err(too_many());
        }
        if found.is_empty() {
            let what = if folders > 0 { "only folders without files" } else { "no file to import" };
            let message = format!("There is {what} under `{prefix}`; check its spelling, upper and lower case too.");
            return Err(TaskError::new(Code::FileNotFound, message));
        }
        Ok(found)
    }

    /// Refuses what is too large, each file and all together, before a byte of it is received.
    async fn check_room(&self, found: &[Found]) -> Result<(), TaskError> {
        let limit = self.bounds.file_bytes_max;
        if let Some(large) = found.iter().map(Found::object).find(|object| object.size > limit) {
            let (name, size) = (&large.name, large.size);
            let advice = "this server takes files of up to";
            let message = format!("\"{name}\" has {size} bytes, and {advice} {limit} (limits.file_bytes_max).");
            return Err(TaskError::new(Code::FileTooLarge, message));
        }
        let total = found.iter().map(|found| found.object().size).fold(0, u64::saturating_add);
        Ok(self.files.check_room(total).await?)
    }

    async fn receive(
        &self,
        connector: Arc<dyn Connector>,
        found: Found,
        (number, shown, is_only): (u32, &str, bool),
        memory: &Share,
        progress: &Progress,
    ) -> Result<File, TaskError> {
        let name = found.object().name.clone();
        let received = async {
            let described = match found {
                Found::Described(described) => described,
                Found::Listed(object) => connector.describe(&name, Some(object)).await?,
            };
            let incoming = Incoming {
                name: shown,
                content_type: described.object.content_type.as_deref(),
                size: Some(described.object.size),
                digest: described.digest,
                is_only,
                stream: download::whole(&connector, &described, &self.network.limits, memory.clone()),
            };
            self.save_part(number, incoming, progress).await
        };
        let host = connector.host();
        self.metered(Some(&host), true, received).await.map_err(|mut error| {
            error.message = format!("\"{name}\" was not imported. {}", error.message);
            error
        })
    }
}

/// An object that is wanted.
enum Found {
    Described(Described),
    Listed(Object),
}

impl Found {
    fn object(&self) -> &Object {
        match self {
            Self::Described(described) => &described.object,
            Self::Listed(object) => object,
        }
    }
}

#[cfg(test)]
mod tests;
