//! The contract, kept with a real Swift behind a real Keystone.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use async_trait::async_trait;
use connectors::contract::{Excluded, Fixture, Who, Wire, Witness};
use connectors::swift::{Config, Swift};
use connectors::{Connector, Limits};
use serde_json::json;
use testkit::conformance::{Server, Standing};
use testkit::witness::{self, System};
use testkit::{OpenStack, User, or_skip};

use super::{MIB, SMALL, of, with_container};
use crate::client;
use crate::conformance::{Path, Sdk, check};

const CONTAINER: &str = "contract";

/// Twice the smallest that makes sense: the object of 200 MiB has a hundred segments.
const LIMITS: Limits = Limits { part_bytes: 2 * MIB as u64, segment_bytes: 2 * MIB as u64, ..SMALL };

struct Bed {
    openstack: OpenStack,
    /// Regions whose object store is at the other end of a path.
    regions: Mutex<HashMap<SocketAddr, String>>,
    witness: Sdk,
}

#[async_trait]
impl Fixture for Bed {
    fn prefix(&self) -> &'static str {
        "contract/"
    }

    fn limits(&self) -> Limits {
        LIMITS
    }

    fn connect(&self, who: Who, limits: Limits, via: Option<SocketAddr>) -> Result<Box<dyn Connector>, Excluded> {
        let mut config = of(&self.openstack, User::Demo, CONTAINER);
        if let Some(addr) = via {
            config.region.clone_from(&self.regions.lock().unwrap()[&addr]);
        }
        match who {
            Who::Owner => {}
            Who::UnknownKey => "nobody".clone_into(&mut config.username),
            Who::WrongSecret => config.password = "wrong-secret".into(),
            Who::MissingContainer => "no-such-container-here".clone_into(&mut config.container),
            Who::Reader => {
                config = Config { region: config.region, ..of(&self.openstack, User::Reader, CONTAINER) };
            }
        }
        Ok(Box::new(Swift::new(&config, client(&limits).unwrap(), limits).unwrap()))
    }

    async fn wire(&self) -> Box<dyn Wire> {
        let path = Path::to_http(self.openstack.swift_addr()).await;
        let region = self.openstack.region_at(path.addr()).await.unwrap();
        self.regions.lock().unwrap().insert(path.addr(), region);
        Box::new(path)
    }

    fn witness(&self) -> &dyn Witness {
        &self.witness
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn swift_keeps_the_contract() {
    let Some(openstack) = with_container(CONTAINER).await else { return };
    openstack
        .swift(&format!("swift.post_container({CONTAINER:?}, {{'X-Container-Read': 'demo:reader'}})"))
        .await
        .unwrap();
    let settings = json!({
        "auth_url": format!("{}/v3", openstack.auth_url()), "user": "demo", "password": openstack.password(User::Demo),
        "project": "demo", "region": "RegionOne", "container": CONTAINER, "segments": format!("{CONTAINER}_segments"),
    });
    let Some(witness) = or_skip(witness::Witness::start(System::Swift, &settings).await) else { return };
    let server = Server {
        system: "openstack".to_owned(),
        name: "OpenStack".to_owned(),
        version: openstack.version().to_owned(),
        standing: Standing::Real,
        witness: witness.name().to_owned(),
    };
    let bed = Bed { openstack, regions: Mutex::default(), witness: Sdk(witness) };
    check(&bed, &server).await;
    assert_eq!(bed.openstack.names_in("no-such-container-here_segments").await.unwrap(), Vec::<String>::new());
}
