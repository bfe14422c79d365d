//! The two servers of `consign practice`: S3 and SFTP on loopback, so that anyone can try deliveries without an account.
//!
//! Both speak the real protocols over a folder of the disk: S3 through the `s3s` crate with a backend of our own, SFTP
//! through the server half of `russh` and `russh-sftp`. Signatures, passwords and keys are checked, checksums are
//! verified, missing buckets are refused.
//!
//! It is not a store for data worth keeping: nothing is flushed to the disk before it is confirmed, encryption that is
//! asked for is confirmed but not done, and access lists are accepted but grant nothing.
//!
//! What lies where below [`Settings::folder`]:
//!
//! | path | holds |
//! | --- | --- |
//! | `s3/<bucket>/<name>` | the bytes of an object; the name is its key, percent-encoded (see `s3/name.rs`) |
//! | `s3/.meta/<bucket>/<name>.json` | what belongs to it: type, metadata, tags, checksums |
//! | `s3/.uploads/<id>/` | the parts of an upload that is not completed |
//! | `s3/.incoming/` | bodies that are arriving; emptied at every start |
//! | `sftp/` | what SFTP clients see as `/` |
//!
//! Start here: [`Practice::start`].

#![forbid(unsafe_code)]

mod practice;
mod s3;
mod settings;
mod sftp;

pub use practice::{Error, Practice};
pub use settings::Settings;
