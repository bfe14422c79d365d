//! SFTP against OpenSSH.

mod keeps;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connectors::contract;
use connectors::egress::Guard;
use connectors::memory::{MemoryJournal, MemorySource};
use connectors::sftp::{Config, Sftp};
use connectors::{Connector as _, Error, Kind, Limits, Progress, Secret};
use testkit::proxy::Proxy;

use testkit::{Key, Sshd, or_skip};

const MIB: usize = 1024 * 1024;

fn limits() -> Limits {
    Limits { part_bytes: MIB as u64, tries: 1, ..Limits::default() }
}

fn config(sshd: &Sshd, addr: SocketAddr) -> Config {
    Config {
        host: addr.ip().to_string(),
        port: addr.port(),
        username: sshd.user().to_owned(),
        password: None,
        private_key: Some(Secret::new(sshd.key(Key::Ed25519).unwrap())),
        host_key: None,
        limits: limits(),
    }
}

fn connector(config: Config) -> Sftp {
    Sftp::new(config, guard()).unwrap()
}

/// Lets connections to this machine through.
fn guard() -> Guard {
    Guard::new(["127.0.0.0/8".parse().unwrap()])
}

fn source(length: usize, seed: u64) -> Arc<MemorySource> {
    Arc::new(MemorySource::new(contract::bytes(length, seed)))
}

/// Names of the files in a folder, hidden ones too.
fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

async fn login(config: Config) -> Result<(), Error> {
    connector(config).list("", 10_000).await.map(drop)
}

fn assert_no_temporary_files(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        assert!(!path.to_string_lossy().contains(".consign-"), "{} is left over", path.display());
        if path.is_dir() {
            assert_no_temporary_files(&path);
        }
    }
}

#[tokio::test]
async fn every_key_format_logs_in() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    for key in Key::PLAIN {
        let text = sshd.key(key).unwrap();
        for text in [text.replace('\n', "\r\n"), text.replace('\n', "\\n"), text] {
            let config = Config { private_key: Some(Secret::new(text)), ..config(&sshd, sshd.addr()) };
            login(config).await.unwrap_or_else(|error| panic!("{key:?}: {error:?}"));
        }
    }
}

#[tokio::test]
async fn encrypted_keys_are_refused_with_a_reason() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    for key in [Key::Ed25519Encrypted, Key::RsaPkcs1Encrypted] {
        let config = Config { private_key: Some(Secret::new(sshd.key(key).unwrap())), ..config(&sshd, sshd.addr()) };
        let error = Sftp::new(config, Guard::new([])).expect_err("an encrypted key");
        assert_eq!(error.kind, Kind::InvalidCredentials);
        assert!(error.detail.contains("without a passphrase"), "{error:?}");
    }
}

#[tokio::test]
async fn passwords_log_in_both_ways() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let Some(password) = or_skip(sshd.password()) else { return };
    for addr in [sshd.addr(), sshd.addr_keyboard_interactive()] {
        let right = Config { password: Some(Secret::new(password)), private_key: None, ..config(&sshd, addr) };
        login(right.clone()).await.unwrap();
        let beside_a_wrong_key =
            Config { private_key: Some(Secret::new(sshd.key(Key::Unknown).unwrap())), ..right.clone() };
        login(beside_a_wrong_key).await.unwrap();
        let wrong = Config { password: Some(Secret::new("canary-hunter2")), ..right };
        let error = login(wrong).await.expect_err("a wrong password");
        assert_eq!(error.kind, Kind::InvalidCredentials, "{error:?}");
        assert!(!error.is_transient());
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        assert!(error.detail.contains("did not accept the password"), "{error:?}");
    }
}

#[tokio::test]
async fn a_refusal_says_what_the_server_accepts() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let unknown = Secret::new(sshd.key(Key::Unknown).unwrap());
    let error = login(Config { private_key: Some(unknown), ..config(&sshd, sshd.addr()) }).await.expect_err("refused");
    assert_eq!(error.kind, Kind::InvalidCredentials, "{error:?}");
    assert!(error.detail.contains("private key") && error.detail.contains("publickey"), "{error:?}");
    let Some(_) = or_skip(sshd.password()) else { return };
    let error = login(config(&sshd, sshd.addr_keyboard_interactive())).await.expect_err("a key is not asked for");
    assert_eq!(error.kind, Kind::InvalidCredentials, "{error:?}");
    assert!(error.detail.contains("keyboard-interactive"), "{error:?}");
}

#[tokio::test]
async fn a_refused_account_is_not_asked_again() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let proxy = Proxy::start(sshd.addr()).await.unwrap();
    let unknown = Secret::new(sshd.key(Key::Unknown).unwrap());
    let connector = connector(Config { private_key: Some(unknown), ..config(&sshd, proxy.addr()) });
    for _ in 0..3 {
        assert_eq!(connector.stat("x").await.map_err(|error| error.kind), Err(Kind::InvalidCredentials));
    }
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn the_host_key_can_be_insisted_on() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    for fingerprint in sshd.fingerprints() {
        let config = Config { host_key: Some(fingerprint.clone()), ..config(&sshd, sshd.addr()) };
        login(config).await.unwrap_or_else(|error| panic!("{fingerprint}: {error:?}"));
    }
    let other = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILM+rvN+ot98qgEN796jTiQfZfG1KaT0PtFDJ/XFSqti";
    for wrong in [other, key] {
        let config = Config { host_key: Some(wrong.to_owned()), ..config(&sshd, sshd.addr()) };
        let error = login(config).await.expect_err("another host key");
        assert_eq!(error.kind, Kind::HostKeyMismatch, "{error:?}");
        assert!(error.detail.contains(&sshd.fingerprints()[0]), "{error:?}");
    }
}

#[tokio::test]
async fn the_receipt_names_place_and_host_key() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let connector = connector(config(&sshd, sshd.addr()));
    let folder = sshd.folder("receipt").unwrap();
    let relative = format!("{}/new/ü b.txt", folder.file_name().unwrap().to_str().unwrap());
    let receipt = contract::put(&connector, &relative, &source(10, 1)).await.unwrap();
    let place = folder.join("new/ü b.txt");
    assert_eq!(receipt.location, format!("sftp://{}{}", sshd.addr(), place.display()));
    assert!(sshd.fingerprints().contains(receipt.host_key.as_ref().unwrap()));
    assert_eq!((receipt.verified.as_str(), receipt.note), ("size", None));
    assert_eq!(fs::read(place).unwrap(), contract::bytes(10, 1));
    assert_eq!(files(&folder.join("new")), ["ü b.txt"]);
}

#[tokio::test]
async fn what_the_user_may_not_do_is_said() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let connector = connector(config(&sshd, sshd.addr()));
    let denied = sshd.denied().display().to_string();
    for name in [format!("{denied}/x"), format!("{denied}/new/x")] {
        let error = contract::put(&connector, &name, &source(10, 1)).await.expect_err("a denied folder");
        assert_eq!(error.kind, Kind::AccessDenied, "{error:?}");
        assert!(error.detail.contains(sshd.user()) && error.detail.contains(&denied), "{error:?}");
        assert!(!error.is_transient());
    }
    let folder = sshd.folder("in-the-way").unwrap();
    fs::write(folder.join("file"), "x").unwrap();
    fs::create_dir(folder.join("directory")).unwrap();
    let below = contract::put(&connector, &format!("{}/file/x", folder.display()), &source(10, 1)).await;
    let below = below.expect_err("a file is in the way");
    assert_eq!(below.kind, Kind::InvalidRequest, "{below:?}");
    let onto = contract::put(&connector, &format!("{}/directory", folder.display()), &source(10, 1)).await;
    let onto = onto.expect_err("a directory is in the way");
    assert_eq!(onto.kind, Kind::InvalidRequest, "{onto:?}");
    let nowhere = connector.list(&format!("{}/missing", folder.display()), 10).await.expect_err("no such directory");
    assert_eq!(nowhere.kind, Kind::ContainerNotFound, "{nowhere:?}");
    assert_eq!(connector.stat(&format!("{}/directory", folder.display())).await.unwrap_err().kind, Kind::NotFound);
}

/// Replaces a file over and over while a reader looks: it must see one of the two whole files each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_sees_the_old_file_or_the_new_one() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let connector = connector(config(&sshd, sshd.addr()));
    let target = sshd.folder("atomic").unwrap().join("file");
    let name = target.display().to_string();
    let contents = [source(3 * MIB, 1), source(MIB, 2)];
    contract::put(&connector, &name, &contents[0]).await.unwrap();
    let expected = [contents[0].bytes().clone(), contents[1].bytes().clone()];
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let reader = std::thread::spawn(move || {
        let mut seen = [0_u32; 2];
        while stopped.try_recv() != Err(std::sync::mpsc::TryRecvError::Disconnected) {
            let found = fs::read(&target).expect("there is always a file");
            let which = expected.iter().position(|bytes| *bytes == found).expect("it is always whole");
            seen[which] += 1;
        }
        seen
    });
    for round in 0..10 {
        contract::put(&connector, &name, &contents[(round + 1) % 2]).await.unwrap();
    }
    drop(stop);
    let seen = reader.join().unwrap();
    assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
}

#[tokio::test]
async fn without_posix_rename_files_are_replaced_in_steps() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let connector = connector(config(&sshd, sshd.addr_no_posix_rename()));
    let folder = sshd.folder("steps").unwrap();
    let name = folder.join("file").display().to_string();
    let first = contract::put(&connector, &name, &source(100, 1)).await.unwrap();
    assert_eq!(first.note, None);
    let second = contract::put(&connector, &name, &source(200, 2)).await.unwrap();
    assert!(second.note.as_ref().is_some_and(|note| note.contains("one step")), "{second:?}");
    assert_eq!(fs::read(&name).unwrap(), contract::bytes(200, 2));
    assert_eq!(files(&folder), ["file"]);
}

/// A crash between the two renames of a replacement: the old file stands aside, the new one still has its temporary name.
#[tokio::test]
async fn a_replacement_that_broke_off_is_put_right() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let connector = connector(config(&sshd, sshd.addr_no_posix_rename()));
    for resumes in [false, true] {
        let folder = sshd.folder("broke-off").unwrap();
        let target = folder.join("file");
        let name = target.display().to_string();
        contract::put(&connector, &name, &source(100, 1)).await.unwrap();
        let (data, journal) = (contract::bytes(3 * MIB, 2), Arc::new(MemoryJournal::default()));
        let failing = Arc::new(MemorySource::new(data.clone()).failing_from(2 * MIB as u64));
        let put = contract::request(&name, &failing, &journal, &Progress::default(), None);
        assert_eq!(connector.put(put).await.unwrap_err().kind, Kind::Local);
        let open = journal.open(&name).unwrap();
        fs::rename(&target, open.handle.replace(".part", ".old")).unwrap();
        if resumes {
            let whole = Arc::new(MemorySource::new(data.clone()));
            let put = contract::request(&name, &whole, &journal, &Progress::default(), Some(open));
            connector.put(put).await.unwrap();
            assert_eq!(fs::read(&target).unwrap(), data);
        } else {
            connector.abort(&open).await.unwrap();
            assert_eq!(fs::read(&target).unwrap(), contract::bytes(100, 1));
        }
        assert_eq!(files(&folder), ["file"]);
    }
}

#[tokio::test]
async fn a_cut_connection_is_resumed_by_the_next_put() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let proxy = Proxy::start(sshd.addr()).await.unwrap();
    let connector = connector(config(&sshd, proxy.addr()));
    let folder = sshd.folder("cut").unwrap();
    let name = folder.join("file").display().to_string();
    let size = 40 * MIB;
    let (whole, journal, progress) = (source(size, 3), Arc::new(MemoryJournal::default()), Progress::default());
    proxy.cut_after(size as u64 / 2);
    let put = contract::request(&name, &whole, &journal, &progress, None);
    let error = connector.put(put).await.expect_err("the connection is cut");
    assert_eq!(error.kind, Kind::Unreachable, "{error:?}");
    assert!(error.is_transient());
    assert_eq!(files(&folder).len(), 1, "the file has its temporary name");
    assert!(!folder.join("file").exists());
    let open = journal.open(&name).unwrap();
    let recorded: u64 = open.parts.values().map(|part| part.size).sum();
    assert!(recorded > 0);
    let before = proxy.sent_bytes();
    let put = contract::request(&name, &whole, &journal, &Progress::default(), Some(open));
    connector.put(put).await.unwrap();
    let sent = proxy.sent_bytes() - before;
    let missing = size as u64 - recorded;
    assert!(sent < missing + missing / 10 + MIB as u64, "{sent} bytes were sent, {missing} were missing");
    assert!(fs::read(&name).unwrap() == *whole.bytes());
    assert_eq!(files(&folder), ["file"]);
}

#[tokio::test]
async fn a_put_survives_a_cut_and_a_flipped_bit() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let proxy = Proxy::start(sshd.addr()).await.unwrap();
    let patient = Config { limits: Limits { tries: 4, ..limits() }, ..config(&sshd, proxy.addr()) };
    let connector = connector(patient);
    let folder = sshd.folder("survives").unwrap();
    let whole = source(30 * MIB, 4);
    proxy.cut_after(10 * MIB as u64);
    contract::put(&connector, &folder.join("cut").display().to_string(), &whole).await.unwrap();
    assert!(fs::read(folder.join("cut")).unwrap() == *whole.bytes());
    assert_eq!(proxy.connections(), 2);
    proxy.flip_bit_at(10 * MIB as u64);
    contract::put(&connector, &folder.join("flipped").display().to_string(), &whole).await.unwrap();
    assert!(fs::read(folder.join("flipped")).unwrap() == *whole.bytes());
    assert_eq!(proxy.connections(), 3);
    assert_eq!(files(&folder), ["cut", "flipped"]);
}

#[tokio::test]
async fn silence_ends_in_a_timeout() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let proxy = Proxy::start(sshd.addr()).await.unwrap();
    let limits = Limits { idle_timeout: Duration::from_secs(2), ..limits() };
    let connector = connector(Config { limits, ..config(&sshd, proxy.addr()) });
    let folder = sshd.folder("stall").unwrap();
    proxy.stall_after(5 * MIB as u64);
    let begun = Instant::now();
    let name = folder.join("file").display().to_string();
    let error = contract::put(&connector, &name, &source(20 * MIB, 5)).await.expect_err("nothing moves");
    assert_eq!(error.kind, Kind::Timeout, "{error:?}");
    assert!(error.is_transient());
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    proxy.heal();
    contract::put(&connector, &name, &source(MIB, 5)).await.unwrap();
}

#[tokio::test]
async fn a_silent_host_ends_in_a_timeout() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let proxy = Proxy::start(sshd.addr()).await.unwrap();
    proxy.stall_after(0);
    let limits = Limits { connect_timeout: Duration::from_secs(1), ..limits() };
    let error = login(Config { limits, ..config(&sshd, proxy.addr()) }).await.expect_err("nobody answers");
    assert_eq!(error.kind, Kind::Timeout, "{error:?}");
}

#[tokio::test]
async fn a_slow_line_is_no_timeout() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let proxy = Proxy::start(sshd.addr()).await.unwrap();
    let limits = Limits { idle_timeout: Duration::from_secs(2), ..limits() };
    let connector = connector(Config { limits, ..config(&sshd, proxy.addr()) });
    let folder = sshd.folder("slow").unwrap();
    connector.list("", 10_000).await.unwrap();
    // 8 MiB in pieces of 16 KiB, 10 ms each: 5 s in all, each packet waiting longer than the timeout for its turn.
    proxy.delay(Duration::from_millis(10));
    let begun = Instant::now();
    contract::put(&connector, &folder.join("file").display().to_string(), &source(8 * MIB, 6)).await.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(4), "it was not slow: {:?}", begun.elapsed());
}

/// Cancelling drops the future wherever it stands; what was opened is in the journal, and `abort` finds it.
#[tokio::test]
async fn a_cancelled_put_leaves_nothing_after_abort() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let proxy = Proxy::start(sshd.addr()).await.unwrap();
    let connector = connector(config(&sshd, proxy.addr()));
    let folder = sshd.folder("cancelled").unwrap();
    let name = folder.join("file").display().to_string();
    contract::put(&connector, &name, &source(10, 1)).await.unwrap();
    proxy.delay(Duration::from_millis(5));
    let journal = Arc::new(MemoryJournal::default());
    let put = contract::request(&name, &source(20 * MIB, 7), &journal, &Progress::default(), None);
    tokio::time::timeout(Duration::from_millis(500), connector.put(put)).await.expect_err("it takes longer");
    proxy.heal();
    let open = journal.open(&name).unwrap();
    assert_eq!(files(&folder).len(), 2, "the temporary file stands beside the old one");
    connector.abort(&open).await.unwrap();
    assert_eq!(files(&folder), ["file"]);
    assert_eq!(fs::read(&name).unwrap(), contract::bytes(10, 1));
    // The session went through all this and is still of use.
    contract::put(&connector, &name, &source(30, 8)).await.unwrap();
    assert_eq!((fs::read(&name).unwrap(), proxy.connections()), (contract::bytes(30, 8).to_vec(), 1));
}

#[tokio::test]
async fn three_hundred_files_log_in_once() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let proxy = Proxy::start(sshd.addr()).await.unwrap();
    let connector = Arc::new(connector(config(&sshd, proxy.addr())));
    let folder = sshd.folder("many").unwrap();
    let mut puts = tokio::task::JoinSet::new();
    for number in 0..300_usize {
        let connector = Arc::clone(&connector);
        let name = folder.join(format!("made/by/{:02}/{number}", number % 10)).display().to_string();
        puts.spawn(async move { contract::put(connector.as_ref(), &name, &source(number, number as u64)).await });
    }
    while let Some(done) = puts.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(proxy.connections(), 1);
    for number in 0..300_usize {
        let path = folder.join(format!("made/by/{:02}/{number}", number % 10));
        assert_eq!(fs::read(path).unwrap(), contract::bytes(number, number as u64));
    }
    assert_no_temporary_files(&folder);
}

#[tokio::test]
async fn listings_follow_links_and_skip_the_rest() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let connector = connector(config(&sshd, sshd.addr()));
    let folder = sshd.folder("listing").unwrap();
    fs::create_dir(folder.join("directory")).unwrap();
    fs::write(folder.join("b"), "bb").unwrap();
    fs::write(folder.join(".hidden"), "h").unwrap();
    fs::write(folder.join(".b.consign-0123abcd.part"), "b").unwrap();
    for (link, to) in [("a-link", "b"), ("nowhere", "missing"), ("to-directory", "directory")] {
        std::os::unix::fs::symlink(to, folder.join(link)).unwrap();
    }
    let prefix = folder.display().to_string();
    let found = connector.list(&prefix, 3).await.unwrap();
    let found: Vec<_> = found.iter().map(|object| (object.name.strip_prefix(&prefix).unwrap(), object.size)).collect();
    assert_eq!(found, [("/.hidden", 1), ("/a-link", 2), ("/b", 2)]);
    assert_eq!(connector.list(&prefix, 2).await.unwrap_err().kind, Kind::TooMany);
}

#[tokio::test]
async fn what_is_no_ssh_server_is_said() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.ok();
    });
    let config = Config { port: addr.port(), ..config_without_server() };
    let error = login(config.clone()).await.expect_err("no SSH server");
    assert!(matches!(error.kind, Kind::Protocol | Kind::Unreachable), "{error:?}");
    server.await.unwrap();
    let refused = login(config).await.expect_err("nobody listens any more");
    assert_eq!(refused.kind, Kind::Unreachable, "{refused:?}");
    let blocked = Config { host: "10.0.0.1".to_owned(), ..config_without_server() };
    let error = Sftp::new(blocked, Guard::new([])).unwrap().list("", 1).await.expect_err("not allowed");
    assert_eq!(error.kind, Kind::HostNotAllowed, "{error:?}");
}

fn config_without_server() -> Config {
    Config {
        host: "127.0.0.1".to_owned(),
        port: 22,
        username: "user".to_owned(),
        password: Some(Secret::new("canary")),
        private_key: None,
        host_key: None,
        limits: limits(),
    }
}

/// A server that knows nothing but an old key exchange.
struct Old;

impl russh::server::Handler for Old {
    type Error = russh::Error;
}

#[tokio::test]
async fn a_server_with_old_algorithms_is_named_with_them() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let key = russh::keys::PrivateKey::random(&mut russh::keys::key::safe_rng(), russh::keys::Algorithm::Ed25519);
        let config = russh::server::Config {
            keys: vec![key.unwrap()],
            preferred: russh::Preferred { kex: vec![russh::kex::DH_G1_SHA1].into(), ..russh::Preferred::DEFAULT },
            ..russh::server::Config::default()
        };
        let (stream, _) = listener.accept().await.unwrap();
        let running = russh::server::run_stream(Arc::new(config), stream, Old).await;
        running.unwrap().await.ok();
    });
    let error = login(Config { port, ..config_without_server() }).await.expect_err("nothing in common");
    assert_eq!(error.kind, Kind::Unsupported, "{error:?}");
    for algorithm in ["diffie-hellman-group1-sha1", "curve25519-sha256"] {
        assert!(error.detail.contains(algorithm), "{error:?}");
    }
    server.abort();
}
