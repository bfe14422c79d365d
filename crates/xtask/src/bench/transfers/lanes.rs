//! The lanes: one way over one server, what rclone is tuned to there, and what is to be reached.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Who runs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Side {
    /// Consign.
    Ours,
    /// rclone as it is shipped.
    Shipped,
    /// rclone with our part size, concurrency and integrity.
    Tuned,
    /// OpenSSH's `sftp`.
    OpenSsh,
    /// `aws s3 cp`.
    Aws,
}

impl Side {
    pub(super) const ALL: [Self; 5] = [Self::Ours, Self::Shipped, Self::Tuned, Self::OpenSsh, Self::Aws];
    pub(super) const PEERS: [Self; 4] = [Self::Shipped, Self::Tuned, Self::OpenSsh, Self::Aws];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "Consign",
            Self::Shipped => "rclone as shipped",
            Self::Tuned => "rclone tuned",
            Self::OpenSsh => "OpenSSH sftp",
            Self::Aws => "aws s3 cp",
        }
    }

    /// What its objects are called.
    pub(super) fn tag(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Shipped => "shipped",
            Self::Tuned => "tuned",
            Self::OpenSsh => "openssh",
            Self::Aws => "aws",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which way the bytes go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    /// An export of one large file.
    Up,
    /// An import of one large file.
    Down,
    /// One export of many small files.
    Many,
}

/// Which server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum At {
    NullSink,
    Ceph,
    Sshd,
    Azurite,
    Swift,
    Gcs,
}

/// What is to be reached, against one side, as a median over the pairs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// Its time / ours, at least.
    Time(Side, f64),
    /// Our CPU time / its, at most.
    Cpu(Side, f64),
}

/// One way over one server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    pub(super) name: &'static str,
    pub(super) at: At,
    pub(super) way: Way,
    /// Options of rclone that make it do what Consign does.
    pub(super) tuned: &'static [&'static str],
    pub(super) goals: &'static [Goal],
    /// Largest size that says something about the client and not about a slow server alone.
    pub(super) mebibytes_max: Option<u64>,
    /// Who checks what: Consign, rclone as shipped, rclone tuned.
    pub(super) checks: [&'static str; 3],
}

/// Parts of 8 MiB, four at once, no MD5 of the whole file before it is sent. There is no way to have CRC32C in place of MD5.
const S3_UP: &[&str] =
    &["--s3-chunk-size", "8M", "--s3-upload-concurrency", "4", "--s3-upload-cutoff", "8M", "--s3-disable-checksum"];
/// Ranges of 8 MiB, four at once.
const S3_DOWN: &[&str] =
    &["--multi-thread-cutoff", "8M", "--multi-thread-chunk-size", "8M", "--multi-thread-streams", "4"];
/// Four files at once; no question after each file, as Consign asks none.
const S3_MANY: &[&str] = &["--transfers", "4", "--s3-no-head", "--s3-disable-checksum", "--no-check-dest"];
/// Packets of 255 KiB, 64 on their way, no hash by a command in the server's shell, our cipher.
const SFTP: &[&str] = &[
    "--sftp-chunk-size",
    "255k",
    "--sftp-concurrency",
    "64",
    "--sftp-disable-hashcheck",
    "--sftp-ciphers",
    super::place::CIPHER,
];
/// Blocks of 8 MiB, four at once, no MD5 of the whole file before it is sent.
const AZURE_UP: &[&str] =
    &["--azureblob-chunk-size", "8M", "--azureblob-upload-concurrency", "4", "--azureblob-disable-checksum"];

const S3_UP_CHECKS: [&str; 3] = [
    "CRC32C of every part by the client; the server echoes it (Ceph computes it, the sink does not)",
    "MD5 of the whole file before it is sent, then MD5 of every part; over http SHA-256 of every part, too",
    "MD5 of every part; over http SHA-256 of every part, too",
];
const S3_DOWN_CHECKS: [&str; 3] = [
    "MD5, SHA-256 and CRC32C of what came, by the client; the size or checksum that the server tells is compared",
    "size; MD5 where the server tells one",
    "size; MD5 where the server tells one",
];
const SFTP_CHECKS: [&str; 3] = [
    "length, asked after the last byte is on stable storage (`fsync@openssh.com`), then a rename; imports are hashed (MD5, SHA-256, CRC32C)",
    "length; no hash, as the server has no shell to compute one",
    "length",
];
const MD5_CHECKS: [&str; 3] = [
    "MD5 of every block or segment, which the server compares; imports are hashed (MD5, SHA-256, CRC32C)",
    "MD5 of the whole file before it is sent where the protocol keeps one, and of every block",
    "MD5 of every block",
];
const GCS_CHECKS: [&str; 3] = [
    "CRC32C of the whole object, known from the import, which the server compares",
    "MD5 of the whole file",
    "MD5 of the whole file",
];

const UP_TLS: &[Goal] = &[Goal::Time(Side::Shipped, 2.0), Goal::Time(Side::Tuned, 1.3), Goal::Cpu(Side::Shipped, 0.4)];
const DOWN: &[Goal] = &[Goal::Time(Side::Shipped, 1.0)];
const SSH: &[Goal] = &[Goal::Time(Side::Shipped, 1.1), Goal::Time(Side::Tuned, 1.0), Goal::Time(Side::OpenSsh, 0.9)];
const OTHERS: &[Goal] = &[Goal::Time(Side::Shipped, 0.9), Goal::Cpu(Side::Shipped, 0.6)];
const MANY: &[Goal] = &[Goal::Time(Side::Shipped, 1.5)];

const fn lane(name: &'static str, at: At, way: Way) -> Lane {
    Lane { name, at, way, tuned: &[], goals: OTHERS, mebibytes_max: None, checks: MD5_CHECKS }
}

/// All lanes, in the order of the page.
pub(super) const ALL: [Lane; 13] = [
    Lane {
        tuned: S3_UP,
        goals: UP_TLS,
        checks: S3_UP_CHECKS,
        ..lane("s3 upload, null sink, TLS", At::NullSink, Way::Up)
    },
    Lane { tuned: S3_UP, goals: &[], checks: S3_UP_CHECKS, ..lane("s3 upload, Ceph", At::Ceph, Way::Up) },
    Lane {
        tuned: S3_DOWN,
        goals: DOWN,
        checks: S3_DOWN_CHECKS,
        ..lane("s3 download, null sink, TLS", At::NullSink, Way::Down)
    },
    Lane { tuned: S3_DOWN, goals: DOWN, checks: S3_DOWN_CHECKS, ..lane("s3 download, Ceph", At::Ceph, Way::Down) },
    Lane { tuned: SFTP, goals: SSH, checks: SFTP_CHECKS, ..lane("sftp upload, OpenSSH", At::Sshd, Way::Up) },
    Lane { tuned: SFTP, goals: SSH, checks: SFTP_CHECKS, ..lane("sftp download, OpenSSH", At::Sshd, Way::Down) },
    Lane { tuned: AZURE_UP, ..lane("azure upload, Azurite", At::Azurite, Way::Up) },
    lane("azure download, Azurite", At::Azurite, Way::Down),
    lane("swift upload, OpenStack", At::Swift, Way::Up),
    lane("swift download, OpenStack", At::Swift, Way::Down),
    Lane { checks: GCS_CHECKS, mebibytes_max: Some(64), ..lane("gcs upload, emulator", At::Gcs, Way::Up) },
    Lane {
        tuned: S3_MANY,
        goals: MANY,
        checks: S3_UP_CHECKS,
        ..lane("many files, null sink, TLS", At::NullSink, Way::Many)
    },
    Lane { tuned: S3_MANY, goals: MANY, checks: S3_UP_CHECKS, ..lane("many files, Ceph", At::Ceph, Way::Many) },
];
