//! The way in: one `Put Blob` for what fits into a part, blocks in parallel and a list of them for the rest.
//!
//! Every block goes with its MD5, which the service checks before it takes the block. An upload is in the journal
//! before its first block is sent, and every block once it is acknowledged. The id of a block follows from the bytes of
//! the whole blob, so a block that an earlier attempt sent counts, whether or not its answer was heard.

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::header::{CONTENT_TYPE, ETAG};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use md5::{Digest as _, Md5};

use super::blobs::unquoted;
use super::service::{Call, MD5_HEADER};
use super::xml::{self, BlockList, Commit};
use super::{AzureBlob, COMMIT, LIST_BLOCKS, SEND_BLOCK, STORE, errors};
use crate::error::{Error, Kind, Result};
use crate::http::Reply;
use crate::retry;
use crate::source::{self, Digests};
use crate::transfer::{Counted, OpenUpload, Part, Put, Receipt};
use crate::xml::write;

const MIB: u64 = 1024 * 1024;
/// Largest block.
///
/// # Source
/// Azure documentation, "Scalability and performance targets for Blob Storage".
const BLOCK_BYTES_MAX: u64 = 4000 * MIB;
/// Blocks of one blob at the most: 50,000, of which some are left, as sizes are rounded.
const BLOCKS_WANTED_MAX: u64 = 45_000;
/// Largest blob: 50,000 blocks of the largest size.
pub(super) const BLOB_BYTES_MAX: u64 = 50_000 * BLOCK_BYTES_MAX;
/// How often an upload is begun for one blob: once more when its blocks are lost.
const UPLOADS_MAX: u32 = 2;
/// Bytes of the blob's SHA-256 in an id. With the size of a block and its number it has 48 letters; 64 are allowed.
const ID_HASH_BYTES: usize = 16;

/// What the journal calls an upload: Azure has no name for one.
const HANDLE: &str = "blocks";
/// The same of one that began before its bytes were known; its ids cannot follow from them and begin with what stands behind.
const EARLY_HANDLE: &str = "blocks-";

const METADATA_PREFIX: &str = "x-ms-meta-";
const BLOB_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-type");
const BLOB_CONTENT_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-content-type");
const BLOB_MD5: HeaderName = HeaderName::from_static("x-ms-blob-content-md5");

/// The headers of metadata.
pub(super) fn metadata(entries: &BTreeMap<String, String>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (key, text) in entries {
        let lower = key.to_ascii_lowercase();
        let bare = lower.strip_prefix(METADATA_PREFIX).unwrap_or(&lower);
        let is_identifier = bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && bare.bytes().next().is_some_and(|first| !first.is_ascii_digit());
        let name = HeaderName::try_from(format!("{METADATA_PREFIX}{bare}")).ok().filter(|_| is_identifier);
        let name = name.ok_or_else(|| {
            Error::argument(
                "a key of `metadata` may hold ASCII letters, digits and underscores only, and not begin with a digit",
            )
        })?;
        let value = HeaderValue::from_str(text.trim()).ok().filter(|_| text.is_ascii());
        let value = value.ok_or_else(|| {
            Error::argument(
                "a value of `metadata` may hold printable ASCII characters only; write others percent-encoded",
            )
        })?;
        headers.insert(name, value);
    }
    Ok(headers)
}

/// How a blob is cut into blocks, and what they are called.
struct Plan {
    size_bytes: u64,
    block_bytes: u64,
    sha256: [u8; 32],
    /// What all ids of this upload begin with, where it began before its bytes were known.
    stem: Option<String>,
}

impl Plan {
    fn of(put: &Put, wanted_bytes: u64) -> Self {
        let (size_bytes, digests) = (put.source.size(), put.source.digests());
        let stem = match &put.resume {
            _ if digests == Digests::UNKNOWN => Some(format!("{:032x}", rand::random::<u128>())),
            // Of other bytes its ids are not lent: whoever sent those may still be sending, and the last block of an id wins.
            Some(open) if open.sha256 == hex::encode(digests.sha256) => {
                open.handle.strip_prefix(EARLY_HANDLE).filter(|stem| is_stem(stem)).map(str::to_owned)
            }
            Some(_) | None => None,
        };
        Self { size_bytes, block_bytes: block_bytes(size_bytes, wanted_bytes), sha256: digests.sha256, stem }
    }

    /// What the journal calls the upload.
    fn handle(&self) -> String {
        self.stem.as_ref().map_or_else(|| HANDLE.to_owned(), |stem| format!("{EARLY_HANDLE}{stem}"))
    }

    /// Numbers of the blocks; the first is 1.
    fn numbers(&self) -> RangeInclusive<u32> {
        1..=u32::try_from(self.size_bytes.div_ceil(self.block_bytes)).unwrap_or(u32::MAX)
    }

    fn offset(&self, number: u32) -> u64 {
        u64::from(number - 1) * self.block_bytes
    }

    fn length(&self, number: u32) -> u64 {
        self.block_bytes.min(self.size_bytes - self.offset(number))
    }

    /// The id of a block: all ids of a blob have the same length, as the service insists. They are texts, because
    /// other programs that list blocks expect that.
    fn id(&self, number: u32) -> String {
        let stem = self.stem.clone().unwrap_or_else(|| hex::encode(&self.sha256[..ID_HASH_BYTES]));
        STANDARD.encode(format!("{stem}-{:08x}-{number:06}", self.block_bytes))
    }

    fn part(&self, number: u32) -> Part {
        Part { size: self.length(number), etag: self.id(number), checksum: None }
    }

    /// Whether an open upload is one of these bytes in these blocks.
    fn fits(&self, open: &OpenUpload, put: &Put) -> bool {
        open.target == put.name
            && open.handle == self.handle()
            && open.part_bytes == self.block_bytes
            && open.sha256 == hex::encode(self.sha256)
            && open.parts.iter().all(|(number, part)| self.numbers().contains(number) && *part == self.part(*number))
    }
}

/// Whether ids may begin so: as long as those that follow from the bytes.
fn is_stem(text: &str) -> bool {
    text.len() == 2 * ID_HASH_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The size of the blocks of a blob of `size_bytes`.
fn block_bytes(size_bytes: u64, wanted_bytes: u64) -> u64 {
    let least = size_bytes.div_ceil(BLOCKS_WANTED_MAX);
    let bytes = if least > wanted_bytes { least.next_multiple_of(MIB) } else { wanted_bytes };
    bytes.clamp(1, BLOCK_BYTES_MAX)
}

impl AzureBlob {
    /// Whether a blob of this size goes in blocks.
    pub(super) fn is_in_blocks(&self, size_bytes: u64) -> bool {
        size_bytes > block_bytes(size_bytes, self.service.limits.part_bytes) && size_bytes <= BLOB_BYTES_MAX
    }

    /// Stores one blob.
    pub(super) async fn store(&self, put: Put) -> Result<Receipt> {
        if put.source.size() > BLOB_BYTES_MAX {
            return Err(Error::new(Kind::TooLarge, STORE, "the file is larger than the 190 TiB that a blob can have"));
        }
        let plan = Plan::of(&put, self.service.limits.part_bytes);
        let is_single = plan.size_bytes <= plan.block_bytes;
        let resume = match put.resume.as_ref() {
            Some(open) if !is_single && plan.fits(open, &put) => Some(open.parts.clone()),
            Some(stale) => {
                // Blocks that nothing will commit; the service forgets them.
                put.journal.closed(&stale.target).await?;
                None
            }
            None => None,
        };
        let mut headers = self.metadata.clone();
        if let Ok(value) = HeaderValue::from_str(&put.content_type)
            && !value.is_empty()
        {
            headers.insert(BLOB_CONTENT_TYPE, value);
        }
        if is_single {
            self.store_single(&put, headers).await
        } else {
            self.store_blocks(&put, headers, &plan, resume).await
        }
    }

    async fn store_single(&self, put: &Put, headers: HeaderMap) -> Result<Receipt> {
        let length = in_memory(put.source.size())?;
        let md5 = STANDARD.encode(source::md5(&put.source).await?);
        let call = Call { headers, ..Call::new(STORE, Method::PUT, Some(&put.name)) };
        let call = call.header(BLOB_TYPE, "BlockBlob").header(MD5_HEADER, md5);
        // Memory for one try: nobody keeps it through a pause.
        let reply = retry::request(self.service.limits.tries, |_| async {
            let _memory = put.memory.take(put.source.size()).await;
            let body = if length == 0 { Bytes::new() } else { put.source.read_at(0, length).await? };
            self.service.call_once(&Call { body, ..call.clone() }).await
        })
        .await?;
        crate::fail_point!("azure.stored");
        put.progress.add(put.source.size());
        Ok(self.receipt(put, &reply))
    }

    async fn store_blocks(
        &self,
        put: &Put,
        headers: HeaderMap,
        plan: &Plan,
        mut resume: Option<BTreeMap<u32, Part>>,
    ) -> Result<Receipt> {
        let commit = Call { headers, ..Call::new(COMMIT, Method::PUT, Some(&put.name)) };
        let commit = commit.query("comp", "blocklist");
        for _ in 0..UPLOADS_MAX {
            let parts = match resume.take() {
                Some(parts) => self.still_there(put, plan, parts).await?,
                None => begin(put, plan).await?,
            };
            if let Some(receipt) = self.transfer(put, plan, parts, &commit).await? {
                return Ok(receipt);
            }
            put.journal.closed(&put.name).await?;
            tracing::debug!("the service lost blocks of the upload: it starts anew");
        }
        Err(Error::new(Kind::Unavailable, COMMIT, "the service lost the blocks of the upload, and lost them again"))
    }

    /// The blocks that the service has. Where one may not look, the journal is believed: should it be wrong, the commit
    /// says so.
    async fn still_there(&self, put: &Put, plan: &Plan, noted: BTreeMap<u32, Part>) -> Result<BTreeMap<u32, Part>> {
        let call = Call::new(LIST_BLOCKS, Method::GET, Some(&put.name));
        let call = call.query("comp", "blocklist").query("blocklisttype", "all");
        let list: BlockList = match self.service.call(&call).await {
            Ok(reply) => xml::read(LIST_BLOCKS, &reply.body)?,
            Err(error) if error.kind == Kind::NotFound => BlockList::default(),
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => {
                tracing::debug!(error = %error, "the blocks cannot be listed: the journal is believed");
                return Ok(noted);
            }
        };
        // Committed ones as well: the commit may have been made, and its answer lost.
        let blocks = list.uncommitted_blocks.blocks.into_iter().chain(list.committed_blocks.blocks);
        let found: HashMap<String, u64> = blocks.map(|block| (block.id, block.size)).collect();
        let parts = plan.numbers().map(|number| (number, plan.part(number)));
        Ok(parts.filter(|(_, part)| found.get(&part.etag) == Some(&part.size)).collect())
    }

    /// Sends what is missing and commits; nothing when the service no longer has all of it.
    async fn transfer(
        &self,
        put: &Put,
        plan: &Plan,
        mut parts: BTreeMap<u32, Part>,
        commit: &Call<'_>,
    ) -> Result<Option<Receipt>> {
        let mut counted = Counted::new(&put.progress);
        for part in parts.values() {
            counted.add(part.size);
        }
        // The MD5 of the whole beside the blocks, if it has to be computed.
        let sent = self.send_missing(put, plan, &mut parts, &mut counted);
        let ((), whole_md5) = tokio::try_join!(sent, source::md5(&put.source))?;
        put.source.whole().await?;
        let list = Commit { ids: parts.values().map(|part| part.etag.as_str()).collect() };
        let body = Bytes::from(write(COMMIT, &list)?);
        let md5 = md5_text(&body);
        let call = Call { body, ..commit.clone() }.header(MD5_HEADER, md5).header(CONTENT_TYPE, "application/xml");
        match self.service.call(&call.header(BLOB_MD5, STANDARD.encode(whole_md5))).await {
            Ok(reply) => {
                crate::fail_point!("azure.committed");
                put.journal.closed(&put.name).await?;
                counted.keep();
                Ok(Some(self.receipt(put, &reply)))
            }
            Err(error) if errors::is_block_lost(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends the blocks that are missing, some at once.
    async fn send_missing(
        &self,
        put: &Put,
        plan: &Plan,
        parts: &mut BTreeMap<u32, Part>,
        counted: &mut Counted<'_>,
    ) -> Result<()> {
        let mut missing = plan.numbers().filter(|number| !parts.contains_key(number)).collect::<Vec<_>>().into_iter();
        let in_flight = self.blocks_in_flight(plan);
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < in_flight
                && let Some(number) = missing.next()
            {
                running.push(self.send_block(put, plan, number));
            }
            let Some(sent) = running.next().await else { return Ok(()) };
            let (number, part) = sent?;
            counted.add(part.size);
            parts.insert(number, part);
        }
    }

    /// Blocks at once: as many as the limits say, fewer when blocks are larger than the limits say.
    fn blocks_in_flight(&self, plan: &Plan) -> usize {
        let limits = &self.service.limits;
        let budget_bytes = limits.part_bytes.saturating_mul(limits.parts_in_flight as u64);
        usize::try_from(budget_bytes / plan.block_bytes).unwrap_or(usize::MAX).clamp(1, limits.parts_in_flight.max(1))
    }

    async fn send_block(&self, put: &Put, plan: &Plan, number: u32) -> Result<(u32, Part)> {
        let part = plan.part(number);
        put.source.arrived(plan.offset(number) + part.size).await?;
        let call = Call::new(SEND_BLOCK, Method::PUT, Some(&put.name));
        let call = call.query("comp", "block").query("blockid", part.etag.as_str());
        // Memory for one try: nobody keeps it through a pause, or while the journal is written.
        retry::request(self.service.limits.tries, |_| async {
            let _memory = put.memory.take(part.size).await;
            let body = put.source.read_at(plan.offset(number), in_memory(part.size)?).await?;
            let hashed = body.clone();
            // Off the threads that move bytes.
            let md5 = tokio::task::spawn_blocking(move || md5_text(&hashed)).await.map_err(|error| {
                Error::new(Kind::Local, "computing the checksum", "the computation was stopped").because(error)
            })?;
            self.service.call_once(&Call { body, ..call.clone() }.header(MD5_HEADER, md5)).await
        })
        .await?;
        crate::fail_point!("azure.block");
        put.journal.part(&put.name, number, &part).await?;
        Ok((number, part))
    }

    fn receipt(&self, put: &Put, reply: &Reply) -> Receipt {
        Receipt {
            location: self.service.address.url(Some(&put.name)),
            etag: reply.header(ETAG.as_str()).map(unquoted),
            version: reply.header("x-ms-version-id").map(str::to_owned),
            verified: "md5".to_owned(),
            ..Receipt::default()
        }
    }
}

/// Writes the upload down, before its first block.
async fn begin(put: &Put, plan: &Plan) -> Result<BTreeMap<u32, Part>> {
    let open = OpenUpload {
        target: put.name.clone(),
        handle: plan.handle(),
        sha256: hex::encode(plan.sha256),
        part_bytes: plan.block_bytes,
        parts: BTreeMap::new(),
    };
    put.journal.opened(&open).await?;
    Ok(open.parts)
}

fn md5_text(bytes: &Bytes) -> String {
    STANDARD.encode(Md5::digest(bytes))
}

fn in_memory(size_bytes: u64) -> Result<usize> {
    usize::try_from(size_bytes)
        .map_err(|error| Error::new(Kind::TooLarge, STORE, "a block does not fit into memory").because(error))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Arc;

    use super::*;
    use crate::budget::Budget;
    use crate::memory::{MemoryJournal, MemorySource};
    use crate::transfer::Progress;

    fn with_metadata(key: &str, value: &str) -> Result<HeaderMap> {
        metadata(&[(key.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn metadata_is_taken_with_and_without_prefix() {
        for key in ["Some_key1", "x-ms-meta-some_key1", "X-Ms-Meta-Some_Key1"] {
            assert_eq!(with_metadata(key, " a  b ").unwrap()["x-ms-meta-some_key1"], "a  b");
        }
        for (key, value) in [("a-b", "v"), ("1a", "v"), ("", "v"), ("k", "a\r\nx-ms-x: y"), ("k", "ü"), ("k\r\nx", "v")]
        {
            let error = with_metadata(key, value).unwrap_err();
            assert!(error.kind == Kind::InvalidRequest && error.detail.contains("`metadata`"), "{key:?} {value:?}");
        }
    }

    #[test]
    fn blocks_are_large_enough_for_their_number_to_be_allowed() {
        assert_eq!(block_bytes(0, 8 * MIB), 8 * MIB);
        assert_eq!(block_bytes(45_000 * 8 * MIB, 8 * MIB), 8 * MIB);
        assert_eq!(block_bytes(45_000 * 8 * MIB + 1, 8 * MIB), 9 * MIB);
        assert_eq!(block_bytes(1, 0), MIB);
        let largest = block_bytes(BLOB_BYTES_MAX, 8 * MIB);
        assert_eq!((largest, BLOB_BYTES_MAX.div_ceil(largest)), (BLOCK_BYTES_MAX, 50_000));
    }

    #[test]
    fn ids_have_one_length_and_follow_from_the_bytes() {
        let plan = Plan { size_bytes: 50_000 * MIB - 1, block_bytes: MIB, sha256: [7; 32], stem: None };
        assert_eq!((plan.numbers(), plan.length(1), plan.length(50_000)), (1..=50_000, MIB, MIB - 1));
        let ids: HashSet<String> = plan.numbers().map(|number| plan.id(number)).collect();
        assert_eq!(ids.len(), 50_000);
        assert!(ids.iter().all(|id| id.len() == 64));
        let plan = || Plan { stem: None, ..plan };
        let stem = Some("0123456789abcdef".repeat(2));
        for other in
            [Plan { block_bytes: MIB + 1, ..plan() }, Plan { sha256: [8; 32], ..plan() }, Plan { stem, ..plan() }]
        {
            assert_eq!(other.id(1).len(), 64);
            assert!(!ids.contains(&other.id(1)));
        }
    }

    #[test]
    fn an_early_upload_lends_its_ids_to_its_own_bytes_only() {
        let put = |bytes: &'static [u8], resume| Put {
            name: "blob".to_owned(),
            source: Arc::new(MemorySource::new(bytes)),
            content_type: String::new(),
            journal: Arc::new(MemoryJournal::default()),
            resume,
            progress: Progress::default(),
            memory: Budget::default().share(),
        };
        let stem = "0123456789abcdef".repeat(2);
        let sealed = OpenUpload {
            target: "blob".to_owned(),
            handle: format!("{EARLY_HANDLE}{stem}"),
            sha256: hex::encode(Digests::of(b"these bytes").sha256),
            part_bytes: 4,
            parts: BTreeMap::new(),
        };
        let same = put(b"these bytes", Some(sealed.clone()));
        let plan = Plan::of(&same, 4);
        assert_eq!(plan.stem.as_ref(), Some(&stem));
        assert!(plan.fits(&sealed, &same));
        let unsealed = OpenUpload { sha256: hex::encode(Digests::UNKNOWN.sha256), ..sealed.clone() };
        for (bytes, stale) in [(&b"other bytes"[..], sealed), (&b"these bytes"[..], unsealed)] {
            let (anew, fresh) = (put(bytes, Some(stale.clone())), put(bytes, None));
            let (plan, own) = (Plan::of(&anew, 4), Plan::of(&fresh, 4));
            assert!(!plan.fits(&stale, &anew));
            for number in plan.numbers() {
                assert_eq!(plan.id(number), own.id(number), "an id that the stale upload does not know");
            }
        }
    }
}
