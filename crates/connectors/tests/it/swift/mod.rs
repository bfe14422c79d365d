//! Swift behind Keystone, both real, and the faults that connections to them have.

mod answers;
mod faults;
mod identity;
mod keeps;
mod objects;

use connectors::Limits;
use connectors::swift::{Config, Swift};
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
