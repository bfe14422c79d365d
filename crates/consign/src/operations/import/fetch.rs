//! From a storage into the file store: how every import receives, whatever the protocol.

use crate::error::{Code, TaskError};
use crate::operations::storage::{Origin, Wanted};
use crate::operations::{Context, Outcome};

impl Context {
    /// Receives the wanted objects, in the order of their names.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND` when there is none; `FILE_TOO_LARGE`, `TOO_MANY_FILES` before a byte is received; else the
    /// first error of a file, which stops the others.
    pub async fn fetch(&self, origin: Origin) -> Result<Outcome, TaskError> {
        let Origin { connector, wanted, filename } = origin;
        let _slot = self.network.hosts.take(&connector.host()).await;
        let objects = match &wanted {
            Wanted::One(name) => vec![connector.stat(name).await?],
            Wanted::All(prefix) => connector.list(prefix, self.bounds.files_max).await?,
        };
        if objects.is_empty() {
            return Err(TaskError::new(Code::FileNotFound, "There is no file to import under this prefix."));
        }
        let progress = self.progress(objects.iter().map(|object| object.size).sum());
        let mut files = Vec::new();
        for (number, object) in (1..).zip(&objects) {
            let stream = connector.read(&object.name, 0..object.size).await?;
            let name = filename.as_deref().filter(|_| objects.len() == 1).unwrap_or(&object.name);
            let told = object.content_type.as_deref();
            files.push(self.save_as_part(number, name, told, Some(object.size), stream, &progress).await?);
        }
        Ok(Outcome { files })
    }
}
