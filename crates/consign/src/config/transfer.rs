//! How bytes are moved.

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Period;

/// How bytes are moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Transfer {
    /// Size of a part of a large file, where the file is small enough for it.
    #[schemars(with = "String")]
    pub part_bytes: ByteSize,
    /// Memory for the parts of all transfers of this process together. When it is short, transfers wait for parts in fair turns.
    #[schemars(with = "String")]
    pub memory_bytes: ByteSize,
    /// Parts of one file in flight at once, as long as `memory_bytes` lasts.
    pub parts_in_flight: u32,
    /// Files of one task that are moved at once.
    pub files_at_once: u32,
    /// Whether an export to S3, Azure, Google Cloud Storage or SFTP may send a large file while its only import still receives
    /// it, so that both together take the longer of the two instead of the sum. See `docs/overlap.md`.
    pub overlap: bool,
    /// Tries of one request inside a transfer.
    pub tries: u32,
    /// Longest time to open a connection.
    pub connect_timeout: Period,
    /// Longest time without a byte moving.
    pub idle_timeout: Period,
}

impl Default for Transfer {
    fn default() -> Self {
        Self {
            part_bytes: ByteSize::mib(8),
            memory_bytes: ByteSize::mib(256),
            parts_in_flight: 4,
            files_at_once: 4,
            overlap: false,
            tries: 5,
            connect_timeout: Period::from_secs(10),
            idle_timeout: Period::from_secs(60),
        }
    }
}

impl Transfer {
    /// What must not be zero, by key.
    pub(super) fn counts(&self) -> Vec<(&'static str, u32)> {
        vec![
            ("transfer.parts_in_flight", self.parts_in_flight),
            ("transfer.files_at_once", self.files_at_once),
            ("transfer.tries", self.tries),
        ]
    }
}
