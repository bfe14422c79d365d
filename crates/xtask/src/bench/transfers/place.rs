//! The servers that both sides speak to, and how each side is told about them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::{Value, json};
use testkit::{Key, User};

use super::null_sink::NullSink;
use crate::bench::ground;

/// The bucket or container of all lanes.
const BUCKET: &str = "bench";

/// Variables for a program.
pub(super) type Environment = Vec<(&'static str, String)>;

/// Where what was sent is looked at.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    /// In the sink of this process.
    Sink,
    /// In a folder of this machine.
    Folder(PathBuf),
    /// At the server: it has to be fetched.
    Remote,
}

/// A server.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// Name and version.
    pub(super) version: String,
    pub(super) kept: Kept,
    /// The folder that the server keeps objects in, and its file system.
    pub(super) files_on: String,
    /// What follows `export/` and `import/`.
    pub(super) operation: &'static str,
    /// Arguments of ours that reach it.
    pub(super) account: Value,
    /// Our arguments for a name and for the start of names.
    pub(super) names: (&'static str, &'static str),
    /// What stands before every name in our arguments.
    pub(super) root: String,
    /// rclone's remote `X:` and options, as environment.
    pub(super) rclone: Environment,
    /// What stands before every name in rclone's arguments.
    pub(super) rclone_root: String,
    /// Options of OpenSSH's `sftp` and who logs in where, if it speaks SFTP.
    pub(super) openssh: Option<Vec<String>>,
    /// Options and environment of `aws`, if it speaks S3.
    pub(super) aws: Option<(Vec<String>, Environment)>,
}

/// Where the servers of other hands keep their files, unless it is said otherwise.
fn run_folder() -> String {
    let folder = std::env::var_os("CONSIGN_TEST_RUN").map(PathBuf::from);
    let parent = folder.as_deref().and_then(Path::parent);
    parent.map_or_else(|| "the cache of the test bed".to_owned(), ground::folder)
}

fn s3(version: String, endpoint: &str, id: &str, secret: &str, ca: Option<&Path>) -> Place {
    let mut rclone = vec![
        ("RCLONE_CONFIG_X_TYPE", "s3".to_owned()),
        ("RCLONE_CONFIG_X_PROVIDER", "Ceph".to_owned()),
        ("RCLONE_CONFIG_X_ENDPOINT", endpoint.to_owned()),
        ("RCLONE_CONFIG_X_REGION", "default".to_owned()),
        ("RCLONE_CONFIG_X_ACCESS_KEY_ID", id.to_owned()),
        ("RCLONE_CONFIG_X_SECRET_ACCESS_KEY", secret.to_owned()),
        ("RCLONE_CONFIG_X_NO_CHECK_BUCKET", "true".to_owned()),
    ];
    let mut aws = vec!["--endpoint-url".to_owned(), endpoint.to_owned(), "--region".to_owned(), "default".to_owned()];
    if let Some(ca) = ca {
        rclone.push(("RCLONE_CA_CERT", ca.display().to_string()));
        aws.extend(["--ca-bundle".to_owned(), ca.display().to_string()]);
    }
    let aws_environment = vec![
        ("AWS_ACCESS_KEY_ID", id.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", secret.to_owned()),
        ("AWS_CONFIG_FILE", "/dev/null".to_owned()),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null".to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ];
    Place {
        version,
        kept: Kept::Remote,
        files_on: run_folder(),
        operation: "s3",
        account: json!({ "bucket": BUCKET, "region": "default", "endpoint": endpoint, "access_key_id": id,
            "secret_access_key": secret }),
        names: ("key", "key_prefix"),
        root: String::new(),
        rclone,
        rclone_root: format!("X:{BUCKET}/"),
        openssh: None,
        aws: Some((aws, aws_environment)),
    }
}

/// The sink of this process.
pub(super) fn null_sink(sink: &NullSink) -> Place {
    let version = "a sink in the benchmark's own process, TLS 1.3".to_owned();
    let place = s3(version, &sink.endpoint(), "null", "null", Some(sink.ca_file()));
    Place { kept: Kept::Sink, files_on: "the memory of the benchmark".to_owned(), ..place }
}

/// The Ceph gateway, with an empty bucket.
pub(super) async fn ceph() -> Result<Place> {
    let ceph = testkit::ceph().await?;
    ceph.create_bucket(BUCKET).await?;
    let account = &ceph.account;
    let version = format!("Ceph gateway {}, http", ceph.version);
    Ok(s3(version, &ceph.endpoint, &account.access_key_id, &account.secret_access_key, None))
}

/// OpenSSH's server. Every side speaks this cipher, which is Consign's first choice.
pub(super) async fn sshd() -> Result<Place> {
    let sshd = testkit::sshd().await?;
    let (addr, user, key) = (sshd.addr(), sshd.user(), sshd.key_file(Key::Ed25519).display().to_string());
    let folder = sshd.folder(BUCKET)?;
    let home = format!("{}/", folder.display());
    // The folder that the server's own, whose name changes from run to run, was made in.
    let files_on = sshd.home().ancestors().nth(2).map_or_else(String::new, ground::folder);
    let mut openssh: Vec<String> = ["-q", "-F", "/dev/null", "-P"].map(str::to_owned).to_vec();
    openssh.extend([addr.port().to_string(), "-i".to_owned(), key.clone()]);
    for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "IdentitiesOnly=yes"] {
        openssh.extend(["-o".to_owned(), option.to_owned()]);
    }
    openssh.extend(["-o".to_owned(), format!("Ciphers={CIPHER}"), format!("{user}@{}", addr.ip())]);
    Ok(Place {
        version: format!("OpenSSH {}", sshd.version()),
        kept: Kept::Folder(folder),
        files_on,
        operation: "sftp",
        account: json!({ "host": addr.ip().to_string(), "port": addr.port(), "username": user,
            "private_key": sshd.key(Key::Ed25519)? }),
        names: ("file", "path"),
        root: home.clone(),
        rclone: vec![
            ("RCLONE_CONFIG_X_TYPE", "sftp".to_owned()),
            ("RCLONE_CONFIG_X_HOST", addr.ip().to_string()),
            ("RCLONE_CONFIG_X_PORT", addr.port().to_string()),
            ("RCLONE_CONFIG_X_USER", user.to_owned()),
            ("RCLONE_CONFIG_X_KEY_FILE", key),
        ],
        rclone_root: format!("X:{home}"),
        openssh: Some(openssh),
        aws: None,
    })
}

/// The cipher of the SFTP lanes.
pub(super) const CIPHER: &str = "aes256-gcm@openssh.com";

/// Azurite, with an empty container.
pub(super) async fn azurite() -> Result<Place> {
    let azurite = testkit::azurite().await?;
    azurite.empty_container(BUCKET).await?;
    Ok(Place {
        version: format!("Azurite {}, http", azurite.version),
        kept: Kept::Remote,
        files_on: run_folder(),
        operation: "azure/blob",
        account: json!({ "storage_account": azurite.account, "storage_access_key": azurite.key, "container": BUCKET,
            "endpoint": azurite.endpoint }),
        names: ("blob", "blob_prefix"),
        root: String::new(),
        rclone: vec![
            ("RCLONE_CONFIG_X_TYPE", "azureblob".to_owned()),
            ("RCLONE_CONFIG_X_ACCOUNT", azurite.account.clone()),
            ("RCLONE_CONFIG_X_KEY", azurite.key.clone()),
            ("RCLONE_CONFIG_X_ENDPOINT", azurite.endpoint.clone()),
        ],
        rclone_root: format!("X:{BUCKET}/"),
        openssh: None,
        aws: None,
    })
}

/// Keystone and Swift, with an empty container.
pub(super) async fn swift() -> Result<Place> {
    let openstack = testkit::openstack().await?;
    openstack.empty_container(BUCKET).await?;
    let (auth_url, user) = (format!("{}/v3", openstack.auth_url()), User::Demo);
    let password = openstack.password(user).to_owned();
    Ok(Place {
        version: format!("{}, http", openstack.version()),
        kept: Kept::Remote,
        files_on: run_folder(),
        operation: "openstack",
        account: json!({ "auth_url": auth_url, "username": user.name(), "password": password, "region": "RegionOne",
            "container": BUCKET }),
        names: ("file", "file_prefix"),
        root: String::new(),
        rclone: vec![
            ("RCLONE_CONFIG_X_TYPE", "swift".to_owned()),
            ("RCLONE_CONFIG_X_AUTH", auth_url),
            ("RCLONE_CONFIG_X_AUTH_VERSION", "3".to_owned()),
            ("RCLONE_CONFIG_X_USER", user.name().to_owned()),
            ("RCLONE_CONFIG_X_KEY", password),
            ("RCLONE_CONFIG_X_DOMAIN", "Default".to_owned()),
            ("RCLONE_CONFIG_X_TENANT", "demo".to_owned()),
            ("RCLONE_CONFIG_X_TENANT_DOMAIN", "Default".to_owned()),
            ("RCLONE_CONFIG_X_REGION", "RegionOne".to_owned()),
        ],
        rclone_root: format!("X:{BUCKET}/"),
        openssh: None,
        aws: None,
    })
}

/// The stand-in for Google Cloud Storage, with an empty bucket.
pub(super) async fn gcs() -> Result<Place> {
    let gcs = testkit::gcs().await?;
    gcs.create_bucket(BUCKET).await?;
    Ok(Place {
        version: format!("gcp-storage-emulator {} behind our gate, http", gcs.version),
        kept: Kept::Remote,
        files_on: "the memory of the emulator".to_owned(),
        operation: "google-cloud-storage",
        account: json!({ "project_id": "test-project", "bucket": BUCKET, "client_email": gcs.client_email,
            "private_key": gcs.private_key, "endpoint": gcs.endpoint, "token_uri": gcs.token_uri }),
        names: ("file", "file_prefix"),
        root: String::new(),
        rclone: vec![
            ("RCLONE_CONFIG_X_TYPE", "google cloud storage".to_owned()),
            ("RCLONE_CONFIG_X_SERVICE_ACCOUNT_CREDENTIALS", gcs.key_file().to_string()),
            ("RCLONE_CONFIG_X_ENDPOINT", format!("{}/storage/v1/", gcs.endpoint)),
            ("RCLONE_CONFIG_X_BUCKET_POLICY_ONLY", "true".to_owned()),
        ],
        rclone_root: format!("X:{BUCKET}/"),
        openssh: None,
        aws: None,
    })
}
