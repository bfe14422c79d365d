//! The documents that go over the wire, both ways.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// The answer to `CreateMultipartUpload`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Created {
    pub(super) upload_id: String,
}

/// The answer to `CompleteMultipartUpload`.
#[derive(Debug, Deserialize)]
pub(super) struct Completed {
    #[serde(rename = "ETag")]
    pub(super) etag: Option<String>,
    #[serde(rename = "ChecksumCRC32C")]
    pub(super) checksum: Option<String>,
}

/// The body of `CompleteMultipartUpload`.
#[derive(Debug, Serialize)]
#[serde(rename = "CompleteMultipartUpload")]
pub(super) struct Complete {
    #[serde(rename = "@xmlns")]
    pub(super) namespace: &'static str,
    #[serde(rename = "Part")]
    pub(super) parts: Vec<CompletePart>,
}

/// The namespace of every S3 document.
pub(super) const NAMESPACE: &str = "http://s3.amazonaws.com/doc/2006-03-01/";

/// One part of [`Complete`].
#[derive(Debug, Serialize)]
pub(super) struct CompletePart {
    #[serde(rename = "PartNumber")]
    pub(super) number: u32,
    #[serde(rename = "ETag")]
    pub(super) etag: String,
    #[serde(rename = "ChecksumCRC32C", skip_serializing_if = "Option::is_none")]
    pub(super) checksum: Option<String>,
}

/// A page of `ListObjectsV2`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ObjectPage {
    pub(super) contents: Vec<Listed>,
    pub(super) common_prefixes: Vec<Folder>,
    pub(super) encoding_type: Option<String>,
    pub(super) is_truncated: bool,
    pub(super) next_continuation_token: Option<String>,
}

/// An object in a listing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub(super) key: String,
    pub(super) size: u64,
    #[serde(rename = "ETag")]
    pub(super) etag: Option<String>,
}

/// A folder in a listing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Folder {
    pub(super) prefix: String,
}

/// A page of `ListMultipartUploads`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct UploadPage {
    #[serde(rename = "Upload")]
    pub(super) uploads: Vec<ListedUpload>,
    pub(super) encoding_type: Option<String>,
    pub(super) is_truncated: bool,
    pub(super) next_key_marker: Option<String>,
    pub(super) next_upload_id_marker: Option<String>,
}

/// An open upload in a listing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListedUpload {
    pub(super) key: String,
    pub(super) upload_id: String,
    pub(super) initiated: Option<String>,
}

/// The answer to `ListParts`, as far as it says whether there are any.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PartPage {
    #[serde(rename = "Part")]
    pub(super) parts: Vec<IgnoredPart>,
}

/// A part in a listing.
#[derive(Debug, Default, Deserialize)]
pub(super) struct IgnoredPart {}

/// Reads an answer.
pub(super) fn read<T: DeserializeOwned>(action: &'static str, body: &[u8]) -> Result<T> {
    crate::xml::read(action, "S3", body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completion_is_written_as_the_protocol_has_it() {
        let part = CompletePart { number: 1, etag: "\"e<\"".to_owned(), checksum: Some("AAAA==".to_owned()) };
        let text = crate::xml::write("completing", &Complete { namespace: NAMESPACE, parts: vec![part] }).unwrap();
        assert_eq!(
            text,
            "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Part><PartNumber>1</PartNumber>\
             <ETag>\"e&lt;\"</ETag><ChecksumCRC32C>AAAA==</ChecksumCRC32C></Part></CompleteMultipartUpload>"
        );
    }

    #[test]
    fn a_listing_keeps_blanks_at_the_edges_of_keys() {
        let text = "<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key> a&amp;b </Key><Size>3</Size></Contents></ListBucketResult>";
        let page: ObjectPage = read("listing", text.as_bytes()).unwrap();
        assert_eq!(page.contents[0].key, " a&b ");
    }
}
