//! The S3 server against signed requests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use practice::{Practice, Settings};
use s3s::crypto::{Checksum as _, Crc32c, Md5};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::client::{Answer, Client};

/// S3's smallest part but the last.
const PART_BYTES: usize = 5 << 20;

async fn start() -> (TempDir, Practice, Client) {
    let folder = tempfile::tempdir().unwrap();
    let practice = Practice::start(Settings::new(folder.path())).await.unwrap();
    let client = Client::new(&practice);
    (folder, practice, client)
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", hex::encode(Md5::checksum(bytes)))
}

fn crc32c(bytes: &[u8]) -> String {
    BASE64.encode(Crc32c::checksum(bytes))
}

#[tokio::test]
async fn refuses_whoever_it_does_not_know() {
    let (_folder, practice, client) = start().await;
    let wrong = Client::with_key(&practice, practice.access_key_id(), "wrong");
    assert_eq!(wrong.send("PUT", "a", "", &[], "x").await.error(), (403, "SignatureDoesNotMatch"));
    let unknown = Client::with_key(&practice, "AKIAUNKNOWN", practice.secret_access_key());
    assert_eq!(unknown.send("PUT", "a", "", &[], "x").await.error(), (403, "InvalidAccessKeyId"));
    assert_eq!(client.send_unsigned("GET", "/practice/a").await.error(), (403, "AccessDenied"));
    assert_eq!(client.send("GET", "a", "", &[], "").await.error(), (404, "NoSuchKey"));
}

#[tokio::test]
async fn whoever_is_refused_sees_why_however_much_they_send() {
    let (_folder, practice, _) = start().await;
    let mut stream = TcpSocket::new_v4().unwrap().connect(practice.s3_addr()).await.unwrap();
    let length = 16 * 1024 * 1024;
    let head = format!("PUT /practice/a HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // A client that writes all before it reads anything must not run into a closed connection.
    stream.write_all(&vec![7; length]).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 403");
}

#[tokio::test]
async fn refuses_a_bucket_that_is_missing_until_it_is_made() {
    let (_folder, _practice, client) = start().await;
    let put = || client.send_path("PUT", "/other/key", &[], "x".into());
    assert_eq!(put().await.error(), (404, "NoSuchBucket"));
    assert_eq!(client.send_path("HEAD", "/other", &[], "".into()).await.status, 404);
    assert_eq!(client.send_path("PUT", "/other", &[], "".into()).await.status, 200);
    assert_eq!(put().await.status, 200);
    assert_eq!(client.send_path("DELETE", "/other", &[], "".into()).await.error(), (409, "BucketNotEmpty"));
    let all = client.send_path("GET", "/", &[], "".into()).await;
    assert!(all.text().contains("<Name>other</Name>") && all.text().contains("<Name>practice</Name>"));
}

#[tokio::test]
async fn keeps_keys_byte_for_byte_inside_its_folder() {
    let (folder, _practice, client) = start().await;
    let long = "k".repeat(1024);
    // A name of its own: what lies beside the folder belongs to others.
    let climber = format!("climber-{}", std::process::id());
    let climbing = format!("../{climber}");
    let mut keys = ["a//b", "a/b", "a", "/a", &climbing, "..", "sp ace", "p%2Fct", "pl+us", "ü/日本.txt", &long];
    for key in keys {
        let put = client.send("PUT", key, "", &[], key.to_owned()).await;
        assert_eq!(put.status, 200, "{key}: {}", put.text());
    }
    for key in keys {
        assert_eq!(client.send("GET", key, "", &[], "").await.text(), key);
    }
    keys.sort_unstable();
    assert_eq!(list_all(&client, "max-keys=3").await, keys);
    assert_eq!(list_all(&client, "prefix=a%2F").await, ["a//b", "a/b"]);
    assert_eq!(client.send("PUT", &"k".repeat(1025), "", &[], "").await.error(), (400, "KeyTooLongError"));
    let outside = folder.path().parent().unwrap().join(&climber);
    assert!(!outside.exists() && !folder.path().join("s3").join(&climber).exists(), "a key climbed out");

    assert_eq!(client.send("DELETE", &long, "", &[], "").await.status, 204);
    assert_eq!(client.send("HEAD", &long, "", &[], "").await.status, 404);
    let left = std::fs::read_dir(folder.path().join("s3/practice")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_str().unwrap().starts_with("kkk")), "{left:?}");
}

async fn list_all(client: &Client, query: &str) -> Vec<String> {
    let mut keys = Vec::new();
    let mut more = String::new();
    loop {
        let query = format!("{query}&list-type=2{more}&encoding-type=url");
        let page = client.send_path("GET", &format!("/practice?{query}"), &[], "".into()).await;
        let texts = page.text().split("<Key>").skip(1).map(|rest| rest.split_once("</Key>").unwrap().0);
        keys.extend(texts.map(|key| percent_encoding::percent_decode_str(key).decode_utf8().unwrap().into_owned()));
        let Some(token) = page.element("NextContinuationToken") else { return keys };
        more = format!("&continuation-token={token}");
    }
}

#[tokio::test]
async fn rolls_keys_up_to_common_prefixes() {
    let (_folder, _practice, client) = start().await;
    for key in ["a/1", "a/2", "b", "c/1"] {
        assert_eq!(client.send("PUT", key, "", &[], "x").await.status, 200);
    }
    let query = "/practice?list-type=2&delimiter=%2F&max-keys=2";
    let first = client.send_path("GET", query, &[], "".into()).await;
    assert!(first.text().contains("<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>"), "{}", first.text());
    assert_eq!((first.element("Key"), first.element("IsTruncated")), (Some("b"), Some("true")));
    let token = first.element("NextContinuationToken").unwrap();
    let second = client.send_path("GET", &format!("{query}&continuation-token={token}"), &[], "".into()).await;
    assert!(second.text().contains("<Prefix>c/</Prefix>") && second.element("Key").is_none(), "{}", second.text());
    assert_eq!(second.element("IsTruncated"), Some("false"));
}

#[tokio::test]
async fn checks_digests_and_keeps_nothing_that_fails() {
    let (folder, _practice, client) = start().await;
    let md5 = BASE64.encode(Md5::checksum(b"other"));
    let put = |header: &'static str, value: String| {
        let client = &client;
        async move { client.send("PUT", "a", "", &[(header, &value)], "body").await }
    };
    assert_eq!(put("content-md5", md5).await.error(), (400, "BadDigest"));
    assert_eq!(put("content-md5", "short".to_owned()).await.error(), (400, "InvalidDigest"));
    assert_eq!(put("x-amz-checksum-crc32c", crc32c(b"other")).await.error(), (400, "BadDigest"));
    assert_eq!(put("x-amz-checksum-sha256", crc32c(b"other")).await.error(), (400, "BadDigest"));
    assert_eq!(client.send("HEAD", "a", "", &[], "").await.status, 404);
    let left = std::fs::read_dir(folder.path().join("s3/.incoming")).unwrap().count();
    assert_eq!(left, 0, "refused bodies are removed");

    let right = put("x-amz-checksum-crc32c", crc32c(b"body")).await;
    assert_eq!(right.status, 200);
    assert_eq!(right.header("x-amz-checksum-crc32c"), Some(crc32c(b"body").as_str()));
    assert_eq!(right.header("etag"), Some(etag(b"body").as_str()));
}

#[tokio::test]
async fn keeps_what_belongs_to_an_object() {
    let (_folder, _practice, client) = start().await;
    let headers = [
        ("cache-control", "max-age=60"),
        ("content-disposition", "attachment; filename=\"a.txt\""),
        ("content-type", "text/plain; charset=utf-8"),
        ("x-amz-acl", "public-read"),
        ("x-amz-meta-colour", "blue"),
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-tagging", "project=x%20y&stage=test"),
    ];
    let put = client.send("PUT", "a", "", &headers, "hello world").await;
    assert_eq!(put.header("x-amz-server-side-encryption"), Some("AES256"));
    let get = client.send("GET", "a", "", &[], "").await;
    for (name, value) in headers.into_iter().filter(|(name, _)| !name.contains("acl") && !name.contains("tagging")) {
        assert_eq!(get.header(name), Some(value), "{name}");
    }
    assert_eq!(get.header("x-amz-tagging-count"), Some("2"));
    let tags = client.send("GET", "a", "tagging", &[], "").await;
    assert!(tags.text().contains("<Value>x y</Value>"), "{}", tags.text());
    let acl = client.send("PUT", "b", "", &[("x-amz-acl", "bogus")], "").await;
    assert_eq!(acl.error(), (400, "InvalidArgument"));

    // Replaced whole: nothing of the first object stays.
    client.send("PUT", "a", "", &[], "new").await;
    let get = client.send("GET", "a", "", &[], "").await;
    assert_eq!((get.text(), get.header("x-amz-meta-colour"), get.header("cache-control")), ("new", None, None));
}

#[tokio::test]
async fn reads_ranges_and_minds_conditions() {
    let (_folder, _practice, client) = start().await;
    client.send("PUT", "a", "", &[], "hello world").await;
    let get = |name: &'static str, value: String| {
        let client = &client;
        async move { client.send("GET", "a", "", &[(name, &value)], "").await }
    };
    for (range, text) in [("bytes=6-", "world"), ("bytes=0-4", "hello"), ("bytes=-5", "world"), ("bytes=6-99", "world")]
    {
        let part = get("range", range.to_owned()).await;
        assert_eq!((part.status.as_u16(), part.text()), (206, text), "{range}");
    }
    assert_eq!(get("range", "bytes=6-7".to_owned()).await.header("content-range"), Some("bytes 6-7/11"));
    assert_eq!(get("range", "bytes=11-".to_owned()).await.error(), (416, "InvalidRange"));
    let etag = etag(b"hello world");
    assert_eq!(get("if-none-match", etag.clone()).await.status, 304);
    assert_eq!(get("if-match", etag).await.status, 200);
    assert_eq!(get("if-match", "\"other\"".to_owned()).await.status, 412);
    let again = client.send("PUT", "a", "", &[("if-none-match", "*")], "x").await;
    assert_eq!(again.error(), (412, "PreconditionFailed"));
}

#[tokio::test]
async fn a_file_changed_by_hand_does_not_pass_for_what_was_uploaded() {
    let (_folder, practice, client) = start().await;
    client.send("PUT", "a", "", &[("content-type", "text/plain")], "one").await;
    std::fs::write(practice.bucket_folder().join("a"), "three").unwrap();
    let get = client.send("GET", "a", "", &[], "").await;
    assert_eq!(get.text(), "three");
    assert_ne!(get.header("etag"), Some(etag(b"one").as_str()));
    assert_eq!(get.header("content-type"), Some("binary/octet-stream"));
}

/// An upload that is open.
struct Upload<'a> {
    client: &'a Client,
    id: String,
}

impl<'a> Upload<'a> {
    async fn begin(client: &'a Client) -> Self {
        let headers = [("content-type", "text/x"), ("x-amz-checksum-algorithm", "CRC32C")];
        let begun = client.send("POST", "big", "uploads", &headers, "").await;
        Self { client, id: begun.element("UploadId").unwrap().to_owned() }
    }

    async fn put(&self, number: usize, body: Vec<u8>) -> Answer {
        let query = format!("partNumber={number}&uploadId={}", self.id);
        self.client.send("PUT", "big", &query, &[("x-amz-checksum-crc32c", &crc32c(&body))], body).await
    }

    async fn complete(&self, parts: &[(usize, &str)]) -> Answer {
        let part = |(number, etag): &(usize, &str)| {
            format!("<Part><PartNumber>{number}</PartNumber><ETag>{}</ETag></Part>", etag.replace('"', "&quot;"))
        };
        let parts: String = parts.iter().map(part).collect();
        let body = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
        self.client.send("POST", "big", &format!("uploadId={}", self.id), &[], body).await
    }
}

#[tokio::test]
async fn puts_parts_together() {
    let (folder, _practice, client) = start().await;
    let upload = Upload::begin(&client).await;
    let parts = [vec![1; PART_BYTES], vec![2; PART_BYTES], vec![3; 10]];
    let mut etags = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        let put = upload.put(index + 1, part.clone()).await;
        assert_eq!(put.header("etag"), Some(etag(part).as_str()));
        etags.push(etag(part));
    }
    let listed = client.send("GET", "big", &format!("max-parts=2&uploadId={}", upload.id), &[], "").await;
    assert_eq!((listed.element("NextPartNumberMarker"), listed.element("IsTruncated")), (Some("2"), Some("true")));
    let open = client.send_path("GET", "/practice?uploads=", &[], "".into()).await;
    assert_eq!(open.element("UploadId"), Some(upload.id.as_str()));

    assert_eq!(upload.complete(&[]).await.error(), (400, "MalformedXML"));
    assert_eq!(upload.complete(&[(1, "\"bad\"")]).await.error(), (400, "InvalidPart"));
    assert_eq!(upload.complete(&[(9, &etags[0])]).await.error(), (400, "InvalidPart"));
    assert_eq!(upload.complete(&[(2, &etags[1]), (1, &etags[0])]).await.error(), (400, "InvalidPartOrder"));

    let all = [(1, etags[0].as_str()), (2, &etags[1]), (3, &etags[2])];
    let done = upload.complete(&all).await;
    assert_eq!(done.status, 200, "{}", done.text());
    let md5s: Vec<u8> = parts.iter().flat_map(|part| Md5::checksum(part)).collect();
    let crcs: Vec<u8> = parts.iter().flat_map(|part| Crc32c::checksum(part)).collect();
    assert_eq!(done.element("ChecksumCRC32C"), Some(format!("{}-3", crc32c(&crcs)).as_str()));
    let get = client.send("GET", "big", "", &[], "").await;
    assert_eq!(get.header("etag"), Some(format!("\"{}-3\"", hex::encode(Md5::checksum(&md5s))).as_str()));
    assert_eq!(get.header("content-type"), Some("text/x"));
    assert!(get.body == parts.concat(), "the bytes differ");
    assert_eq!(std::fs::read_dir(folder.path().join("s3/.uploads")).unwrap().count(), 0);
    assert_eq!(upload.complete(&all).await.error(), (404, "NoSuchUpload"));
}

#[tokio::test]
async fn refuses_small_parts_and_forgets_aborted_uploads() {
    let (_folder, _practice, client) = start().await;
    let upload = Upload::begin(&client).await;
    upload.put(1, vec![1; 100]).await;
    upload.put(2, vec![2; 100]).await;
    let parts = [(1, &*etag(&[1; 100])), (2, &*etag(&[2; 100]))];
    assert_eq!(upload.complete(&parts).await.error(), (400, "EntityTooSmall"));
    let query = format!("uploadId={}", upload.id);
    assert_eq!(client.send("DELETE", "other", &query, &[], "").await.error(), (404, "NoSuchUpload"));
    assert_eq!(client.send("DELETE", "big", &query, &[], "").await.status, 204);
    assert_eq!(upload.put(3, vec![3; 100]).await.error(), (404, "NoSuchUpload"));
    assert_eq!(client.send("GET", "big", "uploadId=..%2F..", &[], "").await.error(), (404, "NoSuchUpload"));
}
