//! Where the tests deliver to and import from: a bucket, a folder behind SSH, a slow web server.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Ceph, Key, Sshd, bytes, or_skip};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use super::harness::eventually;

/// How long the abort of an upload may take, some tries and their pauses included.
const TIDIED_WITHIN: Duration = Duration::from_mins(1);

/// An empty bucket of the Ceph gateway.
pub(crate) struct Bucket {
    pub(crate) ceph: Ceph,
    name: String,
}

impl Bucket {
    pub(crate) async fn empty(name: &str) -> Option<Self> {
        let ceph = or_skip(testkit::ceph().await)?;
        let empty = format!(
            "
s3.create_bucket(Bucket={name:?})
for found in s3.list_objects_v2(Bucket={name:?}).get('Contents', []):
    s3.delete_object(Bucket={name:?}, Key=found['Key'])
for found in s3.list_multipart_uploads(Bucket={name:?}).get('Uploads', []):
    s3.abort_multipart_upload(Bucket={name:?}, Key=found['Key'], UploadId=found['UploadId'])"
        );
        or_skip(ceph.s3api(&empty).await)?;
        Some(Self { ceph, name: name.to_owned() })
    }

    /// A task that delivers into it, through the proxy at `addr`.
    pub(crate) fn task(&self, addr: SocketAddr, key: &str, input: &str) -> Value {
        json!({
            "operation": "export/s3", "input": input, "bucket": self.name, "region": self.ceph.region, "key": key,
            "endpoint": format!("http://{addr}"), "access_key_id": self.ceph.account.access_key_id,
            "secret_access_key": self.ceph.account.secret_access_key,
        })
    }

    /// SHA-256 of every object by its key, as boto3 reads them.
    pub(crate) async fn objects(&self) -> Value {
        let script = format!(
            "
result = {{}}
for found in s3.list_objects_v2(Bucket={0:?}).get('Contents', []):
    body = s3.get_object(Bucket={0:?}, Key=found['Key'])['Body'].read()
    result[found['Key']] = hashlib.sha256(body).hexdigest()",
            self.name
        );
        self.ceph.s3api(&script).await.unwrap()
    }

    /// Uploads that are open in it.
    pub(crate) async fn open_uploads(&self) -> usize {
        let script = format!("result = len(s3.list_multipart_uploads(Bucket={:?}).get('Uploads', []))", self.name);
        usize::try_from(self.ceph.s3api(&script).await.unwrap().as_u64().unwrap()).unwrap()
    }

    /// Waits until no upload is open in it.
    pub(crate) async fn is_tidied(&self) {
        let tidied = eventually("an end of all uploads", async || (self.open_uploads().await == 0).then_some(()));
        tokio::time::timeout(TIDIED_WITHIN, tidied).await.expect("uploads are aborted in time");
    }

    /// Waits until an upload is open in it.
    pub(crate) async fn has_open_upload(&self) {
        eventually("an open upload", async || (self.open_uploads().await > 0).then_some(())).await;
    }
}

/// An empty folder behind the OpenSSH server.
pub(crate) struct Folder {
    pub(crate) sshd: Sshd,
    pub(crate) path: PathBuf,
}

impl Folder {
    pub(crate) async fn empty(name: &str) -> Option<Self> {
        let sshd = or_skip(testkit::sshd().await)?;
        let path = sshd.folder(name).unwrap();
        Some(Self { sshd, path })
    }

    /// A task that delivers into it, through the proxy at `addr`.
    pub(crate) fn task(&self, addr: SocketAddr, input: &str) -> Value {
        json!({
            "operation": "export/sftp", "input": input, "host": addr.ip().to_string(), "port": addr.port(),
            "username": self.sshd.user(), "private_key": self.sshd.key(Key::Ed25519).unwrap(), "path": self.path,
        })
    }

    pub(crate) fn names(&self) -> BTreeSet<String> {
        let entries = std::fs::read_dir(&self.path).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

/// A web server that gives one large file, as slowly as it is told.
pub(crate) struct Source {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: JoinHandle<()>,
}

struct Shared {
    seed: u64,
    size: u64,
    sent: AtomicU64,
    pause_ms: AtomicU64,
}

impl Source {
    /// Serves the pattern of `seed`.
    pub(crate) async fn start(seed: u64, size: usize) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { seed, size: size as u64, sent: AtomicU64::new(0), pause_ms: AtomicU64::new(0) });
        let serving = Arc::clone(&shared);
        let acceptor = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                connections.spawn(async move { give(stream, &shared).await.ok() });
            }
        });
        Self { addr, shared, acceptor }
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.addr)
    }

    /// Pauses before every 64 KiB.
    pub(crate) fn pause(&self, each: Duration) {
        self.shared.pause_ms.store(u64::try_from(each.as_millis()).unwrap(), Ordering::Relaxed);
    }

    /// Bytes sent over all connections.
    pub(crate) fn sent_bytes(&self) -> u64 {
        self.shared.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn give(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", shared.size);
    stream.write_all(answer.as_bytes()).await?;
    let mut piece = vec![0; 64 * 1024];
    let mut offset = 0;
    while offset < shared.size {
        sleep(Duration::from_millis(shared.pause_ms.load(Ordering::Relaxed))).await;
        let length = piece.len().min(usize::try_from(shared.size - offset).unwrap());
        bytes::fill(shared.seed, offset, &mut piece[..length]);
        stream.write_all(&piece[..length]).await?;
        offset += length as u64;
        shared.sent.fetch_add(length as u64, Ordering::Relaxed);
    }
    stream.shutdown().await
}

/// What a request to a [`Held`] server gets.
#[derive(Clone, Copy)]
pub(crate) struct Answer {
    pub(crate) seed: u64,
    pub(crate) size: usize,
    /// The connection breaks before this byte.
    pub(crate) breaks_at: Option<usize>,
}

/// A web server that lets so many bytes of each answer through, until it is told to let more.
pub(crate) struct Held {
    addr: SocketAddr,
    allowed: watch::Sender<usize>,
    acceptor: JoinHandle<()>,
}

impl Held {
    /// Gives the answers in turn, the last one again and again; of each the first `allowed` bytes at once.
    pub(crate) async fn start(allowed: usize, answers: &[Answer]) -> Self {
        // Another host than those of the destinations: what is bounded by host must not add up.
        let listener = TcpListener::bind(("127.0.0.2", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let allowed = watch::Sender::new(allowed);
        let (answers, seen): (Arc<[Answer]>, _) = (answers.into(), allowed.subscribe());
        let acceptor = tokio::spawn(async move {
            let (mut connections, asked) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, asked, seen) = (Arc::clone(&answers), Arc::clone(&asked), seen.clone());
                connections.spawn(async move { give_some(stream, &answers, &asked, seen).await.ok() });
            }
        });
        Self { addr, allowed, acceptor }
    }

    /// A task that imports from it.
    pub(crate) fn import(&self) -> Value {
        json!({"operation": "import/url", "url": format!("http://{}/big.bin", self.addr)})
    }

    /// Lets everything through.
    pub(crate) fn release(&self) {
        self.allowed.send_replace(usize::MAX);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn give_some(
    mut stream: TcpStream,
    answers: &[Answer],
    asked: &AtomicUsize,
    mut allowed: watch::Receiver<usize>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let answer = answers[asked.fetch_add(1, Ordering::Relaxed).min(answers.len() - 1)];
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", answer.size);
    stream.write_all(head.as_bytes()).await?;
    let mut piece = vec![0; 64 * 1024];
    let mut offset = 0;
    let end = answer.breaks_at.unwrap_or(answer.size);
    while offset < end {
        let length = piece.len().min(end - offset);
        allowed.wait_for(|allowed| *allowed >= offset + length).await.map_err(std::io::Error::other)?;
        bytes::fill(answer.seed, offset as u64, &mut piece[..length]);
        stream.write_all(&piece[..length]).await?;
        offset += length;
    }
    stream.shutdown().await
}
