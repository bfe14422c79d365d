//! Where the bucket is: in the path, in the host name, and at the hosts of Amazon, over TLS.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use connectors::egress::{Guard, Resolver};
use connectors::http::{Client, tls_config};
use connectors::memory::MemorySource;
use connectors::s3::{Addressing, Config, S3};
use connectors::{Connector as _, Kind, contract};
use testkit::Ceph;
use testkit::conformance::{self, Cell, Form};
use testkit::http_faults::HttpFaults;
use testkit::tls::Terminator;

use super::{ceph_server, ceph_with, of_ceph};
use crate::{LIMITS, PART_BYTES, client_that_knows_no_names};

const FORMS: [(Form, usize); 2] = [(Form::Single, 1000), (Form::Parts, PART_BYTES + 1000)];

/// The regions whose hosts the gateway answers to, with those hosts.
const REGIONS: [(&str, &str); 3] = [
    ("eu-west-1", "s3.eu-west-1.amazonaws.com"),
    ("cn-north-1", "s3.cn-north-1.amazonaws.com.cn"),
    ("us-gov-west-1", "s3.us-gov-west-1.amazonaws.com"),
];

/// Leads every name to one address, and remembers what was asked for.
#[derive(Debug)]
struct Leading {
    to: SocketAddr,
    asked: Mutex<Vec<(String, u16)>>,
}

#[async_trait]
impl Resolver for Leading {
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.asked.lock().unwrap().push((host.to_owned(), port));
        Ok(vec![self.to])
    }
}

async fn round_trip(connector: &S3, key: &str, size: usize) {
    let source = Arc::new(MemorySource::new(contract::bytes(size, 9)));
    contract::put(connector, key, &source).await.unwrap();
    assert!(contract::get(connector, key).await.unwrap() == *source.bytes(), "{key}: other bytes came back");
    let listed = connector.list(key, 10).await.unwrap();
    assert_eq!(listed.iter().map(|object| object.name.as_str()).collect::<Vec<_>>(), [key]);
}

/// Delivers to the bucket by its region alone, and checks which hosts were asked, and how.
async fn by_region(ceph: &Ceph, bucket: &str, (region, host): (&str, &str), host_expected: &str) {
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let tls = Terminator::start(&[host, &format!("*.{host}")], faults.addr()).await.unwrap();
    let resolver = Arc::new(Leading { to: tls.addr(), asked: Mutex::default() });
    let guard = || Guard::with_resolver(["127.0.0.0/8".parse().unwrap()], Arc::clone(&resolver) as Arc<dyn Resolver>);
    let config = Config { endpoint: None, region: region.to_owned(), ..of_ceph(&ceph.account, "", bucket) };
    let trusting = Client::new(guard(), tls_config(&[tls.authority()]).unwrap(), &LIMITS);
    let connector = S3::new(&config, trusting, LIMITS).unwrap();
    for (form, size) in FORMS {
        round_trip(&connector, &format!("{region}/ü {form:?}"), size).await;
        conformance::argument(&ceph_server(ceph), "endpoint: Amazon's by region, over TLS", form, Cell::Shown);
    }
    let asked = resolver.asked.lock().unwrap().clone();
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|asked| *asked == (host_expected.to_owned(), 443)), "{asked:?}");
    let is_at_bucket = |path: &str| path.starts_with(&format!("/{bucket}"));
    for request in faults.requests() {
        assert_eq!(request.header("host"), Some(host_expected));
        assert_eq!(is_at_bucket(&request.path), host_expected == host, "{}", request.path);
    }
    // Somebody with another certificate is not told anything.
    let before = faults.requests().len();
    let strict = Client::new(guard(), tls_config(&[]).unwrap(), &LIMITS);
    let error = S3::new(&config, strict, LIMITS).unwrap().stat("x").await.unwrap_err();
    assert_eq!(error.kind, Kind::TlsRefused, "{error:?}");
    assert_eq!(faults.requests().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_region_leads_to_amazon() {
    let bucket = "s3-by-region";
    let Some(ceph) = ceph_with(bucket).await else { return };
    for (region, host) in REGIONS {
        by_region(&ceph, bucket, (region, host), &format!("{bucket}.{host}")).await;
    }
}

/// A wildcard certificate does not cover a bucket with dots, so that its name stays in the path.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_with_dots_stays_in_the_path() {
    let bucket = "s3.with.dots";
    let Some(ceph) = ceph_with(bucket).await else { return };
    for (region, host) in REGIONS {
        by_region(&ceph, bucket, (region, host), host).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bucket_may_stand_in_the_host_name_or_in_the_path() {
    let bucket = "s3-virtual-host";
    let Some(ceph) = ceph_with(bucket).await else { return };
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let host = format!("s3.localhost:{}", faults.addr().port());
    let below = format!("{bucket}.{host}");
    for (addressing, expected, argument) in [
        (Addressing::VirtualHost, below, "endpoint: bucket in the host name"),
        (Addressing::Path, host.clone(), "endpoint: bucket in the path"),
    ] {
        let config = Config { addressing, ..of_ceph(&ceph.account, &format!("http://{host}"), bucket) };
        let connector = S3::new(&config, client_that_knows_no_names(), LIMITS).unwrap();
        let before = faults.requests().len();
        for (form, size) in FORMS {
            round_trip(&connector, &format!("a b/ü {form:?} {addressing:?}"), size).await;
            conformance::argument(&ceph_server(&ceph), argument, form, Cell::Shown);
        }
        round_trip(&connector, &format!("//leading {addressing:?}"), 10).await;
        for request in &faults.requests()[before..] {
            assert_eq!(request.header("host"), Some(expected.as_str()));
        }
    }
}
