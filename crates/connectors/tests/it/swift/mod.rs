//! Swift behind Keystone, both real, and the faults that connections to them have.

mod answers;
mod faults;
mod identity;
mod objects;

use connectors::contract::{self, Fixture};
use connectors::swift::{Config, Swift};
use connectors::{Limits, Secret};
use testkit::{OpenStack, User, or_skip};

use crate::{LIMITS, client};

const MIB: usize = 1024 * 1024;

/// Small segments, so that a test with many of them moves few bytes.
const SMALL: Limits = Limits { part_bytes: MIB as u64, segment_bytes: MIB as u64, ..LIMITS };

/// Arguments that reach a container as a user.
fn of(openstack: &OpenStack, user: User, container: &str) -> Config {
    Config {
        auth_url: openstack.auth_url(),
        username: user.name().to_owned(),
        password: openstack.password(user).into(),
        region: "RegionOne".to_owned(),
        container: container.to_owned(),
        ..Config::default()
    }
}

fn swift(config: &Config) -> Swift {
    with_limits(config, SMALL)
}

fn with_limits(config: &Config, limits: Limits) -> Swift {
    Swift::new(config, client(&limits).unwrap(), limits).unwrap()
}

/// The servers with an empty container of this name.
async fn with_container(name: &str) -> Option<OpenStack> {
    let openstack = or_skip(testkit::openstack().await)?;
    or_skip(openstack.empty_container(name).await)?;
    Some(openstack)
}

/// Names in the container for segments.
async fn segments_of(openstack: &OpenStack, container: &str) -> Vec<String> {
    openstack.names_in(&format!("{container}_segments")).await.unwrap()
}

fn fixture(config: &Config) -> Fixture {
    let wrong_secret = Config { password: Secret::new("wrong-secret"), ..config.clone() };
    let missing = Config { container: "no-such-container-here".to_owned(), ..config.clone() };
    Fixture {
        connector: Box::new(swift(config)),
        wrong_secret: Some(Box::new(swift(&wrong_secret))),
        missing_container: Some(Box::new(swift(&missing))),
        prefix: "contract/".to_owned(),
        limits: SMALL,
        names_are_keys: true,
        large_bytes: contract::large_bytes(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn swift_keeps_the_contract() {
    let container = "contract";
    let Some(openstack) = with_container(container).await else { return };
    contract::all(&fixture(&of(&openstack, User::Demo, container))).await;
    assert_eq!(segments_of(&openstack, container).await, Vec::<String>::new(), "segments stay");
    assert_eq!(openstack.names_in("no-such-container-here_segments").await.unwrap(), Vec::<String>::new());
}
