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
    /// rclone with our part size and concurrency, and without a check that Consign does not make or that can be left out.
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

/// What is to be reached: against one side, as a median over the pairs, or in every run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    /// Its time / ours, at least.
    Time(Side, f64),
    /// Our CPU time / its, at most.
    Cpu(Side, f64),
    /// Our largest resident set in MiB, at most, in every run.
    Memory(f64),
}

/// What one transfer of a file may hold.
const ONE_FILE: Goal = Goal::Memory(128.0);

/// One way over one server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    pub(super) name: &'static str,
    pub(super) at: At,
    pub(super) way: Way,
    /// Options of rclone that make it do what Consign does.
    pub(super) tuned: &'static [&'static str],
    goals: &'static [Goal],
    /// Why a goal is out of reach, where that is known.
    reasons: &'static [(Goal, &'static str)],
    /// Largest size that says something about the client and not about a slow server alone, or that the server can hold.
    pub(super) mebibytes_max: Option<u64>,
    /// Most rounds that are worth their time.
    pub(super) pairs_max: Option<usize>,
    /// Who checks what: Consign, rclone as shipped, rclone tuned.
    pub(super) checks: [&'static str; 3],
}

impl Lane {
    /// What is to be reached here.
    pub(super) fn goals(&self) -> impl Iterator<Item = Goal> {
        self.goals.iter().copied().chain((self.way != Way::Many).then_some(ONE_FILE))
    }

    /// Why a goal is out of reach, where that is known.
    pub(super) fn reason(&self, goal: Goal) -> Option<&'static str> {
        self.reasons.iter().find(|(of, _)| *of == goal).map(|(_, reason)| *reason)
    }
}

/// Parts of 8 MiB, four at once, no MD5 of the whole file before it is sent. There is no way to have CRC32C in place of MD5.
const S3_UP: &[&str] =
    &["--s3-chunk-size", "8M", "--s3-upload-concurrency", "4", "--s3-upload-cutoff", "8M", "--s3-disable-checksum"];
/// Ranges of 8 MiB, four at once, and no look at the MD5 that rclone itself left in the metadata.
const DOWN_TUNED: &[&str] = &[
    "--multi-thread-cutoff",
    "8M",
    "--multi-thread-chunk-size",
    "8M",
    "--multi-thread-streams",
    "4",
    "--ignore-checksum",
];
/// Four files at once; no question after each file, as Consign asks none.
const S3_MANY: &[&str] = &["--transfers", "4", "--s3-no-head", "--s3-disable-checksum", "--no-check-dest"];
/// Packets of 255 KiB, as ours; 64 on their way, as rclone ships (ours are 16 at once, and fewer would only slow it down); no hash by a
/// command in the server's shell, our cipher.
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

/// One object in one piece, its MD5 not compared.
const SWIFT_UP: &[&str] = &["--ignore-checksum"];

const S3_UP_CHECKS: [&str; 3] = [
    "CRC-32C of every part; the server answers it (Ceph computes it, the sink repeats what it is told)",
    "MD5 of the whole file before it is sent, then MD5 of every part; over http SHA-256 of every part, too",
    "MD5 of every part; over http SHA-256 of every part, too",
];
const S3_DOWN_CHECKS: [&str; 3] = [
    "size; of an object in one piece the MD5 that its `ETag` is. SHA-256 and CRC-32C are computed, for later",
    "MD5, which rclone left in the metadata when it stored the object; a file that came over several connections is read once more for it",
    "size",
];
const SFTP_UP_CHECKS: [&str; 3] = [
    "length, asked after the last byte is on stable storage (`fsync@openssh.com`)",
    "length; no hash, as the server has no shell to compute one; nothing is flushed",
    "length; nothing is flushed",
];
const SFTP_DOWN_CHECKS: [&str; 3] = [
    "length. SHA-256 and CRC-32C are computed, for later",
    "length; no hash, as the server has no shell to compute one",
    "length",
];
const AZURE_UP_CHECKS: [&str; 3] = [
    "MD5 of every block, which the server compares; MD5 of the whole file, which is read once more beside them, is stored",
    "MD5 of the whole file before it is sent, which is stored, and of every block",
    "MD5 of every block",
];
const AZURE_DOWN_CHECKS: [&str; 3] = [
    "MD5, which the server tells. SHA-256 and CRC-32C are computed, for later",
    "MD5, which the server tells; a file that came over several connections is read once more for it",
    "size",
];
const SWIFT_UP_CHECKS: [&str; 3] = [
    "MD5 of the whole file before it is sent, which the server compares",
    "MD5 of the whole file, compared with the one that the server answers",
    "size",
];
const SWIFT_DOWN_CHECKS: [&str; 3] = [
    "MD5, which the server tells as the `ETag`. SHA-256 and CRC-32C are computed, for later",
    "MD5, which the server tells as the `ETag`; a file that came over several connections is read once more for it",
    "size",
];
const GCS_CHECKS: [&str; 3] = [
    "CRC-32C of the whole object, known from the import, which the server compares",
    "MD5 of the whole file",
    "MD5 of the whole file",
];
const MANY_CHECKS: [&str; 3] = [
    "CRC-32C of every file, which the server answers; MD5, too, at least until it has answered one",
    "MD5 of every file; over http SHA-256, too; a look at the object afterwards",
    "MD5 of every file; over http SHA-256, too",
];

const UP_TLS: &[Goal] = &[Goal::Time(Side::Shipped, 2.0), Goal::Time(Side::Tuned, 1.3), Goal::Cpu(Side::Shipped, 0.4)];
const DOWN: &[Goal] = &[Goal::Time(Side::Shipped, 1.0)];
const SSH: &[Goal] = &[Goal::Time(Side::Shipped, 1.1), Goal::Time(Side::Tuned, 1.0), Goal::Time(Side::OpenSsh, 0.9)];
const OTHERS_CPU: Goal = Goal::Cpu(Side::Shipped, 0.6);
const OTHERS: &[Goal] = &[Goal::Time(Side::Shipped, 0.9), OTHERS_CPU];
const MANY: &[Goal] = &[Goal::Time(Side::Shipped, 1.5)];
/// Azurite keeps what was deleted for minutes, and its files may lie in memory: larger ones fill up a machine of 24 GiB.
const AZURITE_MEBIBYTES_MAX: Option<u64> = Some(128);
const AZURE_UP_REASONS: &[(Goal, &str)] = &[(
    OTHERS_CPU,
    "MD5 of every block and of the whole file, which rclone computes as well, are most of what is left of ours \
     (`docs/performance.md`)",
)];
const AZURE_DOWN_REASONS: &[(Goal, &str)] = &[(
    OTHERS_CPU,
    "MD5, which proves what came, and SHA-256, which an upload is resumed by, cost more by themselves than the goal leaves \
     (`docs/performance.md`)",
)];

const SWIFT_REASONS: &[(Goal, &str)] = &[(
    OTHERS_CPU,
    "MD5 of the whole file, which is all that Swift compares and tells and which rclone computes as well, is most of what is left \
     of ours (`docs/performance.md`)",
)];

const fn lane(name: &'static str, at: At, way: Way) -> Lane {
    let (mebibytes_max, pairs_max) = (None, None);
    Lane { name, at, way, tuned: &[], goals: OTHERS, reasons: &[], mebibytes_max, pairs_max, checks: GCS_CHECKS }
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
        tuned: DOWN_TUNED,
        goals: DOWN,
        checks: S3_DOWN_CHECKS,
        ..lane("s3 download, null sink, TLS", At::NullSink, Way::Down)
    },
    Lane { tuned: DOWN_TUNED, goals: DOWN, checks: S3_DOWN_CHECKS, ..lane("s3 download, Ceph", At::Ceph, Way::Down) },
    Lane { tuned: SFTP, goals: SSH, checks: SFTP_UP_CHECKS, ..lane("sftp upload, OpenSSH", At::Sshd, Way::Up) },
    Lane { tuned: SFTP, goals: SSH, checks: SFTP_DOWN_CHECKS, ..lane("sftp download, OpenSSH", At::Sshd, Way::Down) },
    Lane {
        tuned: AZURE_UP,
        mebibytes_max: AZURITE_MEBIBYTES_MAX,
        reasons: AZURE_UP_REASONS,
        checks: AZURE_UP_CHECKS,
        ..lane("azure upload, Azurite", At::Azurite, Way::Up)
    },
    Lane {
        tuned: DOWN_TUNED,
        mebibytes_max: AZURITE_MEBIBYTES_MAX,
        reasons: AZURE_DOWN_REASONS,
        checks: AZURE_DOWN_CHECKS,
        ..lane("azure download, Azurite", At::Azurite, Way::Down)
    },
    Lane {
        tuned: SWIFT_UP,
        reasons: SWIFT_REASONS,
        checks: SWIFT_UP_CHECKS,
        ..lane("swift upload, OpenStack", At::Swift, Way::Up)
    },
    Lane {
        tuned: DOWN_TUNED,
        reasons: SWIFT_REASONS,
        checks: SWIFT_DOWN_CHECKS,
        ..lane("swift download, OpenStack", At::Swift, Way::Down)
    },
    Lane { mebibytes_max: Some(64), pairs_max: Some(3), ..lane("gcs upload, emulator", At::Gcs, Way::Up) },
    Lane {
        tuned: S3_MANY,
        goals: MANY,
        checks: MANY_CHECKS,
        ..lane("many files, null sink, TLS", At::NullSink, Way::Many)
    },
    Lane {
        tuned: S3_MANY,
        goals: MANY,
        checks: MANY_CHECKS,
        pairs_max: Some(3),
        ..lane("many files, Ceph", At::Ceph, Way::Many)
    },
];
