//! The contract, kept with the Ceph gateway and with our own practice server.

use std::net::SocketAddr;

use async_trait::async_trait;
use connectors::contract::{Excluded, Fixture, Who, Wire, Witness};
use connectors::s3::{Config, S3};
use connectors::{Connector, Limits, Secret};
use practice::{Practice, Settings};
use testkit::conformance::Server;
use testkit::{Account, Ceph};

use super::swift::{swift_server, swift_with};
use super::{boto3, ceph_server, ceph_with, of_ceph, of_practice, practice_server};
use crate::conformance::{Path, Sdk, check};
use crate::{LIMITS, client};

struct Bed {
    /// As the owner.
    config: Config,
    addr: SocketAddr,
    /// Somebody who may read.
    reader: Option<Account>,
    witness: Sdk,
}

impl Bed {
    /// A bucket at the server at `addr`, with boto3 beside it.
    async fn of(config: Config, addr: SocketAddr, reader: Option<Account>) -> Option<Self> {
        let witness = Sdk(boto3(&config).await?);
        Some(Self { config, addr, reader, witness })
    }

    fn named(&self, server: Server) -> Server {
        Server { witness: self.witness.0.name().to_owned(), ..server }
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
            Who::UnknownKey => "NOSUCHKEYATALL".clone_into(&mut config.access_key_id),
            Who::WrongSecret => config.secret_access_key = "wrong-secret".into(),
            Who::MissingContainer => "no-such-bucket-here".clone_into(&mut config.bucket),
            Who::Reader => {
                let one = Excluded::by_server("it has one account only");
                let reader = self.reader.as_ref().ok_or(one)?;
                config.access_key_id.clone_from(&reader.access_key_id);
                config.secret_access_key = Secret::new(&reader.secret_access_key);
            }
        }
        Ok(Box::new(S3::new(&config, client(&limits).unwrap(), limits).unwrap()))
    }

    async fn wire(&self) -> Box<dyn Wire> {
        Box::new(Path::to_http(self.addr).await)
    }

    fn witness(&self) -> &dyn Witness {
        &self.witness
    }
}

/// Lets the gateway's other user read in the bucket.
async fn let_other_read(ceph: &Ceph, bucket: &str) {
    let policy = format!(
        "
who = client('iam', 'other')
statement = {{'Effect': 'Allow', 'Principal': {{'AWS': ['arn:aws:iam:::user/other']}},
             'Action': ['s3:GetObject', 's3:ListBucket'],
             'Resource': ['arn:aws:s3:::{bucket}', 'arn:aws:s3:::{bucket}/*']}}
s3.put_bucket_policy(Bucket={bucket:?}, Policy=json.dumps({{'Version': '2012-10-17', 'Statement': [statement]}}))"
    );
    ceph.s3api(&policy).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ceph_keeps_the_contract() {
    let bucket = "s3-contract";
    let Some(ceph) = ceph_with(bucket).await else { return };
    let_other_read(&ceph, bucket).await;
    let config = of_ceph(&ceph.account, &ceph.endpoint, bucket);
    let Some(bed) = Bed::of(config, ceph.addr(), Some(ceph.other.clone())).await else { return };
    check(&bed, &bed.named(ceph_server(&ceph))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn practice_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let practice = Practice::start(Settings::new(folder.path())).await.unwrap();
    let config = of_practice(&practice, &practice.s3_endpoint());
    let Some(bed) = Bed::of(config, practice.s3_addr(), None).await else { return };
    check(&bed, &bed.named(practice_server())).await;
}

/// Swift's own S3 API: a second S3 server by other hands.
#[tokio::test(flavor = "multi_thread")]
async fn s3api_of_swift_keeps_the_contract() {
    let bucket = "s3-contract";
    let Some((openstack, config)) = swift_with(bucket).await else { return };
    let Some(bed) = Bed::of(config, openstack.swift_addr(), None).await else { return };
    check(&bed, &bed.named(swift_server(&openstack))).await;
}
