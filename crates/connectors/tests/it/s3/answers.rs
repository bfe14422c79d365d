//! S3 services that answer in ways that no server at hand does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use connectors::contract;
use connectors::memory::MemorySource;
use connectors::s3::{Config, S3};
use connectors::{Connector as _, Kind, Limits, ObjectStore as _};

use super::s3;
use crate::scripted::{Request, Scripted, answer, cut_in, holds_nothing_in_a_pause, shows_no_part};
use crate::{LIMITS, PART_BYTES, client_that_knows_no_names};

fn config(server: &Scripted) -> Config {
    Config {
        bucket: "bkt".to_owned(),
        region: "eu-west-1".to_owned(),
        endpoint: Some(format!("http://{}", server.addr)),
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: "canary-secret".into(),
        session_token: Some("canary-token".into()),
        ..Config::default()
    }
}

fn error_body(code: &str, rest: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code>{rest}<RequestId>R1</RequestId></Error>")
}

/// Answers like an S3 that checks CRC32C, for one multipart upload.
fn aws(request: &Request) -> http::Response<String> {
    let query = request.uri().query().unwrap_or_default();
    let crc = request.headers().get("x-amz-checksum-crc32c").map(|value| value.to_str().unwrap().to_owned());
    let md5 = testkit::bytes::digest(request.body()).md5;
    match (request.method().as_str(), query) {
        ("POST", "uploads=") => answer(
            200,
            &[("x-amz-checksum-algorithm", "CRC32C")],
            "<InitiateMultipartUploadResult><UploadId>u/1+=</UploadId></InitiateMultipartUploadResult>",
        ),
        ("PUT", _) => {
            let etag = format!("\"{md5}\"");
            let mut headers = vec![("etag", etag.as_str())];
            headers.extend(crc.as_deref().map(|crc| ("x-amz-checksum-crc32c", crc)));
            answer(200, &headers, "")
        }
        ("POST", _) => answer(
            200,
            &[("x-amz-version-id", "v7")],
            "  <CompleteMultipartUploadResult><ETag>&quot;opaque&quot;</ETag></CompleteMultipartUploadResult>",
        ),
        _ => answer(404, &[], ""),
    }
}

async fn put(connector: &S3, size: usize) -> connectors::Result<connectors::Receipt> {
    contract::put(connector, "k", &Arc::new(MemorySource::new(contract::bytes(size, 1)))).await
}

const LARGE: usize = PART_BYTES + 10;

#[tokio::test]
async fn checksums_are_sent_listed_and_noted() {
    let server = Scripted::start(aws).await;
    let receipt = put(&s3(&config(&server)), LARGE).await.unwrap();
    assert_eq!((receipt.verified.as_str(), receipt.etag.as_deref()), ("crc32c", Some("opaque")));
    assert_eq!(receipt.version.as_deref(), Some("v7"));
    let seen = server.seen();
    assert_eq!(seen[0].headers()["x-amz-checksum-algorithm"], "CRC32C");
    let parts: Vec<&Request> = seen.iter().filter(|request| request.method() == "PUT").collect();
    assert_eq!(parts.len(), 2);
    for part in parts {
        assert!(part.uri().query().unwrap().ends_with("uploadId=u%2F1%2B%3D"), "{}", part.uri());
        assert!(part.headers().contains_key("x-amz-checksum-crc32c"));
        assert!(!part.headers().contains_key("content-md5"), "MD5 is not paid for where CRC32C is checked");
        assert_eq!(part.headers()["x-amz-content-sha256"], "UNSIGNED-PAYLOAD");
    }
    let body = String::from_utf8(seen.last().unwrap().body().to_vec()).unwrap();
    assert_eq!(body.matches("<ChecksumCRC32C>").count(), 2, "{body}");
}

/// Until the first answer nobody knows what the service checks, so the first object carries both.
#[tokio::test]
async fn small_objects_carry_no_md5_once_the_service_has_checked_crc32c() {
    let server = Scripted::start(aws).await;
    let connector = s3(&config(&server));
    for size in [10, 20, 30] {
        assert_eq!(put(&connector, size).await.unwrap().verified, "crc32c");
    }
    let with_md5 =
        server.seen().iter().map(|request| request.headers().contains_key("content-md5")).collect::<Vec<_>>();
    assert_eq!(with_md5, [true, false, false]);
}

#[tokio::test]
async fn a_pause_holds_no_memory() {
    let is_busy = Arc::new(AtomicBool::new(true));
    let busy = Arc::clone(&is_busy);
    let server = Scripted::start(move |request| match request.method().as_str() {
        "PUT" if busy.load(Ordering::Relaxed) => answer(503, &[("retry-after", "3")], ""),
        _ => aws(request),
    })
    .await;
    for size in [10, LARGE] {
        holds_nothing_in_a_pause(s3(&config(&server)), &is_busy, size).await;
    }
}

#[tokio::test]
async fn a_wrong_echo_is_no_proof() {
    let server = Scripted::start(|request| {
        let mut response = aws(request);
        if let Some(echo) = response.headers_mut().get_mut("x-amz-checksum-crc32c") {
            *echo = "AAAAAA==".parse().unwrap();
        }
        response
    })
    .await;
    let connector = super::with_limits(&config(&server), Limits { tries: 1, ..LIMITS });
    for size in [10, LARGE] {
        assert_eq!(put(&connector, size).await.unwrap_err().kind, Kind::IntegrityMismatch);
    }
}

#[tokio::test]
async fn a_wrong_composed_checksum_fails() {
    let server = Scripted::start(|request| match aws(request) {
        response if response.body().contains("CompleteMultipartUploadResult") => answer(
            200,
            &[],
            "<CompleteMultipartUploadResult><ETag>e-2</ETag><ChecksumCRC32C>AAAAAA==-2</ChecksumCRC32C>\
             </CompleteMultipartUploadResult>",
        ),
        response => response,
    })
    .await;
    let connector = super::with_limits(&config(&server), Limits { tries: 1, ..LIMITS });
    assert_eq!(put(&connector, LARGE).await.unwrap_err().kind, Kind::IntegrityMismatch);
}

/// Where MD5 is the proof, the mark of the whole is composed of those of the parts.
#[tokio::test]
async fn a_wrong_composed_etag_fails() {
    let server = Scripted::start(|request| {
        let mut response = aws(request);
        response.headers_mut().remove("x-amz-checksum-crc32c");
        let body = response.body().replace("opaque", "0123456789abcdef0123456789abcdef-2");
        response.map(|_| body)
    })
    .await;
    let connector = super::with_limits(&config(&server), Limits { tries: 1, ..LIMITS });
    assert_eq!(put(&connector, LARGE).await.unwrap_err().kind, Kind::IntegrityMismatch);
}

#[tokio::test]
async fn an_error_inside_a_200_is_an_error() {
    let server = Scripted::start(|request| match aws(request) {
        response if response.body().contains("CompleteMultipartUploadResult") => {
            answer(200, &[], &error_body("InternalError", "<Message>We encountered an internal error.</Message>"))
        }
        response => response,
    })
    .await;
    let connector = super::with_limits(&config(&server), Limits { tries: 2, ..LIMITS });
    let error = put(&connector, LARGE).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error:?}");
    assert_eq!(error.answer.unwrap().request_id.as_deref(), Some("R1"));
    let completions =
        server.seen().iter().filter(|request| !request.body().is_empty() && request.method() == "POST").count();
    assert_eq!(completions, 2, "it is tried again");
}

/// With a key of a key service the `ETag` is no MD5: what went out unproved is sent again with `Content-MD5`.
#[tokio::test]
async fn an_etag_that_is_no_md5_proves_nothing() {
    let server = Scripted::start(|request| {
        let mut response = aws(request);
        response.headers_mut().remove("x-amz-checksum-crc32c");
        response.headers_mut().remove("x-amz-checksum-algorithm");
        if let Some(etag) = response.headers_mut().get_mut("etag") {
            *etag = "\"0123456789abcdef0123456789abcdef\"".parse().unwrap();
        }
        response.headers_mut().insert("x-amz-server-side-encryption", "aws:kms".parse().unwrap());
        response
    })
    .await;
    let receipt = put(&s3(&config(&server)), LARGE).await.unwrap();
    assert_eq!(receipt.verified, "md5");
    let proved: Vec<u64> = server
        .seen()
        .iter()
        .filter(|request| request.headers().contains_key("content-md5"))
        .map(|request| request.body().len() as u64)
        .collect();
    assert_eq!(proved.iter().sum::<u64>(), LARGE as u64, "each part once with Content-MD5: {proved:?}");
}

#[tokio::test]
async fn a_wrong_region_is_answered_with_the_right_one() {
    let server = Scripted::start(|_| answer(301, &[("x-amz-bucket-region", "eu-central-1")], "")).await;
    for size in [10, LARGE] {
        let error = put(&s3(&config(&server)), size).await.unwrap_err();
        assert!(error.detail.contains("set `region` to eu-central-1"), "{error:?}");
    }
    assert_eq!(server.seen().len(), 2, "a wrong region is not tried again");
}

#[tokio::test]
async fn no_refusal_gives_a_secret_away() {
    let server = Scripted::start(|request| {
        let token = request.headers()["x-amz-security-token"].to_str().unwrap();
        answer(400, &[], &error_body("Odd", &format!("<Message>token {token}, key AKIDEXAMPLE</Message>")))
    })
    .await;
    let connector = s3(&config(&server));
    let error = put(&connector, 10).await.unwrap_err();
    let shown = format!("{error} {error:?} {connector:?} {:?}", config(&server));
    assert!(shown.contains("token ***, key ***") && !shown.contains("canary"), "{shown}");
}

/// A service that wants the bucket in the host name is asked again that way, and from then on.
#[tokio::test]
async fn no_message_is_cut_within_a_secret() {
    for message in cut_in("canary-token") {
        let body = error_body("Odd", &format!("<Message>{message}</Message>"));
        let server = Scripted::start(move |_| answer(400, &[], &body)).await;
        shows_no_part(&put(&s3(&config(&server)), 10).await.unwrap_err(), "canary-token");
    }
}

#[tokio::test]
async fn addressing_is_found_out() {
    let server = Scripted::start(|request| {
        let host = request.headers()["host"].to_str().unwrap();
        if host.starts_with("bkt.oss.test:") && request.uri().path() == "/k" {
            answer(200, &[("etag", &format!("\"{}\"", testkit::bytes::digest(request.body()).md5))], "")
        } else {
            answer(403, &[], &error_body("SecondLevelDomainForbidden", ""))
        }
    })
    .await;
    let config = Config { endpoint: Some(format!("http://oss.test:{}", server.addr.port())), ..config(&server) };
    let connector = S3::new(&config, client_that_knows_no_names(), LIMITS).unwrap();
    put(&connector, 10).await.unwrap();
    put(&connector, 10).await.unwrap();
    assert_eq!(server.seen().len(), 3, "it is asked for once");
    let fixed = Config { addressing: connectors::s3::Addressing::Path, ..config };
    let connector = S3::new(&fixed, client_that_knows_no_names(), LIMITS).unwrap();
    put(&connector, 10).await.unwrap_err();
}

/// A service that insists on a signed body gets one.
#[tokio::test]
async fn the_body_is_signed_where_the_service_insists() {
    let server = Scripted::start(|request| match request.headers()["x-amz-content-sha256"].to_str().unwrap() {
        "UNSIGNED-PAYLOAD" => {
            answer(400, &[], &error_body("InvalidRequest", "<Message>UNSIGNED-PAYLOAD is not allowed</Message>"))
        }
        hash if hash == testkit::bytes::digest(request.body()).sha256 => aws(request),
        _ => answer(400, &[], &error_body("XAmzContentSHA256Mismatch", "")),
    })
    .await;
    let connector = s3(&config(&server));
    put(&connector, LARGE).await.unwrap();
}

/// A service that does not know the checksum headers gets none.
#[tokio::test]
async fn refused_checksum_headers_are_left_out() {
    for (status, body) in [(400, error_body("InvalidArgument", "")), (400, String::new()), (501, "<html>".to_owned())] {
        let server = Scripted::start(move |request| {
            let is_refused = request.headers().keys().any(|name| name.as_str().starts_with("x-amz-checksum-"));
            if is_refused { answer(status, &[], &body) } else { aws(request) }
        })
        .await;
        for size in [10, LARGE] {
            assert_eq!(put(&s3(&config(&server)), size).await.unwrap().verified, "md5");
        }
        let completion = server.seen().last().unwrap().body().clone();
        assert!(!String::from_utf8_lossy(&completion).contains("Checksum"), "{completion:?}");
    }
}

/// A whole upload disappears under way; it starts anew, once.
#[tokio::test]
async fn an_upload_that_is_gone_starts_anew() {
    let server = Scripted::start(|request| match aws(request) {
        response if request.method() == "PUT" => {
            drop(response);
            answer(404, &[], &error_body("NoSuchUpload", ""))
        }
        response => response,
    })
    .await;
    let error = put(&s3(&config(&server)), LARGE).await.unwrap_err();
    assert_eq!(error.kind, Kind::Unavailable, "{error:?}");
    let opened = server.seen().iter().filter(|request| request.uri().query() == Some("uploads=")).count();
    assert_eq!(opened, 2);
}

#[tokio::test]
async fn long_listings_are_read_page_by_page() {
    let server = Scripted::start(|request| {
        let query = request.uri().query().unwrap();
        let (keys, rest) = if query.contains("continuation-token=t%2F1") {
            (["a+b%2B", "a%25"], "<IsTruncated>false</IsTruncated>".to_owned())
        } else {
            (
                ["z", "%C3%BC"],
                "<IsTruncated>true</IsTruncated><NextContinuationToken>t/1</NextContinuationToken>".to_owned(),
            )
        };
        let contents =
            keys.map(|key| format!("<Contents><Key>{key}</Key><Size>1</Size><ETag>\"e\"</ETag></Contents>")).concat();
        let body = format!("<ListBucketResult><EncodingType>url</EncodingType>{contents}{rest}</ListBucketResult>");
        answer(200, &[], &body)
    })
    .await;
    let connector = s3(&config(&server));
    let names: Vec<String> = connector.list("", 4).await.unwrap().into_iter().map(|object| object.name).collect();
    assert_eq!(names, ["a b+", "a%", "z", "ü"]);
    assert_eq!(connector.list("", 3).await.unwrap_err().kind, Kind::TooMany);
}

/// Parts that were on their way when an upload was aborted are aborted as well.
#[tokio::test]
async fn an_abort_is_repeated_until_nothing_is_left() {
    let aborts = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&aborts);
    let server = Scripted::start(move |request| match request.method().as_str() {
        "DELETE" => {
            counted.fetch_add(1, Ordering::Relaxed);
            answer(204, &[], "")
        }
        _ if counted.load(Ordering::Relaxed) < 2 => {
            answer(200, &[], "<ListPartsResult><Part><PartNumber>1</PartNumber></Part></ListPartsResult>")
        }
        _ => answer(404, &[], &error_body("NoSuchUpload", "")),
    })
    .await;
    let open = connectors::OpenUpload {
        target: "k".to_owned(),
        handle: "u".to_owned(),
        sha256: String::new(),
        part_bytes: 0,
        parts: std::collections::BTreeMap::new(),
    };
    s3(&config(&server)).abort(&open).await.unwrap();
    assert_eq!(aborts.load(Ordering::Relaxed), 2);
}

/// A service where these uploads were opened long ago, of which some cannot be aborted.
async fn with_old_uploads(keys: &[&str], cannot: &'static str) -> Scripted {
    let uploads: Vec<String> = keys
        .iter()
        .map(|key| {
            let initiated = "2020-01-01T00:00:00.000Z";
            format!("<Upload><Key>{key}</Key><UploadId>u</UploadId><Initiated>{initiated}</Initiated></Upload>")
        })
        .collect();
    let listing = format!("<ListMultipartUploadsResult>{}</ListMultipartUploadsResult>", uploads.concat());
    Scripted::start(move |request| match request.method().as_str() {
        "GET" if request.uri().query().unwrap().contains("uploads") => answer(200, &[], &listing),
        "GET" => answer(404, &[], &error_body("NoSuchUpload", "")),
        _ if request.uri().path().contains(cannot) => answer(403, &[], &error_body("AccessDenied", "")),
        _ => answer(204, &[], ""),
    })
    .await
}

#[tokio::test]
async fn an_upload_that_cannot_be_aborted_shields_none_behind_it() {
    let server = with_old_uploads(&["bad1", "bad2", "good1", "bad3", "good2"], "bad").await;
    let error = s3(&config(&server)).abort_older("", Duration::from_hours(1)).await.unwrap_err();
    assert_eq!(error.kind, Kind::AccessDenied);
    let is_abort = |request: &&Request| request.method() == "DELETE";
    let tried: Vec<_> = server.seen().iter().filter(is_abort).map(|abort| abort.uri().path().to_owned()).collect();
    assert_eq!(tried, ["/bkt/bad1", "/bkt/bad2", "/bkt/good1", "/bkt/bad3", "/bkt/good2"]);
    // Not for each of thousands, as each may take all its tries.
    let server = with_old_uploads(&["bad"; 50], "bad").await;
    s3(&config(&server)).abort_older("", Duration::from_hours(1)).await.unwrap_err();
    assert_eq!(server.seen().iter().filter(is_abort).count(), 20);
}

#[tokio::test]
async fn credentials_that_may_not_list_uploads_are_told_apart_from_none_being_there() {
    for (code, told) in [("AccessDenied", Err(Kind::AccessDenied)), ("NotImplemented", Ok(0))] {
        let status = if code == "AccessDenied" { 403 } else { 501 };
        let server = Scripted::start(move |_| answer(status, &[], &error_body(code, ""))).await;
        let found = s3(&config(&server)).abort_older("", Duration::ZERO).await;
        assert_eq!(found.map_err(|error| error.kind), told, "{code}");
    }
}
