//! Every dialect that clients are known to speak, whole, byte by byte and cut at random places.

use futures_util::stream;
use proptest::prelude::*;

use super::*;

type Read = Vec<(Head, Vec<u8>)>;

/// Reads all parts of a body that arrives in these pieces.
fn read(pieces: Vec<Vec<u8>>, boundary: &str) -> Result<Read, Malformed> {
    let stream = stream::iter(pieces.into_iter().map(|piece| Ok(Bytes::from(piece))));
    let mut parts = Parts::new(stream, boundary);
    let reading = async {
        let mut found = Vec::new();
        while let Some(head) = parts.next().await? {
            let mut content = Vec::new();
            while let Some(bytes) = parts.data().await? {
                content.extend_from_slice(&bytes);
            }
            found.push((head, content));
        }
        Ok(found)
    };
    futures_util::FutureExt::now_or_never(reading).expect("a stream that is all there never waits")
}

fn head(name: &str, filename: Option<&str>, content_type: Option<&str>) -> Head {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Head { name: name.to_owned(), filename: owned(filename), content_type: owned(content_type) }
}

/// A content with all that could be taken for a delimiter.
const CONTENT: &[u8] = b"\r\n--\r\n--B\r\n\r\n\x00\xff--\r";

fn body(text: &str) -> Vec<u8> {
    let (before, after) = text.split_once("{content}").unwrap();
    [before.as_bytes(), CONTENT, after.as_bytes()].concat()
}

/// Name, content type of the request, body, expected field, expected file.
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn dialects() -> Vec<(&'static str, &'static str, Vec<u8>, Head, Head)> {
    let field = head("key", None, None);
    vec![
        (
            "Node 3",
            "multipart/form-data;boundary=----------0123456789",
            body(
                "------------0123456789\r\ncontent-disposition:form-data;name=\"key\"\r\n\r\nid/x\r\n\
                 ------------0123456789\r\ncontent-disposition:form-data;name=\"file\";filename=my file é.pdf\r\n\
                 content-type:application/octet-stream\r\n\r\n{content}\r\n------------0123456789--\r\n",
            ),
            field.clone(),
            head("file", Some("my file é.pdf"), Some("application/octet-stream")),
        ),
        (
            "Node 2",
            "multipart/form-data; boundary=--------------------------1234",
            body(
                "----------------------------1234\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nid/x\r\n\
                 ----------------------------1234\r\n\
                 Content-Disposition: form-data; name=\"file\"; filename=\"input.png\"\r\nContent-Type: image/png\r\n\r\n\
                 {content}\r\n----------------------------1234--\r\n",
            ),
            field.clone(),
            head("file", Some("input.png"), Some("image/png")),
        ),
        (
            "Python, urllib3 1",
            "multipart/form-data; boundary=8f14e45fceea167a5a36dedd4bea2543",
            body(
                "--8f14e45fceea167a5a36dedd4bea2543\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nid/x\r\n\
                 --8f14e45fceea167a5a36dedd4bea2543\r\n\
                 Content-Disposition: form-data; name=\"file\"; filename*=utf-8''my%20file%20%C3%A9.pdf\r\n\r\n\
                 {content}\r\n--8f14e45fceea167a5a36dedd4bea2543--\r\n",
            ),
            field.clone(),
            head("file", Some("my file é.pdf"), None),
        ),
        (
            "PHP, without a file name",
            "multipart/form-data; boundary=\"a1 b2\"",
            body(
                "--a1 b2\r\nContent-Disposition: form-data; name=\"key\"\r\nContent-Length: 4\r\n\r\nid/x\r\n\
                 --a1 b2\r\nContent-Disposition: form-data; name=\"file\"\r\nContent-Length: 20\r\n\r\n\
                 {content}\r\n--a1 b2--\r\n",
            ),
            field.clone(),
            head("file", None, None),
        ),
        (
            "Java",
            "multipart/form-data; boundary=kTjx_Z-1; charset=ISO-8859-1",
            body(
                "--kTjx_Z-1\r\nContent-Disposition: form-data; name=\"key\"\r\n\
                 Content-Type: text/plain; charset=ISO-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n\r\nid/x\r\n\
                 --kTjx_Z-1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f?.jpg\"\r\n\
                 Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n\
                 {content}\r\n--kTjx_Z-1--\r\n",
            ),
            head("key", None, Some("text/plain; charset=ISO-8859-1")),
            head("file", Some("f?.jpg"), Some("application/octet-stream")),
        ),
        (
            ".NET",
            "multipart/form-data; boundary=\"6c1e-4a\"",
            body(
                "--6c1e-4a\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=key\r\n\r\n\
                 id/x\r\n--6c1e-4a\r\n\
                 Content-Disposition: form-data; name=file; filename=\"é.pdf\"; filename*=utf-8''%C3%A9.pdf\r\n\r\n\
                 {content}\r\n--6c1e-4a--\r\n",
            ),
            head("key", None, Some("text/plain; charset=utf-8")),
            head("file", Some("é.pdf"), None),
        ),
        (
            "Ruby",
            "multipart/form-data; boundary=-----------RubyMultipartPost-ab12",
            body(
                "-------------RubyMultipartPost-ab12\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nid/x\r\n\
                 -------------RubyMultipartPost-ab12\r\n\
                 Content-Disposition: form-data; name=\"file\"; filename=\"input.pdf\"\r\nContent-Length: 20\r\n\
                 Content-Type: application/pdf\r\nContent-Transfer-Encoding: binary\r\n\r\n\
                 {content}\r\n-------------RubyMultipartPost-ab12--",
            ),
            field,
            head("file", Some("input.pdf"), Some("application/pdf")),
        ),
    ]
}

#[test]
fn every_dialect_is_understood_whole_and_byte_by_byte() {
    for (client, content_type, body, field, file) in dialects() {
        let boundary = boundary(content_type).unwrap_or_else(|| panic!("{client}: no boundary"));
        let expected = vec![(field, b"id/x".to_vec()), (file, CONTENT.to_vec())];
        assert_eq!(read(vec![body.clone()], &boundary).unwrap(), expected, "{client}, whole");
        let bytes = body.iter().map(|&byte| vec![byte]).collect();
        assert_eq!(read(bytes, &boundary).unwrap(), expected, "{client}, byte by byte");
        for at in 0..body.len() {
            let (first, second) = body.split_at(at);
            let cut = read(vec![first.to_vec(), second.to_vec()], &boundary).unwrap();
            assert_eq!(cut, expected, "{client}, cut at {at}");
        }
    }
}

#[test]
fn a_body_that_ends_early_is_an_error_wherever_it_ends() {
    for (client, content_type, body, ..) in dialects() {
        let boundary = boundary(content_type).unwrap();
        let complete = body.strip_suffix(b"\r\n").unwrap_or(&body).len();
        for length in 0..complete - 1 {
            let read = read(vec![body[..length].to_vec()], &boundary);
            assert!(matches!(read, Err(Malformed::Ended)), "{client} cut to {length}: {read:?}");
        }
    }
}

#[test]
fn empty_parts_preambles_and_epilogues_are_fine() {
    let parts = read(
        vec![b"hello\r\n--B \r\ncontent-disposition: form-data; name=\"a\"\r\n\r\n\r\n--B--\r\nbye".to_vec()],
        "B",
    );
    assert_eq!(parts.unwrap(), [(head("a", None, None), Vec::new())]);
    assert!(read(vec![b"--B--".to_vec()], "B").unwrap().is_empty());
}

#[test]
fn heads_and_preambles_are_bounded() {
    let long = vec![b'x'; HEAD_BYTES_MAX * 2];
    assert!(matches!(read(vec![long.clone()], "B"), Err(Malformed::HeadTooLong)));
    let head = [b"--B\r\n".to_vec(), long].concat();
    assert!(matches!(read(vec![head], "B"), Err(Malformed::HeadTooLong)));
    let lines = [b"--B\r\n".to_vec(), b"a: b\r\n".repeat(HEAD_BYTES_MAX)].concat();
    assert!(matches!(read(vec![lines], "B"), Err(Malformed::HeadTooLong)));
}

#[test]
fn names_of_files_in_all_spellings() {
    for (value, expected) in [
        ("form-data; name=\"file\"; filename=\"a \\\"b\\\".pdf\"", Some("a \"b\".pdf")),
        ("form-data; name=\"file\"; filename=\"a %22b%22.pdf\"", Some("a \"b\".pdf")),
        ("form-data; name=\"file\"; filename=\"C:\\dir\\a.pdf\"", Some("C:\\dir\\a.pdf")),
        ("form-data; name=\"file\"; filename=\"a;b=c.pdf\"", Some("a;b=c.pdf")),
        ("form-data;name=\"file\";filename=a;b.pdf", Some("a;b.pdf")),
        ("form-data; filename=a.pdf; name=file", Some("a.pdf")),
        ("form-data; name=\"file\"; filename=\"\"", None),
        ("form-data; name=\"file\"; filename*=latin-1''x; filename=\"y\"", Some("y")),
        ("form-data; name=\"file\"; filename=\"100%25.pdf\"", Some("100%25.pdf")),
        ("form-data; name=\"file\"; filename=\"open", Some("open")),
    ] {
        let (name, filename) = disposition(value);
        assert_eq!((name.as_deref(), filename.as_deref()), (Some("file"), expected), "{value}");
    }
    assert_eq!(disposition("form-data"), (None, None));
}

#[test]
fn a_boundary_needs_the_right_type_and_length() {
    assert_eq!(boundary("Multipart/Form-Data; charset=x; BOUNDARY=b").as_deref(), Some("b"));
    assert_eq!(boundary("multipart/mixed; boundary=b"), None);
    assert_eq!(boundary("multipart/form-data"), None);
    assert_eq!(boundary("multipart/form-data; boundary="), None);
    assert_eq!(boundary(&format!("multipart/form-data; boundary={}", "b".repeat(71))), None);
}

proptest! {
    #[test]
    fn any_content_comes_back_however_it_is_cut(
        content in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'-'), Just(b'B'), any::<u8>()], 0..200),
        cuts in proptest::collection::vec(1_usize..40, 1..20),
    ) {
        prop_assume!(memchr::memmem::find(&content, b"\r\n--B").is_none());
        let body = [&b"--B\r\nContent-Disposition: form-data; name=f\r\n\r\n"[..], &content, b"\r\n--B--\r\n"].concat();
        let mut rest = body.as_slice();
        let mut pieces = Vec::new();
        for cut in cuts.into_iter().cycle() {
            if rest.is_empty() { break; }
            let (piece, after) = rest.split_at(cut.min(rest.len()));
            pieces.push(piece.to_vec());
            rest = after;
        }
        let parts = read(pieces, "B").unwrap();
        prop_assert_eq!(parts, vec![(head("f", None, None), content)]);
    }

    #[test]
    fn no_input_panics(body in proptest::collection::vec(any::<u8>(), 0..300), value in "\\PC{0,60}") {
        let _ = read(vec![b"--B\r\n".to_vec(), body], "B");
        let _ = disposition(&value);
        let _ = boundary(&value);
    }
}
