//! Starting and stopping.

use practice::{Error, Practice, Settings};

#[tokio::test]
async fn listens_on_loopback_only() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(folder.path());
    settings.sftp_listen = "0.0.0.0:0".parse().unwrap();
    let error = Practice::start(settings).await.unwrap_err();
    assert!(matches!(error, Error::NotLoopback(_)), "{error:?}");
}

#[tokio::test]
async fn one_folder_has_one_server_and_is_free_after_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let first = Practice::start(Settings::new(folder.path())).await.unwrap();
    let error = Practice::start(Settings::new(folder.path())).await.unwrap_err();
    assert!(matches!(error, Error::FolderInUse(_)), "{error:?}");
    let address = first.s3_addr();
    first.stop().await;
    let mut settings = Settings::new(folder.path());
    settings.s3_listen = address;
    let second = Practice::start(settings).await.unwrap();
    assert_eq!(second.s3_addr(), address);
}

#[tokio::test]
async fn bad_settings_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let bucket = Settings { bucket: "../x".to_owned(), ..Settings::new(folder.path()) };
    assert!(matches!(Practice::start(bucket).await, Err(Error::BucketName(_))));
    let key = Settings { private_key: Some("nonsense".to_owned()), ..Settings::new(folder.path()) };
    assert!(matches!(Practice::start(key).await, Err(Error::PrivateKey(_))));
}

#[tokio::test]
async fn credentials_are_new_each_time_and_not_in_debug() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(folder.path());
    settings.secret_access_key = Some("canary-secret".to_owned());
    settings.password = Some("canary-password".to_owned());
    let told = format!("{settings:?}");
    let practice = Practice::start(settings).await.unwrap();
    let told = format!("{told} {practice:?}");
    assert!(!told.contains("canary"), "{told}");
    assert!(!told.contains("OPENSSH"), "{told}");

    let other = tempfile::tempdir().unwrap();
    let other = Practice::start(Settings::new(other.path())).await.unwrap();
    assert_ne!(practice.access_key_id(), other.access_key_id());
    assert_ne!(practice.private_key(), other.private_key());
    assert_ne!(practice.host_key_fingerprint(), other.host_key_fingerprint());
    assert_eq!((other.secret_access_key().len(), other.password().len()), (40, 24));
}
