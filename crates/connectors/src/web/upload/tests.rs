//! What answers prove, and what refusals mean.

use http::HeaderName;

use super::*;
use crate::http::scripted::{Server, Step};
use crate::memory::MemorySource;
use crate::transfer::Limits;

fn told(fields: &[(&'static str, String)]) -> Result<&'static str> {
    let fields = fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
    verified(&fields.collect(), &Digests::of(b"x"))
}

#[test]
fn an_answer_proves_what_it_repeats() {
    let digests = Digests::of(b"x");
    let crc32c = BASE64.encode(digests.crc32c.to_be_bytes());
    let md5 = digests.md5.unwrap();
    let (md5, hex) = (BASE64.encode(md5), format!("\"{}\"", hex::encode(md5)));
    let wrong = BASE64.encode([0; 16]);
    assert_eq!(told(&[]).unwrap(), "status");
    assert_eq!(told(&[("x-amz-checksum-crc32c", crc32c.clone()), ("etag", hex.clone())]).unwrap(), "crc32c");
    assert_eq!(told(&[("x-amz-checksum-sha256", BASE64.encode(digests.sha256))]).unwrap(), "sha256");
    assert_eq!(told(&[("x-goog-hash", format!("crc32c={crc32c}, md5={wrong}"))]).unwrap(), "crc32c");
    assert_eq!(told(&[("x-goog-hash", format!("md5={md5}"))]).unwrap(), "md5");
    assert_eq!(told(&[("content-md5", md5), ("etag", "\"0x8D\"".to_owned())]).unwrap(), "md5");
    assert_eq!(told(&[("etag", hex)]).unwrap(), "md5");
    for name in ["content-md5", "x-amz-checksum-crc32c", "x-amz-checksum-sha256"] {
        assert_eq!(told(&[(name, wrong.clone())]).unwrap_err().kind, Kind::IntegrityMismatch, "{name}");
    }
}

#[test]
fn md5_is_computed_only_where_nothing_stronger_is_told() {
    let etag = ("etag", "\"0123456789abcdef0123456789abcdef\"");
    let is_computed = |fields: &[(&'static str, &str)]| {
        let fields = fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        names_md5(&fields.collect())
    };
    for needed in [etag, ("content-md5", "x"), ("x-goog-hash", "md5=x")] {
        assert!(is_computed(&[needed]), "{needed:?}");
        for stronger in
            [("x-amz-checksum-crc32c", "x"), ("x-amz-checksum-sha256", "x"), ("x-goog-hash", "a=b, crc32c=x")]
        {
            assert!(!is_computed(&[needed, stronger]), "{needed:?} {stronger:?}");
        }
    }
    assert!(!is_computed(&[("etag", "\"opaque\"")]));
}

#[test]
fn an_etag_counts_as_md5_only_where_it_is_one() {
    let etag = ("etag", format!("\"{}\"", hex::encode([0; 16])));
    let s3 = ("x-amz-request-id", "tx1".to_owned());
    assert_eq!(told(std::slice::from_ref(&etag)).unwrap(), "status", "any server may have such a mark");
    assert_eq!(told(&[etag.clone(), s3.clone()]).unwrap_err().kind, Kind::IntegrityMismatch);
    assert_eq!(told(&[etag.clone(), ("x-trans-id", "tx".to_owned())]).unwrap_err().kind, Kind::IntegrityMismatch);
    let encrypted = ("x-amz-server-side-encryption", "aws:kms".to_owned());
    assert_eq!(told(&[etag, s3.clone(), encrypted]).unwrap(), "status");
    assert_eq!(told(&[("etag", "\"opaque\"".to_owned()), s3]).unwrap(), "status");
}

/// Uploads the byte `x`.
async fn put(server: &Server, path: &str) -> (Result<Receipt>, Progress) {
    let source = Arc::new(MemorySource::new(b"x".to_vec()));
    let (headers, progress) = (HeaderMap::new(), Progress::default());
    let limits = Limits { tries: 1, ..Limits::default() };
    let upload =
        Upload { url: &server.url(path), headers: &headers, content_type: "a/b", source, progress: progress.clone() };
    let web = Web::new(server.client(std::time::Duration::from_secs(2)), &limits);
    (web.put(&upload).await, progress)
}

async fn refusal_of(server: &Server, path: &str) -> String {
    format!("{:?}", put(server, path).await.0.unwrap_err())
}

#[tokio::test]
async fn an_upload_that_arrived_otherwise_fails() {
    for (digest, is_right) in [(Digests::of(b"x").md5, true), (Digests::of(b"y").md5, false)] {
        let head = format!(
            "HTTP/1.1 201 Made\r\ncontent-md5: {}\r\ncontent-length: 0\r\n\r\n",
            BASE64.encode(digest.unwrap())
        );
        let server = Server::start(move |_, _| vec![Step::Read(1), Step::send(&head)]).await;
        let (ended, progress) = put(&server, "/a").await;
        assert_eq!(progress.bytes(), u64::from(is_right));
        match ended {
            Ok(receipt) => assert!(is_right && receipt.verified == "md5", "{receipt:?}"),
            Err(error) => assert!(!is_right && error.kind == Kind::IntegrityMismatch, "{error:?}"),
        }
    }
}

fn bad(message: &str) -> Vec<Step> {
    let body = format!("<Error><Code>Odd</Code><Message>{message}</Message></Error>");
    let head = format!("HTTP/1.1 400 Bad\r\ncontent-length: {}\r\n\r\n", body.len());
    vec![Step::Read(1), Step::send(head + &body)]
}

#[tokio::test]
async fn no_message_is_cut_within_a_secret() {
    for before in [285, 292, 296] {
        let message = format!("{}canary-signature yyy", "x".repeat(before));
        let server = Server::start(move |_, _| bad(&message)).await;
        let shown = refusal_of(&server, "/a?X-Sig=canary-signature").await;
        assert!(shown.contains("xxxx") && !shown.contains("cana"), "{shown}");
    }
}

#[tokio::test]
async fn an_address_that_a_redirect_leads_to_is_secret_as_well() {
    let server = Server::start(|number, _| match number {
        0 => {
            let head = "HTTP/1.1 307 There\r\nlocation: /b?sig=canary-elsewhere\r\ncontent-length: 0\r\n\r\n";
            vec![Step::Read(1), Step::send(head)]
        }
        _ => bad("the signature canary-elsewhere is old"),
    })
    .await;
    let shown = refusal_of(&server, "/a").await;
    assert!(shown.contains("the signature *** is old") && !shown.contains("canary"), "{shown}");
}

#[test]
fn refusals_are_told_apart() {
    let target = Target::new(read_url("https://h.example/a?q").unwrap(), &HeaderMap::new());
    let of = |code: &str, message: &str| {
        let said = ErrorBody { message: Some(message.to_owned()), ..ErrorBody::default() };
        by_code(code, &said, &target).map(|(kind, _)| kind)
    };
    assert_eq!(of("AccessDenied", "Request has expired"), Some(Kind::AccessDenied));
    assert_eq!(of("AccessDenied", "no"), None, "the status tells the rest");
    assert_eq!(of("SignatureDoesNotMatch", ""), Some(Kind::InvalidCredentials));
    assert_eq!(of("RequestBodyTooLarge", ""), Some(Kind::TooLarge));
    assert_eq!(of("MissingRequiredHeader", ""), Some(Kind::InvalidRequest));
    assert_eq!(of("ServerBusy", ""), Some(Kind::Throttled));
    for (status, kind) in [
        (301, Kind::Protocol),
        (401, Kind::InvalidCredentials),
        (403, Kind::AccessDenied),
        (404, Kind::NotFound),
        (405, Kind::Unsupported),
        (409, Kind::InvalidRequest),
        (413, Kind::TooLarge),
        (429, Kind::Throttled),
        (502, Kind::Unavailable),
        (507, Kind::NoSpace),
    ] {
        let (found, words) = by_status(StatusCode::from_u16(status).unwrap(), None, &target);
        assert!(found == kind && words.contains(&status.to_string()), "{words}");
    }
}
