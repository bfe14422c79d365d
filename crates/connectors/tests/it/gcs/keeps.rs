//! The contract, kept with the stand-in, and Google's own addresses, which lead to it over TLS.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use connectors::contract::{self, BoxError, Excluded, Fixture, Seen, Who, Wire, Witness};
use connectors::egress::{Guard, Resolver};
use connectors::gcs::{Config, Gcs, Tokens};
use connectors::http::{Client, tls_config};
use connectors::memory::MemorySource;
use connectors::{Connector, Limits, OpenUpload};
use testkit::conformance::{Server, Standing};
use testkit::or_skip;
use testkit::tls::Terminator;
use testkit::witness::{self, System};

use super::{gcs_with, of};
use crate::conformance::{Path, Sdk, check};
use crate::{LIMITS, client};

struct Bed {
    gcs: testkit::Gcs,
    config: Config,
    reader: String,
    tokens: Tokens,
    witness: Google,
}

/// Google's own client.
struct Google {
    sdk: Sdk,
    endpoint: String,
}

#[async_trait]
impl Witness for Google {
    async fn read(&self, name: &str) -> Result<Option<Seen>, BoxError> {
        self.sdk.read(name).await
    }

    async fn read_all(&self, prefix: &str) -> Result<BTreeMap<String, Seen>, BoxError> {
        self.sdk.read_all(prefix).await
    }

    /// Asks for the sessions at the gate itself: the paths that some were opened over are gone.
    async fn left_over(&self, prefix: &str, opened: &[OpenUpload]) -> Result<Vec<String>, BoxError> {
        let at_gate = |open: &OpenUpload| {
            let path = open.handle.splitn(4, '/').nth(3).expect("an absolute URL");
            OpenUpload { handle: format!("{}/{path}", self.endpoint), ..open.clone() }
        };
        let opened: Vec<OpenUpload> = opened.iter().map(at_gate).collect();
        self.sdk.left_over(prefix, &opened).await
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
        let mut config = self.config.clone();
        if let Some(addr) = via {
            config.endpoint = Some(format!("http://{addr}"));
        }
        match who {
            Who::Owner => {}
            Who::UnknownKey => "nobody@elsewhere.example".clone_into(&mut config.client_email),
            Who::WrongSecret => config.private_key = self.gcs.unknown_private_key.as_str().into(),
            Who::MissingContainer => "no-such-bucket-here".clone_into(&mut config.bucket),
            Who::Reader => config.client_email.clone_from(&self.reader),
        }
        Ok(Box::new(Gcs::new(&config, client(&limits).unwrap(), &self.tokens, limits).unwrap()))
    }

    async fn wire(&self) -> Box<dyn Wire> {
        Box::new(Path::to_http(self.gcs.addr()).await)
    }

    fn witness(&self) -> &dyn Witness {
        &self.witness
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stand_in_keeps_the_contract() {
    let bucket = "gcs-contract";
    let Some(gcs) = gcs_with(bucket).await else { return };
    let settings = serde_json::json!({
        "endpoint": gcs.endpoint, "bucket": bucket, "service_account": gcs.key_file(),
    });
    let Some(sdk) = or_skip(witness::Witness::start(System::Gcs, &settings).await) else { return };
    let server = Server {
        system: "google-cloud-storage".to_owned(),
        name: "gcp-storage-emulator behind a gate of ours".to_owned(),
        version: gcs.version.clone(),
        standing: Standing::StandIn,
        witness: sdk.name().to_owned(),
    };
    let bed = Bed {
        config: of(&gcs, &gcs.endpoint, bucket),
        reader: gcs.account("contract-reader", &["get", "list"], 3600).await.unwrap(),
        tokens: Tokens::default(),
        witness: Google { sdk: Sdk(sdk), endpoint: gcs.endpoint.clone() },
        gcs,
    };
    check(&bed, &server).await;
    assert_eq!(bed.gcs.open_sessions(bucket).await.unwrap(), [""; 0], "sessions stay open");
}

/// Google's names lead to the stand-in; no other name leads anywhere.
#[derive(Debug)]
struct ToStandIn(SocketAddr);

#[async_trait]
impl Resolver for ToStandIn {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match (host, port) {
            ("storage.googleapis.com" | "oauth2.googleapis.com", 443) => Ok(vec![self.0]),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

/// Without an endpoint, Google's own are meant, for tokens and for objects.
#[tokio::test(flavor = "multi_thread")]
async fn googles_addresses_are_the_default() {
    let bucket = "gcs-default-endpoints";
    let Some(gcs) = gcs_with(bucket).await else { return };
    let names = ["storage.googleapis.com", "oauth2.googleapis.com"];
    let tls = Terminator::start(&names, gcs.addr()).await.unwrap();
    let email = gcs.account("default-endpoints", &["create", "delete", "get", "list"], 3600).await.unwrap();
    for empty in [None, Some(String::new())] {
        let config =
            Config { client_email: email.clone(), endpoint: empty.clone(), token_uri: empty, ..of(&gcs, "", bucket) };
        let guard = Guard::with_resolver(["127.0.0.0/8".parse().unwrap()], Arc::new(ToStandIn(tls.addr())));
        let client = Client::new(guard, tls_config(&[tls.authority()]).unwrap(), &LIMITS);
        let google = Gcs::new(&config, client, &Tokens::default(), LIMITS).unwrap();
        assert_eq!(google.host(), "storage.googleapis.com");
        for size in [10, 12 * 1024 * 1024] {
            let source = Arc::new(MemorySource::new(contract::bytes(size, 1)));
            contract::put(&google, "x", &source).await.unwrap();
            assert!(contract::get(&google, "x").await.unwrap() == *source.bytes());
        }
    }
    assert_eq!(gcs.tokens_issued(&email).await.unwrap(), 2);
    assert_eq!(gcs.open_sessions(bucket).await.unwrap(), [""; 0]);
}
