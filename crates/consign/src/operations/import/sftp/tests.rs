//! Arguments as clients send them, and imports from a real server.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use connectors::Limits;
use serde_json::{Value, json};
use testkit::proxy::Proxy;
use testkit::{Key, Sshd, or_skip};

use super::*;
use crate::error::Code;
use crate::operations::storage::Import;
use crate::operations::testing::{Bench, network_with};
use crate::operations::{self, Arguments as _, Context, Operation as _, Outcome};

const MIB: usize = 1024 * 1024;

fn faults(more: &Value) -> Vec<String> {
    let mut args = json!({ "host": "some-host", "username": "some-username" });
    args.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let Value::Object(mut args) = args else { panic!("arguments are an object") };
    match operations::find("import/sftp").unwrap().prepare(&mut args) {
        Ok(warnings) => warnings,
        Err(faults) => faults.0.into_keys().collect(),
    }
}

#[test]
fn creation_asks_for_presence_and_not_for_form() {
    let nothing = Vec::<String>::new();
    assert_eq!(faults(&json!({ "password": "p", "file": "some-file" })), nothing);
    assert_eq!(faults(&json!({ "private_key": "k", "path": ".", "port": "2022", "filename": "a" })), nothing);
    assert_eq!(faults(&json!({ "password": "p", "file": "a", "path": "b" })), ["path"]);
    assert_eq!(faults(&json!({ "password": "", "file": "", "path": null })), ["file", "password"]);
}

/// Runs the operation with a context whose network leads to this machine.
async fn run(bench: &Bench, args: Value, limits: Limits) -> Result<Outcome, crate::error::TaskError> {
    let context = Context { network: network_with(limits), ..bench.context(&[]) };
    Import::<ImportSftp>::run(Args::take(args).unwrap(), context).await
}

fn args(sshd: &Sshd, addr: std::net::SocketAddr, more: &Value) -> Value {
    let mut all = json!({
        "host": addr.ip().to_string(),
        "port": addr.port(),
        "username": sshd.user(),
        "private_key": sshd.key(Key::Ed25519).unwrap(),
        "host_key": sshd.fingerprints()[0],
    });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_directory_brings_its_files_and_what_its_links_lead_to() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let folder = sshd.folder("import").unwrap();
    let elsewhere = sshd.folder("import-elsewhere").unwrap();
    fs::create_dir_all(folder.join("directory")).unwrap();
    write(&folder.join("directory/deep.txt"), b"not this");
    write(&folder.join("b %41 ü.png"), b"two");
    write(&folder.join("a.txt"), b"one");
    write(&folder.join("empty"), b"");
    write(&folder.join(".b.consign-0123abcd.part"), b"half");
    write(&elsewhere.join("target"), b"linked");
    symlink(elsewhere.join("target"), folder.join("link")).ok();
    symlink(&elsewhere, folder.join("link-to-directory")).ok();
    symlink("nowhere", folder.join("link-to-nowhere")).ok();
    for path in [folder.display().to_string(), format!("{}/", folder.display())] {
        let bench = Bench::new().await;
        let args = args(&sshd, sshd.addr(), &json!({ "path": path }));
        let outcome = run(&bench, args, Limits::default()).await.unwrap();
        let mut found = Vec::new();
        for file in &outcome.files {
            found.push((file.name.as_str(), file.content_type.as_str(), bench.read(file).await.to_vec()));
        }
        let expected = [
            ("a.txt", "text/plain", b"one".to_vec()),
            ("b %41 ü.png", "image/png", b"two".to_vec()),
            ("empty", "application/octet-stream", Vec::new()),
            ("link", "application/octet-stream", b"linked".to_vec()),
        ];
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let folder = sshd.folder("import-missing").unwrap();
    let bench = Bench::new().await;
    let path = |name: &str| folder.join(name).display().to_string();
    fs::create_dir_all(folder.join("empty")).unwrap();
    for (more, code, words) in [
        (json!({ "file": path("none") }), Code::FileNotFound, "/none`"),
        (json!({ "file": path("empty") }), Code::FileNotFound, "is a directory"),
        (json!({ "path": path("none") }), Code::ContainerNotFound, "there is no directory"),
        (json!({ "path": path("empty") }), Code::FileNotFound, "no file to import under"),
        (json!({ "file": "x", "host_key": format!("SHA256:{}", "A".repeat(43)) }), Code::HostKeyMismatch, ""),
        (json!({ "file": "x", "private_key": sshd.key(Key::Unknown).unwrap() }), Code::InvalidCredentials, ""),
    ] {
        let error = run(&bench, args(&sshd, sshd.addr(), &more), Limits::default()).await.unwrap_err();
        assert_eq!(error.code, code, "{more}: {error}");
        assert!(error.message.to_lowercase().contains(&words.to_lowercase()), "{}", error.message);
    }
    assert_eq!(bench.kept(), 0);
}

/// The connection is cut in the middle, and what came before is not sent again.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_download_goes_on_where_it_broke() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let folder = sshd.folder("import-cut").unwrap();
    let large = connectors::contract::bytes(48 * MIB, 1);
    write(&folder.join("large"), &large);
    let proxy = Proxy::start(sshd.addr()).await.unwrap();
    let bench = Bench::new().await;
    let args = args(&sshd, proxy.addr(), &json!({ "file": folder.join("large").display().to_string() }));
    let half = large.len() as u64 / 2;
    // Nothing passes from that byte on, so that the cut cannot come too late.
    proxy.stall_after_receiving(half);
    let cut = async {
        while proxy.received_bytes() < half {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        proxy.cut();
        proxy.heal();
        half
    };
    let (outcome, before) = tokio::join!(run(&bench, args, Limits::default()), cut);
    let outcome = outcome.unwrap();
    assert!(bench.read(&outcome.files[0]).await == large);
    // What was asked for ahead and lost: 4 MiB, and what lay in the buffers of the connection.
    let received = proxy.received_bytes();
    assert!(received < 64 * MIB as u64, "{received} bytes were received, {before} of them before the cut");
    assert!(proxy.connections() == 2);
}
