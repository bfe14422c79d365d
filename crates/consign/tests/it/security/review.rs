//! Holes that a hostile reading of the code found, each with the test that keeps it closed.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use consign::config::Config;
use consign::server::{Role, Server};
use consign::store::SqliteStore;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn what_the_server_keeps_is_for_its_own_user_only() {
    let folder = tempfile::tempdir().unwrap();
    // As an operator may have made it: everybody may look in.
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
    let config = Config { data_dir: data.clone(), listen: "127.0.0.1:0".parse().unwrap(), ..Config::default() };
    let server = Server::start(config, Role::All).await.unwrap();
    for file in ["secret.key", "consign.db", "consign.db-wal", "consign.db-shm"] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
    assert_eq!(mode(&data.join("files")), 0o700);
    server.stop().await;
    let elsewhere = folder.path().join("a/b/own.db");
    drop(SqliteStore::open(&elsewhere).await.unwrap());
    assert_eq!((mode(&elsewhere), mode(elsewhere.parent().unwrap())), (0o600, 0o700));
}

#[test]
fn settings_do_not_show_their_secrets() {
    let config = Config {
        secret_key: Some("canary".into()),
        database_url: Some("postgres://ann:canary@db.example/x?sslkey=canary".into()),
        files_url: Some("s3://canary:canary@bucket/x?secret=canary#canary".into()),
        ..Config::default()
    };
    let shown = format!("{config:?} {config:#?} {}", serde_json::to_string(&config).unwrap());
    assert!(!shown.contains("canary"), "{shown}");
    assert!(shown.contains("db.example"), "what is no secret is shown: {shown}");
}

#[test]
fn requests_and_arguments_do_not_show_themselves() {
    use consign::http::extract::{Entity, Query};
    let query = Query::parse("filter[access_token]=canary&temp_url_sig=canary");
    let entity = Entity {
        bytes: "canary".into(),
        target: "POST /v2/jobs".to_owned(),
        idempotency_key: Some("canary".to_owned()),
    };
    let shown = format!("{query:?} {entity:?}");
    assert!(!shown.contains("canary"), "{shown}");
    // Arguments hold URLs and credentials: what cannot be shown cannot be logged.
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/operations");
    let mut operations = 0;
    for folder in ["import", "export", "account"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let text = text.split("#[cfg(test)]").next().unwrap();
            let derived: Vec<&str> =
                text.split("#[derive(").skip(1).map(|rest| rest.split(")]").next().unwrap()).collect();
            let arguments: Vec<_> = derived.iter().filter(|traits| traits.contains("JsonSchema")).collect();
            let shown = path.display();
            assert!(arguments.iter().all(|traits| !traits.contains("Debug")), "{shown}: arguments derive Debug");
            assert!(!text.contains("Debug for "), "{shown}: arguments are shown by hand");
            let has_arguments = text.contains("const NAME: ") || folder == "account" && !path.ends_with("mod.rs");
            assert!(!has_arguments || !arguments.is_empty(), "{shown}: its arguments are not found");
            operations += usize::from(text.contains("const NAME: "));
        }
    }
    assert_eq!(operations, consign::operations::all().count(), "each operation has been looked at");
    let with = std::fs::read_to_string(root.join("arguments.rs")).unwrap();
    let before = with.split("pub struct With<").next().unwrap();
    assert!(!before.rsplit("\n\n").next().unwrap().contains("derive("), "`With` derives something");
}
