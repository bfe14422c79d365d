//! The SFTP server against OpenSSH's `sftp`.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use practice::{Practice, Settings};
use tempfile::TempDir;

/// Enough that a server which cannot read and write at once comes to a stop.
const BIG_BYTES: usize = 96 << 20;

struct Rig {
    folder: TempDir,
    practice: Practice,
}

impl Rig {
    /// Starts the servers; `None`, with a line that says so, where there is no `sftp`.
    #[expect(clippy::print_stdout, reason = "who runs the tests is told what was left out")]
    async fn start() -> Option<Self> {
        if !Path::new("/usr/bin/sftp").exists() {
            assert!(std::env::var_os("CI").is_none(), "CI needs OpenSSH's client (apt-get install openssh-client)");
            println!("skipped: there is no /usr/bin/sftp (apt-get install openssh-client)");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let practice = Practice::start(Settings::new(folder.path().join("data"))).await.unwrap();
        Some(Self { folder, practice })
    }

    fn write(&self, name: &str, mode: u32, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// Runs commands of `sftp`, logged in with the private key.
    async fn with_key(&self, user: &str, key: &str, commands: &str) -> Output {
        let key = self.write("key", 0o600, key);
        let mut sftp = sftp(self.practice.sftp_addr().port());
        sftp.args(["-b", "-", "-o", "IdentitiesOnly=yes", "-i"]).arg(key).arg(format!("{user}@127.0.0.1"));
        run(sftp, commands).await
    }

    /// Runs commands of `sftp`, logged in with a password.
    async fn with_password(&self, password: &str, commands: &str) -> Output {
        let ask = self.write("ask", 0o700, format!("#!/bin/sh\necho '{password}'\n"));
        let batch = self.write("batch", 0o600, commands);
        let user = self.practice.username();
        let mut sftp = sftp(self.practice.sftp_addr().port());
        sftp.env("SSH_ASKPASS", ask).env("SSH_ASKPASS_REQUIRE", "force").env("DISPLAY", ":0");
        // Before -b, which forbids to ask: the first value of an option counts.
        sftp.args(["-o", "BatchMode=no", "-o", "PreferredAuthentications=password"]);
        sftp.args(["-o", "NumberOfPasswordPrompts=1", "-b"]).arg(batch).arg(format!("{user}@127.0.0.1"));
        run(sftp, "").await
    }

    async fn ok(&self, commands: &str) -> String {
        let practice = &self.practice;
        let done = self.with_key(practice.username(), practice.private_key(), commands).await;
        assert!(done.status.success(), "{commands}\n{}", text(&done));
        text(&done)
    }

    async fn refused(&self, command: &str) -> String {
        let practice = &self.practice;
        let done = self.with_key(practice.username(), practice.private_key(), command).await;
        assert!(!done.status.success(), "{command}\n{}", text(&done));
        text(&done)
    }
}

#[expect(clippy::disallowed_methods, reason = "the client under test is a program")]
fn sftp(port: u16) -> Command {
    let mut sftp = Command::new("/usr/bin/sftp");
    sftp.env_remove("SSH_AUTH_SOCK").arg("-P").arg(port.to_string()).args(["-F", "/dev/null"]);
    sftp.args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]);
    sftp
}

async fn run(mut sftp: Command, input: &str) -> Output {
    let input = input.to_owned();
    let work = move || {
        let mut child = sftp.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn knows_one_user_by_password_or_key() {
    let Some(rig) = Rig::start().await else { return };
    let practice = &rig.practice;
    rig.ok("pwd").await;
    let right = rig.with_password(practice.password(), "pwd").await;
    assert!(right.status.success() && text(&right).contains('/'), "{}", text(&right));
    let wrong = rig.with_password("wrong", "pwd").await;
    assert!(text(&wrong).contains("Permission denied"), "{}", text(&wrong));
    let other = rig.with_key("root", practice.private_key(), "pwd").await;
    assert!(text(&other).contains("Permission denied"), "{}", text(&other));

    let other_folder = tempfile::tempdir().unwrap();
    let stranger = Practice::start(Settings::new(other_folder.path())).await.unwrap();
    let stranger = rig.with_key(practice.username(), stranger.private_key(), "pwd").await;
    assert!(text(&stranger).contains("Permission denied"), "{}", text(&stranger));
}

#[tokio::test(flavor = "multi_thread")]
async fn moves_big_files_both_ways() {
    let Some(rig) = Rig::start().await else { return };
    let bytes: Vec<u8> = (0..BIG_BYTES / 4).flat_map(|word| u32::try_from(word).unwrap().to_le_bytes()).collect();
    let source = rig.write("source", 0o600, &bytes);
    let target = rig.folder.path().join("target");
    rig.ok(&format!("put {} big\nget big {}", source.display(), target.display())).await;
    assert!(std::fs::read(rig.practice.sftp_root().join("big")).unwrap() == bytes, "the upload differs");
    assert!(std::fs::read(target).unwrap() == bytes, "the download differs");
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_order_in_folders() {
    let Some(rig) = Rig::start().await else { return };
    let source = rig.write("source", 0o640, "one");
    let source = source.display();
    let listing = rig.ok(&format!("mkdir a\nput -p {source} \"a/ü b\"\nls -l a\nchmod 600 \"a/ü b\"")).await;
    assert!(listing.contains("-rw-r-----") && listing.contains("a/ü b"), "{listing}");
    let root = rig.practice.sftp_root();
    assert_eq!(std::fs::read(root.join("a/ü b")).unwrap(), b"one");
    assert_eq!(std::fs::metadata(root.join("a/ü b")).unwrap().permissions().mode() & 0o777, 0o600);

    assert!(rig.refused("mkdir a").await.contains("Failure"));
    assert!(rig.refused("rmdir a").await.contains("Failure"));
    assert!(rig.refused("get none").await.contains("not found"));
    assert!(rig.refused("rm none").await.contains("No such file"));
    assert!(rig.refused("rename \"a/ü b\" none/b").await.contains("No such file"));

    // `rename` is the extension of OpenSSH, which replaces; `rename -l` that of the standard, which does not.
    std::fs::write(root.join("b"), "two").unwrap();
    assert!(rig.refused("rename -l b \"a/ü b\"").await.contains("Failure"));
    assert_eq!(std::fs::read(root.join("a/ü b")).unwrap(), b"one");
    rig.ok("rename b \"a/ü b\"").await;
    assert_eq!(std::fs::read(root.join("a/ü b")).unwrap(), b"two");
    rig.ok("rm \"a/ü b\"\nrmdir a").await;
    assert_eq!(std::fs::read_dir(root).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn stays_inside_its_folder() {
    let Some(rig) = Rig::start().await else { return };
    let secret = rig.write("secret", 0o600, "x");
    let root = rig.practice.sftp_root();
    std::os::unix::fs::symlink(&secret, root.join("link")).unwrap();
    assert!(rig.refused("get link /dev/null").await.contains("ermission denied"));
    assert!(rig.refused("get ../../secret /dev/null").await.contains("not found"));
    rig.ok(&format!("put {} ../../../inside", secret.display())).await;
    assert!(root.join("inside").exists());
    rig.refused("rmdir /").await;
    rig.ok("rm link").await;
    assert!(secret.exists(), "the link was removed, not its target");
}
