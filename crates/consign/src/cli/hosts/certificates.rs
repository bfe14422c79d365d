//! A private certificate authority for the host names of the hosted service, and the server's certificate for them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, SanType,
};
use time::OffsetDateTime;

use crate::clock::Timestamp;

/// The domain that the authority may speak for, beside this machine.
const DOMAIN: &str = "cloudconvert.com";
/// The host names that clients of the service know (API notes, 1.3).
pub(super) const NAMES: [&str; 16] = [
    "api.cloudconvert.com",
    "sync.api.cloudconvert.com",
    "eu-central.api.cloudconvert.com",
    "eu-central.sync.api.cloudconvert.com",
    "us-east.api.cloudconvert.com",
    "us-east.sync.api.cloudconvert.com",
    "api.sandbox.cloudconvert.com",
    "sync.api.sandbox.cloudconvert.com",
    "sandbox.api.cloudconvert.com",
    "sandbox.sync.api.cloudconvert.com",
    "socketio.cloudconvert.com",
    "socketio.sandbox.cloudconvert.com",
    "storage.cloudconvert.com",
    "upload.cloudconvert.com",
    "upload.sandbox.cloudconvert.com",
    "s.cloudconvert.com",
];
/// How long the authority lasts: what trusts it should not have to be visited again.
const AUTHORITY_LASTS: Duration = Duration::from_hours(24 * 3650);
/// How long the server's certificate lasts: some systems refuse longer ones.
const CERTIFICATE_LASTS: Duration = Duration::from_hours(24 * 397);
/// Clocks differ: certificates are valid from so long ago.
const SINCE: Duration = Duration::from_hours(24);

/// Makes the authority if there is none in the folder (`ca.pem`, `ca-key.pem`), and a new certificate of the server
/// (`cert.pem`, `key.pem`). Returns whether the authority is new.
///
/// # Errors
/// When the folder cannot be used.
pub(super) fn make(folder: &Path, now: Timestamp) -> anyhow::Result<bool> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let [ca, ca_key, cert, key] = ["ca.pem", "ca-key.pem", "cert.pem", "key.pem"].map(|name| folder.join(name));
    let is_new = !ca.exists() || !ca_key.exists();
    let params = authority(now)?;
    let signer = if is_new {
        let signer = KeyPair::generate()?;
        write(&ca_key, &signer.serialize_pem(), 0o600)?;
        write(&ca, &params.self_signed(&signer)?.pem(), 0o644)?;
        signer
    } else {
        let text = fs::read_to_string(&ca_key).with_context(|| format!("cannot read {}", ca_key.display()))?;
        KeyPair::from_pem(&text).with_context(|| format!("{} is no private key", ca_key.display()))?
    };
    let own = KeyPair::generate()?;
    let leaf = leaf(now)?.signed_by(&own, &Issuer::new(params, signer))?;
    // The key first: a server that reads in between finds a pair that does not fit, and looks again.
    write(&key, &own.serialize_pem(), 0o600)?;
    write(&cert, &leaf.pem(), 0o644)?;
    Ok(is_new)
}

/// The authority can speak for the service's names and this machine only, so that its key, should it leak, opens
/// nothing else to whoever finds it.
fn authority(now: Timestamp) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = named("Consign private authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let names = [DOMAIN, "localhost"].map(|name| GeneralSubtree::DnsName(name.to_owned()));
    let loopback = [
        CidrSubnet::from_addr_prefix(Ipv4Addr::LOCALHOST.into(), 8),
        CidrSubnet::from_addr_prefix(Ipv6Addr::LOCALHOST.into(), 128),
    ];
    let permitted_subtrees = names.into_iter().chain(loopback.map(GeneralSubtree::IpAddress)).collect();
    params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
    (params.not_before, params.not_after) = lasting(now, AUTHORITY_LASTS)?;
    Ok(params)
}

fn leaf(now: Timestamp) -> anyhow::Result<CertificateParams> {
    let names = NAMES.iter().copied().chain(["localhost"]).map(str::to_owned).collect::<Vec<_>>();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = named("Consign");
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    params.subject_alt_names.extend(loopback.map(SanType::IpAddress));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    (params.not_before, params.not_after) = lasting(now, CERTIFICATE_LASTS)?;
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

fn lasting(now: Timestamp, time: Duration) -> anyhow::Result<(OffsetDateTime, OffsetDateTime)> {
    let moment = |at: Timestamp| OffsetDateTime::from_unix_timestamp(at.unix_seconds());
    Ok((moment(now.minus(SINCE))?, moment(now.plus(time))?))
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::client::WebPkiServerVerifier;
    use rustls::client::danger::ServerCertVerifier as _;
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    use super::*;

    const NOW: Timestamp = Timestamp(1_800_000_000_000_000);

    fn accepts(ca: &Path, cert: &Path, name: &str, at: Timestamp) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        let leaf = CertificateDer::from_pem_file(cert).unwrap();
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at.unix_seconds().unsigned_abs()));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(&leaf, &[], &name, &[], at).is_ok()
    }

    #[test]
    fn the_certificate_is_good_for_the_names_of_the_service_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        assert!(make(folder.path(), NOW).unwrap());
        let [ca, cert, key] = ["ca.pem", "cert.pem", "key.pem"].map(|name| folder.path().join(name));
        for name in NAMES.iter().chain(&["localhost", "127.0.0.1", "::1"]) {
            assert!(accepts(&ca, &cert, name, NOW), "{name}");
        }
        assert!(!accepts(&ca, &cert, "example.com", NOW));
        let late = NOW.plus(CERTIFICATE_LASTS + Duration::from_secs(1));
        assert!(!accepts(&ca, &cert, "api.cloudconvert.com", late));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&key), mode(&folder.path().join("ca-key.pem"))), (0o600, 0o600));
    }

    #[test]
    fn the_authority_can_speak_for_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), NOW).unwrap();
        let signer = KeyPair::from_pem(&fs::read_to_string(folder.path().join("ca-key.pem")).unwrap()).unwrap();
        let issuer = Issuer::new(authority(NOW).unwrap(), signer);
        let forged = folder.path().join("forged.pem");
        for (name, is_accepted) in [("x.cloudconvert.com", true), ("bank.example.com", false)] {
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.not_before, params.not_after) = lasting(NOW, CERTIFICATE_LASTS).unwrap();
            let leaf = params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
            fs::write(&forged, leaf.pem()).unwrap();
            assert_eq!(accepts(&folder.path().join("ca.pem"), &forged, name, NOW), is_accepted, "{name}");
        }
    }

    #[test]
    fn what_trusts_the_authority_trusts_a_renewed_certificate() {
        let folder = tempfile::tempdir().unwrap();
        assert!(make(folder.path(), NOW).unwrap());
        let [ca, cert] = ["ca.pem", "cert.pem"].map(|name| folder.path().join(name));
        let before = [&ca, &cert].map(|path| fs::read(path).unwrap());
        let later = NOW.plus(CERTIFICATE_LASTS);
        assert!(!make(folder.path(), later).unwrap());
        assert_eq!(fs::read(&ca).unwrap(), before[0]);
        assert_ne!(fs::read(&cert).unwrap(), before[1]);
        assert!(accepts(&ca, &cert, "api.cloudconvert.com", later.plus(Duration::from_hours(48))));
    }
}
