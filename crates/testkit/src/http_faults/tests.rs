//! The HTTP faults, seen by a client and a server that keep the bytes they get.
#![expect(clippy::disallowed_methods, reason = "the tests connect to loopback")]

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::or_skip;

type Seen = Arc<Mutex<Vec<u8>>>;

/// A server that answers every request with `hello`, in chunks when the path says so, and keeps all bytes.
async fn server() -> (SocketAddr, Seen) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let seen = Seen::default();
    let keep = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let keep = Arc::clone(&keep);
            tokio::spawn(async move {
                let mut peer = Peer::new(stream).unwrap();
                while let Ok(Some(head)) = read_head(&mut peer.from).await {
                    let mut body = Vec::new();
                    if head.header("expect").is_some() {
                        peer.to.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
                    }
                    copy_body(&mut peer.from, &mut body, head.request_body().unwrap()).await.unwrap();
                    keep.lock().unwrap().extend([head.bytes(), &body].concat());
                    let answer: &[u8] = match head.method_and_path() {
                        ("HEAD", _) => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                        (_, "/chunked") => {
                            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nT: v\r\n\r\n"
                        }
                        _ => b"HTTP/1.1 200 OK\r\nCoNtEnT-length: 5\r\n\r\nhello",
                    };
                    peer.to.write_all(answer).await.unwrap();
                }
            });
        }
    });
    (addr, seen)
}

/// Sends the bytes on one connection and gives all that came back.
async fn talk(addr: SocketAddr, requests: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(requests).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut back)).await.unwrap().ok();
    String::from_utf8(back).unwrap()
}

fn get(number: u32) -> String {
    format!("GET /{number} HTTP/1.1\r\nHost: x\r\n\r\n")
}

#[tokio::test]
async fn a_header_can_be_added_on_the_way() {
    let (addr, seen) = server().await;
    let faults = HttpFaults::start(addr).await.unwrap();
    faults.rule(|_| Action::PassWith("X-Added: yes"));
    let back = talk(faults.addr(), get(1).as_bytes()).await;
    assert!(back.ends_with("hello"), "{back}");
    assert_eq!(*seen.lock().unwrap(), b"GET /1 HTTP/1.1\r\nHost: x\r\nX-Added: yes\r\n\r\n");
}

#[tokio::test]
async fn a_text_in_answers_is_replaced_by_one_of_the_same_length() {
    let (addr, _) = server().await;
    let faults = HttpFaults::start(addr).await.unwrap();
    faults.rule(|_| Action::Replace("l", "L"));
    let back = talk(faults.addr(), get(1).as_bytes()).await;
    assert!(back.contains("CoNtEnT-length: 5") && back.ends_with("heLLo"), "{back}");
    let back = talk(faults.addr(), b"GET /chunked HTTP/1.1\r\n\r\n").await;
    assert!(back.ends_with("2\r\nhe\r\n3;x=y\r\nLLo\r\n0\r\nT: v\r\n\r\n"), "{back}");
    faults.rule(|_| Action::Replace("hello", "hi"));
    assert!(talk(faults.addr(), get(1).as_bytes()).await.ends_with("hello"), "lengths were told");
}

#[tokio::test]
async fn passes_requests_and_answers_byte_for_byte() {
    let (addr, seen) = server().await;
    let faults = HttpFaults::start(addr).await.unwrap();
    let requests = "PUT /a%20b?x=1&y HTTP/1.1\r\nhOST:  signed.example \r\nContent-Length: 4\r\n\r\nbody\
        HEAD /h HTTP/1.1\r\n\r\n\
        POST /chunked HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
        PUT /e HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nz"
        .as_bytes();
    let direct = talk(addr, requests).await;
    let seen_directly = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(talk(faults.addr(), requests).await, direct);
    assert_eq!(*seen.lock().unwrap(), seen_directly);
    assert_eq!(seen_directly, requests);
    let log: Vec<_> = faults.requests().into_iter().map(|r| (r.method, r.path, r.status)).collect();
    let line = |method: &str, path: &str| (method.to_owned(), path.to_owned(), Some(200));
    let expected = [line("PUT", "/a%20b?x=1&y"), line("HEAD", "/h"), line("POST", "/chunked"), line("PUT", "/e")];
    assert_eq!(log, expected);
    assert_eq!(faults.requests()[0].header("host"), Some("signed.example"));
}

#[tokio::test]
async fn throttles_every_third_request() {
    let (addr, seen) = server().await;
    let faults = HttpFaults::start(addr).await.unwrap();
    faults.answer_every(3, 503, Some(7));
    let back = talk(faults.addr(), (1..=6).map(get).collect::<String>().as_bytes()).await;
    let statuses: Vec<_> = faults.requests().iter().map(|request| request.status.unwrap()).collect();
    assert_eq!(statuses, [200, 200, 503, 200, 200, 503]);
    assert_eq!(back.matches("Retry-After: 7\r\n").count(), 2);
    assert_eq!(back.matches("hello").count(), 4);
    let seen = String::from_utf8(seen.lock().unwrap().clone()).unwrap();
    assert!(!seen.contains("GET /3 ") && seen.contains("GET /4 "), "{seen}");
    faults.heal();
    assert_eq!(talk(faults.addr(), get(9).as_bytes()).await.matches("hello").count(), 1);
}

#[tokio::test]
async fn loses_the_answer_of_a_request_that_was_done() {
    let (addr, seen) = server().await;
    let faults = HttpFaults::start(addr).await.unwrap();
    faults.drop_answer_of(2);
    let back = talk(faults.addr(), (1..=3).map(get).collect::<String>().as_bytes()).await;
    assert_eq!(back.matches("hello").count(), 1);
    assert!(String::from_utf8(seen.lock().unwrap().clone()).unwrap().ends_with(&get(2)));
    assert_eq!(faults.requests()[1].status, None);
}

#[tokio::test]
async fn drops_a_request_before_it_is_done() {
    let (addr, seen) = server().await;
    let faults = HttpFaults::start(addr).await.unwrap();
    faults.rule(|request| if request.path == "/2" { Action::Drop } else { Action::Pass });
    assert_eq!(talk(faults.addr(), get(2).as_bytes()).await, "");
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn ceph_accepts_signed_requests_that_came_through() {
    let Some(ceph) = or_skip(crate::ceph().await) else { return };
    ceph.create_bucket("testkit-faults").await.unwrap();
    let faults = HttpFaults::start(ceph.addr()).await.unwrap();
    let mut through = ceph.clone();
    through.endpoint = faults.endpoint();
    let put = "s3.put_object(Bucket='testkit-faults', Key='x', Body=b'x' * 3_000_000)";
    through.s3api(put).await.unwrap();
    faults.answer_every(1, 503, None);
    let error = through.s3api(put).await.unwrap_err().to_string();
    assert!(error.contains("SlowDown"), "{error}");
    assert!(faults.requests().iter().all(|r| r.method == "PUT" && r.path == "/testkit-faults/x"));
}
