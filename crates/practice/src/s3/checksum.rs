//! The additional checksums of S3 (CRC32, CRC32C, CRC64NVME, SHA-1, SHA-256): what is asked for, computed and compared.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hyper::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Sha1, Sha256};
use s3s::{S3Result, TrailingHeaders, dto, s3_error};
use serde::{Deserialize, Serialize};

/// Start of the header of every checksum; the name of the algorithm follows.
const HEADER: &str = "x-amz-checksum-";

/// One value per algorithm, base64; `-N` follows it when it is composed of those of `N` parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checksums {
    pub crc32: Option<String>,
    pub crc32c: Option<String>,
    pub crc64nvme: Option<String>,
    pub sha1: Option<String>,
    pub sha256: Option<String>,
}

/// Takes the checksum fields out of an input of `s3s`, all of which name them alike.
macro_rules! take_checksums {
    ($input:expr) => {
        $crate::s3::checksum::Checksums {
            crc32: $input.checksum_crc32.take(),
            crc32c: $input.checksum_crc32c.take(),
            crc64nvme: $input.checksum_crc64nvme.take(),
            sha1: $input.checksum_sha1.take(),
            sha256: $input.checksum_sha256.take(),
        }
    };
}

/// Sets the checksum fields of an output of `s3s`.
macro_rules! set_checksums {
    ($output:expr, $checksums:expr) => {{
        let checksums: $crate::s3::checksum::Checksums = $checksums;
        $output.checksum_crc32 = checksums.crc32;
        $output.checksum_crc32c = checksums.crc32c;
        $output.checksum_crc64nvme = checksums.crc64nvme;
        $output.checksum_sha1 = checksums.sha1;
        $output.checksum_sha256 = checksums.sha256;
    }};
}

pub(super) use {set_checksums, take_checksums};

impl Checksums {
    fn all(&self) -> [(&'static str, Option<&str>); 5] {
        [
            ("crc32", self.crc32.as_deref()),
            ("crc32c", self.crc32c.as_deref()),
            ("crc64nvme", self.crc64nvme.as_deref()),
            ("sha1", self.sha1.as_deref()),
            ("sha256", self.sha256.as_deref()),
        ]
    }

    fn slot(&mut self, algorithm: &str) -> Option<&mut Option<String>> {
        match algorithm {
            "crc32" => Some(&mut self.crc32),
            "crc32c" => Some(&mut self.crc32c),
            "crc64nvme" => Some(&mut self.crc64nvme),
            "sha1" => Some(&mut self.sha1),
            "sha256" => Some(&mut self.sha256),
            _ => None,
        }
    }

    /// Gives the value of an algorithm, named in any case.
    pub(super) fn get(&self, algorithm: &str) -> Option<&str> {
        let algorithm = algorithm.to_ascii_lowercase();
        self.all().into_iter().find(|(name, _)| *name == algorithm).and_then(|(_, value)| value)
    }

    /// Refuses when a value that was given differs from the one that was found.
    pub(super) fn check(&self, found: &Self) -> S3Result<()> {
        for ((algorithm, given), (_, found)) in self.all().into_iter().zip(found.all()) {
            // A client may give a composed value with or without the number of parts.
            if let (Some(given), Some(found)) = (given, found)
                && given != found
                && Some(given) != found.split_once('-').map(|(value, _)| value)
            {
                let name = algorithm.to_uppercase();
                return Err(s3_error!(BadDigest, "The {name} you specified did not match the calculated checksum."));
            }
        }
        Ok(())
    }
}

impl From<dto::Checksum> for Checksums {
    fn from(mut found: dto::Checksum) -> Self {
        take_checksums!(found)
    }
}

/// What a client says about a body: before it or, in trailing headers, after it.
#[derive(Default)]
pub(super) struct Claims {
    /// `Content-MD5`.
    pub md5: Option<String>,
    /// Checksums in headers.
    pub checksums: Checksums,
    /// `x-amz-trailer`: the header that follows the body.
    pub promised: Option<String>,
    /// Where that header will be.
    pub trailing: Option<TrailingHeaders>,
    /// Algorithm to compute even when no value is given, in any case.
    pub algorithm: Option<String>,
}

impl Claims {
    /// Gives a hasher for all algorithms that are claimed, promised or asked for.
    pub(super) fn hasher(&self) -> ChecksumHasher {
        let promised = self.promised.as_deref().and_then(|header| header.trim().strip_prefix(HEADER));
        let named = [promised, self.algorithm.as_deref()].into_iter().flatten();
        let claimed = self.checksums.all().into_iter().filter(|(_, value)| value.is_some()).map(|(name, _)| name);
        hasher(named.chain(claimed))
    }

    /// Refuses when the body is not the one that was claimed. To be called when the body has been read to its end.
    pub(super) fn check(mut self, md5: &[u8], found: &Checksums) -> S3Result<()> {
        if let Some(claimed) = &self.md5 {
            let claimed = BASE64.decode(claimed).ok().filter(|bytes| bytes.len() == md5.len());
            match claimed {
                None => return Err(s3_error!(InvalidDigest, "The Content-MD5 you specified is not valid.")),
                Some(claimed) if claimed != md5 => {
                    return Err(s3_error!(BadDigest, "The Content-MD5 you specified did not match what we received."));
                }
                Some(_) => {}
            }
        }
        if let Some(header) = self.promised.take() {
            let trailing = self.trailing.as_ref().and_then(TrailingHeaders::take).unwrap_or_default();
            self.take_trailing(header.trim(), &trailing)?;
        }
        self.checksums.check(found)
    }

    fn take_trailing(&mut self, header: &str, trailing: &HeaderMap) -> S3Result<()> {
        let Some(slot) = header.strip_prefix(HEADER).and_then(|algorithm| self.checksums.slot(algorithm)) else {
            return Err(s3_error!(InvalidRequest, "The value specified in the x-amz-trailer header is not supported."));
        };
        let value = trailing.get(header).and_then(|value| value.to_str().ok());
        let Some(value) = value else {
            return Err(s3_error!(InvalidRequest, "The trailing header {header} is missing."));
        };
        *slot = Some(value.to_owned());
        Ok(())
    }
}

/// Gives a hasher for the named algorithms; unknown names are passed over.
pub(super) fn hasher<'a>(algorithms: impl Iterator<Item = &'a str>) -> ChecksumHasher {
    let mut hasher = ChecksumHasher::default();
    for algorithm in algorithms {
        match algorithm.to_ascii_lowercase().as_str() {
            "crc32" => hasher.crc32 = Some(Crc32::new()),
            "crc32c" => hasher.crc32c = Some(Crc32c::new()),
            "crc64nvme" => hasher.crc64nvme = Some(Crc64Nvme::new()),
            "sha1" => hasher.sha1 = Some(Sha1::new()),
            "sha256" => hasher.sha256 = Some(Sha256::new()),
            _ => {}
        }
    }
    hasher
}

/// Composes the checksum of an object from those of its parts: the checksum of the checksums, and their number.
pub(super) fn compose(algorithm: &str, parts: &[Checksums]) -> Checksums {
    let mut hasher = hasher([algorithm].into_iter());
    for part in parts {
        let Some(bytes) = part.get(algorithm).and_then(|value| BASE64.decode(value).ok()) else {
            return Checksums::default();
        };
        hasher.update(&bytes);
    }
    let mut composed = Checksums::from(hasher.finalize());
    if let Some(Some(value)) = composed.slot(&algorithm.to_ascii_lowercase()) {
        *value = format!("{value}-{}", parts.len());
    }
    composed
}
