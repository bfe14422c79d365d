//! TLS of the server's own address. Certificate and key are read again when their files change, so that a renewed one
//! is served without a restart.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::Error;
use crate::config::Tls;

/// How long a handshake trusts the last look at the files. Nothing looks while nobody connects.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Certificate and key of the server as they are on disk.
pub struct Certificate {
    cert: PathBuf,
    key: PathBuf,
    current: Mutex<Current>,
}

struct Current {
    acceptor: TlsAcceptor,
    stamp: Stamp,
    looked_at: Instant,
}

/// What changes when a file is written or replaced, also behind a symbolic link.
type Stamp = [Option<(u64, i64, i64, u64)>; 2];

impl Certificate {
    /// Reads certificate and key; none when TLS is not set up.
    ///
    /// # Errors
    /// [`Error::Setting`] when one of them cannot be used.
    pub fn open(settings: &Tls) -> Result<Option<Self>, Error> {
        let (Some(cert), Some(key)) = (settings.cert.clone(), settings.key.clone()) else { return Ok(None) };
        let stamp = stamp(&cert, &key);
        let current = Current { acceptor: read(&cert, &key)?, stamp, looked_at: Instant::now() };
        Ok(Some(Self { cert, key, current: Mutex::new(current) }))
    }

    /// What the next handshake is done with. A certificate that cannot be used leaves the last one in place: the
    /// other file may be about to follow.
    pub async fn acceptor(self: &Arc<Self>) -> TlsAcceptor {
        let now = Instant::now();
        let last = {
            let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
            if now.duration_since(current.looked_at) < LOOK_AGAIN {
                return current.acceptor.clone();
            }
            current.looked_at = now;
            current.acceptor.clone()
        };
        let this = Arc::clone(self);
        tokio::task::spawn_blocking(move || this.look()).await.unwrap_or(last)
    }

    fn look(&self) -> TlsAcceptor {
        let found = stamp(&self.cert, &self.key);
        let current = || self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current().stamp == found {
            return current().acceptor.clone();
        }
        let read = read(&self.cert, &self.key);
        let mut current = current();
        match read {
            Ok(acceptor) => {
                tracing::info!("the changed certificate is in use");
                current.acceptor = acceptor;
            }
            Err(error) => tracing::warn!("the changed certificate is not used, the last one stays: {error}"),
        }
        current.stamp = found;
        current.acceptor.clone()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("cert", &self.cert).finish_non_exhaustive()
    }
}

fn stamp(cert: &Path, key: &Path) -> Stamp {
    [cert, key].map(|path| {
        let found = fs::metadata(path).ok()?;
        Some((found.ino(), found.mtime(), found.mtime_nsec(), found.len()))
    })
}

fn read(cert: &Path, key: &Path) -> Result<TlsAcceptor, Error> {
    let unusable = |what: &str, path: &Path, error: &dyn fmt::Display| {
        Error::Setting(format!("tls.{what}: {} cannot be used: {error}", path.display()))
    };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable("cert", cert, &error))?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable("key", key, &error))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| unusable("cert", cert, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
