//! The connectors against real servers.
#![expect(clippy::unwrap_used, reason = "a test ends with the first surprise")]

mod sftp;
