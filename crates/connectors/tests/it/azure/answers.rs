//! Services that answer in ways that Azurite does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use connectors::azure_blob::Config;
use connectors::contract;
use connectors::memory::{MemoryJournal, MemorySource};
use connectors::{Connector as _, Kind, Limits, Progress};

use super::{LIMITS, MIB, azure, with_limits};
use crate::scripted::{Request, Scripted, answer, cut_in, holds_nothing_in_a_pause, shows_no_part};

fn config(server: &Scripted) -> Config {
    Config {
        account: "acct".to_owned(),
        sas: Some("sv=2021-12-02&sp=cw&sig=canary%2Bsignature%3D".into()),
        container: "box".to_owned(),
        endpoint: Some(format!("http://{}", server.addr)),
        ..Config::default()
    }
}

/// Takes everything, and says of a body what it was, as Azure does.
fn takes(request: &Request) -> http::Response<String> {
    let md5 = request.headers().get("content-md5").map(|value| value.to_str().unwrap().to_owned());
    let mut headers = vec![("etag", "\"0x1\""), ("x-ms-version-id", "v7")];
    headers.extend(md5.as_deref().map(|md5| ("content-md5", md5)));
    answer(201, &headers, "")
}

async fn put(config: &Config, limits: Limits, size: usize) -> connectors::Result<connectors::Receipt> {
    contract::put(&with_limits(config, limits), "n", &Arc::new(MemorySource::new(contract::bytes(size, 1)))).await
}

fn failure(code: &str, rest: &str) -> String {
    format!("\u{feff}<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>Words.\nTime:1</Message>{rest}</Error>")
}

#[tokio::test]
async fn a_pause_holds_no_memory() {
    let is_busy = Arc::new(AtomicBool::new(true));
    let busy = Arc::clone(&is_busy);
    let server = Scripted::start(move |request| {
        if busy.load(Ordering::Relaxed) { answer(503, &[("retry-after", "3")], "") } else { takes(request) }
    })
    .await;
    for size in [10, 2 * MIB] {
        holds_nothing_in_a_pause(azure(&config(&server)), &is_busy, size).await;
    }
}

#[tokio::test]
async fn a_wrong_echo_is_no_proof() {
    for path in ["/box/n?sv", "comp=block&", "comp=blocklist&"] {
        let server = Scripted::start(move |request| {
            let mut response = takes(request);
            if request.uri().to_string().contains(path) {
                response.headers_mut().insert("content-md5", "AAAAAAAAAAAAAAAAAAAAAA==".parse().unwrap());
            }
            response
        })
        .await;
        let size = if path.contains("comp") { 2 * MIB } else { 10 };
        let error = put(&config(&server), Limits { tries: 1, ..LIMITS }, size).await.unwrap_err();
        assert_eq!(error.kind, Kind::IntegrityMismatch, "{path}: {error:?}");
    }
}

#[tokio::test]
async fn a_version_is_noted_and_the_token_stays_secret() {
    let server = Scripted::start(takes).await;
    for size in [10, 2 * MIB] {
        let receipt = put(&config(&server), LIMITS, size).await.unwrap();
        assert_eq!(receipt.version.as_deref(), Some("v7"));
        assert_eq!(receipt.location, format!("http://{}/box/n", server.addr));
    }
    let refusing = Scripted::start(|request| {
        let detail =
            format!("<AuthenticationErrorDetail>{}</AuthenticationErrorDetail>", request.uri().query().unwrap());
        answer(
            403,
            &[("x-ms-request-id", request.uri().query().unwrap())],
            &failure("Odd", &detail.replace('&', "&amp;")),
        )
    })
    .await;
    let error = put(&config(&refusing), LIMITS, 10).await.unwrap_err();
    let shown = format!("{error} {error:?} {:?} {:?}", azure(&config(&refusing)), config(&refusing));
    assert!(shown.contains("code Odd") && !shown.contains("canary"), "{shown}");
}

#[tokio::test]
async fn no_message_is_cut_within_a_secret() {
    for signature in ["canary+signature=", "canary%2Bsignature%3D"] {
        for message in cut_in(signature) {
            let body = failure("Odd", "").replace("Words.", &message);
            let server = Scripted::start(move |_| answer(400, &[], &body)).await;
            shows_no_part(&put(&config(&server), LIMITS, 10).await.unwrap_err(), signature);
        }
    }
}

/// The pages of a listing go on where a marker says so, even when a page is empty, and never in a circle.
#[tokio::test]
async fn listings_follow_their_markers() {
    let server = Scripted::start(|request| {
        let query = request.uri().query().unwrap();
        let blob = |name: &str, kind: &str| {
            format!("<Blob><Name>{name}</Name><Properties><Content-Length>1</Content-Length>{kind}</Properties></Blob>")
        };
        let (blobs, marker) = match query {
            query if query.contains("marker=m%2F1") => (String::new(), "m2"),
            query if query.contains("marker=m2") => {
                (blob("b", "") + &blob("dir", "<ResourceType>directory</ResourceType>"), "")
            }
            query if query.contains("prefix=circle") => (String::new(), "m2"),
            _ => (blob("c", "<ResourceType>file</ResourceType>"), "m/1"),
        };
        let marker = if query.contains("circle") { "m2" } else { marker };
        answer(
            200,
            &[],
            &format!(
                "<EnumerationResults><Blobs>{blobs}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
            ),
        )
    })
    .await;
    let connector = azure(&config(&server));
    let names: Vec<String> = connector.list("", 10).await.unwrap().into_iter().map(|blob| blob.name).collect();
    assert_eq!(names, ["b", "c"]);
    assert_eq!(connector.list("circle", 10).await.unwrap_err().kind, Kind::Protocol);
}

/// The service forgets the blocks of every upload: it is begun twice, and then given up.
#[tokio::test]
async fn lost_blocks_are_sent_again_once() {
    let server = Scripted::start(|request| match request.uri().query().unwrap() {
        query if query.contains("comp=blocklist") => answer(400, &[], &failure("InvalidBlockList", "")),
        _ => takes(request),
    })
    .await;
    let source = Arc::new(MemorySource::new(contract::bytes(2 * MIB, 1)));
    let (journal, progress) = (Arc::new(MemoryJournal::default()), Progress::default());
    let error = with_limits(&config(&server), Limits { tries: 1, ..LIMITS })
        .put(contract::request("n", &source, &journal, &progress, None))
        .await
        .unwrap_err();
    assert!(error.kind == Kind::Unavailable && error.is_transient(), "{error:?}");
    assert_eq!((journal.totals(), progress.bytes(), server.seen().len()), ((2, 2), 0, 6));
}
