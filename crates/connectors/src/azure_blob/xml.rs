//! The documents that go over the wire, both ways.

use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind, Result};

/// A page of `List Blobs`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct BlobPage {
    pub(super) blobs: Blobs,
    pub(super) next_marker: Option<String>,
}

/// The blobs of a page.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Blobs {
    #[serde(rename = "Blob")]
    pub(super) blobs: Vec<Listed>,
}

/// A page of `List Blobs` with folders.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct EntryPage {
    pub(super) blobs: Entries,
    pub(super) next_marker: Option<String>,
}

/// Blobs and folders of a page, in the order of their names.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Entries {
    #[serde(rename = "$value")]
    pub(super) entries: Vec<Entry>,
}

/// A blob or a folder.
#[derive(Debug, Deserialize)]
pub(super) enum Entry {
    Blob(Named),
    BlobPrefix(Named),
}

/// Something with a name.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Named {
    pub(super) name: Name,
}

/// A blob in a listing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Listed {
    pub(super) name: Name,
    pub(super) properties: Properties,
}

/// The name of a blob in a listing; percent-encoded where it holds characters that XML cannot.
#[derive(Debug, Deserialize)]
pub(super) struct Name {
    #[serde(rename = "@Encoded", default)]
    is_encoded: bool,
    #[serde(rename = "$text", default)]
    text: String,
}

/// What a listing tells of a blob.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Properties {
    #[serde(rename = "Content-Length")]
    pub(super) size: u64,
    #[serde(rename = "Content-Type")]
    pub(super) content_type: Option<String>,
    #[serde(alias = "ETag")]
    pub(super) etag: Option<String>,
    /// `directory` where the account has a namespace of folders and this is one.
    pub(super) resource_type: Option<String>,
}

/// The answer to `Get Block List`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct BlockList {
    pub(super) committed_blocks: Blocks,
    pub(super) uncommitted_blocks: Blocks,
}

/// Blocks of one kind.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Blocks {
    #[serde(rename = "Block")]
    pub(super) blocks: Vec<Block>,
}

/// A block that the service holds.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Block {
    #[serde(rename = "Name")]
    pub(super) id: String,
    pub(super) size: u64,
}

/// The body of `Put Block List`. `Latest` is a block of the upload, or of the blob where the upload was committed before.
#[derive(Debug, Serialize)]
#[serde(rename = "BlockList")]
pub(super) struct Commit<'a> {
    #[serde(rename = "Latest")]
    pub(super) ids: Vec<&'a str>,
}

impl Name {
    /// The name byte for byte.
    pub(super) fn plain(self, action: &'static str) -> Result<String> {
        if !self.is_encoded {
            return Ok(self.text);
        }
        let text = percent_decode_str(&self.text).decode_utf8();
        text.map(std::borrow::Cow::into_owned)
            .map_err(|error| Error::new(Kind::Protocol, action, "a name of the listing is not UTF-8").because(error))
    }
}

/// Reads an answer.
pub(super) fn read<T: DeserializeOwned>(action: &'static str, body: &[u8]) -> Result<T> {
    crate::xml::read(action, "Azure", body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_keeps_names_byte_for_byte() {
        let text = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults ContainerName=\"c\"><Blobs>\
            <Blob><Name> a&amp;b </Name><Properties><Content-Length>3</Content-Length><Etag>0x8</Etag></Properties></Blob>\
            <Blob><Name Encoded=\"true\">x%EF%BF%BEy%25</Name><Properties><Etag>0x9</Etag>\
            <Content-Length>4</Content-Length><ResourceType>file</ResourceType></Properties></Blob>\
            </Blobs><NextMarker /></EnumerationResults>";
        let page: BlobPage = read("listing", text.as_bytes()).unwrap();
        assert_eq!(page.next_marker.unwrap_or_default(), "");
        let names: Vec<_> = page.blobs.blobs.into_iter().map(|blob| blob.name.plain("listing").unwrap()).collect();
        assert_eq!(names, [" a&b ", "x\u{fffe}y%"]);
        let empty = "<EnumerationResults><Blobs/><NextMarker>m</NextMarker></EnumerationResults>";
        let page: BlobPage = read("listing", empty.as_bytes()).unwrap();
        assert_eq!((page.blobs.blobs.len(), page.next_marker.as_deref()), (0, Some("m")));
    }

    #[test]
    fn blobs_and_folders_may_be_mixed() {
        let text = "<EnumerationResults><Blobs><Blob><Name>a</Name><Properties/></Blob><BlobPrefix><Name>b/</Name>\
            </BlobPrefix><Blob><Name>c</Name></Blob></Blobs><NextMarker/></EnumerationResults>";
        let page: EntryPage = read("listing", text.as_bytes()).unwrap();
        assert!(matches!(page.blobs.entries[..], [Entry::Blob(_), Entry::BlobPrefix(_), Entry::Blob(_)]));
        let page: EntryPage = read("listing", b"<EnumerationResults><Blobs/></EnumerationResults>").unwrap();
        assert!(page.blobs.entries.is_empty());
    }

    #[test]
    fn block_lists_are_read_and_written() {
        let text = "<BlockList><CommittedBlocks /><UncommittedBlocks><Block><Name>QQ==</Name><Size>5</Size></Block>\
            <Block><Name>Qg==</Name><Size>6</Size></Block></UncommittedBlocks></BlockList>";
        let list: BlockList = read("listing", text.as_bytes()).unwrap();
        assert_eq!((list.committed_blocks.blocks.len(), list.uncommitted_blocks.blocks.len()), (0, 2));
        let text = crate::xml::write("committing", &Commit { ids: vec!["QQ==", "Q+=="] }).unwrap();
        assert_eq!(text, "<BlockList><Latest>QQ==</Latest><Latest>Q+==</Latest></BlockList>");
    }
}
