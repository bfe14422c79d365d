//! Tests of the practice servers from outside, with clients that are not ours.

#![expect(clippy::unwrap_used, reason = "a test may end at the first thing that is not as expected")]

mod client;
mod s3;
mod sftp;
mod start;
