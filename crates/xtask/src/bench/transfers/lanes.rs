//! The lanes of the benchmark: one way over one server, for both sides.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use testkit::{Ceph, Key, Sshd};

use super::null_sink::NullSink;
use super::rclone::Copy;

/// The bucket of all lanes.
pub(super) const BUCKET: &str = "bench";
/// What the objects are called.
const OURS: &str = "ours.bin";
const THEIRS: &str = "theirs.bin";

/// As large and as many at once as Consign's defaults, and no MD5 of the whole file before it is sent.
const TUNED_S3: &[&str] = &["--s3-chunk-size", "8M", "--s3-upload-concurrency", "4", "--s3-disable-checksum"];
const TUNED_SFTP: &[&str] =
    &["--sftp-chunk-size", "255k", "--sftp-concurrency", "64", "--sftp-ciphers", "aes256-gcm@openssh.com"];

/// One way over one server.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) name: &'static str,
    operation: &'static str,
    /// Arguments that reach the server.
    account: Value,
    /// The argument that names the object, and the folder in front of it.
    target: (&'static str, String),
    is_upload: bool,
    remote: Vec<(&'static str, String)>,
    /// Options of rclone for both ways of running it, then those of the tuned one.
    options: (Vec<String>, &'static [&'static str]),
    original: PathBuf,
}

impl Lane {
    /// The path and body of the request that makes the task.
    pub(super) fn task(&self, source: &str) -> (String, Value) {
        let mut body = self.account.clone();
        body[self.target.0] = json!(format!("{}{OURS}", self.target.1));
        if self.is_upload {
            body["input"] = json!([source]);
        }
        (format!("/sync/v2/{}", self.operation), body)
    }

    /// Gets back what Consign uploaded, with rclone, where the server keeps it.
    pub(super) fn back(&self, into: &Path) -> Option<Copy> {
        let keeps = self.is_upload && !self.name.contains("null");
        keeps.then(|| {
            let arguments = vec![self.remote_path(OURS), into.display().to_string()];
            Copy { remote: self.remote.clone(), arguments, makes: None }
        })
    }

    fn remote_path(&self, name: &str) -> String {
        match self.target.0 {
            "key" => format!("X:{BUCKET}/{name}"),
            _ => format!("X:{}{name}", self.target.1),
        }
    }

    /// The same as a copy by rclone.
    pub(super) fn rclone(&self, folder: &Path, tuned: bool) -> Copy {
        let local = folder.join("rclone.bin");
        let mut arguments = if self.is_upload {
            // Without it, rclone would find the object of the run before and send nothing.
            vec!["--ignore-times".to_owned(), self.original.display().to_string(), self.remote_path(THEIRS)]
        } else {
            vec![self.remote_path(OURS), local.display().to_string()]
        };
        arguments.extend(self.options.0.iter().cloned());
        if tuned {
            arguments.extend(self.options.1.iter().map(|&option| option.to_owned()));
        }
        Copy { remote: self.remote.clone(), arguments, makes: (!self.is_upload).then_some(local) }
    }
}

/// All lanes. Uploads come before the downloads that read what they sent.
///
/// # Errors
/// When a key cannot be read.
pub(super) fn all(ceph: &Ceph, sshd: &Sshd, sink: &NullSink, original: &Path) -> Result<Vec<Lane>> {
    let s3 = |name, is_upload, endpoint: &str, id: &str, secret: &str, ca: Option<&Path>| {
        let ca = ca.map(|ca| vec!["--ca-cert".to_owned(), ca.display().to_string()]);
        Lane {
            name,
            operation: if is_upload { "export/s3" } else { "import/s3" },
            account: json!({ "bucket": BUCKET, "region": "default", "endpoint": endpoint, "access_key_id": id,
                "secret_access_key": secret }),
            target: ("key", String::new()),
            is_upload,
            remote: vec![
                ("TYPE", "s3".to_owned()),
                ("PROVIDER", "Ceph".to_owned()),
                ("ENDPOINT", endpoint.to_owned()),
                ("REGION", "default".to_owned()),
                ("ACCESS_KEY_ID", id.to_owned()),
                ("SECRET_ACCESS_KEY", secret.to_owned()),
                ("NO_CHECK_BUCKET", "true".to_owned()),
            ],
            options: (ca.unwrap_or_default(), if is_upload { TUNED_S3 } else { &[] }),
            original: original.to_owned(),
        }
    };
    let home = sshd.folder("bench")?;
    let sftp = |name, is_upload| {
        Ok::<_, anyhow::Error>(Lane {
            name,
            operation: if is_upload { "export/sftp" } else { "import/sftp" },
            account: json!({ "host": sshd.addr().ip().to_string(), "port": sshd.addr().port(), "username": sshd.user(),
                "private_key": sshd.key(Key::Ed25519)? }),
            target: ("file", format!("{}/", home.display())),
            is_upload,
            remote: vec![
                ("TYPE", "sftp".to_owned()),
                ("HOST", sshd.addr().ip().to_string()),
                ("PORT", sshd.addr().port().to_string()),
                ("USER", sshd.user().to_owned()),
                ("KEY_FILE", sshd.key_file(Key::Ed25519).display().to_string()),
            ],
            options: (Vec::new(), TUNED_SFTP),
            original: original.to_owned(),
        })
    };
    let (id, secret) = (&ceph.account.access_key_id, &ceph.account.secret_access_key);
    let ca = Some(sink.ca_file());
    Ok(vec![
        s3("s3 upload, null sink, TLS", true, &sink.endpoint(), "null", "null", ca),
        s3("s3 download, null sink, TLS", false, &sink.endpoint(), "null", "null", ca),
        s3("s3 upload, Ceph, http", true, &ceph.endpoint, id, secret, None),
        s3("s3 download, Ceph, http", false, &ceph.endpoint, id, secret, None),
        sftp("sftp upload, OpenSSH", true).context("sftp")?,
        sftp("sftp download, OpenSSH", false).context("sftp")?,
    ])
}
