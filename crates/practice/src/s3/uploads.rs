//! Multipart uploads: one folder each, with what the object will be and a pair of files per part.
//!
//! Functions here block; the backend calls them on threads that may.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use s3s::crypto::{Checksum as _, Md5};
use s3s::{S3Error, S3Result, s3_error};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::checksum::{self, Checksums};
use super::objects::{Condition, Description, Objects, persist, read_json};
use super::receive::Received;

/// Highest part number, as at the original service.
const PART_NUMBER_MAX: i32 = 10_000;
/// Smallest part but the last: 5 MiB, as at the original service.
const PART_BYTES_MIN: u64 = 5 << 20;
/// Buffer for putting parts together when they are hashed on the way.
const COPY_BYTES: usize = 1 << 20;
/// The file with what the object will be.
const ABOUT: &str = "upload.json";

/// What the object will be once the upload is completed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Upload {
    pub bucket: String,
    pub key: String,
    pub description: Description,
    /// Checksum that every part gets, as in the header.
    pub checksum_algorithm: Option<String>,
}

impl Upload {
    /// Tells whether the checksum of the object is that of its bytes, not one composed of those of its parts.
    fn is_full_object(&self) -> bool {
        self.description.checksum_type.as_deref() == Some("FULL_OBJECT")
    }
}

/// A part that has arrived.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Part {
    pub md5_base64: String,
    pub etag: String,
    pub size_bytes: u64,
    pub checksums: Checksums,
    /// Read from the file, not kept in it.
    #[serde(skip)]
    pub modified: Option<SystemTime>,
}

/// A part as the client names it when it completes an upload.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub number: i32,
    pub etag: Option<String>,
    pub checksums: Checksums,
}

/// What a client says of the whole object when it completes an upload.
#[derive(Debug, Default)]
pub(super) struct Completion {
    pub parts: Vec<Named>,
    pub checksums: Checksums,
    pub size_bytes: Option<u64>,
    pub condition: Condition,
}

/// An upload in a listing.
#[derive(Debug)]
pub(super) struct Open {
    pub id: String,
    pub upload: Upload,
    pub initiated: SystemTime,
}

impl Objects {
    /// Begins an upload and gives its id.
    pub(super) fn begin_upload(&self, upload: &Upload) -> S3Result<String> {
        self.bucket(&upload.bucket)?;
        let id = hex::encode(rand::random::<[u8; 16]>());
        self.write_json(upload, &self.uploads().join(&id).join(ABOUT))?;
        Ok(id)
    }

    /// Finds an upload.
    pub(super) fn upload(&self, bucket: &str, key: &str, id: &str) -> S3Result<Upload> {
        self.bucket(bucket)?;
        let upload = self.upload_folder(id).and_then(|folder| read_json::<Upload>(&folder.join(ABOUT)));
        upload.filter(|upload| upload.bucket == bucket && upload.key == key).ok_or_else(no_such_upload)
    }

    /// Keeps a part, in place of the one of the same number that may be there.
    pub(super) fn put_part(&self, id: &str, number: i32, received: Received) -> S3Result<Part> {
        let folder = self.upload_folder(id).ok_or_else(no_such_upload)?;
        let part = Part {
            md5_base64: BASE64.encode(received.md5),
            etag: hex::encode(received.md5),
            size_bytes: received.size_bytes,
            checksums: received.checksums,
            modified: None,
        };
        let _guard = self.lock();
        if !folder.join(ABOUT).is_file() {
            // Completed or aborted while the part was on its way.
            return Err(no_such_upload());
        }
        persist(received.file, &part_path(&folder, number)).map_err(S3Error::internal_error)?;
        self.write_json(&part, &part_path(&folder, number).with_extension("json"))?;
        Ok(part)
    }

    /// Gives the parts with numbers after `marker`, at most `limit`, and whether there are more.
    pub(super) fn parts(&self, id: &str, marker: i32, limit: usize) -> S3Result<(Vec<(i32, Part)>, bool)> {
        let folder = self.upload_folder(id).ok_or_else(no_such_upload)?;
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&folder).map_err(|_| no_such_upload())? {
            let name = entry.map_err(S3Error::internal_error)?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".part")).and_then(|name| name.parse().ok());
            numbers.extend(number.filter(|number: &i32| *number > marker));
        }
        numbers.sort_unstable();
        let is_truncated = numbers.len() > limit;
        let found = numbers.into_iter().take(limit).filter_map(|number| Some((number, part(&folder, number)?)));
        Ok((found.collect(), is_truncated))
    }

    /// Gives all uploads of a bucket that are neither completed nor aborted, by key and id.
    pub(super) fn open_uploads(&self, bucket: &str) -> S3Result<Vec<Open>> {
        self.bucket(bucket)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(self.uploads()).map_err(S3Error::internal_error)? {
            let path = entry.map_err(S3Error::internal_error)?.path().join(ABOUT);
            let Some(upload) = read_json::<Upload>(&path).filter(|upload| upload.bucket == bucket) else { continue };
            let initiated = fs::metadata(&path).and_then(|about| about.modified()).unwrap_or(UNIX_EPOCH);
            let id = path.parent().and_then(Path::file_name).map(|id| id.to_string_lossy().into_owned());
            found.extend(id.map(|id| Open { id, upload, initiated }));
        }
        found.sort_by(|a, b| (&a.upload.key, &a.id).cmp(&(&b.upload.key, &b.id)));
        Ok(found)
    }

    /// Throws an upload away.
    pub(super) fn abort_upload(&self, id: &str) -> S3Result<()> {
        let folder = self.upload_folder(id).ok_or_else(no_such_upload)?;
        let _guard = self.lock();
        fs::remove_dir_all(folder).map_err(S3Error::internal_error)
    }

    /// Puts the parts together and makes the result an object.
    pub(super) fn complete_upload(&self, id: &str, upload: &Upload, completion: &Completion) -> S3Result<Description> {
        let folder = self.upload_folder(id).ok_or_else(no_such_upload)?;
        let parts = check_parts(&folder, &completion.parts)?;
        let size_bytes = parts.iter().map(|part| part.size_bytes).sum::<u64>();
        if completion.size_bytes.is_some_and(|claimed| claimed != size_bytes) {
            return Err(s3_error!(InvalidRequest, "The size of the object differs from the one that was announced."));
        }
        let full = upload.checksum_algorithm.as_deref().filter(|_| upload.is_full_object());
        let (file, full_checksums) = self.join_parts(&folder, &completion.parts, full)?;
        let mut description = upload.description.clone();
        description.etag = compose_etag(&parts);
        description.checksums = match &upload.checksum_algorithm {
            Some(algorithm) if !upload.is_full_object() => {
                let checksums: Vec<_> = parts.iter().map(|part| part.checksums.clone()).collect();
                checksum::compose(algorithm, &checksums)
            }
            Some(_) | None => full_checksums,
        };
        completion.checksums.check(&description.checksums)?;
        self.put((&upload.bucket, &upload.key), file, description.clone(), &completion.condition)?;
        self.abort_upload(id)?;
        Ok(description)
    }

    /// Copies the parts into one file; hashes it when a checksum of the whole is wanted, else leaves it to the system.
    fn join_parts(
        &self,
        folder: &Path,
        parts: &[Named],
        algorithm: Option<&str>,
    ) -> S3Result<(NamedTempFile, Checksums)> {
        let mut hasher = checksum::hasher(algorithm.into_iter());
        let mut join = || -> io::Result<NamedTempFile> {
            let mut file = NamedTempFile::new_in(self.incoming())?;
            let mut buffer = vec![0; if algorithm.is_some() { COPY_BYTES } else { 0 }];
            for named in parts {
                let mut part = File::open(part_path(folder, named.number))?;
                if algorithm.is_none() {
                    io::copy(&mut part, file.as_file_mut())?;
                    continue;
                }
                loop {
                    let length = part.read(&mut buffer)?;
                    if length == 0 {
                        break;
                    }
                    hasher.update(&buffer[..length]);
                    file.write_all(&buffer[..length])?;
                }
            }
            Ok(file)
        };
        let file = join().map_err(S3Error::internal_error)?;
        Ok((file, hasher.finalize().into()))
    }

    fn upload_folder(&self, id: &str) -> Option<PathBuf> {
        let is_ours = id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_ours.then(|| self.uploads().join(id)).filter(|folder| folder.is_dir())
    }

    fn write_json(&self, value: &impl Serialize, path: &Path) -> S3Result<()> {
        let write = || -> io::Result<()> {
            let mut file = NamedTempFile::new_in(self.incoming())?;
            file.write_all(&serde_json::to_vec_pretty(value)?)?;
            persist(file, path)
        };
        write().map_err(S3Error::internal_error)
    }
}

/// Refuses a part number that S3 does not know.
pub(super) fn check_number(number: i32) -> S3Result<()> {
    if (1..=PART_NUMBER_MAX).contains(&number) {
        Ok(())
    } else {
        Err(s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive."))
    }
}

fn no_such_upload() -> S3Error {
    s3_error!(NoSuchUpload, "The specified upload does not exist. It may have been completed or aborted.")
}

fn part_path(folder: &Path, number: i32) -> PathBuf {
    folder.join(format!("{number:05}.part"))
}

fn part(folder: &Path, number: i32) -> Option<Part> {
    let path = part_path(folder, number);
    let part: Part = read_json(&path.with_extension("json"))?;
    let attributes = fs::metadata(path).ok()?;
    Some(Part { modified: attributes.modified().ok(), ..part })
}

/// Finds the parts that a client names, in its order, and refuses when one is not as it says.
fn check_parts(folder: &Path, named: &[Named]) -> S3Result<Vec<Part>> {
    if named.is_empty() {
        return Err(s3_error!(MalformedXML, "You must specify at least one part."));
    }
    if !named.is_sorted_by(|a, b| a.number < b.number) {
        return Err(s3_error!(InvalidPartOrder, "The list of parts was not in ascending order."));
    }
    let invalid = || s3_error!(InvalidPart, "One or more of the specified parts could not be found or does not match.");
    let mut parts = Vec::with_capacity(named.len());
    for (index, named_part) in named.iter().enumerate() {
        let found = part(folder, named_part.number).ok_or_else(invalid)?;
        let is_same = named_part.etag.as_ref().is_some_and(|etag| *etag == found.etag);
        if !is_same || named_part.checksums.check(&found.checksums).is_err() {
            return Err(invalid());
        }
        if found.size_bytes < PART_BYTES_MIN && index + 1 < named.len() {
            return Err(s3_error!(EntityTooSmall, "Your proposed upload has a part below the minimum of 5 MiB."));
        }
        parts.push(found);
    }
    Ok(parts)
}

/// Composes the ETag of an object from its parts: the MD5 of their MD5s, and their number.
fn compose_etag(parts: &[Part]) -> String {
    let mut md5 = Md5::new();
    for part in parts {
        md5.update(&BASE64.decode(&part.md5_base64).unwrap_or_default());
    }
    format!("{}-{}", hex::encode(md5.finalize()), parts.len())
}
