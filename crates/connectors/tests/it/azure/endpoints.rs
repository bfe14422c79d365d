//! Where a container is looked for when only the account is named, over TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use connectors::azure_blob::{AzureBlob, Config};
use connectors::contract;
use connectors::egress::{Guard, Resolver};
use connectors::http::{Client, tls_config};
use connectors::memory::MemorySource;
use testkit::tls::Terminator;

use super::{LIMITS, MIB, azurite_with, view, with_key, with_sas};

/// Leads every name to one address, and remembers who was looked for.
#[derive(Debug)]
struct Led {
    to: SocketAddr,
    asked: Mutex<Vec<(String, u16)>>,
}

#[async_trait]
impl Resolver for Led {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.asked.lock().unwrap().push((host.to_owned(), port));
        Ok(vec![self.to])
    }
}

/// The account makes the host name of the public cloud, and is then no part of the path; an endpoint without a scheme,
/// such as one of a sovereign cloud, is reached over TLS as well.
#[tokio::test(flavor = "multi_thread")]
async fn clouds_are_reached_by_the_account_over_tls() {
    let container = "cloud";
    let Some(azurite) = azurite_with(container).await else { return };
    let hosts = ["blob.core.windows.net", "blob.core.chinacloudapi.cn"].map(|it| format!("{}.{it}", azurite.account));
    let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let terminator = Terminator::start(&names, azurite.addr()).await.unwrap();
    let by_key = with_key(&azurite, "", container);
    let by_token = with_sas(&azurite, "", container, "rcw").await;
    for (host, endpoint) in [(&hosts[0], None), (&hosts[1], Some(hosts[1].clone()))] {
        for config in [&by_key, &by_token] {
            let led = Arc::new(Led { to: terminator.addr(), asked: Mutex::default() });
            let guard = Guard::with_resolver(["127.0.0.0/8".parse().unwrap()], Arc::clone(&led) as Arc<dyn Resolver>);
            let client = Client::new(guard, tls_config(&[terminator.authority()]).unwrap(), &LIMITS);
            let config = Config { endpoint: endpoint.clone(), ..config.clone() };
            let connector = AzureBlob::new(&config, client, LIMITS).unwrap();
            for size in [10, 2 * MIB] {
                let source = Arc::new(MemorySource::new(contract::bytes(size, 1)));
                let receipt = contract::put(&connector, "a b", &source).await.unwrap();
                assert_eq!(receipt.location, format!("https://{host}/{container}/a%20b"));
                assert_eq!(contract::get(&connector, "a b").await.unwrap(), source.bytes());
                assert_eq!(view(&azurite, container, "a b").await["bytes"], hex::encode(source.bytes()));
            }
            let asked = led.asked.lock().unwrap();
            assert!(asked.iter().all(|it| *it == (host.clone(), 443)), "{asked:?}");
        }
    }
}
