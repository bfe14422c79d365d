//! The proxy's faults, seen by a client of a server that sends back what it gets.
#![expect(clippy::disallowed_methods, reason = "the tests connect to loopback")]

use super::*;
use crate::bytes::pattern;

const PATIENCE: Duration = Duration::from_secs(20);
/// How long silence must last to be called a stall.
const SILENCE: Duration = Duration::from_millis(300);

async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (mut from, mut to) = stream.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
        }
    });
    addr
}

/// Sends `data`, closes that half and gives what came back, up to an end of any kind.
async fn talk(proxy: &Proxy, data: &[u8]) -> Vec<u8> {
    let (mut from, mut to) = TcpStream::connect(proxy.addr()).await.unwrap().into_split();
    let mut back = Vec::new();
    let write = async {
        to.write_all(data).await.ok();
        to.shutdown().await.ok();
    };
    let read = async { from.read_to_end(&mut back).await.ok() };
    tokio::time::timeout(PATIENCE, async { tokio::join!(write, read) }).await.unwrap();
    back
}

#[tokio::test]
async fn passes_all_bytes_and_counts_them() {
    let proxy = Proxy::start(echo_server().await).await.unwrap();
    let data = pattern(1, 1_000_000);
    assert_eq!(talk(&proxy, &data).await, data);
    assert_eq!((proxy.sent_bytes(), proxy.received_bytes(), proxy.connections()), (1_000_000, 1_000_000, 1));
}

#[tokio::test]
async fn cuts_after_so_many_bytes_and_only_once() {
    let proxy = Proxy::start(echo_server().await).await.unwrap();
    let data = pattern(2, 200_000);
    assert_eq!(talk(&proxy, &data).await, data);
    proxy.cut_after(100_001);
    let back = talk(&proxy, &data).await;
    assert!(back.len() <= 100_001 && data.starts_with(&back), "{} bytes came back", back.len());
    assert_eq!(proxy.sent_bytes(), 300_001);
    assert_eq!(talk(&proxy, &data).await, data);
}

#[tokio::test]
async fn a_cut_ends_all_connections() {
    let proxy = Proxy::start(echo_server().await).await.unwrap();
    let mut idle = TcpStream::connect(proxy.addr()).await.unwrap();
    idle.write_all(b"x").await.unwrap();
    idle.read_u8().await.unwrap();
    proxy.cut_after(0);
    assert_eq!(talk(&proxy, b"y").await, b"");
    let end = tokio::time::timeout(PATIENCE, idle.read_u8()).await.unwrap();
    assert!(end.is_err(), "{end:?}");
}

#[tokio::test]
async fn stalls_until_healed() {
    let proxy = Proxy::start(echo_server().await).await.unwrap();
    proxy.stall_after(70_000);
    let data = pattern(3, 200_000);
    let whole = talk(&proxy, &data);
    tokio::pin!(whole);
    assert!(tokio::time::timeout(SILENCE, &mut whole).await.is_err());
    assert_eq!(proxy.sent_bytes(), 70_000);
    proxy.heal();
    assert_eq!(whole.await, data);
}

#[tokio::test]
async fn stalls_what_comes_back_until_healed() {
    let proxy = Proxy::start(echo_server().await).await.unwrap();
    proxy.stall_after_receiving(70_000);
    let data = pattern(3, 200_000);
    let whole = talk(&proxy, &data);
    tokio::pin!(whole);
    assert!(tokio::time::timeout(SILENCE, &mut whole).await.is_err());
    assert!((70_000..200_000).contains(&proxy.received_bytes()), "{}", proxy.received_bytes());
    proxy.heal();
    assert_eq!(whole.await, data);
}

#[tokio::test]
async fn what_was_held_back_when_it_was_cut_is_never_sent() {
    let proxy = Proxy::start(echo_server().await).await.unwrap();
    let mut stalled = proxy.shared.stalled.subscribe();
    // If it were sent by chance, it would be at one of these.
    for _ in 0..20 {
        proxy.stall_after(0);
        let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
        client.write_all(b"held").await.unwrap();
        tokio::time::timeout(PATIENCE, stalled.wait_for(|stalled| *stalled)).await.unwrap().unwrap();
        proxy.cut();
        proxy.heal();
        let mut back = Vec::new();
        tokio::time::timeout(PATIENCE, client.read_to_end(&mut back)).await.unwrap().ok();
        assert_eq!((proxy.sent_bytes(), back.len()), (0, 0));
    }
}

#[tokio::test]
async fn flips_one_bit_once() {
    let proxy = Proxy::start(echo_server().await).await.unwrap();
    proxy.flip_bit_at(50_000);
    let data = pattern(4, 100_000);
    let back = talk(&proxy, &data).await;
    let different: Vec<_> = (0..data.len()).filter(|&i| back[i] != data[i]).collect();
    assert_eq!(different, [50_000]);
    assert_eq!((back[50_000] ^ data[50_000]).count_ones(), 1);
    assert_eq!(talk(&proxy, &data).await, data);
}

#[tokio::test]
async fn refuses_and_accepts_again() {
    let proxy = Proxy::start(echo_server().await).await.unwrap();
    proxy.refuse().await.unwrap();
    let refused = TcpStream::connect(proxy.addr()).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    proxy.accept().await.unwrap();
    assert_eq!(talk(&proxy, b"hello").await, b"hello");
}

#[tokio::test]
async fn delays_each_piece() {
    let proxy = Proxy::start(echo_server().await).await.unwrap();
    proxy.delay(SILENCE);
    let started = std::time::Instant::now();
    assert_eq!(talk(&proxy, b"hello").await, b"hello");
    assert!(started.elapsed() >= SILENCE);
}
