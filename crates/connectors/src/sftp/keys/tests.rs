//! Keys as they arrive: in every format, bent by their way, or not keys at all.

use super::*;

const ED25519: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
";
const PUBLIC: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti me@here";

fn detail(text: &str) -> String {
    let error = private_key(text).expect_err("not a usable key");
    assert_eq!(error.kind, Kind::InvalidCredentials);
    assert!(!format!("{error:?}").contains("MC4CAQAw"), "{error:?}");
    error.detail
}

#[test]
fn line_ends_do_not_matter() {
    let expected = private_key(ED25519).unwrap();
    let bent = [
        ED25519.replace('\n', "\r\n"),
        ED25519.replace('\n', "\\n"),
        ED25519.replace('\n', "\\r\\n"),
        ED25519.replace('\n', " "),
        format!("\n\n  {}", ED25519.replace('\n', "\n  ")),
        format!("Subject: a key\n{ED25519}\n"),
    ];
    for text in bent {
        assert_eq!(private_key(&text).unwrap(), expected, "{text:?}");
    }
}

#[test]
fn what_is_no_key_is_told_apart() {
    for garbage in
        ["", "some-private-key", "-----BEGIN", "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----"]
    {
        assert!(detail(garbage).contains("whole text of a key file"), "{garbage}");
    }
    assert!(detail(PUBLIC).contains("public key"));
    assert!(detail("PuTTY-User-Key-File-3: ssh-ed25519").contains("OpenSSH format"));
    assert!(detail(&ED25519.replace("MC4CAQAw", "MC4CAQAx")).contains("damaged"));
    assert!(detail(&ED25519.replace("MC4CAQAw", "ÄÖ%&")).contains("damaged"));
    let encrypted = ED25519.replace("PRIVATE", "ENCRYPTED PRIVATE");
    assert!(detail(&encrypted).contains("without a passphrase"));
    let dek = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----";
    assert!(detail(dek).contains("without a passphrase"));
}

#[test]
fn host_keys_are_read_in_every_form() {
    let key = PublicKey::from_openssh(PUBLIC).unwrap();
    let fingerprint = key.fingerprint(HashAlg::Sha256).to_string();
    let bare = PUBLIC.trim_end_matches(" me@here");
    let forms = [
        fingerprint.clone(),
        format!("{fingerprint}="),
        format!(" {fingerprint}\n"),
        PUBLIC.to_owned(),
        bare.to_owned(),
        format!("[example.org]:2222 {bare}"),
        format!("@cert-authority example.org {bare}"),
    ];
    let other = private_key(ED25519).unwrap();
    for form in forms {
        let pin = Pin::parse(&form).unwrap_or_else(|error| panic!("{form}: {error}"));
        assert!(pin.accepts(&key) && !pin.accepts(other.public_key()), "{form}");
        assert!(!pin.algorithms().is_empty());
    }
    for garbage in ["", "SHA256:short", "MD5:00:11", "ssh-ed25519", "ssh-ed25519 %%%", "yes"] {
        assert_eq!(Pin::parse(garbage).map_err(|error| error.kind), Err(Kind::InvalidRequest), "{garbage}");
    }
}
