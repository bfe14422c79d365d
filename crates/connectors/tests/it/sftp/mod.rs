//! SFTP against OpenSSH.

mod files;
mod keeps;
mod line;
mod login;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use connectors::contract;
use connectors::egress::Guard;
use connectors::memory::MemorySource;
use connectors::sftp::{Config, Sftp};
use connectors::{Connector as _, Error, Limits, Secret};
use testkit::conformance::{Server, Standing};
use testkit::{Key, Sshd};

const MIB: usize = 1024 * 1024;

fn limits() -> Limits {
    Limits { part_bytes: MIB as u64, tries: 1, ..Limits::default() }
}

fn config(sshd: &Sshd, addr: SocketAddr) -> Config {
    Config {
        host: addr.ip().to_string(),
        port: addr.port(),
        username: sshd.user().to_owned(),
        password: None,
        private_key: Some(Secret::new(sshd.key(Key::Ed25519).unwrap())),
        host_key: None,
        limits: limits(),
    }
}

fn connector(config: Config) -> Sftp {
    Sftp::new(config, guard()).unwrap()
}

/// Lets connections to this machine through.
fn guard() -> Guard {
    Guard::new(["127.0.0.0/8".parse().unwrap()])
}

fn source(length: usize, seed: u64) -> Arc<MemorySource> {
    Arc::new(MemorySource::new(contract::bytes(length, seed)))
}

/// Names of the files in a folder, hidden ones too.
fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn login(config: Config) -> Result<(), Error> {
    connector(config).list("", 10_000).await.map(drop)
}

fn assert_no_temporary_files(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        assert!(!path.to_string_lossy().contains(".consign-"), "{} is left over", path.display());
        if path.is_dir() {
            assert_no_temporary_files(&path);
        }
    }
}

/// A column of the matrix.
fn server(name: &str, version: &str, standing: Standing) -> Server {
    Server {
        system: "sftp".to_owned(),
        name: name.to_owned(),
        version: version.to_owned(),
        standing,
        witness: String::new(),
    }
}

fn openssh(sshd: &Sshd) -> Server {
    server("OpenSSH", sshd.version(), Standing::Real)
}
