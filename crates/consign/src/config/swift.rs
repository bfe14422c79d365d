//! How OpenStack's object store is used.

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How OpenStack's object store is used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Swift {
    /// Files up to this size are sent in one piece, and start again when that breaks; larger ones in segments of this size,
    /// which go on behind the last acknowledged one. Very large files take larger segments.
    #[schemars(with = "String")]
    pub segment_bytes: ByteSize,
}

impl Default for Swift {
    fn default() -> Self {
        // A broken upload sends at most a few times as much again, and up to 225 GiB there are enough segments.
        Self { segment_bytes: ByteSize::mib(256) }
    }
}
