//! How the one session is used: many files, many packets at once, slow lines, cancelled uploads.

use std::fs;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use connectors::memory::MemoryJournal;
use connectors::sftp::Config;
use connectors::{Budget, Connector as _, Limits, Progress, Put, contract};
use testkit::or_skip;
use testkit::proxy::Proxy;

use super::{MIB, assert_no_temporary_files, config, connector, files, limits, source};

/// While nothing is acknowledged, many packets are on their way, and not more than fit into memory.
#[tokio::test]
async fn packets_are_written_side_by_side() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let proxy = Proxy::start(sshd.addr()).await.unwrap();
    let connector = connector(config(&sshd, proxy.addr()));
    let folder = sshd.folder("pipelined").unwrap();
    let whole = source(40 * MIB, 9);
    let name = folder.join("file").display().to_string();
    connector.list("", 10_000).await.unwrap();
    proxy.stall_after(MIB as u64);
    let put = contract::put(&connector, &name, &whole);
    tokio::pin!(put);
    tokio::time::timeout(Duration::from_secs(2), &mut put).await.expect_err("nothing passes");
    let read = whole.read_bytes();
    // 16 packets of 255 KiB, and the MiB that may have been acknowledged.
    assert!((3 * MIB as u64..=5 * MIB as u64).contains(&read), "{read} bytes are in memory");
    proxy.heal();
    put.await.unwrap();
    assert!(fs::read(&name).unwrap() == *whole.bytes());
}

/// Somebody else waits for memory all the time. Who has less need not stand behind them with each packet.
#[tokio::test]
async fn packets_are_written_side_by_side_while_others_wait_for_memory() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let proxy = Proxy::start(sshd.addr()).await.unwrap();
    let connector = connector(config(&sshd, proxy.addr()));
    let name = sshd.folder("short-of-memory").unwrap().join("file").display().to_string();
    let (budget, mib) = (Budget::new(64 * MIB as u64), MIB as u64);
    let rich = budget.share();
    let held = rich.take(16 * mib).await;
    let mut more = pin!(rich.take(24 * mib));
    assert!(futures_util::poll!(&mut more).is_pending());
    connector.list("", 10_000).await.unwrap();
    proxy.stall_after(mib);
    let request = contract::request(&name, &source(40 * MIB, 9), &Arc::default(), &Progress::default(), None);
    let mut put = pin!(connector.put(Put { memory: budget.share(), ..request }));
    tokio::time::timeout(Duration::from_secs(2), &mut put).await.expect_err("nothing passes");
    let usage = budget.usage();
    assert!(usage.held_bytes > 19 * mib && usage.waiting == 1, "{usage:?}");
    proxy.heal();
    put.await.unwrap();
    drop(held);
    assert!(futures_util::poll!(&mut more).is_ready());
}

/// Others hold more than half of the memory. A file has a window under way even so, not one packet.
#[tokio::test]
async fn packets_are_written_side_by_side_where_memory_is_short() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let proxy = Proxy::start(sshd.addr()).await.unwrap();
    let connector = connector(config(&sshd, proxy.addr()));
    let name = sshd.folder("half-of-memory").unwrap().join("file").display().to_string();
    let (budget, mib) = (Budget::new(64 * MIB as u64), MIB as u64);
    let _held = budget.share().take(40 * mib).await;
    connector.list("", 10_000).await.unwrap();
    proxy.stall_after(mib / 4);
    let whole = source(20 * MIB, 9);
    let request = contract::request(&name, &whole, &Arc::default(), &Progress::default(), None);
    let mut put = pin!(connector.put(Put { memory: budget.share(), ..request }));
    tokio::time::timeout(Duration::from_secs(2), &mut put).await.expect_err("nothing passes");
    let (held, read) = (budget.usage().held_bytes - 40 * mib, whole.read_bytes());
    assert!(held > mib * 3 / 4 && read > mib * 3 / 4, "{held} bytes are under way, {read} were read");
    proxy.heal();
    put.await.unwrap();
    assert!(fs::read(&name).unwrap() == *whole.bytes());
}

/// The connection breaks while the temporary file is made: whether the server heard of it or not, there is one in the end.
#[tokio::test]
async fn a_temporary_file_that_nobody_heard_of_does_not_stay() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let proxy = Proxy::start(sshd.addr()).await.unwrap();
    let connector = connector(Config { limits: Limits { tries: 5, ..limits() }, ..config(&sshd, proxy.addr()) });
    let folder = sshd.folder("unheard").unwrap();
    let name = folder.join("file").display().to_string();
    for bytes in (20..400).step_by(20) {
        connector.list("", 10_000).await.unwrap();
        proxy.cut_after(bytes);
        contract::put(&connector, &name, &source(1000, bytes)).await.unwrap();
        assert_eq!(files(&folder), ["file"], "cut after {bytes} bytes");
        proxy.heal();
    }
}

/// Wherever the connection breaks while it is made, that is no fault of the other side: the next attempt may fare better.
#[tokio::test]
async fn a_connection_that_breaks_while_it_is_made_is_made_again() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let proxy = Proxy::start(sshd.addr()).await.unwrap();
    let mut breaks = 0;
    for bytes in (0..).step_by(80) {
        proxy.cut_after(bytes);
        let listed = connector(config(&sshd, proxy.addr())).list("", 10_000).await;
        proxy.heal();
        match listed {
            Ok(_) => break,
            Err(error) => assert!(error.is_transient(), "cut after {bytes} bytes: {error:?}"),
        }
        breaks += 1;
    }
    assert!(breaks > 20, "{breaks}");
}

/// Each piece that is sent waits. Questions that go out together wait together: one at a time would take 16 s.
#[tokio::test]
async fn packets_are_asked_for_side_by_side() {
    let Some(sshd) = or_skip(testkit::sshd().await) else { return };
    let proxy = Proxy::start(sshd.addr()).await.unwrap();
    let connector = connector(config(&sshd, proxy.addr()));
    let folder = sshd.folder("asked").unwrap();
    let expected = contract::bytes(40 * MIB, 10);
    fs::write(folder.join("file"), &expected).unwrap();
    let name = folder.join("file").display().to_string();
    assert_eq!(connector.stat(&name).await.unwrap().size, expected.len() as u64);
    proxy.delay(Duration::from_millis(100));
    let begun = Instant::now();
    assert!(contract::get(&connector, &name).await.unwrap() == expected);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
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
