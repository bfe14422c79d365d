//! The contract, kept with Azurite: by the account's key, and by a token of the container.

use std::net::SocketAddr;

use async_trait::async_trait;
use connectors::azure_blob::Config;
use connectors::contract::{Excluded, Fixture, Who, Wire, Witness};
use connectors::{Connector, Limits};
use serde_json::json;
use testkit::conformance::{Server, Standing};
use testkit::witness::{self, System};
use testkit::{Azurite, or_skip};

use super::{LIMITS, azurite_with, with_key, with_limits, with_sas};
use crate::conformance::{Path, Sdk, check};

struct Bed {
    azurite: Azurite,
    /// As the owner.
    owner: Config,
    /// With a token that may read and list.
    reader: Config,
    witness: Sdk,
}

impl Bed {
    /// An empty container, with the SDK beside it.
    async fn of(container: &str) -> Option<Self> {
        let azurite = azurite_with(container).await?;
        let owner = with_key(&azurite, &azurite.endpoint, container);
        let reader = with_sas(&azurite, &azurite.endpoint, container, "rl").await;
        let settings = json!({
            "endpoint": azurite.endpoint, "account": azurite.account, "key": azurite.key, "container": container,
        });
        let witness = Sdk(or_skip(witness::Witness::start(System::Azure, &settings).await)?);
        Some(Self { azurite, owner, reader, witness })
    }

    fn server(&self) -> Server {
        server(&self.azurite, self.witness.0.name())
    }
}

/// The column of the matrix.
pub(super) fn server(azurite: &Azurite, witness: &str) -> Server {
    Server {
        system: "azure/blob".to_owned(),
        name: "Azurite".to_owned(),
        version: azurite.version.clone(),
        standing: Standing::Real,
        witness: witness.to_owned(),
    }
}

/// The configuration with a signature that is none.
fn with_wrong_secret(config: &Config) -> Config {
    match &config.sas {
        Some(token) => Config { sas: Some(token.expose().replace("sig=", "sig=A").into()), ..config.clone() },
        None => Config { key: Some("d3Jvbmcgc2VjcmV0".into()), ..config.clone() },
    }
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
        let (owner, has_token) = (self.owner.clone(), self.owner.sas.is_some());
        let mut config = match who {
            Who::Owner => owner,
            Who::UnknownKey if has_token => return Err(Excluded::by_protocol("a token names no user")),
            Who::UnknownKey => Config { account: "nobody".to_owned(), ..owner },
            Who::WrongSecret => with_wrong_secret(&owner),
            Who::MissingContainer if has_token => return Err(Excluded::by_protocol("a token is for one container")),
            Who::MissingContainer => Config { container: "no-such-container".to_owned(), ..owner },
            Who::Reader => self.reader.clone(),
        };
        if let Some(addr) = via {
            config.endpoint = Some(self.azurite.endpoint_at(addr));
        }
        Ok(Box::new(with_limits(&config, limits)))
    }

    async fn wire(&self) -> Box<dyn Wire> {
        Box::new(Path::to_http(self.azurite.addr()).await)
    }

    fn witness(&self) -> &dyn Witness {
        &self.witness
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn azurite_keeps_the_contract() {
    let Some(bed) = Bed::of("contract").await else { return };
    check(&bed, &bed.server()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn azurite_keeps_the_contract_with_a_token() {
    let container = "contract-sas";
    let Some(mut bed) = Bed::of(container).await else { return };
    bed.owner = with_sas(&bed.azurite, &bed.azurite.endpoint, container, "rcwdl").await;
    check(&bed, &Server { name: "Azurite, with a SAS token".to_owned(), ..bed.server() }).await;
}
