//! The contract, kept with OpenSSH (with and without `posix-rename`) and with our own practice server.

use std::net::SocketAddr;

use async_trait::async_trait;
use connectors::contract::{Excluded, Fixture, Who, Wire, Witness};
use connectors::sftp::{Config, Sftp};
use connectors::{Connector, Limits, Secret};
use practice::{Practice, Settings};
use testkit::conformance::{Server, Standing};
use testkit::{Sshd, or_skip};

use super::{config, guard, limits, openssh, server};
use crate::conformance::{OpenSsh, Path, check};

struct Bed {
    /// As the owner.
    config: Config,
    prefix: String,
    /// A server of the same files that lets nobody write.
    read_only: Option<SocketAddr>,
    witness: OpenSsh,
}

impl Bed {
    async fn of(config: Config, prefix: String, read_only: Option<SocketAddr>) -> Option<Self> {
        let addr = SocketAddr::new(config.host.parse().unwrap(), config.port);
        let key = config.private_key.clone().unwrap();
        let client = testkit::openssh::Sftp::log_in(addr, &config.username, key.expose()).await;
        Some(Self { config, prefix, read_only, witness: OpenSsh(or_skip(client)?) })
    }

    async fn of_sshd(sshd: &Sshd, addr: SocketAddr, folder: &str) -> Option<Self> {
        let prefix = format!("{}/", sshd.folder(folder).unwrap().display());
        Self::of(config(sshd, addr), prefix, Some(sshd.addr_read_only())).await
    }

    fn named(&self, server: Server) -> Server {
        Server { witness: self.witness.0.name().to_owned(), ..server }
    }
}

#[async_trait]
impl Fixture for Bed {
    fn prefix(&self) -> &str {
        &self.prefix
    }

    fn limits(&self) -> Limits {
        Limits { tries: 5, ..limits() }
    }

    fn connect(&self, who: Who, limits: Limits, via: Option<SocketAddr>) -> Result<Box<dyn Connector>, Excluded> {
        let mut config = Config { limits, ..self.config.clone() };
        if let Some(addr) = via {
            (config.host, config.port) = (addr.ip().to_string(), addr.port());
        }
        match who {
            Who::Owner => {}
            Who::UnknownKey => "nobody-of-this-name".clone_into(&mut config.username),
            Who::WrongSecret => {
                // In the right form, and nobody's.
                let key =
                    russh::keys::PrivateKey::random(&mut russh::keys::key::safe_rng(), russh::keys::Algorithm::Ed25519);
                let text = key.unwrap().to_openssh(russh::keys::ssh_key::LineEnding::LF).unwrap();
                (config.private_key, config.password) = (Some(Secret::new(text.as_str())), None);
            }
            Who::MissingContainer => return Err(Excluded::by_protocol("directories are made when they are missing")),
            Who::Reader => {
                let one = Excluded::by_server("whoever may log in may write");
                config.port = self.read_only.ok_or(one)?.port();
            }
        }
        Ok(Box::new(Sftp::new(config, guard()).unwrap()))
    }

    async fn wire(&self) -> Box<dyn Wire> {
        Box::new(Path::to(SocketAddr::new(self.config.host.parse().unwrap(), self.config.port)).await)
    }

    fn witness(&self) -> &dyn Witness {
        &self.witness
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openssh_keeps_the_contract() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let Some(bed) = Bed::of_sshd(&sshd, sshd.addr(), "contract").await else { return };
    check(&bed, &bed.named(openssh(&sshd))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openssh_keeps_the_contract_without_posix_rename() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let Some(bed) = Bed::of_sshd(&sshd, sshd.addr_no_posix_rename(), "contract-plain").await else { return };
    check(&bed, &bed.named(server("OpenSSH without posix-rename", sshd.version(), Standing::Real))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn practice_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let practice = Practice::start(Settings::new(folder.path())).await.unwrap();
    let config = Config {
        host: practice.sftp_addr().ip().to_string(),
        port: practice.sftp_addr().port(),
        username: practice.username().to_owned(),
        password: None,
        private_key: Some(Secret::new(practice.private_key())),
        host_key: Some(practice.host_key_fingerprint()),
        limits: limits(),
    };
    let Some(bed) = Bed::of(config, "/contract/".to_owned(), None).await else { return };
    check(&bed, &bed.named(server("consign practice", env!("CARGO_PKG_VERSION"), Standing::Practice))).await;
}
