//! Objects as files: one for the bytes, one beside it for what belongs to them, changed together under one lock.
//!
//! Functions here block; the backend calls them on threads that may.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use s3s::dto::{ETag, ETagCondition};
use s3s::{S3Error, S3Result, s3_error};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::checksum::Checksums;
use super::name;

/// Longest sidecar in bytes: S3 allows 2 KiB of metadata and 8 KiB of headers, escaped at worst six times as long.
const SIDECAR_BYTES_MAX: u64 = 256 * 1024;

/// What belongs to an object beside its bytes; the file next to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Description {
    /// Length and time of the file that this describes. When they differ, the file is not the one described: somebody
    /// changed it by hand, or the server was killed between the two renames.
    pub size_bytes: u64,
    pub modified: Option<SystemTime>,
    pub etag: String,
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
    pub content_disposition: Option<String>,
    pub content_encoding: Option<String>,
    pub content_language: Option<String>,
    pub metadata: BTreeMap<String, String>,
    /// As in the header: `key=value&…`.
    pub tagging: Option<String>,
    pub acl: Option<String>,
    pub server_side_encryption: Option<String>,
    pub storage_class: Option<String>,
    pub checksums: Checksums,
    /// `COMPOSITE` or `FULL_OBJECT`; none without checksums.
    pub checksum_type: Option<String>,
}

/// An object that was found.
pub(super) struct Stored {
    pub file: File,
    pub description: Description,
    pub size_bytes: u64,
    pub modified: SystemTime,
}

/// What must be true of the object that is there before it is replaced.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition {
    pub if_match: Option<ETagCondition>,
    pub if_none_match: Option<ETagCondition>,
}

/// All buckets and what is in them.
pub(crate) struct Objects {
    root: PathBuf,
    /// Held while the two files of an object change or are opened, so that nobody sees one without the other.
    changes: Mutex<()>,
}

impl Objects {
    /// Opens the folder, makes what is missing, and removes what an earlier server left half-received.
    pub(crate) fn open(root: PathBuf, bucket: &str) -> io::Result<Self> {
        let objects = Self { root, changes: Mutex::new(()) };
        match fs::remove_dir_all(objects.incoming()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::create_dir_all(objects.incoming())?;
        fs::create_dir_all(objects.uploads())?;
        fs::create_dir_all(objects.root.join(bucket))?;
        Ok(objects)
    }

    /// Gives the folder for files that are not yet objects. Bucket names cannot start with a dot.
    pub(super) fn incoming(&self) -> PathBuf {
        self.root.join(".incoming")
    }

    /// Gives the folder of multipart uploads.
    pub(super) fn uploads(&self) -> PathBuf {
        self.root.join(".uploads")
    }

    /// Waits for the right to change things.
    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        // Nothing is guarded but the order of renames, so a panic elsewhere leaves nothing broken.
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the folder of a bucket. `s3s` has checked the name: no slash, no leading dot.
    pub(super) fn bucket(&self, bucket: &str) -> S3Result<PathBuf> {
        let path = self.root.join(bucket);
        if path.is_dir() { Ok(path) } else { Err(s3_error!(NoSuchBucket, "The specified bucket does not exist.")) }
    }

    /// Gives the names of all buckets and when they were made, in order.
    pub(super) fn buckets(&self) -> io::Result<Vec<(String, SystemTime)>> {
        let mut buckets = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            let name = entry.file_name().into_string().unwrap_or_default();
            if s3s::path::check_bucket_name(&name) && entry.file_type()?.is_dir() {
                buckets.push((name, entry.metadata()?.created().unwrap_or(UNIX_EPOCH)));
            }
        }
        buckets.sort();
        Ok(buckets)
    }

    /// Makes a bucket.
    pub(super) fn create_bucket(&self, bucket: &str) -> S3Result<()> {
        match fs::create_dir(self.root.join(bucket)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(s3_error!(BucketAlreadyOwnedByYou, "You already have a bucket of this name."))
            }
            Err(error) => Err(S3Error::internal_error(error)),
        }
    }

    /// Removes an empty bucket.
    pub(super) fn delete_bucket(&self, bucket: &str) -> S3Result<()> {
        let _guard = self.lock();
        match fs::remove_dir(self.bucket(bucket)?) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                Err(s3_error!(BucketNotEmpty, "The bucket you tried to delete is not empty."))
            }
            Err(error) => Err(S3Error::internal_error(error)),
        }
    }

    /// Makes a file an object, in place of the one that may be there.
    pub(super) fn put(
        &self,
        (bucket, key): (&str, &str),
        file: NamedTempFile,
        mut description: Description,
        condition: &Condition,
    ) -> S3Result<()> {
        let _guard = self.lock();
        let path = self.bucket(bucket)?.join(name::encode(key));
        self.check_condition((bucket, key), condition)?;
        let attributes = file.as_file().metadata().map_err(S3Error::internal_error)?;
        description.size_bytes = attributes.len();
        description.modified = attributes.modified().ok();
        let sidecar = self.new_sidecar(&description).map_err(S3Error::internal_error)?;
        persist(file, &path).map_err(S3Error::internal_error)?;
        persist(sidecar, &self.sidecar_path(bucket, key)).map_err(S3Error::internal_error)
    }

    /// Opens an object.
    pub(super) fn get(&self, bucket: &str, key: &str) -> S3Result<Stored> {
        let _guard = self.lock();
        self.find(bucket, key)?.ok_or_else(|| s3_error!(NoSuchKey, "The specified key does not exist."))
    }

    /// Removes an object; one that is not there counts as removed, as S3 has it.
    pub(super) fn delete(&self, bucket: &str, key: &str) -> S3Result<()> {
        let _guard = self.lock();
        let folder = self.bucket(bucket)?;
        remove(&folder.join(name::encode(key)), &folder).map_err(S3Error::internal_error)?;
        let meta = self.root.join(".meta").join(bucket);
        remove(&self.sidecar_path(bucket, key), &meta).map_err(S3Error::internal_error)
    }

    /// Gives the ETag of a listed object, whose attributes the caller has.
    pub(super) fn etag(&self, bucket: &str, key: &str, attributes: &Metadata) -> String {
        self.describe(bucket, key, attributes).etag
    }

    fn find(&self, bucket: &str, key: &str) -> S3Result<Option<Stored>> {
        let path = self.bucket(bucket)?.join(name::encode(key));
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(S3Error::internal_error(error)),
        };
        let attributes = file.metadata().map_err(S3Error::internal_error)?;
        if !attributes.is_file() {
            return Ok(None);
        }
        let description = self.describe(bucket, key, &attributes);
        let modified = attributes.modified().unwrap_or(UNIX_EPOCH);
        Ok(Some(Stored { file, description, size_bytes: attributes.len(), modified }))
    }

    fn describe(&self, bucket: &str, key: &str, attributes: &Metadata) -> Description {
        let described = read_json::<Description>(&self.sidecar_path(bucket, key))
            .filter(|found| found.size_bytes == attributes.len() && found.modified == attributes.modified().ok());
        described.unwrap_or_else(|| foreign(attributes))
    }

    fn check_condition(&self, (bucket, key): (&str, &str), condition: &Condition) -> S3Result<()> {
        if condition.if_match.is_none() && condition.if_none_match.is_none() {
            return Ok(());
        }
        let etag = self.find(bucket, key)?.map(|stored| stored.description.etag);
        if condition.if_match.is_some() && etag.is_none() {
            return Err(s3_error!(NoSuchKey, "The specified key does not exist."));
        }
        let matches = |wanted: &ETagCondition| etag.as_deref().is_some_and(|etag| is_match(wanted, etag));
        if condition.if_match.as_ref().is_some_and(|wanted| !matches(wanted))
            || condition.if_none_match.as_ref().is_some_and(matches)
        {
            return Err(s3_error!(PreconditionFailed, "At least one of the preconditions you specified did not hold."));
        }
        Ok(())
    }

    fn sidecar_path(&self, bucket: &str, key: &str) -> PathBuf {
        let mut path = self.root.join(".meta").join(bucket).join(name::encode(key)).into_os_string();
        path.push(".json");
        path.into()
    }

    fn new_sidecar(&self, description: &Description) -> io::Result<NamedTempFile> {
        let mut file = NamedTempFile::new_in(self.incoming())?;
        file.write_all(&serde_json::to_vec_pretty(description)?)?;
        Ok(file)
    }
}

/// Tells whether an ETag is the wanted one.
pub(super) fn is_match(wanted: &ETagCondition, etag: &str) -> bool {
    wanted.as_etag().is_none_or(|wanted| wanted.value() == etag)
}

/// Gives an ETag as `s3s` wants it.
pub(super) fn strong(etag: &str) -> ETag {
    ETag::Strong(etag.to_owned())
}

/// Reads a small JSON file of ours; one that is missing or broken is as good as none.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    let file = File::open(path).ok()?;
    serde_json::from_reader(io::Read::take(file, SIDECAR_BYTES_MAX)).ok()
}

/// Moves a file to its final name, making the folders of long names.
pub(super) fn persist(file: NamedTempFile, path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    file.persist(path)?;
    Ok(())
}

/// Removes a file, and the folders of long names that became empty, up to `top`.
fn remove(path: &Path, top: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let folders = path.ancestors().skip(1).take_while(|folder| *folder != top);
    for folder in folders {
        if fs::remove_dir(folder).is_err() {
            break;
        }
    }
    Ok(())
}

/// Describes a file that no request put there. Its ETag changes with it, but is not its MD5.
fn foreign(attributes: &Metadata) -> Description {
    let modified = attributes.modified().unwrap_or(UNIX_EPOCH);
    let age = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let etag = format!("{:016x}{:016x}-0", age.as_micros(), attributes.len());
    Description { size_bytes: attributes.len(), modified: Some(modified), etag, ..Description::default() }
}
