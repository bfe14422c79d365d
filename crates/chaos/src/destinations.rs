//! Where files are delivered to: real servers behind paths that break on demand, and clients by other hands that read
//! back what is there.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};
use testkit::proxy::Proxy;
use testkit::witness::{System, Witness};
use testkit::{Azurite, Ceph, Gcs, Key, Missing, OpenStack, Sshd, User};

use crate::gate::Gate;
use crate::jobs::{Place, Spec};
use crate::receiver::Receiver;

/// Before every 16 KiB to the SSH server: large files are under way for some seconds, and faults meet them.
const SFTP_PAUSE: Duration = Duration::from_millis(4);

/// All that there are on this machine.
pub(crate) struct Destinations {
    container: String,
    s3: Behind<Ceph>,
    sftp: Sftp,
    upload: Upload,
    azure: Option<Behind<Azurite>>,
    gcs: Option<Behind<Gcs>>,
    swift: Option<Swift>,
}

/// A server, the path to it, and who looks at it by another way.
struct Behind<T> {
    server: T,
    gate: Gate,
    witness: Witness,
}

struct Sftp {
    sshd: Sshd,
    folder: PathBuf,
    proxy: Proxy,
}

/// A web server that takes files, and the path to it.
struct Upload {
    receiver: Receiver,
    gate: Gate,
}

struct Swift {
    store: Behind<OpenStack>,
    keystone: Gate,
    /// The region whose object store is at the gate.
    region: String,
}

impl Destinations {
    /// Starts the servers, reached at this address. Ceph and OpenSSH must be there; of the others, what the machine has, where
    /// `all` are wanted.
    pub(crate) async fn start(world: IpAddr, container: &str, all: bool) -> Result<Self> {
        let (ceph, sshd) = (testkit::ceph().await?, testkit::sshd().await?);
        ceph.create_bucket(container).await?;
        let settings = json!({
            "endpoint": ceph.endpoint, "region": ceph.region, "bucket": container,
            "key": ceph.account.access_key_id, "secret": ceph.account.secret_access_key,
        });
        let witness = Witness::start(System::S3, &settings).await?;
        let s3 = Behind { gate: Gate::start(world, ceph.addr()).await?, server: ceph, witness };
        let proxy = Proxy::start_on(world, sshd.addr()).await?;
        let sftp = Sftp { folder: sshd.folder("chaos")?, proxy, sshd };
        let receiver = Receiver::start().await?;
        let upload = Upload { gate: Gate::start(world, receiver.addr()).await?, receiver };
        let own = container.to_owned();
        let mut found = Self { container: own, s3, sftp, upload, azure: None, gcs: None, swift: None };
        found.heal();
        if all {
            found.azure = if_there(azure(world, container).await)?;
            found.gcs = if_there(gcs(world, container).await)?;
            found.swift = if_there(swift(world, container).await)?;
        }
        Ok(found)
    }

    /// The Ceph gateway, which can also hold the file store.
    pub(crate) fn ceph(&self) -> &Ceph {
        &self.s3.server
    }

    /// Those that jobs can deliver to.
    pub(crate) fn places(&self) -> Vec<Place> {
        let is_there = |place: &Place| match place {
            Place::S3 | Place::Sftp | Place::Upload | Place::Url => true,
            Place::Azure => self.azure.is_some(),
            Place::Gcs => self.gcs.is_some(),
            Place::Swift => self.swift.is_some(),
        };
        Place::ALL.into_iter().filter(is_there).collect()
    }

    /// The arguments of a task that delivers a job's file to a place.
    pub(crate) fn task(&self, place: Place, spec: &Spec) -> Result<Value> {
        let (name, container) = (spec.object(), &self.container);
        let missing = || anyhow!("{} is not there", place.name());
        Ok(match place {
            Place::S3 => {
                let Behind { server: ceph, gate, .. } = &self.s3;
                json!({
                    "operation": place.operation(), "bucket": container, "region": ceph.region, "key": name,
                    "endpoint": gate.endpoint(), "access_key_id": ceph.account.access_key_id,
                    "secret_access_key": ceph.account.secret_access_key,
                })
            }
            Place::Sftp => {
                let addr = self.sftp.proxy.addr();
                json!({
                    "operation": place.operation(), "host": addr.ip().to_string(), "port": addr.port(),
                    "username": self.sftp.sshd.user(), "private_key": self.sftp.sshd.key(Key::Ed25519)?,
                    "file": self.sftp.folder.join(name),
                })
            }
            Place::Azure => {
                let Behind { server: azurite, gate, .. } = self.azure.as_ref().with_context(missing)?;
                json!({
                    "operation": place.operation(), "endpoint": azurite.endpoint_at(gate.addr()), "blob": name,
                    "storage_account": azurite.account, "storage_access_key": azurite.key, "container": container,
                })
            }
            Place::Gcs => {
                let Behind { server: gcs, gate, .. } = self.gcs.as_ref().with_context(missing)?;
                json!({
                    "operation": place.operation(), "endpoint": gate.endpoint(),
                    "token_uri": format!("{}/token", gate.endpoint()), "project_id": "p", "bucket": container,
                    "client_email": gcs.client_email, "private_key": gcs.private_key, "file": name,
                })
            }
            Place::Swift => {
                let Swift { store: swift, keystone, region } = self.swift.as_ref().with_context(missing)?;
                json!({
                    "operation": place.operation(), "auth_url": keystone.endpoint(), "username": User::Demo.name(),
                    "password": swift.server.password(User::Demo), "region": region, "project_name": "demo",
                    "container": container, "file": name,
                })
            }
            Place::Upload => {
                let url = self.upload.gate.endpoint() + &Receiver::path(&name);
                json!({"operation": place.operation(), "url": url})
            }
            Place::Url => json!({"operation": place.operation()}),
        })
    }

    /// From now on some requests are answered with 500 or 503, and not carried out.
    pub(crate) fn answer_errors(&self) {
        self.each(Gate::answer_errors);
    }

    /// From now on some requests are carried out, and their answers are lost.
    pub(crate) fn lose_answers(&self) {
        self.each(Gate::lose_answers);
    }

    /// From now on no byte reaches the SSH server, and half of the requests to the others are cut.
    pub(crate) fn cut(&self) {
        self.sftp.proxy.stall_after(256 * 1024);
        self.each(Gate::cut);
    }

    /// All works again; what hung is cut.
    pub(crate) fn heal(&self) {
        self.each(Gate::heal);
        self.sftp.proxy.cut();
        self.sftp.proxy.heal();
        self.sftp.proxy.delay(SFTP_PAUSE);
    }

    /// How many requests to each failed since this was asked before.
    pub(crate) fn take_spoilt(&self) -> Vec<(Place, u64)> {
        self.gates().into_iter().map(|(place, gate)| (place, gate.take_spoilt())).collect()
    }

    fn each(&self, change: fn(&Gate)) {
        for (_, gate) in self.gates() {
            change(gate);
        }
    }

    fn gates(&self) -> Vec<(Place, &Gate)> {
        let azure = self.azure.as_ref().map(|azure| (Place::Azure, &azure.gate));
        let gcs = self.gcs.as_ref().map(|gcs| (Place::Gcs, &gcs.gate));
        let swift = self.swift.iter().flat_map(|it| [(Place::Swift, &it.keystone), (Place::Swift, &it.store.gate)]);
        let always = [(Place::S3, &self.s3.gate), (Place::Upload, &self.upload.gate)];
        always.into_iter().chain(azure).chain(gcs).chain(swift).collect()
    }

    /// All objects: place, name and SHA-256.
    pub(crate) async fn objects(&self) -> Result<Vec<(Place, String, String)>> {
        let mut found = Vec::new();
        for (place, witness) in self.witnesses() {
            let all = witness.read_all("").await.with_context(|| place.name())?;
            found.extend(all.into_iter().map(|(name, seen)| (place, name, seen.sha256)));
        }
        for name in names(&self.sftp.folder)? {
            let digests = testkit::bytes::digest_file(&self.sftp.folder.join(&name))?;
            found.push((Place::Sftp, name, digests.sha256));
        }
        let uploaded = self.upload.receiver.files();
        found.extend(uploaded.into_iter().map(|(name, sha256)| (Place::Upload, name, sha256)));
        Ok(found)
    }

    /// What is there for the sake of objects that are not: open uploads, temporary names.
    pub(crate) async fn left_over(&self) -> Result<Vec<(Place, String)>> {
        let mut found = Vec::new();
        for (place, witness) in self.witnesses() {
            // Blocks that nobody commits expire at the service, and cannot be removed.
            if !matches!(place, Place::Azure | Place::Gcs) {
                let left = witness.left_over("", &[]).await.with_context(|| place.name())?;
                found.extend(left.into_iter().map(|what| (place, what)));
            }
        }
        if let Some(gcs) = &self.gcs {
            // Nobody knows the address of a session whose making was not answered: it expires at the service.
            let open = gcs.server.known_sessions(&self.container).await?;
            found.extend(open.into_iter().map(|what| (Place::Gcs, what)));
        }
        let temporary = names(&self.sftp.folder)?.into_iter().filter(|name| name.starts_with('.'));
        found.extend(temporary.map(|name| (Place::Sftp, name)));
        Ok(found)
    }

    fn witnesses(&self) -> Vec<(Place, &Witness)> {
        let azure = self.azure.as_ref().map(|azure| (Place::Azure, &azure.witness));
        let gcs = self.gcs.as_ref().map(|gcs| (Place::Gcs, &gcs.witness));
        let swift = self.swift.as_ref().map(|swift| (Place::Swift, &swift.store.witness));
        [Some((Place::S3, &self.s3.witness)), azure, gcs, swift].into_iter().flatten().collect()
    }
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(folder)?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// A server that the machine does not have is no fault; a start that failed is.
fn if_there<T>(server: Result<T>) -> Result<Option<T>> {
    match server {
        Ok(server) => Ok(Some(server)),
        Err(error) if error.is::<Missing>() => Ok(None),
        Err(error) => Err(error),
    }
}

async fn azure(world: IpAddr, container: &str) -> Result<Behind<Azurite>> {
    let azurite = testkit::azurite().await?;
    azurite.empty_container(container).await?;
    let settings = json!({
        "endpoint": azurite.endpoint, "account": azurite.account, "key": azurite.key, "container": container,
    });
    let witness = Witness::start(System::Azure, &settings).await?;
    Ok(Behind { gate: Gate::start(world, azurite.addr()).await?, server: azurite, witness })
}

async fn gcs(world: IpAddr, bucket: &str) -> Result<Behind<Gcs>> {
    let gcs = testkit::gcs().await?;
    gcs.create_bucket(bucket).await?;
    let settings = json!({"endpoint": gcs.emulator, "bucket": bucket});
    let witness = Witness::start(System::Gcs, &settings).await?;
    Ok(Behind { gate: Gate::start(world, gcs.addr()).await?, server: gcs, witness })
}

async fn swift(world: IpAddr, container: &str) -> Result<Swift> {
    let openstack = testkit::openstack().await?;
    openstack.empty_container(container).await?;
    let settings = json!({
        "auth_url": format!("{}/v3", openstack.auth_url()), "user": "demo", "password": openstack.password(User::Demo),
        "project": "demo", "region": "RegionOne", "container": container, "segments": format!("{container}_segments"),
    });
    let witness = Witness::start(System::Swift, &settings).await?;
    let gate = Gate::start(world, openstack.swift_addr()).await?;
    let region = openstack.region_at(gate.addr()).await?;
    let keystone = Gate::start(world, openstack.keystone_addr()).await?;
    Ok(Swift { store: Behind { server: openstack, gate, witness }, keystone, region })
}
