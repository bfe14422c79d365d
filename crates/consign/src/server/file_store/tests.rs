//! The address of a file store: what is taken, and what is refused with words that help.

use super::*;
use crate::config::FileStore;

const KEY: &str = "hunter22needle";

fn with(url: &str, files: FileStore) -> Config {
    let data_dir = std::env::temp_dir().join("consign-file-store-tests");
    Config { files_url: Some(Secret::new(url)), files, data_dir, ..Config::default() }
}

fn s3() -> FileStore {
    let key = Some(Secret::new(KEY));
    FileStore { access_key_id: Some("id".to_owned()), secret_access_key: key, ..FileStore::default() }
}

fn refused(url: &str, files: FileStore) -> String {
    let config = with(url, files);
    let made = place(&config).and_then(|place| match place {
        Place::Folder(_) => Ok(()),
        Place::Bucket(address) => address.store(&config).map(drop),
    });
    let text = made.unwrap_err().to_string();
    assert!(!text.contains("needle"), "{text}");
    text
}

#[test]
fn addresses_are_read() {
    for (url, shown) in [
        ("s3://bucket", "s3://bucket/"),
        ("s3://Some_Bucket/a/b/?region=eu-west-1&endpoint=http%3A%2F%2F127.0.0.1%3A1", "s3://Some_Bucket/a/b/"),
        ("gs://bucket//a%20b?token_uri=http://h/token", "gs://bucket/a b/"),
        ("az://container/x?account=acct&endpoint=http://127.0.0.1:1/acct", "az://container/x/"),
    ] {
        let Place::Bucket(address) = place(&with(url, s3())).unwrap() else { panic!("{url}") };
        assert_eq!(address.shown(), shown);
    }
    for (url, root) in [("file:///srv/files", "/srv/files"), ("file://files", "files")] {
        let Place::Folder(found) = place(&with(url, s3())).unwrap() else { panic!("{url}") };
        assert_eq!(found, Path::new(root));
    }
    let Place::Bucket(address) = place(&with("s3://b?region=r&endpoint=http://127.0.0.1:1", s3())).unwrap() else {
        panic!("no bucket")
    };
    address.store(&with("s3://b", s3())).unwrap();
    let azure = |own| FileStore { storage_account: Some("acct".to_owned()), ..own };
    let (key, token) = (Some(Secret::new("a2V5")), Some(Secret::new("?sv=1&sig=x")));
    for files in [
        azure(FileStore { storage_access_key: key, ..FileStore::default() }),
        azure(FileStore { sas_token: token, ..FileStore::default() }),
    ] {
        let config = with("az://container", files);
        let Place::Bucket(address) = place(&config).unwrap() else { panic!("no container") };
        address.store(&config).unwrap();
    }
}

#[test]
fn what_is_wrong_is_said_with_the_setting_that_helps() {
    let azure = || FileStore { storage_account: Some("acct".to_owned()), ..FileStore::default() };
    let half = FileStore { client_email: Some("a@b".to_owned()), ..FileStore::default() };
    let none = FileStore::default;
    let file = FileStore { secret_access_key: None, secret_access_key_file: Some("/nowhere".into()), ..s3() };
    for (url, files, expected) in [
        ("needle", none(), "s3://BUCKET/PREFIX"),
        ("ftp://b/needle", none(), "az://CONTAINER/PREFIX"),
        ("s3://id:needle@b/p", s3(), "do not belong here"),
        ("s3://b?needle=1", s3(), "`endpoint`, `region`, `addressing`"),
        ("gs://b?region=needle", s3(), "`endpoint`, `token_uri`"),
        ("s3://b?region=r", none(), "files.access_key_id"),
        ("s3://b?region=r", FileStore { access_key_id: None, ..s3() }, "files.access_key_id"),
        ("s3://b?region=r", file, "files.secret_access_key_file: /nowhere cannot be read"),
        ("s3://b?addressing=needle", s3(), "`virtual-host`"),
        ("s3://b?endpoint=ftp://needle:1", s3(), "`endpoint`"),
        ("s3://b", s3(), "`region`"),
        ("gs://b", none(), "files.service_account_file"),
        ("gs://b", half, "files.private_key"),
        ("az://c", none(), "files.storage_account"),
        ("az://c", azure(), "files.sas_token"),
        ("az://c", FileStore { storage_access_key: Some(Secret::new("needle!")), ..azure() }, "base64"),
    ] {
        let text = refused(url, files);
        assert!(text.contains(expected) && text.starts_with("files"), "{url}: {text}");
    }
}

#[tokio::test]
async fn the_way_to_the_store_leads_to_the_endpoint_and_not_where_tasks_may_go() {
    let mut config = with("s3://b", s3());
    config.egress.allow = vec!["10.0.0.0/8".to_owned()];
    let named = ["http://127.0.0.1:7000".to_owned(), "https://10.1.2.3".to_owned(), "s.example.invalid".to_owned()];
    let guard = network::for_files(&config, &named, None).unwrap().guard;
    for (host, port, is_open) in [
        ("127.0.0.1", 7000, true),
        ("127.0.0.1", 7001, false),
        ("10.1.2.3", 443, true),
        ("10.1.2.3", 80, false),
        ("10.0.0.1", 443, false),
        ("8.8.8.8", 80, true),
    ] {
        assert_eq!(guard.check(host, port).await.is_ok(), is_open, "{host}:{port}");
    }
}
