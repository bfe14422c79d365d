//! What objects are made of, who may do what, and what is left behind.

use std::sync::Arc;

use connectors::contract;
use connectors::memory::{MemoryJournal, MemorySource};
use connectors::swift::Swift;
use connectors::{Connector as _, Kind, Progress, Receipt, Result};
use serde_json::json;
use testkit::{OpenStack, User};

use super::{MIB, of, segments_of, swift, with_container};

fn source(size: usize, seed: u64) -> Arc<MemorySource> {
    Arc::new(MemorySource::new(contract::bytes(size, seed)))
}

async fn put(connector: &Swift, name: &str, size: usize, seed: u64) -> Result<Receipt> {
    contract::put(connector, name, &source(size, seed)).await
}

/// Interrupts an upload in its last byte.
async fn interrupted(connector: &Swift, name: &str, size: usize, seed: u64) -> Arc<MemoryJournal> {
    let journal = Arc::new(MemoryJournal::default());
    let source = Arc::new(MemorySource::new(contract::bytes(size, seed)).failing_from(size as u64 - 1));
    connector.put(contract::request(name, &source, &journal, &Progress::default(), None)).await.unwrap_err();
    journal
}

/// Another client sees one object, with its media type, and segments in a container of their own.
#[tokio::test(flavor = "multi_thread")]
async fn another_client_reads_what_was_put() {
    let container = "objects-read";
    let Some(openstack) = with_container(container).await else { return };
    let connector = swift(&of(&openstack, User::Demo, container));
    for (size, segments) in [(1000, 0), (MIB, 0), (MIB + 1, 2), (5 * MIB / 2, 3)] {
        // As most imports leave it: the MD5 is not known yet.
        let source = Arc::new(MemorySource::new(contract::bytes(size, 3)).without_md5());
        let receipt = contract::put(&connector, "a b/ü+%.bin", &source).await.unwrap();
        let script = format!(
            "
import hashlib
headers, body = swift.get_object({container:?}, 'a b/ü+%.bin')
names = [found['name'] for found in swift.get_container({container:?})[1]]
result = [headers['content-type'], headers['etag'].strip('\"'), headers.get('x-static-large-object'), hashlib.md5(body).digest(), names]"
        );
        let md5 = testkit::bytes::digest(source.bytes()).md5;
        let large = if segments > 0 { json!("True") } else { json!(null) };
        let expected = json!(["application/x-contract", receipt.etag, large, md5, ["a b/ü+%.bin"]]);
        assert_eq!(openstack.swift(&script).await.unwrap(), expected);
        assert_eq!(receipt.location, format!("swift://{container}/a b/ü+%.bin"));
        assert_eq!((receipt.verified.as_str(), receipt.note), ("md5", None));
        assert_eq!(segments_of(&openstack, container).await.len(), segments);
        let listed = connector.list("", 10).await.unwrap();
        assert_eq!((listed[0].size, &listed[0].etag), (size as u64, &receipt.etag), "{listed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_go_with_their_object() {
    let container = "objects-segments";
    let Some(openstack) = with_container(container).await else { return };
    let connector = swift(&of(&openstack, User::Demo, container));
    put(&connector, "x", 3 * MIB, 1).await.unwrap();
    let first = segments_of(&openstack, container).await;
    assert_eq!(first.len(), 3);
    put(&connector, "x", 2 * MIB, 2).await.unwrap();
    let second = segments_of(&openstack, container).await;
    assert_eq!(second.len(), 2);
    // The same file once more: other segments, and the earlier ones are gone.
    put(&connector, "x", 2 * MIB, 2).await.unwrap();
    let third = segments_of(&openstack, container).await;
    assert!(third.len() == 2 && third.iter().all(|name| !second.contains(name)), "{third:?}");
    put(&connector, "x", 10, 3).await.unwrap();
    assert_eq!(segments_of(&openstack, container).await, Vec::<String>::new());
    put(&connector, "x", 2 * MIB, 4).await.unwrap();
    connector.delete("x").await.unwrap();
    assert_eq!(segments_of(&openstack, container).await, Vec::<String>::new());
}

/// Large objects of other clients, whose segments lie where they put them.
#[tokio::test(flavor = "multi_thread")]
async fn segments_of_other_clients_go_too_unless_they_lie_elsewhere() {
    let container = "objects-foreign";
    let Some(openstack) = with_container(container).await else { return };
    let connector = swift(&of(&openstack, User::Demo, container));
    let script = format!(
        "
for name, folder in [('here', {container:?} + '_segments'), ('elsewhere', {container:?} + '-elsewhere')]:
    swift.put_container(folder)
    etag = swift.put_object(folder, 'part', b'12345')
    manifest = json.dumps([{{'path': '/' + folder + '/part', 'etag': etag, 'size_bytes': 5}}])
    swift.put_object({container:?}, name, manifest, query_string='multipart-manifest=put')"
    );
    openstack.swift(&script).await.unwrap();
    for name in ["here", "elsewhere"] {
        assert_eq!(connector.stat(name).await.unwrap().size, 5);
        assert_eq!(put(&connector, name, 10, 1).await.unwrap().note, None);
    }
    assert_eq!(segments_of(&openstack, container).await, Vec::<String>::new());
    assert_eq!(openstack.names_in(&format!("{container}-elsewhere")).await.unwrap(), ["part"]);
}

/// An earlier version that the container keeps needs its segments.
#[tokio::test(flavor = "multi_thread")]
async fn segments_of_kept_versions_stay() {
    let container = "objects-versions";
    let Some(openstack) = with_container(container).await else { return };
    let versions = |enabled| format!("swift.post_container({container:?}, {{'X-Versions-Enabled': '{enabled}'}})");
    openstack.swift(&versions(true)).await.unwrap();
    let connector = swift(&of(&openstack, User::Demo, container));
    put(&connector, "x", 2 * MIB, 1).await.unwrap();
    let receipt = put(&connector, "x", 10, 2).await.unwrap();
    assert!(receipt.version.is_some(), "{receipt:?}");
    assert_eq!(segments_of(&openstack, container).await.len(), 2);
    openstack.swift(&versions(false)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_upload_leaves_nothing() {
    let container = "objects-abort";
    let Some(openstack) = with_container(container).await else { return };
    let connector = swift(&of(&openstack, User::Demo, container));
    put(&connector, "x", 2 * MIB, 1).await.unwrap();
    let before = segments_of(&openstack, container).await;
    let journal = interrupted(&connector, "x", 6 * MIB, 2).await;
    assert!(segments_of(&openstack, container).await.len() > before.len());
    let open = journal.open("x").unwrap();
    for _ in 0..2 {
        connector.abort(&open).await.unwrap();
        assert_eq!(segments_of(&openstack, container).await, before);
    }
    assert_eq!(connector.stat("x").await.unwrap().size, 2 * MIB as u64);
}

/// Two uploads of the same file to the same name: what one of them aborts, the other may have published.
#[tokio::test(flavor = "multi_thread")]
async fn an_abort_spares_what_is_published() {
    let container = "objects-spared";
    let Some(openstack) = with_container(container).await else { return };
    let connector = swift(&of(&openstack, User::Demo, container));
    let journal = interrupted(&connector, "x", 6 * MIB, 1).await;
    let open = journal.open("x").unwrap();
    put(&connector, "x", 6 * MIB, 1).await.unwrap();
    connector.abort(&open).await.unwrap();
    assert_eq!(contract::get(&connector, "x").await.unwrap(), contract::bytes(6 * MIB, 1));
    assert_eq!(segments_of(&openstack, container).await.len(), 6);
}

/// Two who replace the same object at once: one of them is seen, and nothing is left of the other, nor of the earlier one.
#[tokio::test(flavor = "multi_thread")]
async fn two_at_once_leave_the_segments_of_one() {
    let container = "objects-at-once";
    let Some(openstack) = with_container(container).await else { return };
    let config = of(&openstack, User::Demo, container);
    let (one, other) = (swift(&config), swift(&config));
    put(&one, "x", 2 * MIB, 1).await.unwrap();
    for sizes in [[3 * MIB, 4 * MIB], [3 * MIB, 10], [10, 3 * MIB]] {
        let (first, second) = tokio::join!(put(&one, "x", sizes[0], 2), put(&other, "x", sizes[1], 3));
        first.unwrap();
        second.unwrap();
        let size = one.stat("x").await.unwrap().size;
        let expected = if size > MIB as u64 { size / MIB as u64 } else { 0 };
        assert_eq!(segments_of(&openstack, container).await.len() as u64, expected);
    }
}

/// Lets the user `reader`, who has no right of its own, write to a container.
async fn let_write(openstack: &OpenStack, container: &str) {
    let script = format!(
        "swift.put_container({container:?}, {{'X-Container-Write': 'demo:reader,{}:*'}})",
        openstack.project_id()
    );
    openstack.swift(&script).await.unwrap();
}

/// The least right that does: an entry in the access list for writing.
#[tokio::test(flavor = "multi_thread")]
async fn the_right_to_write_is_enough() {
    let container = "objects-write-only";
    let Some(openstack) = with_container(container).await else { return };
    let connector = swift(&of(&openstack, User::Reader, container));
    let error = put(&connector, "x", 10, 1).await.unwrap_err();
    assert_eq!((error.kind, error.is_transient()), (Kind::AccessDenied, false), "{error:?}");
    assert!(error.detail.contains(&format!("`{container}`")), "{error:?}");
    let_write(&openstack, container).await;
    let receipt = put(&connector, "x", 10, 1).await.unwrap();
    assert!(receipt.note.is_some_and(|note| note.contains("should the replaced object have had segments")));
    let error = put(&connector, "x", 2 * MIB, 1).await.unwrap_err();
    assert_eq!(error.kind, Kind::AccessDenied, "{error:?}");
    assert!(error.detail.contains(&format!("`{container}_segments` beside `{container}`")), "{error:?}");
    let segments = format!("{container}_segments");
    let_write(&openstack, &segments).await;
    // Swift looks at the segments with the rights of whoever sends the manifest.
    let error = put(&connector, "x", 2 * MIB, 1).await.unwrap_err();
    assert_eq!((error.kind, error.is_transient()), (Kind::AccessDenied, false), "{error:?}");
    assert!(error.detail.contains(&format!("let them read from `{segments}`")), "{error:?}");
    openstack
        .swift(&format!("swift.post_container({segments:?}, {{'X-Container-Read': 'demo:reader'}})"))
        .await
        .unwrap();
    let receipt = put(&connector, "x", 2 * MIB, 2).await.unwrap();
    assert_eq!(receipt.verified, "md5");
    let owner = swift(&of(&openstack, User::Demo, container));
    assert_eq!(contract::get(&owner, "x").await.unwrap(), contract::bytes(2 * MIB, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_quota_is_named() {
    let container = "objects-quota";
    let Some(openstack) = with_container(container).await else { return };
    let script = format!("swift.post_container({container:?}, {{'X-Container-Meta-Quota-Bytes': '1000'}})");
    openstack.swift(&script).await.unwrap();
    let connector = swift(&of(&openstack, User::Demo, container));
    put(&connector, "x", 1000, 1).await.unwrap();
    let error = put(&connector, "y", MIB, 1).await.unwrap_err();
    assert_eq!((error.kind, error.is_transient()), (Kind::NoSpace, false), "{error:?}");
    assert_eq!(error.answer.as_ref().unwrap().status, Some(413));
    assert!(error.answer.unwrap().request_id.is_some_and(|id| id.starts_with("tx")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_container_is_no_missing_object() {
    let container = "objects-missing";
    let Some(openstack) = with_container(container).await else { return };
    let config = of(&openstack, User::Demo, "no-such-container-at-all");
    let connector = swift(&config);
    for error in [
        connector.stat("x").await.unwrap_err(),
        connector.read("x", 0..1).await.map(drop).unwrap_err(),
        connector.list("", 1).await.unwrap_err(),
        put(&connector, "x", 1, 1).await.unwrap_err(),
        put(&connector, "x", 2 * MIB, 1).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, Kind::ContainerNotFound, "{error:?}");
    }
    connector.delete("x").await.unwrap();
    assert_eq!(swift(&of(&openstack, User::Demo, container)).stat("x").await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(openstack.names_in("no-such-container-at-all_segments").await.unwrap(), Vec::<String>::new());
}
