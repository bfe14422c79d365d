//! TLS in front of any server, for names of one's choice: the host names of a public cloud lead to a server at hand.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// A listener on loopback that speaks TLS and passes on what is inside, byte for byte. It ends when dropped.
#[derive(Debug)]
pub struct Terminator {
    addr: SocketAddr,
    authority: CertificateDer<'static>,
    acceptor: JoinHandle<()>,
}

impl Terminator {
    /// Listens on a free port with a certificate for `names` (`*.example.com` too) from an authority of its own, and
    /// passes on to `target`.
    ///
    /// # Errors
    /// When a name is none, or there is no port to listen on.
    pub async fn start(names: &[&str], target: SocketAddr) -> Result<Self> {
        let authority_key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = params.self_signed(&authority_key)?.der().clone();
        let issuer = Issuer::new(params, authority_key);
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let leaf = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let addr = listener.local_addr()?;
        let acceptor = tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), target));
        Ok(Self { addr, authority, acceptor })
    }

    /// Where clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The certificate of the authority, for clients to trust.
    pub fn authority(&self) -> CertificateDer<'static> {
        self.authority.clone()
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, target: SocketAddr) {
    // Dropped with this task, and with it all connections.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                connections.spawn(forward(client, acceptor.clone(), target));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "loopback only, and no part of the program")]
async fn forward(client: TcpStream, acceptor: TlsAcceptor, target: SocketAddr) -> io::Result<()> {
    let mut client = acceptor.accept(client).await?;
    let mut target = TcpStream::connect(target).await?;
    tokio::io::copy_bidirectional(&mut client, &mut target).await.map(drop)
}
